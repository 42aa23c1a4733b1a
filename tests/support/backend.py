"""A backend without PostgreSQL: registry in memory, a clock that tests move, a keeper in a thread."""

from __future__ import annotations

import base64
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from wardkey_core.envelope import class_key, commitment
from wardkey_core.journal_reader import Counts, Event, Query, Read, decode
from wardkey_pg import registry
from wardkey_pg.context import Session

from tests.support.tokens import ISSUER, NOW, document, good, jwk

ACME = "6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab"
GLOBEX = "0b6f0000-0000-4000-8000-00000000000b"
CLASSES = ("identifier", "quasi", "clinical", "note", "financial")


def dek_of(tenant: str, version: int = 1) -> bytes:
    return (UUID(tenant).bytes + version.to_bytes(16, "big"))[:32]


class Clock:
    """Stands in for module ``time`` in wardkey_pg."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Backend:
    """The Host of a session. ``statement()`` and ``begin()`` are what a client would do."""

    def __init__(self, clock: Clock, user: str = "tenant_acme") -> None:
        self.clock = clock
        self.user = user
        self.tenants: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, list[dict[str, Any]]] = {}
        self.issuers: dict[str, tuple[dict[str, Any], int]] = {ISSUER: (document(keys=[jwk("EdDSA")]), 1)}
        self.settings: dict[str, str] = {}
        self.queries: list[str] = []
        self.parallel = False
        self.standby = False
        self.stated: str | None = None
        self.text = b"fetch next from c"  # of the client's statement
        self.columns: list[dict[str, Any]] = [
            {"id": str(column), "model_id": str(UUID(int=9)), "name": "c", "level": "row", "form": "t"}
            for column in (UUID(int=0), UUID(bytes=bytes(range(16))))
        ]
        self.honey: list[Mapping[str, Any]] = []
        self.policy: Callable[[str, str], dict[str, Any]] | None = None
        self.slots: set[str] = set()
        self.messages: list[bytes] = []
        self.later: list[bytes] = []
        self.before_state: Callable[[], None] = lambda: None
        self.definer = self.nested = False
        self.change: tuple[int, int] | None = None  # what the server counted
        self._ended: Callable[[], None] = lambda: None
        self._statement_ended: Callable[[], None] = lambda: None
        self._statement = clock.now
        self._statements = 1
        self.add_tenant(ACME, "acme")
        self.add_tenant(GLOBEX, "globex")
        self.session = Session(self)

    def add_tenant(self, tenant: str, slug: str) -> None:
        self.tenants[tenant] = {
            "login_role": f"tenant_{slug}",
            "status": "active",
            "key_epoch": 1,
            "region": "default",
        }
        self.keys[tenant] = [self.wrapped(tenant)]

    @staticmethod
    def wrapped(tenant: str, version: int = 1, state: str = "active") -> dict[str, Any]:
        return {
            "version": version,
            "state": state,
            "kek": "local:test",
            "kek_version": "1",
            "wrapped": b"wrapped",
            "commitment": commitment(dek_of(tenant, version), UUID(tenant).bytes, version),
        }

    def begin(self) -> None:
        """The client ends its transaction and begins another."""
        self._ended()
        self.statement()

    def statement(self) -> None:
        self._statement_ended()
        self._statement = self.clock.now
        self._statements += 1

    def journalled(self) -> list[Read | Query | Event]:
        """What the session wrote into the journal, in order."""
        read = map(decode, self.messages)
        return [message for message in read if not isinstance(message, Counts | list)]

    def token(self, tenant: str = ACME, **changes: Any) -> str:
        now = int(self.clock.now)
        times = {"iat": now - 10, "nbf": now - 10, "exp": now + 600}
        return good(**{"tenant_id": tenant, **times, **changes})

    def query(self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        assert len(types) == len(args)
        self.queries.append(sql)
        if sql == registry.STATE:
            self.before_state()
            tenant = self.tenants.get(args[0])
            if tenant is None or tenant["login_role"] != self.user:
                return []
            generation = self.issuers.get(args[1], (None, None))[1]
            return [{**tenant, "generation": generation}]
        if sql == registry.ISSUER:
            if args[0] not in self.issuers:
                return []
            document, generation = self.issuers[args[0]]
            return [{"document": json.dumps(document), "generation": generation}]
        if sql in (registry.OWN_KEYS, registry.KEYS):
            return list(self.keys[args[0]])
        if sql == registry.MODELS:
            models = {column["model_id"]: column for column in self.columns}
            return [
                {"id": model, "audit": column["level"], "row_form": column["form"]}
                for model, column in models.items()
            ]
        if sql == registry.COLUMNS:
            return [{"class": "clinical", **column} for column in self.columns]
        if sql == registry.MASKS:
            return [{"mask": "null", "kind": "text", **column} for column in self.columns]
        if sql == registry.POLICY:
            return [
                {"class": name, "of_platform": True, **(self.policy or allowed)(args[1], name)}
                for name in CLASSES
            ]
        if sql in (registry.CLASSES_ADDED, registry.GRANTED):
            return []
        if sql == registry.HONEY:
            return self.honey
        if sql == registry.SLOT:
            return [{"found": 1}] if args[0] in self.slots else []
        if sql == registry.SETTINGS:
            return [{"name": name, "value": value} for name, value in self.settings.items()]
        if sql == "select ward.renew_keys()":
            self.session.renew_keys()
            return [{}]
        assert sql == "select ward.renew_session()"
        self.session.renew()
        return [{}]

    query_now = query

    def changes(self) -> tuple[int, int] | None:
        return self.change

    def has_old_snapshot(self) -> bool:
        return False

    def at_end(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def at_statement_end(self, ended: Callable[[], None]) -> None:
        self._statement_ended = ended

    def watch_statement(self) -> bool:
        return True

    def at_exit(self, exiting: Callable[[], None]) -> None:
        self.exit = exiting

    def is_nested(self) -> bool:
        return self.nested

    def is_definer(self) -> bool:
        return self.definer

    def check_interrupts(self) -> None:
        pass

    def statement_time(self) -> float:
        return self._statement

    def statement_start(self) -> int:
        return self._statements

    def client_statement(self) -> bytes:
        return self.text

    def in_parallel_plan(self) -> bool:
        return self.parallel

    def in_recovery(self) -> bool:
        return self.standby

    def journal(self, message: bytes) -> None:
        self.messages.append(message)

    def journal_later(self, message: bytes) -> None:
        self.messages.append(message)
        self.later.append(message)

    def client(self) -> Mapping[str, str | None]:
        return {"database_role": self.user, "address": None, "application": self.application()}

    def application(self) -> str:
        return "psql"

    def purpose(self) -> str | None:
        return self.stated


class SocketKeeper:
    """A keeper's socket. ``answer`` gets the request and returns a frame, or does what it likes."""

    def __init__(self, answer: Callable[[dict[str, Any], socket.socket], bytes | None] | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="wk")
        self.path = str(Path(self._directory.name) / "sock")
        self.requests: list[dict[str, Any]] = []
        self._answer = answer or release_any
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self._directory.cleanup()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the backend went away
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        request = json.loads(connection.recv(length, socket.MSG_WAITALL))
        self.requests.append(request)
        if (reply := self._answer(request, connection)) is not None:
            connection.sendall(reply)


def frame(answer: Any) -> bytes:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return len(body).to_bytes(4, "big") + body


def release_any(request: dict[str, Any], _: socket.socket) -> bytes:
    tenant, version = request["tenant"], request["version"]
    if base64.b64decode(request["commitment"]) != Backend.wrapped(tenant, version)["commitment"]:
        return frame({"ok": False, "sqlstate": "WK105", "message": "not the one", "hint": None})
    keys = {name: base64.b64encode(class_of(tenant, name, version)).decode() for name in request["classes"]}
    return frame({"ok": True, "classes": keys, "masked": []})


def class_of(tenant: str, name: str = "clinical", version: int = 1) -> bytes:
    """Return a class key."""
    return class_key(dek_of(tenant, version), UUID(tenant).bytes, version, name)


def allowed(role: str, _: str) -> dict[str, Any]:
    return {"access": "clear", "writes": role != "VIEWER"}
