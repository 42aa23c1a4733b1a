"""Moto's server of AWS KMS, and servers that answer what AWS answers when it is in trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"


# What moto notes and then does not enforce: the key states in which AWS KMS refuses to use a key.
_REFUSALS = {"Disabled": "DisabledException", "PendingDeletion": "KMSInvalidStateException"}


def _enforce_states(method: str) -> None:
    original = getattr(KmsBackend, method)

    def checked(self: KmsBackend, *, key_id: str | None = None, **arguments: Any) -> Any:
        refusal = key_id and _REFUSALS.get(self.keys[self.any_id_to_key_id(key_id)].key_state)
        if refusal:
            raise JsonRESTError(refusal, f"{key_id} is not enabled")
        return original(self, key_id=key_id, **arguments)

    setattr(KmsBackend, method, checked)


for _method in ("encrypt", "decrypt"):
    _enforce_states(_method)


class Moto:
    """One account, without IAM: everybody may do everything. ``url`` is where it listens."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.uri = f"awskms://{REGION}?endpoint={self.url}"

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def answering(status: int, code: str, body: bytes | None = None) -> Iterator[str]:
    """Have a server that answers each call with an error as AWS words it; yields its URI."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps({"__type": code, "message": "as asked"}).encode() if body is None else body
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"awskms://{REGION}?endpoint=http://127.0.0.1:{server.server_port}"
        server.shutdown()
