"""Positions, trees and checkpoints: what makes a log out of entries.

What is sealed and what a checkpoint says is in one transaction with the position of the stream, so it is
there once. A checkpoint that is to be signed is stored first: the keeper signs no other one of its number,
for any caller and however often, so a scribe that was killed asks for the same again.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.log.checkpoint import BrokenChain, Checkpoint, Signed, fingerprint, next_checkpoint
from wardkey_core.log.merkle import Range

from ..daemon.lines import Line
from ..errors import KeeperUnavailable, KeyRefused, WardError
from .entries import PLATFORM, Leaves
from .replication import lsn_text

__all__ = ["BETWEEN", "Sealer"]

BETWEEN: Final = 9.0  # seconds between a tenant's checkpoints, at least
_AGAIN: Final = 2.0  # seconds before the keeper is asked again that did not answer
_REFUSED: Final = 60.0
_COPY: Final = (
    "copy ward_internal.audit_batches (tenant_id, first_position, ids, leaf_hashes, lsn) from stdin"
)

Connection = psycopg.Connection[Any]


@dataclass(slots=True)
class _Tree:
    """A tenant's tree. ``last``: its newest checkpoint, ``waiting``: the next one, stored and not signed."""

    range: Range
    last: Checkpoint | None = None
    waiting: Checkpoint | None = None
    newest: str = ""  # time of an entry beyond the last checkpoint
    due: float = 0.0  # when it may have the next checkpoint
    ask_at: float = 0.0

    @property
    def behind(self) -> int:
        """How many entries have no checkpoint yet."""
        return self.range.end - (self.last.size if self.last else 0)


