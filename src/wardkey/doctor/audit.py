"""The audit log: scribe and publisher are at work, nothing is held up, and the newest checkpoints verify."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from uuid import UUID

from wardkey_core.log.canonical import NotCanonical
from wardkey_core.log.checkpoint import Checkpoint, Signed
from wardkey_core.log.merkle import Range

from ..audit.live import ask_keeper
from ..audit.remembered import Remembered
from ..errors import WardError
from ..publisher import topics
from ..publisher.config import CONFIGURATION_FILE
from ..publisher.supervisor import is_at_work
from ..scribe import slot as slots
from ._check import Check, Problem, Server

__all__ = ["CHECKS"]

_LAG = 60.0  # seconds that the stored position may be old while there is something to read
_MUCH = 64 << 20  # bytes
_PATIENCE = 5.0  # seconds for the scribe to store what the keeper has signed


def _state(server: Server) -> slots.State | None:
    return slots.State.read(server.connection)


def _log(server: Server, tenant: object) -> str:
    """Return what people call a log."""
    query = "select slug from ward_internal.tenants where id = %s::text::uuid"
    if str(tenant) == str(UUID(int=0)):
        return "the log of platform"
    return f"the log of {server.value(query, str(tenant)) or f'tenant {tenant}, which is gone'}"


def _exists(server: Server) -> Iterator[Problem]:
    if _state(server) is None:
        yield Problem("scribe", "has never worked for this database: reads are not kept", "wardkey up")


def _at_work(server: Server) -> Iterator[Problem]:
    state = _state(server)
    if state is None:
        return
    slot = f"replication slot {state.slot}"
    facts = slots.facts(server.connection, state.slot)
    if not facts.present:
        yield Problem(slot, "is missing: reads are not journalled", "wardkey up")
    elif facts.status == "lost":
        yield Problem(slot, "is lost: the server has thrown away WAL that was not read", "wardkey up")
    elif facts.active_pid is None:
        yield Problem(slot, "nobody reads it: nothing is sealed, and WAL is kept", "wardkey up")
    if failing := slots.failing(server.connection):
        yield Problem("scribe", failing, "see: wardkey logs scribe")
    if not slots.is_published(server.connection):
        yield Problem(f"publication {slots.PUBLICATION}", "is not what the scribe made", "wardkey up")


def _required(server: Server) -> Iterator[Problem]:
    state = _state(server)
    value = server.value("select max(value) from ward_internal.settings where name = 'audit_slot'")
    if state is not None and value != state.slot:
        yield Problem(
            "setting audit_slot",
            "is not set: who reads without the slot is not refused",
            f"select ward.set('audit_slot', '{state.slot}');",
        )


def _room(server: Server) -> Iterator[Problem]:
    state = _state(server)
    if state is None:
        return
    facts = slots.facts(server.connection, state.slot)
    disk = server.home.path if server.home is not None and server.home.exists else None
    for text in facts.warnings(disk) if facts.present else ():
        yield Problem(
            f"replication slot {state.slot}", text, "start the scribe, or see why it is slow: wardkey logs"
        )
    if facts.present and facts.limit < 0:
        return
    if facts.present and facts.limit < 1024:
        yield Problem(
            "setting max_slot_wal_keep_size",
            f"is {facts.limit} MB: the journal is cut when the scribe is away for a while",
            "alter system set max_slot_wal_keep_size = '16GB'; select pg_reload_conf();",
        )


def _on_time(server: Server) -> Iterator[Problem]:
    state = _state(server)
    if state is None:
        return
    facts = slots.facts(server.connection, state.slot)
    if facts.behind > _MUCH:
        yield Problem("scribe", f"is {slots.megabytes(facts.behind)} of WAL behind", "wardkey scribe status")
    rows = server.rows(
        "select t.tenant_id::text, t.size - coalesce(c.size, 0) from ward_internal.audit_trees as t"
        " left join lateral (select max(size) as size from ward_internal.audit_checkpoints"
        "   where tenant_id = t.tenant_id) as c on true"
        " where t.size > coalesce(c.size, 0) and not exists (select from ward_internal.audit_batches as b"
        "   where b.tenant_id = t.tenant_id and b.first_position >= coalesce(c.size, 0)"
        "   and b.at > clock_timestamp() - make_interval(secs => %s)) order by 1",
        _LAG,
    )
    for tenant, count in rows:
        yield Problem(
            _log(server, tenant),
            f"{count} entries have waited for a checkpoint",
            "see: wardkey scribe status",
        )


def _verifies(server: Server) -> Iterator[Problem]:
    remembered = _remembered(server)  # first: keeper and scribe go on
    rows = server.rows(
        "select t.tenant_id::text, c.checkpoint, c.signature, c.key, c.frontier, c.size"
        " from ward_internal.audit_trees as t cross join lateral ("
        "   select * from ward_internal.audit_checkpoints where tenant_id = t.tenant_id"
        "   order by size desc limit 1) as c order by 1"
    )
    newest: dict[str, Checkpoint] = {}
    for tenant, text, signature, key, frontier, size in rows:
        sound = False
        with suppress(NotCanonical, ValueError):
            signed = Signed(Checkpoint.decode(text.encode()), bytes(signature))
            hashes = [frontier[place : place + 32] for place in range(0, len(frontier), 32)]
            this = newest[tenant] = signed.checkpoint
            sound = (
                signed.verified_by(bytes(key))
                and (this.tenant, this.size) == (tenant, size)
                and Range(0, size, hashes).root() == this.root
            )
        if not sound:
            remembered.pop(tenant, None)
            yield Problem(
                _log(server, tenant),
                "its newest checkpoint does not verify: the log was tampered with",
                "find where: wardkey audit export, then wardkey audit verify",
            )
    for tenant, last in remembered.items():
        log_has = newest.get(tenant)
        number = log_has.number if log_has else 0
        if last.number > number or (log_has and last.number == number and last.digest != log_has.digest()):
            yield Problem(
                _log(server, tenant),
                f"it ends with checkpoint {number}, the keeper has signed"
                f" {'another one' if last.number == number else last.number}: its end was cut off",
                "see: wardkey audit verify --live; after a restore: wardkey scribe readmit",
            )


def _remembered(server: Server) -> dict[str, Remembered]:
    """Return what the keeper of this home has signed last of each log, as far as it tells."""
    last: dict[str, Remembered] = {}
    if server.home is None:
        return last
    deadline = time.monotonic() + _PATIENCE
    query = "select id from ward_internal.tenants union select tenant_id from ward_internal.audit_trees"
    with suppress(WardError):
        for (tenant,) in server.rows(query):
            patience = max(0.0, deadline - time.monotonic())
            last[str(tenant)] = ask_keeper(
                server.connection, server.home.keeper_socket, tenant, patience=patience
            )
    return last


def _gaps(server: Server) -> Iterator[Problem]:
    rows = server.rows(
        "select coalesce(t.slug, 'platform'), e.at, coalesce(e.detail ->> 'since', 'its beginning'),"
        " e.detail ->> 'why'"
        " from ward_internal.audit_log as e left join ward_internal.tenants as t on t.id = e.tenant_id"
        " where e.kind = 'e' and e.operation = 'journal_gap'"
        " and e.at > clock_timestamp() - interval '30 days' order by e.at, 1"
    )
    for name, at, since, why in rows:
        yield Problem(
            f"the log of {name}",
            f"may lack reads of {since} to {at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}: {why}",
            "say so to those it concerns; this is told for 30 days, in the log for good",
        )


def _pruned(server: Server) -> Iterator[Problem]:
    rows = server.rows(
        "select coalesce(w.slug, t.tenant_id::text), to_char(m.begins at time zone 'UTC', 'YYYY-MM')"
        " from ward_internal.audit_trees as t"
        " cross join lateral (select * from ward_internal.audit_months(t.tenant_id) limit 1) as m"
        " left join ward_internal.tenants as w on w.id = t.tenant_id"
        " where m.ends < clock_timestamp() - ward_internal.audit_retention() - interval '31 days'"
        " and not exists (select from ward_internal.audit_holds where tenant_id = t.tenant_id) order by 1"
    )
    for name, month in rows:
        yield Problem(
            f"the log of {name}",
            f"goes back to {month}: longer than it is to be kept",
            "let a timer call: wardkey audit prune --all",
        )


def _published(server: Server) -> Iterator[Problem]:
    """With a home its configuration says whether Kafka is used; without, that there are topics."""
    known = topics.every(server.connection)
    if server.home is not None and server.home.exists:
        publishes = (server.home.publisher / CONFIGURATION_FILE).exists()
    else:
        publishes = bool(known)
    if not publishes:
        return
    if not is_at_work(server.connection):
        yield Problem("publisher", "is not at work: Kafka gets nothing, the log keeps it", "wardkey up")
    late = {
        tenant
        for (tenant,) in server.rows(
            "select r.tenant_id from ward_internal.audit_trees as r"
            " left join ward_internal.audit_topics as t using (tenant_id)"
            " where r.size > coalesce(t.position, 0) and exists (select from ward_internal.audit_batches as b"
            "   where b.tenant_id = r.tenant_id and b.first_position >= coalesce(t.position, 0)"
            "   and b.at < clock_timestamp() - make_interval(secs => %s))",
            _LAG,
        )
    }
    for topic in known:
        if topic.tenant in late:
            late.remove(topic.tenant)
            text = f"lacks {topic.behind} entries, for more than a minute"
            if topic.trouble:
                text += (
                    f": at position {topic.mark.position} it failed {topic.failures} times: {topic.trouble}"
                )
            yield Problem(f"topic {topic.name}", text, "see what troubles it: wardkey kafka status")
    for tenant in sorted(late):
        yield Problem(
            _log(server, tenant), "has entries and no topic", "see what troubles it: wardkey kafka status"
        )


CHECKS = (
    Check("scribe-exists", "a scribe keeps the journal of reads and seals the log", _exists, "info"),
    Check(
        "scribe-at-work",
        "a scribe reads the journal, from a slot that holds everything",
        _at_work,
        primary=True,
    ),
    Check("scribe-required", "nobody reads plaintext while there is no journal", _required, "warn"),
    Check(
        "scribe-room",
        "neither disk nor max_slot_wal_keep_size cuts the journal short",
        _room,
        "warn",
        primary=True,
    ),
    Check("scribe-on-time", "entries are sealed and signed within a minute", _on_time, "warn", primary=True),
    Check("journal-whole", "no reads of the last 30 days were lost with WAL", _gaps, "warn"),
    Check("logs-pruned", "no log goes back much longer than its retention", _pruned, "info"),
    Check(
        "checkpoints-verify",
        "the newest checkpoint of each log verifies, and is the keeper's last",
        _verifies,
        primary=True,
    ),
    Check(
        "published",
        "where Kafka is used, entries are published within a minute",
        _published,
        "warn",
        primary=True,
    ),
)
