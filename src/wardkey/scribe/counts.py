"""What a turn adds to ``ward_internal.counts``, stored with its entries: what is counted counts once.

==================== =============== =================================================================
name                 label
==================== =============== =================================================================
rows_opened          (none)          rows in read entries; tables whose level is ``row``
fields_opened        (none)          the columns that these name
reads                (none)          read entries of other tables, each of a statement
rows_written         insert …        write entries, by what was done
fields_sealed        (none)          values that backends sealed
transactions         (none)          that had a context
cache_hits           (none)          values that clients say they had out of their cache
logins               (none)          entries of logins: a token that is new to a backend
login_seconds        bound, +Inf     logins by how long they took; each transaction has one
login_microseconds   (none)          their sum
refusals             see ``KINDS``   refusals, also those that one entry counts
events               see ``EVENTS``  other events that somebody may want to hear of
==================== =============== =================================================================

Names and labels are these and no others, whatever an entry says. Of entries that a transaction wrote itself,
and of what a backend counted, nothing else is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import psycopg
from wardkey_core import errors
from wardkey_core.journal import LOGIN_SECONDS
from wardkey_core.journal_reader import Counts as Counted

__all__ = ["EVENTS", "KINDS", "LOGIN_BOUNDS", "Counts"]

_BY_KIND: Final[dict[str, tuple[type[errors.WardError], ...]]] = {
    "token": (errors.InvalidToken, errors.TokenExpired),
    "tenant": (errors.WrongTenant, errors.TenantNotActive),
    "no_context": (errors.NoContext,),
    "class": (errors.ClassHidden, errors.RoleMayNotWrite),
    "budget": (errors.BudgetExhausted, errors.LoginsEnded),
    "key": (errors.KeyRefused, errors.KeyDestroyed, errors.CommitmentMismatch),
}
_OTHER: Final = "other"
KINDS: Final = (*_BY_KIND, _OTHER)
"""What was refused: each SQLSTATE is of one of these."""
_KIND_OF: Final = {each.sqlstate: kind for kind, classes in _BY_KIND.items() for each in classes}

EVENTS: Final = ("tampered", "honey_row_opened", "budget_near", "budget_exhausted", "key_released")
LOGIN_BOUNDS: Final = (*map(str, LOGIN_SECONDS), "+Inf")
_OPERATIONS: Final = frozenset(("insert", "update", "delete"))
_MOST: Final = 2**31  # of what one entry says it stands for
_STORE: Final = """
    insert into ward_internal.counts as c (tenant_id, name, label, value)
    select *
    from unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[]) as n (tenant_id, name, label, value)
    where exists (select from ward_internal.tenants as t where t.id = n.tenant_id
        and t.status not in ('shredding', 'shredded')) or n.tenant_id = %s
    order by 1, 2, 3
    on conflict (tenant_id, name, label) do update set value = c.value + excluded.value"""
_PLATFORM: Final = UUID(int=0)


class Counts:
    """Sums of a turn, by tenant, name and label."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, str, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._sums)

    def read(self, tenant: str, rows: int, fields: int, statements: int) -> None:
        """Count rows that were opened, and statements of which no row is known."""
        for name, value in (("rows_opened", rows), ("fields_opened", fields), ("reads", statements)):
            self._add(tenant, name, "", value)

    def written(self, tenant: str, operation: str) -> None:
        if operation in _OPERATIONS:
            self._sums[tenant, "rows_written", operation] += 1

    def event(self, tenant: str, operation: str, detail: Mapping[str, Any] | None) -> None:
        """Count an event of the journal, once or as often as it says that it stands for."""
        said = detail or {}
        times = said.get("count", 1)
        times = times if isinstance(times, int) and 0 < times <= _MOST else 1
        if operation == "login":
            self._sums[tenant, "logins", ""] += 1
        elif operation == "refusal":
            self._sums[tenant, "refusals", _KIND_OF.get(str(said.get("sqlstate")), _OTHER)] += times
        elif operation in EVENTS:
            self._sums[tenant, "events", operation] += times

    def backend(self, counted: Counted) -> None:
        """Add what a backend counted."""
        tenant = str(counted.tenant)
        for name, value in (
            ("transactions", counted.transactions),
            ("fields_sealed", counted.sealed),
            ("login_microseconds", counted.microseconds),
            ("cache_hits", counted.hits),
        ):
            self._add(tenant, name, "", value)
        for bound, value in zip(LOGIN_BOUNDS, counted.logins, strict=True):
            self._add(tenant, "login_seconds", bound, value)

    def store(self, connection: psycopg.Connection[Any]) -> None:
        """Add the sums to what is stored, in the caller's transaction. Of tenants that are gone none is."""
        if self._sums:
            tenants, names, labels = zip(*self._sums, strict=True)
            columns = [list(tenants), list(names), list(labels), list(self._sums.values())]
            connection.execute(_STORE, [*columns, _PLATFORM])
            self._sums.clear()

    def _add(self, tenant: str, name: str, label: str, value: int) -> None:
        if 0 < value < _MOST * 1000:
            self._sums[tenant, name, label] += value
