"""Entries, batches and checkpoints in the real tables of a test database, as backends and scribe leave them.

What is put in is made by the modules the scribe uses; only who puts it in is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.types.json import Jsonb
from wardkey_core.log import entry
from wardkey_core.log.checkpoint import Signed, fingerprint, sign
from wardkey_core.log.merkle import Range, leaf_hash
from wardkey_core.log.source import COLUMNS, bytes_of, entry_of

from tests.support.database import Connection

START = datetime(2026, 3, 2, 8, tzinfo=UTC)  # a Monday
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Filled:
    """A tenant's log in a database. Times are minutes from ``START``."""

    def __init__(self, connection: Connection, slug: str) -> None:
        self.connection, self.slug = connection, slug
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.fingerprint = fingerprint(self.public_key).hex()
        row = connection.execute("select id from ward_internal.tenants where slug = %s", [slug]).fetchone()
        assert row is not None
        self.tenant: UUID = row[0]
        self.model = self._one(
            "select coalesce((select id::text from ward_internal.models order by face limit 1), %s)",
            ["00000000-0000-0000-0000-00000000000a"],
        )
        # what happened to the tenant so far, today, is not part of a story of March
        connection.execute("delete from ward_internal.audit_log where tenant_id = %s", [self.tenant])
        self.tree = Range()
        self.signed: list[Signed] = []
        self.contexts: dict[tuple[str, str], bytes] = {}
        self._waiting: list[int] = []
        self._months: set[str] = set()

    def _one(self, query: str, values: Sequence[Any]) -> Any:
        row = self.connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def login(self, subject: str, role: str = "EVALUATOR", minute: float = 0, **members: Any) -> bytes:
        """Put in a login and return its context; what the subject does refers to it."""
        number = len(self.contexts) + 1
        context = self.contexts[subject, role] = number.to_bytes(16, "big")
        texts = {"address": "10.0.0.7", "application": "clinic-app", "database_role": f"tenant_{self.slug}"}
        self.put(
            "e", "login", minute, context=context, subject=subject, role=role,
            **{"detail": {"issuer": "https://id.example"}} | texts | members,
        )  # fmt: skip
        return context

    def read(self, subject: str, row: str, columns: str = "name,ssn", minute: float = 0) -> int:
        context = next(context for (name, _), context in self.contexts.items() if name == subject)
        return self.put("r", "read", minute, context=context, row_id=row, columns=columns, journalled=True)

    def put(self, kind: str, operation: str, minute: float = 0, **members: Any) -> int:
        """Insert an entry and return its id."""
        at = START + timedelta(minutes=minute)
        if f"{at:%Y-%m}" not in self._months:
            self.connection.execute("select ward_internal.make_audit_partition(%s, %s)", [self.tenant, at])
            self._months.add(f"{at:%Y-%m}")
        if kind != "e":
            members = {"model_id": self.model} | members
        statement = (at - _EPOCH) // timedelta(microseconds=1)
        members = {"tenant_id": self.tenant, "at": at, "kind": kind, "operation": operation} | members
        members = {"statement": statement} | {
            name: Jsonb(value) if isinstance(value, dict) else value for name, value in members.items()
        }
        names, marks = ", ".join(members), ", ".join(["%s"] * len(members))
        query = f"insert into ward_internal.audit_log ({names}) values ({marks}) returning id"
        identity = int(self._one(query, list(members.values())))
        self._waiting.append(identity)
        return identity

    @property
    def ids(self) -> list[int]:
        """Return the ids of what is sealed, in the order of the log."""
        query = (
            "select unnest(ids) from ward_internal.audit_batches where tenant_id = %s order by first_position"
        )
        return [identity for (identity,) in self.connection.execute(query, [self.tenant])]

    def row(self, identity: int) -> dict[str, Any]:
        query = f"select {COLUMNS} from ward_internal.audit_log as e where tenant_id = %s and id = %s"
        row = self.connection.execute(query, [self.tenant, identity]).fetchone()
        assert row is not None
        return entry_of(row)

    def seal(self, minute: float, *, settled: bool = True) -> Signed:
        """Give what is waiting its positions, in a batch, and sign a checkpoint, all at once."""
        with self.connection.transaction():
            return self._seal(minute, settled)

    def _seal(self, minute: float, settled: bool) -> Signed:
        if self._waiting:
            query = (
                f"select {COLUMNS} from ward_internal.audit_log as e where tenant_id = %s and id = any(%s)"
            )
            fetched = self.connection.execute(query, [self.tenant, self._waiting]).fetchall()
            rows = {row[1]: row for row in fetched}
            leaves = []
            for identity in self._waiting:
                data = bytes_of(rows[identity])
                entry.decode(data)  # of the form
                leaves.append(leaf_hash(data))
            self.connection.execute(
                "insert into ward_internal.audit_batches (tenant_id, first_position, ids, leaf_hashes, lsn)"
                " values (%s, %s, %s, %s, '0/1')",
                [self.tenant, self.tree.end, self._waiting, b"".join(leaves)],
            )
            for leaf in leaves:
                self.tree.append(leaf)
            self.connection.execute(
                "insert into ward_internal.audit_trees (tenant_id, size, frontier) values (%s, %s, %s)"
                " on conflict (tenant_id) do update set size = excluded.size, frontier = excluded.frontier",
                [self.tenant, self.tree.end, b"".join(self.tree.hashes)],
            )
            self._waiting = []
        at = f"{START + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%S.%f}Z"
        signed = sign(
            self.signed[-1].checkpoint if self.signed else None,
            tenant=str(self.tenant),
            size=self.tree.end,
            root=self.tree.root(),
            at=at,
            public_key=self.public_key,
            signer=self.key.sign,
            settled=at if settled else None,
        )
        self.connection.execute(
            "insert into ward_internal.audit_checkpoints (tenant_id, size, checkpoint, signature, key,"
            " frontier)"
            " values (%s, %s, %s, %s, %s, %s)",
            [
                self.tenant, signed.checkpoint.size, signed.checkpoint.encode().decode(), signed.signature,
                self.public_key, b"".join(self.tree.hashes),
            ],
        )  # fmt: skip
        self.signed.append(signed)
        return signed


SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SECRET = "0000-SEALED-OR-NOT-NOBODY-SEES-THIS"


def clinic_month(connection: Connection, slug: str = "acme") -> Filled:
    """Fill a log with 20 days of three people, one of whom reads 400 rows one night, refusals, a key."""
    log = Filled(connection, slug)
    log.put("e", "provisioned", 0, detail={"version": 1, "mode": "envelope"}, database_role="postgres")
    for subject, role in (("dr.jones", "EVALUATOR"), ("nurse.kim", "VIEWER"), (SCRIPT, "ADMIN")):
        log.login(subject, role, 1, purpose="treatment")
    for day in range(20):
        morning = 24 * 60 * day
        for number in range(18 + day % 5):
            log.read("dr.jones", str(number + 1), minute=morning + 60 + number * 7)
        for number in range(30 + day % 3):
            log.read("nurse.kim", str(number + 40), "name", minute=morning + 240 + number * 5)
        change = {"name": f"\\x01{SECRET}", "city": SECRET}
        log.put(
            "w", "update", morning + 90, context=log.contexts["dr.jones", "EVALUATOR"], row_id="17",
            columns='name,"city of birth"', old=change, new=change,
        )  # fmt: skip
        log.seal(morning + 900)
    night = 24 * 60 * 12 + 18 * 60  # the 14th at 02:00
    for number in range(400):
        log.read("dr.jones", str(1000 + number), minute=night + number / 10)
    log.put(
        "e", "refusal", 24 * 60 * 13, database_role=f"tenant_{slug}", address="203.0.113.9",
        application=f"=cmd|{SCRIPT}", detail={"sqlstate": "WK003"},
    )  # fmt: skip
    log.put(
        "e", "tampered", 24 * 60 * 13 + 5, context=log.contexts["dr.jones", "EVALUATOR"],
        detail={"sqlstate": "WK101"},
    )  # fmt: skip
    log.put(
        "e", "key_released", 1, context=log.contexts["dr.jones", "EVALUATOR"], detail={"version": 1}
    )  # fmt: skip
    log.put("e", "rotated", 24 * 60 * 15, detail={"from": 1, "to": 2, "version": 2}, database_role="postgres")
    log.read(SCRIPT, "17", '"name of ""X""",ssn', minute=24 * 60 * 16)
    log.seal(24 * 60 * 20)
    return log
