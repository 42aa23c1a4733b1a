"""What does the gateway add to a request whose token is known?

A FastAPI application under uvicorn, in one process with two ports: at one the middleware is before it. They
are asked in turn, and the process's CPU time is counted: two processes differ by more than what is measured.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _common import Figure, Server, cpu_seconds, main

REQUESTS = 50  # a round
ROUNDS = 150
WARMUP = 5
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-US,en;q=0.9",
    "Cache-Control": "no-cache",
    "Cookie": "session=0123456789abcdef0123456789abcdef",
    "Referer": "https://portal.example/patients",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
}


def application() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/patients/{number}")
    async def patient(number: int) -> dict[str, int]:
        return {"id": number}

    return app


def serve(issuers: str, guarded: int, bare: int) -> None:
    """Be the server, on two listening sockets."""
    import uvicorn

    from wardkey.gateway import AsgiGateway, Trust

    sockets = [socket.socket(fileno=guarded), socket.socket(fileno=bare)]
    port, inner = sockets[0].getsockname()[1], application()
    gateway = AsgiGateway(inner, Trust(Path(issuers)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        chosen = gateway if scope["type"] == "http" and scope["server"][1] == port else inner
        await chosen(scope, receive, send)

    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets)


@contextmanager
def served(issuers: str) -> Iterator[tuple[int, list[HTTPConnection]]]:
    """Yield process id, and connections with the middleware and without."""
    with socket.create_server(("127.0.0.1", 0)) as guarded, socket.create_server(("127.0.0.1", 0)) as bare:
        files = [guarded.fileno(), bare.fileno()]
        command = [sys.executable, __file__, "serve", issuers, *map(str, files)]
        process = subprocess.Popen(command, pass_fds=files)
        connections = [HTTPConnection("127.0.0.1", one.getsockname()[1]) for one in (guarded, bare)]
        try:
            yield process.pid, connections
        finally:
            for connection in connections:
                connection.close()
            process.terminate()
            process.wait()


def run(server: Server) -> list[Figure]:
    database = server.database("gateway")
    token = database.issuer.sign_token("6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab", "bench", "ADMIN")
    headers = {**HEADERS, "Authorization": f"Bearer {token}"}
    with TemporaryDirectory() as directory:
        path = Path(directory, "issuers.json")
        path.write_text(json.dumps({"issuers": [database.issuer.document()]}))
        with served(str(path)) as (pid, connections):
            samples: list[list[float]] = [[], []]
            for number in range(-WARMUP, ROUNDS):
                for which in (0, 1) if number % 2 else (1, 0):
                    used = cpu_seconds(pid)
                    ask(connections[which], headers)
                    if number >= 0:
                        samples[which].append((cpu_seconds(pid) - used) / REQUESTS)
    guarded, bare = (statistics.quantiles(of, n=10)[0] for of in samples)  # what others disturbed least
    return [
        Figure("middleware, token known: CPU added to a request", (guarded - bare) * 1e6, "µs", 60),
        Figure("… request with it against the same without", guarded / bare, "×"),
    ]


def ask(connection: HTTPConnection, headers: dict[str, str]) -> None:
    for number in range(REQUESTS):
        connection.request("GET", f"/patients/{number}", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        answer.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main("gateway", run)
