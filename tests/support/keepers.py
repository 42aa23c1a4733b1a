"""Keepers as real processes in directories of their own, and what tests ask them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from wardkey_core import keeper_client as client
from wardkey_core.administration import BY_SQLSTATE
from wardkey_core.errors import KeeperUnavailable
from wardkey_core.wire import frame

from wardkey.embedded.issuer import EmbeddedIssuer
from wardkey.keeper.trust import write_documents

ACME = "0b6f0000-0000-4000-8000-00000000000a"
GLOBEX = "0b6f0000-0000-4000-8000-00000000000b"


class Keeper:
    """One keeper. ``issuer`` is the one it trusts; ``errors`` is what it wrote to stderr."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wk"))
        self.directory = self.base / "keeper"
        self.directory.mkdir(mode=0o700)
        self.socket = self.base / "sock"
        self.issuer = EmbeddedIssuer.open(self.base / "issuer", "test")
        self.trust(self.issuer.document())
        self.process: subprocess.Popen[bytes] | None = None
        self.extra_groups: list[int] | None = None
        self._log = self.base / "stderr"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def errors(self) -> str:
        return self._log.read_text()

    @property
    def issuers_file(self) -> Path:
        return self.directory / "issuers.json"

    def trust(self, *documents: dict[str, Any]) -> None:
        write_documents(self.issuers_file, documents)

    def launch(
        self, *options: str, program: Sequence[str] = ("-m", "wardkey.keeper")
    ) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for anything."""
        command = [sys.executable, *program, "--directory", str(self.directory), "--socket", str(self.socket)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], stderr=log, stdout=log, extra_groups=self.extra_groups
            )
        return self.process

    def start(self, *options: str, program: Sequence[str] = ("-m", "wardkey.keeper")) -> Keeper:
        process = self.launch(*options, program=program)
        for _ in range(500):
            try:
                if self.status()["pid"] == process.pid:
                    return self
            except KeeperUnavailable:
                pass
            if process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the keeper did not start: {self.errors}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(10)

    def remove(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.base)

    def status(self) -> dict[str, Any]:
        return client.status(self.socket)

    def ask(self, **request: Any) -> dict[str, Any]:
        return client.ask(self.socket, request)

    def token(self, tenant: str = ACME, role: str = "VIEWER") -> str:
        return self.issuer.sign_token(tenant, "dr.grey", role)

    def provision(self, tenant: str = ACME) -> dict[str, Any]:
        """Return the request that releases a new DEK of ``tenant``."""
        made = self.ask(op="provision", tenant=tenant)
        kept = {name: made[name] for name in ("version", "kek", "kek_version", "wrapped", "commitment")}
        token = self.token(tenant)
        return {"op": "release", "tenant": tenant, "token": token, "classes": ["clinical"], **kept}

    def key(self, tenant: str = ACME, version: int = 1) -> dict[str, Any]:
        """Return a new version of the tenant's key as the registry keeps it, with its commitment."""
        return self.ask(op="provision", tenant=tenant, version=version)

    def class_key(self, key: dict[str, Any], tenant: str = ACME, name: str = "clinical") -> bytes:
        answer = self.ask(op="release", tenant=tenant, token=self.token(tenant), classes=[name], **key)
        return base64.b64decode(answer["classes"][name])

    def reseal(
        self, keys: Sequence[dict[str, Any]], fields: bytes, to: int = 2, tenant: str = ACME
    ) -> list[bytes]:
        """Return the fields resealed. Raises what the keeper refuses with."""
        with self.connect(timeout=120) as connection:
            return reseal_over(connection, keys, fields, to, tenant)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "release.log").read_text().splitlines()]

    def kek_file(self, tenant: str = ACME) -> Path:
        return self.directory / "kek" / f"{tenant}.json"

    def break_kms(self, tenant: str = ACME) -> None:
        """Make the tenant's KEK unreadable in a way that the local KMS takes for a passing one."""
        kek = self.kek_file(tenant)
        kek.rename(kek.with_suffix(".away"))
        kek.symlink_to(kek.with_suffix(".away"))

    def mend_kms(self, tenant: str = ACME) -> None:
        self.kek_file(tenant).with_suffix(".away").replace(self.kek_file(tenant))

    def connect(self, timeout: float = 10) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(self.socket))
        return connection


def reseal_over(
    connection: socket.socket, keys: Sequence[dict[str, Any]], fields: bytes, to: int = 2, tenant: str = ACME
) -> list[bytes]:
    classes = {"identifier": 1, "clinical": 3}
    request = {"op": "reseal", "tenant": tenant, "to": to, "keys": list(keys), "classes": classes}
    request["length"] = len(fields)
    connection.sendall(frame(request) + fields)
    answer = client.receive(connection)
    assert answer is not None
    if not answer["ok"]:
        raise BY_SQLSTATE[answer["sqlstate"]](answer["message"], answer["hint"])
    resealed = receive_exactly(connection, answer["length"])
    return list(split(resealed))


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = connection.recv(min(length - len(data), 1 << 20))
        assert piece, "the keeper hung up"
        data += piece
    return bytes(data)


def field(column: bytes, row: bytes, sealed: bytes, number: int = 3) -> bytes:
    """Return a field as it is sent to be resealed, for the class of that number."""
    head = column + bytes((number,)) + len(row).to_bytes(4, "big") + row
    return head + len(sealed).to_bytes(4, "big") + sealed


def split(resealed: bytes) -> Iterator[bytes]:
    """Yield the values of an answer to fields."""
    position = 0
    while position < len(resealed):
        length = int.from_bytes(resealed[position : position + 4], "big")
        position += 4 + length
        yield resealed[position - length : position]
    assert position == len(resealed)


def stranger_asks(keeper: Keeper, request: dict[str, Any], uid: int = 65534) -> dict[str, Any] | None:
    """Ask as another OS user (as root only); None when the kernel does not let him connect."""
    script = (
        "import json, os, socket, sys; from wardkey_core import keeper_client as client\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        "try: s.connect(sys.argv[1])\n"
        "except PermissionError: print('null'); sys.exit()\n"
        "try: s.sendall(sys.stdin.buffer.read())\n"
        "except BrokenPipeError: pass\n"
        "print(json.dumps(client.receive(s)))\n"
    )
    body = json.dumps(request).encode()
    done = subprocess.run(
        [sys.executable, "-c", script, str(keeper.socket)],
        input=len(body).to_bytes(4, "big") + body,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] | None = json.loads(done.stdout)
    return answer


def new_tenant() -> str:
    return str(uuid4())


def is_root() -> bool:
    return os.geteuid() == 0
