"""Publishers as real processes, and sealed logs for them to publish."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.audit.databases import Filled
from tests.scribe.scribes import write
from tests.support.database import Connection, Database
from tests.support.kafka import Kafka, Message
from wardkey.audit.report import Report
from wardkey.audit.verify import verify
from wardkey.publisher import config
from wardkey.publisher.config import Configuration
from wardkey.publisher.consumed import write_export


class Publisher:
    """A publisher of ``database``; ``errors`` is what it wrote to stderr."""

    def __init__(self, database: Database, servers: str, **properties: str) -> None:
        self.database = database
        self._directory = tempfile.TemporaryDirectory(prefix="wkp")
        self.base = Path(self._directory.name)
        self.configuration = self.base / config.CONFIGURATION_FILE
        config.write(self.configuration, Configuration(servers, properties=properties))
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def errors(self) -> str:
        return (self.base / "log").read_text()

    def launch(self, name: str = "status") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wardkey.publisher", "--dsn", self.database.dsn()]
        command += ["--config", str(self.configuration), "--status", str(self.base / name)]
        with (self.base / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, stderr=log, stdout=log))
        return self.processes[-1]

    def start(self) -> Publisher:
        self.launch()
        return self

    def kill(self) -> None:
        self.processes[-1].kill()
        self.processes[-1].wait(10)

    def stop(self) -> int:
        self.processes[-1].send_signal(signal.SIGTERM)
        return self.processes[-1].wait(20)

    def status(self, name: str = "status") -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.base / name).read_text())
        except FileNotFoundError:
            return {}
        return facts

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self._directory.cleanup()


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.03)


def topic_of(connection: Connection, tenant: UUID) -> tuple[str, int, int] | None:
    """Return a tenant's topic, how many entries and up to which checkpoint it has, as is stored."""
    row = connection.execute(
        "select topic, position, checkpoint_size from ward_internal.audit_topics where tenant_id = %s",
        [tenant],
    ).fetchone()
    return row and (row[0], row[1], row[2])


def wait_published(connection: Connection, tenant: UUID, seconds: float = 60) -> str:
    """Wait until all that is sealed and signed of the tenant's log is published; return its topic."""
    query = (
        "select (select size from ward_internal.audit_trees where tenant_id = %(tenant)s),"
        " (select max(size) from ward_internal.audit_checkpoints where tenant_id = %(tenant)s)"
    )
    size, signed = connection.execute(query, {"tenant": tenant}).fetchone() or (0, 0)
    wait_until(lambda: (rows := topic_of(connection, tenant)) and rows[1:] >= (size, signed or 0), seconds)
    rows = topic_of(connection, tenant)
    assert rows is not None
    return rows[0]


class Log(Filled):
    """A tenant's log that grows as fast as a test likes, sealed as the scribe seals it."""

    def grow(self, *counts: int, **columns: Any) -> list[int]:
        """Write entries and sign a checkpoint, once for each count; return the ids in their order."""
        grown: list[int] = []
        for count in counts:
            ids = write(self.connection, self.tenant, count, **columns)
            self._waiting += ids
            grown += ids
            self.seal(len(self.signed) + 1)
        return grown


def first_ones(messages: Sequence[Message]) -> list[int]:
    """Return the ids of the entries, in the order in which each came first."""
    return list(dict.fromkeys(int(m.header["id"]) for m in messages if m.kind != "checkpoint"))


def verified(messages: Sequence[Message], tenant: UUID, *keys: bytes) -> Report:
    """Verify what was read from a topic. ``keys``: fingerprints of those that are trusted."""
    stream = io.BytesIO()
    write_export(((message.headers, message.value) for message in messages), tenant, stream)
    stream.seek(0)
    return verify(stream, keys=keys or None)


def read(kafka: Kafka, topic: str, *, repeated: bool = False) -> list[Message]:
    """Return what a topic has; without ``repeated`` there must be nothing twice."""
    messages = kafka.read(topic)
    ids = [(message.kind, message.header["id"]) for message in messages]
    assert repeated or len(ids) == len(set(ids))
    return messages
