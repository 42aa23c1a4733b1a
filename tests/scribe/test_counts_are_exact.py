"""What metrics count is exact: each message and entry counts once, whatever is killed, nothing else does."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from wardkey_core import errors, journal
from wardkey_core.journal_reader import decode

from tests.scribe.scribes import PLATFORM, Scribe, emit, event, read, wait_for, wait_sealed, write
from tests.support.database import Connection, Database
from wardkey.scribe.counts import EVENTS, KINDS, LOGIN_BOUNDS, Counts

_VALUE = "select value from ward_internal.counts where tenant_id = %s and name = %s"
_STATE = "select count(*) from ward_internal.scribe_state"  # before it there is no slot
_VALUES = "select label, value from ward_internal.counts where tenant_id = %s and name = %s"
LOGINS = [1, 2, 3, 0, 0, 0, 4]


def values(connection: Connection, tenant: UUID, name: str) -> dict[str, int]:
    return dict(connection.execute(_VALUES, [tenant, name]).fetchall())  # type: ignore[arg-type]


def counted(tenant: UUID, transactions: int = 5, sealed: int = 7) -> bytes:
    return journal.counts(tenant.bytes, transactions, sealed, 1500, LOGINS, 3)


def test_each_counts_once_whatever_is_killed(database: Database, scribe: Scribe) -> None:
    with database.admin() as admin:
        tenant = database.tenant_id("acme")
        for round_ in range(1, 4):
            scribe.start()
            wait_for(admin, 1, _STATE)
            emit(admin, *(read(tenant, row, ("name", "ssn"), round_) for row in range(70)), counted(tenant))
            emit(admin, event(tenant, "refusal", sqlstate="WK003", reason="x", count=9))
            write(admin, tenant, 4)
            if round_ == 1:  # the first time all of it is stored
                wait_for(admin, 4, _VALUE, tenant, "rows_written")
            scribe.kill()  # the others at any moment, and what was not stored comes again
        scribe.start()
        wait_for(admin, 12, _VALUE, tenant, "rows_written")
        wait_for(admin, 210, _VALUE, tenant, "rows_opened")
        wait_for(admin, 15, _VALUE, tenant, "transactions")
        assert values(admin, tenant, "fields_opened") == {"": 420}
        assert values(admin, tenant, "rows_written") == {"update": 12}
        assert values(admin, tenant, "fields_sealed") == {"": 21}
        assert values(admin, tenant, "refusals") == {"token": 27}
        assert values(admin, tenant, "login_microseconds") == {"": 4500}
        assert values(admin, tenant, "cache_hits") == {"": 9}
        expected = dict(zip(LOGIN_BOUNDS, LOGINS, strict=True))
        assert values(admin, tenant, "login_seconds") == {b: 3 * n for b, n in expected.items() if n}
        size = (admin.execute("select sum(size) from ward_internal.audit_trees").fetchone() or (0,))[0]
        emit(admin, counted(tenant))  # alone it is stored, and no entry
        wait_for(admin, 20, _VALUE, tenant, "transactions")
        assert (admin.execute("select sum(size) from ward_internal.audit_trees").fetchone() or (0,))[
            0
        ] == size


def test_nobody_else_is_counted(database: Database, scribe: Scribe) -> None:
    """Of a tenant that is not there, or of whatever an entry says, no row and no name is made."""
    with database.admin() as admin:
        tenant, stranger = database.tenant_id("acme"), uuid4()
        scribe.start()
        wait_for(admin, 1, _STATE)
        emit(
            admin,
            counted(stranger),
            event(tenant, "wardkey_up", sqlstate='x"} 1'),
            event(PLATFORM, "refusal"),
        )
        emit(
            admin, event(tenant, "refusal", sqlstate='x"} 1\n', count=-5), event(tenant, "refusal", count="9")
        )
        emit(admin, event(tenant, "tampered", count=2**40), event(tenant, "budget_near", row='"'))
        wait_sealed(admin, tenant, 6)  # with what provisioning told
        rows = admin.execute(
            "select tenant_id, name, label, value from ward_internal.counts"
            " where name in ('refusals', 'events')"
        ).fetchall()
        assert sorted(rows, key=str) == sorted(
            [
                (PLATFORM, "refusals", "other", 1),
                (tenant, "refusals", "other", 2),
                (tenant, "events", "tampered", 1),
                (tenant, "events", "budget_near", 1),
            ],
            key=str,
        )
        there = {row[0] for row in admin.execute("select distinct tenant_id from ward_internal.counts")}
        assert there == {PLATFORM, tenant}


def test_labels_are_those_that_are_listed() -> None:
    told = (errors.ContextError, errors.KeyRefused, errors.KeyDestroyed, errors.CommitmentMismatch)
    counts = Counts()
    for error in (*told, *errors.ContextError.__subclasses__(), errors.ClassHidden, errors.BudgetExhausted):
        counts.event("t", "refusal", {"sqlstate": error.sqlstate})
    counts.written("t", "merge")
    for operation in ("login", "tampered", "x", *EVENTS):
        counts.event("t", operation, None)
    labels = {label for _, name, label in counts._sums if name == "refusals"}
    assert labels <= set(KINDS) and {"token", "tenant", "no_context", "class", "budget", "key"} <= labels
    assert {label for _, name, label in counts._sums if name == "events"} == set(EVENTS)
    assert not any(name == "rows_written" for _, name, _ in counts._sums)


@pytest.mark.parametrize("cut", [1, 8, 40])
def test_a_damaged_message_counts_nothing(cut: int) -> None:
    with pytest.raises(ValueError, match=r"damaged|short"):
        decode(counted(uuid4())[:-cut])