class Sealer:
    """The trees of all tenants, in memory as they are in the database. ``log``: names this database."""

    def __init__(self, connection: Connection, keeper: Path, log: str, report: Callable[[str], None]) -> None:
        self._connection = connection
        self._keeper = keeper
        self._log = log
        self._report = report
        self._trees: dict[str, _Tree] = {}
        self._dirty: set[str] = set()
        self._signed: dict[str, tuple[Signed, bytes]] = {}
        self._public_key = b""
        self.trouble: str | None = None  # why checkpoints wait
        self._promised: str | None = None
        self.settled: str | None = None  # no entry that is still to come tells of a time before this
        self._load()

    @property
    def promised(self) -> str | None:
        """What is settled, or was when the newest checkpoint was made."""
        return self.settled or self._promised

    @property
    def waiting(self) -> int:
        """How many checkpoints wait for the keeper."""
        return sum(tree.waiting is not None for tree in self._trees.values())

    @property
    def unsaved(self) -> bool:
        """Whether there is something to store though no entry has come."""
        return bool(self._signed) or bool(self._ripe())

    @property
    def behind(self) -> int:
        """How many entries have no signed checkpoint yet."""
        return sum(tree.behind for tree in self._trees.values())

    def seal(self, leaves: Mapping[str, Leaves], lsn: int) -> None:
        """Give entries their positions, within the caller's transaction."""
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for tenant, new in leaves.items():
                tree = self._trees.setdefault(tenant, _Tree(Range()))
                ids, hashes = ",".join(map(str, new.ids)), b"".join(new.hashes).hex()
                copy.write(f"{tenant}\t{tree.range.end}\t{{{ids}}}\t\\\\x{hashes}\t{lsn_text(lsn)}\n")
                for leaf in new.hashes:
                    tree.range.append(leaf)
                tree.newest = max(tree.newest, new.newest)
                self._dirty.add(tenant)

    def save(self, *, all_now: bool = False, asked: Collection[str] = ()) -> None:
        """Store trees, signed checkpoints and those to be signed next, within the caller's transaction."""
        self._save_signed()
        if (ripe := self._ripe(all_now, asked)) and self._learn_key():
            self._save_waiting(ripe)
        if self._dirty:
            trees = [(tenant, self._trees[tenant].range) for tenant in sorted(self._dirty)]
            self._connection.execute(
                "insert into ward_internal.audit_trees (tenant_id, size, frontier)"
                " select * from unnest(%s::uuid[], %s::bigint[], %s::bytea[])"
                " on conflict (tenant_id) do update set size = excluded.size, frontier = excluded.frontier",
                [
                    [tenant for tenant, _ in trees],
                    [range_.end for _, range_ in trees],
                    [b"".join(range_.hashes) for _, range_ in trees],
                ],
            )
            self._dirty.clear()

    def ask(self) -> None:
        """Have the keeper sign what waits: to be called when it is stored, after the transaction's end."""
        now = time.monotonic()
        for tenant, tree in self._trees.items():
            if tree.waiting is None or tenant in self._signed or tree.ask_at > now:
                continue
            try:
                self._signed[tenant] = self._sign(tenant, tree.waiting)
                self.trouble = None
            except KeeperUnavailable as error:
                self._no_keeper(error)
                return
            except WardError as error:
                tree.ask_at = now + _REFUSED
                if self._learn_key() and fingerprint(self._public_key) != tree.waiting.key:
                    tree.waiting = None  # made for a keeper that is gone; the next one takes its place
                    continue
                self._complain(f"the keeper refuses a checkpoint of tenant {tenant}: {error.message}")

    def _load(self) -> None:
        query = """
            select t.tenant_id::text, t.size, t.frontier, c.checkpoint, u.checkpoint
            from ward_internal.audit_trees as t
            left join lateral (
              select checkpoint from ward_internal.audit_checkpoints where tenant_id = t.tenant_id
              order by size desc limit 1) as c on true
            left join ward_internal.audit_unsigned as u on u.tenant_id = t.tenant_id"""
        for tenant, size, frontier, last, waiting in self._connection.execute(query).fetchall():
            hashes = [frontier[place : place + 32] for place in range(0, len(frontier), 32)]
            tree = self._trees[tenant] = _Tree(Range(0, size, hashes))
            tree.last = last and Checkpoint.decode(last.encode())
            tree.waiting = waiting and Checkpoint.decode(waiting.encode())
            newest = tree.waiting or tree.last
            self._promised = max(self._promised or "", (newest and newest.settled) or "") or None
            if size > (sealed := newest.size if newest else 0):
                tree.newest = self._newest(tenant, sealed)

    def _newest(self, tenant: str, position: int) -> str:
        """Return the latest time of the entries from this position on."""
        query = """
            select to_char(max(e.at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            from ward_internal.audit_log as e where tenant_id = %(tenant)s and id in (
              select unnest(ids) from ward_internal.audit_batches
              where tenant_id = %(tenant)s and first_position >= %(position)s)"""
        row = self._connection.execute(query, {"tenant": tenant, "position": position}).fetchone()
        return str(row[0] or "") if row else ""

    def _ripe(self, all_now: bool = False, asked: Collection[str] = ()) -> list[str]:
        """Return whose next checkpoint is to be made."""
        now = time.monotonic()
        return [
            tenant
            for tenant, tree in self._trees.items()
            if tree.waiting is None
            and tree.behind
            and (all_now or tenant in asked or max(tree.due, tree.ask_at) <= now)
        ]

    def _save_waiting(self, tenants: list[str]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        rows = []
        for tenant in tenants:
            tree = self._trees[tenant]
            try:
                tree.waiting = next_checkpoint(
                    tree.last,
                    tenant=tenant,
                    size=tree.range.end,
                    root=tree.range.root(),
                    at=max(now, tree.newest),
                    public_key=self._public_key,
                    settled=self.settled,
                )
            except BrokenChain as error:
                tree.ask_at = time.monotonic() + _REFUSED
                self._complain(f"tenant {tenant} gets no checkpoint: {error}")
                continue
            tree.newest, tree.ask_at = "", 0.0
            rows.append((UUID(tenant), tree.waiting.encode().decode(), b"".join(tree.range.hashes)))
        self._connection.execute(
            "insert into ward_internal.audit_unsigned (tenant_id, checkpoint, frontier)"
            " select * from unnest(%s::uuid[], %s::text[], %s::bytea[])"
            " on conflict (tenant_id)"
            " do update set checkpoint = excluded.checkpoint, frontier = excluded.frontier",
            [list(column) for column in zip(*rows, strict=True)] or [[], [], []],
        )

    def _save_signed(self) -> None:
        if not self._signed:
            return
        items = list(self._signed.items())
        self._connection.execute(
            "with signed as (delete from ward_internal.audit_unsigned where tenant_id = any(%(tenants)s)"
            " returning tenant_id, checkpoint, frontier)"
            " insert into ward_internal.audit_checkpoints"
            " (tenant_id, size, checkpoint, signature, key, frontier)"
            " select tenant_id, n.size, checkpoint, n.signature, n.key, frontier from signed join"
            " unnest(%(tenants)s::uuid[], %(sizes)s::bigint[], %(signatures)s::bytea[], %(keys)s::bytea[])"
            " as n (tenant_id, size, signature, key) using (tenant_id)",
            {
                "tenants": [UUID(tenant) for tenant, _ in items],
                "sizes": [signed.checkpoint.size for _, (signed, _) in items],
                "signatures": [signed.signature for _, (signed, _) in items],
                "keys": [key for _, (_, key) in items],
            },
        )
        for tenant, (signed, _) in items:
            tree = self._trees[tenant]
            tree.last, tree.waiting, tree.due = signed.checkpoint, None, time.monotonic() + BETWEEN
        self._signed.clear()

    def _sign(self, tenant: str, checkpoint: Checkpoint) -> tuple[Signed, bytes]:
        answer = self._answer(tenant, statement=checkpoint.encode().decode())
        signed = Signed(checkpoint, base64.b64decode(answer["signature"]))
        key = base64.b64decode(answer["public_key"])
        if not signed.verified_by(key):
            raise KeyRefused("its signature is not of the key the checkpoint names")
        return signed, key

    def _learn_key(self) -> bool:
        """Ask for the public key, each time: another keeper may have come. False: there is no keeper."""
        try:
            self._public_key = base64.b64decode(self._answer(PLATFORM)["public_key"])
        except WardError as error:
            self._no_keeper(error)
            return False
        return True

    def _answer(self, tenant: str, statement: str | None = None) -> dict[str, Any]:
        log = self._log if tenant == PLATFORM else None
        return client.ask(self._keeper, wire.checkpoint(tenant, log, statement=statement))

    def _no_keeper(self, error: WardError) -> None:
        for tree in self._trees.values():
            tree.ask_at = time.monotonic() + _AGAIN
        self._complain(f"no checkpoint is signed: {error.message}")

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            self._report(Line("sealing_failed", trouble))
        self.trouble = trouble
