"""What does the gateway add to a request whose token is known? A FastAPI application under uvicorn,
with the middleware and without, in processes of their own that are asked in turn; CPU time is theirs.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _common import Figure, Server, Subject, main, measure

REQUESTS = 50  # a round
ROUNDS = 60
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


def serve(descriptor: int, issuers: str) -> None:
    """Be a server on a listening socket; with the middleware where there are ``issuers``."""
    import uvicorn

    from wardkey.gateway import AsgiGateway, Trust

    app = AsgiGateway(application(), Trust(Path(issuers))) if issuers else application()
    configuration = uvicorn.Config(app, log_config=None, access_log=False)
    uvicorn.Server(configuration).run([socket.socket(fileno=descriptor)])


@contextmanager
def served(issuers: str) -> Iterator[tuple[int, HTTPConnection]]:
    """Yield process id and a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        command = [sys.executable, __file__, "serve", str(listening.fileno()), issuers]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()])
        connection = HTTPConnection("127.0.0.1", listening.getsockname()[1])
        try:
            yield process.pid, connection
        finally:
            connection.close()
            process.terminate()
            process.wait()


def run(server: Server) -> list[Figure]:
    database = server.database("gateway")
    token = database.issuer.sign_token("6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab", "bench", "ADMIN")
    headers = {**HEADERS, "Authorization": f"Bearer {token}"}

    def ask(connection: HTTPConnection) -> None:
        for number in range(REQUESTS):
            connection.request("GET", f"/patients/{number}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.status
            answer.read()

    with TemporaryDirectory() as directory:
        path = Path(directory, "issuers.json")
        path.write_text(json.dumps({"issuers": [database.issuer.document()]}))
        with served(str(path)) as (guarded_pid, guarded), served("") as (bare_pid, bare):
            times = measure(
                [
                    Subject("with", lambda: ask(guarded), guarded_pid),
                    Subject("without", lambda: ask(bare), bare_pid),
                ],
                ROUNDS,
            )
    known, without = times["with"], times["without"]
    added = (known.cpu - without.cpu) / REQUESTS * 1e6
    return [
        Figure("middleware, token known: CPU added to a request", added, "µs", 60),
        Figure("… request with it against the same without", known.cpu / without.cpu, "×"),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        main("gateway", run)
