"""Servers before and behind the gateway: uvicorn, nginx, Envoy, the gateway; and requests byte by byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, WebSocket

from tests.support import tokens
from tests.support.ports import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
ENVOY = Path(sys.executable).with_name("envoy")
EXAMPLES = Path(__file__).parents[2] / "docs/examples"
Header = tuple[str, str]


@contextmanager
def serve(app: Any, **options: Any) -> Iterator[int]:
    """Run an ASGI application under uvicorn and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def echo() -> FastAPI:
    """An application that says what has reached it, at any path and for any method, and over a websocket."""
    app = FastAPI()

    @app.websocket("/{path:path}")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(_seen(websocket.scope))
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def tell(request: Request) -> dict[str, Any]:
        return {**_seen(request.scope), "method": request.method, "body": (await request.body()).decode()}

    return app


def _seen(scope: Mapping[str, Any]) -> dict[str, Any]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    return {"path": scope["path"], "headers": headers}


def raw(port: int, request: bytes) -> bytes:
    """Send bytes, of which a request asks to close, and return all that is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def ask(port: int, *headers: bytes, path: bytes = b"/patients", method: bytes = b"GET") -> tuple[int, Any]:
    """Send a request with these very header lines; return status and body, parsed."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers, b"", b""]
    answer = raw(port, b"\r\n".join(lines))
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if b"transfer-encoding: chunked" in head.lower():
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body


def auth_headers(seen: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what an application could take for X-Auth-*, by the letters of the name."""
    named: dict[str, list[str]] = {}
    for name, value in seen["headers"]:
        letters = "".join(filter(str.isalnum, name)).lower()
        if letters.startswith("xauth"):
            named.setdefault(letters, []).append(value)
    return named


class Jwks:
    """An identity provider's JWKS over HTTP, which may be changed, slow or broken. ``fetches``: how many."""

    def __init__(self, *keys: Mapping[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()
        self.status, self.fetches = 200, 0
        self.gate = threading.Event()
        self.gate.set()

    @contextmanager
    def served(self) -> Iterator[str]:
        jwks = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                jwks.fetches += 1
                jwks.gate.wait(60)
                self.send_response(jwks.status)
                self.send_header("Content-Length", str(len(jwks.body)))
                self.end_headers()
                self.wfile.write(jwks.body)

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/certs"
            finally:
                self.gate.set()
                server.shutdown()
                thread.join()


def issuers(path: Path, *documents: Mapping[str, Any]) -> Path:
    """Write an issuers.json; by default one that trusts ``tokens.good()`` of EdDSA."""
    documents = documents or (tokens.document(keys=[tokens.jwk("EdDSA")]),)
    path.write_text(json.dumps({"issuers": documents}))
    path.chmod(0o600)
    return path


def token(alg: str = "EdDSA", /, **claims: Any) -> str:
    """A token of ``tokens`` that is valid now."""
    now = int(time.time())
    return tokens.good(alg, **{"iat": now - 10, "nbf": now - 10, "exp": now + 600, **claims})


def authorization(text: str) -> bytes:
    return b"Authorization: Bearer " + text.encode()


@contextmanager
def running(command: Sequence[str], log: Path, is_ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; SIGTERM is to end it."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd="/", stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while is_ready not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


def gateway_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wardkey", "gateway", "run", *arguments]


@contextmanager
def nginx(directory: Path, gateway: Path, application: int) -> Iterator[int]:
    """Run nginx with the example's configuration, other paths and ports in it, and yield its port."""
    assert NGINX, "apt-get install nginx"
    port, text = free_port(), (EXAMPLES / "nginx.conf").read_text()
    paths = "".join(
        f"  {name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = changed(
        text,
        {
            "user www-data;": "user root;" if os.geteuid() == 0 else "",
            "pid /run/nginx.pid;": f"pid {directory}/nginx.pid;",
            "http {\n": f"http {{\n{paths}",
            "server 127.0.0.1:8000": f"server 127.0.0.1:{application}",
            "unix:/run/wardkey-gateway/gateway.sock": f"unix:{gateway}",
            "listen 127.0.0.1:8080": f"listen 127.0.0.1:{port}",
        },
    )
    (directory / "nginx.conf").write_text(text)
    log = directory / "nginx.log"
    command = [NGINX, "-e", str(log), "-c", str(directory / "nginx.conf"), "-p", str(directory)]
    with running([*command, "-g", "daemon off; error_log stderr notice;"], log, "start worker process"):
        yield port


@contextmanager
def envoy(directory: Path, gateway: Path, application: int) -> Iterator[int]:
    """Run Envoy with the example's configuration, other paths and ports in it, and yield its port."""
    port, text = free_port(), (EXAMPLES / "envoy.yaml").read_text()
    quick = "stat_prefix: clients\n                delayed_close_timeout: 0.02s"  # a second, of each refusal
    changes = {
        "stat_prefix: clients": quick,
        "port_value: 8080": f"port_value: {port}",
        "port_value: 8000": f"port_value: {application}",
        "path: /run/wardkey-gateway/gateway.sock": f"path: {gateway}",
    }
    (directory / "envoy.yaml").write_text(changed(text, changes))
    command = [str(ENVOY), "-c", str(directory / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    with running(command, directory / "envoy.log", "starting main dispatch loop"):
        yield port


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Return ``text`` with other places in it; each is there once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
