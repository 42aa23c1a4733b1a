"""Budgets and honey rows: how many rows of a table a role opens, and rows that nobody has a reason to open.

The keeper's copy of the budgets counts; ``set_`` and ``drop`` change both copies or neither. Honey rows are
the database's. Tables are model tables with their schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from wardkey_core import keeper_client, wire
from wardkey_core.administration import InvalidBudget, UnknownObject

from ..daemon.files import locked
from ..errors import ServerError
from ..keeper.budgets import BUDGETS_FILE, Budget, read_budgets, write_budgets
from ..keys.registry import tenant_id

__all__ = [
    "add_honey",
    "differences",
    "drop",
    "drop_honey",
    "end",
    "ended",
    "every",
    "honey",
    "lift",
    "set_",
    "usage",
]

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]
_Budgets = dict[tuple[UUID, str, UUID], Budget]

_MODEL = "select id from ward_internal.models where relation = %s::regclass"
_BUDGETS = """
select slug, role, relation::text as "table", rows, is_distinct as "distinct", seconds as "window",
       decided_by, decided_at, tenant_id, model_id
  from ward.budgets order by 1, 2, 3"""
_HONEY = """
select slug, relation::text as "table", row_key as key, ends_logins, made_by, made_at
  from ward.honey_rows order by 1, 2, 3"""
_TABLES = "select id, relation::text from ward_internal.models"
_SLUGS = "select id, slug from ward_internal.tenants"


def set_(
    connection: Connection,
    keeper: Path,
    slug: str,
    role: str,
    table: str,
    rows: int,
    *,
    distinct: bool = False,
    window: timedelta = timedelta(days=1),
) -> None:
    """Set a budget in the database and in the keeper; commits.

    Raises InvalidBudget, psycopg.Error (WK203, WK204, WK254), OSError, ServerError.
    """
    place = _place(connection, slug, role, table)
    seconds = int(window.total_seconds())
    try:
        made = _converted(place, rows, distinct, seconds)
    except ValueError as error:
        raise InvalidBudget(f"a budget cannot be that: {error}") from None
    _change(
        connection,
        keeper,
        (
            "select ward.set_budget(%s, %s, %s::regclass, %s, %s, %s)",
            [slug, role, table, rows, distinct, window],
        ),
        lambda known: {**known, place: made},
    )


def drop(connection: Connection, keeper: Path, slug: str, role: str, table: str) -> None:
    """Take a budget away, in the database and in the keeper; commits.

    From one of them where only that has it. Raises UnknownObject, as ``set_``.
    """
    place = _place(connection, slug, role, table)
    here = any(
        (row["tenant_id"], row["role"], row["model_id"]) == place for row in _rows(connection, _BUDGETS)
    )
    if not here and place not in _read(keeper):
        raise UnknownObject("no such budget", "list them: wardkey access budget list")
    statement = ("select ward.drop_budget(%s, %s, %s::regclass)", [slug, role, table])
    _change(
        connection,
        keeper,
        statement if here else None,
        lambda known: {other: budget for other, budget in known.items() if other != place},
    )


def every(connection: Connection, keeper: Path | None) -> Rows:
    """Return all budgets, as the database and, if it was asked, the keeper has them; window in seconds."""
    theirs = _read(keeper) if keeper is not None else {}
    slugs, tables = (dict(connection.execute(query).fetchall()) for query in (_SLUGS, _TABLES))
    rows = {}
    for row in _rows(connection, _BUDGETS):
        place = row.pop("tenant_id"), row["role"], row.pop("model_id")
        ours = _text(row["rows"], row["distinct"], row["window"])
        row["database"], row["keeper"] = ours, None
        rows[place] = row
    for place, budget in theirs.items():
        tenant, role, model = place
        row = rows.setdefault(
            place,
            {"slug": slugs.get(tenant, str(tenant)), "role": role, "table": tables.get(model, str(model)),
             "rows": budget.rows, "distinct": budget.distinct, "window": budget.window,
             "database": None},
        )  # fmt: skip
        row["keeper"] = _text(budget.rows, budget.distinct, budget.window)
    return list(rows.values())


def differences(connection: Connection, keeper: Path) -> Rows:
    """Return the budgets in which database and keeper differ, of tenants of this database."""
    slugs = {slug for _, slug in connection.execute(_SLUGS).fetchall()}
    return [
        row for row in every(connection, keeper) if row["database"] != row["keeper"] and row["slug"] in slugs
    ]


def usage(connection: Connection, socket: Path, slug: str) -> Rows:
    """Return what each subject has opened in a window that lasts, with the budget. Raises UnknownTenant."""
    tenant = tenant_id(connection, slug)
    tables = {str(model): name for model, name in connection.execute(_TABLES).fetchall()}
    limits = {
        (row["role"], str(row["model_id"])): row["rows"]
        for row in _rows(connection, _BUDGETS)
        if row["tenant_id"] == tenant
    }
    return [
        {
            "subject": each["subject"],
            "role": each["role"],
            "table": tables.get(each["model"], each["model"]),
            "opened": each["spent"],
            "of": limits.get((each["role"], each["model"])),
            "until": datetime.fromtimestamp(each["until"], UTC),
        }
        for each in keeper_client.ask(socket, wire.usage(str(tenant)))["windows"]
    ]


def add_honey(
    connection: Connection, slug: str, table: str, key: Sequence[str], *, ends_logins: bool = True
) -> None:
    """Make a row a honey row; the caller commits. Raises psycopg.Error (WK203, WK204, WK256)."""
    query = "select ward.add_honey(%s, %s::regclass, %s, %s)"
    connection.execute(query, [slug, table, list(key), ends_logins])


def drop_honey(connection: Connection, slug: str, table: str, key: Sequence[str]) -> None:
    """Make it a row like others; the caller commits. Raises psycopg.Error (WK203, WK204)."""
    connection.execute("select ward.drop_honey(%s, %s::regclass, %s)", [slug, table, list(key)])


def honey(connection: Connection) -> Rows:
    """Return all honey rows."""
    return _rows(connection, _HONEY)


def ended(connection: Connection, socket: Path, slug: str) -> Rows:
    """Return the subjects of a tenant whose logins were ended. Raises UnknownTenant."""
    answer = keeper_client.ask(socket, wire.logins(str(tenant_id(connection, slug)), "list"))
    return [{**each, "since": datetime.fromtimestamp(each["since"], UTC)} for each in answer["subjects"]]


def end(connection: Connection, socket: Path, slug: str, subject: str, issuer: str) -> None:
    """Let a subject in no more, until it is lifted. It is an event of the platform's log.

    Raises UnknownTenant, KeeperUnavailable, KeyRefused.
    """
    tenant = tenant_id(connection, slug)
    keeper_client.ask(socket, wire.logins(str(tenant), "end", issuer=issuer, subject=subject))
    _tell(connection, "logins ended", tenant, subject)


def lift(connection: Connection, socket: Path, slug: str, subject: str, issuer: str | None = None) -> None:
    """Let a subject in again; of any issuer, if none is named. It is an event of the platform's log.

    Raises UnknownTenant, UnknownObject.
    """
    tenant = tenant_id(connection, slug)
    known = [
        each["issuer"]
        for each in ended(connection, socket, slug)
        if each["subject"] == subject and issuer in (None, each["issuer"])
    ]
    if not known:
        raise UnknownObject(
            "no logins of that subject were ended", "list them: wardkey access honey ended --tenant SLUG"
        )
    for name in known:
        keeper_client.ask(socket, wire.logins(str(tenant), "lift", issuer=name, subject=subject))
    _tell(connection, "logins lifted", tenant, subject)


def _tell(connection: Connection, kind: str, tenant: UUID, subject: str) -> None:
    connection.execute(
        "select ward_internal.log_event(ward_internal.master_id(), %s,"
        " jsonb_build_object('tenant', %s::uuid, 'of', %s::text))",
        [kind, tenant, subject],
    )


def _change(
    connection: Connection,
    keeper: Path,
    statement: tuple[str, Sequence[Any]] | None,
    change: Callable[[_Budgets], _Budgets],
) -> None:
    """Run ``statement``, write the keeper's file, commit; whatever fails, neither shall keep the change."""
    path = keeper / BUDGETS_FILE
    _read(keeper)
    with locked(keeper):
        before = _read(keeper)
        if statement is not None:
            connection.execute(*statement)
        try:
            write_budgets(path, change(before).values())
            connection.commit()
        except BaseException:
            with suppress(OSError):
                write_budgets(path, before.values())
            raise


def _place(connection: Connection, slug: str, role: str, table: str) -> tuple[UUID, str, UUID]:
    tenant = tenant_id(connection, slug)
    row = connection.execute(_MODEL, [table]).fetchone()
    if row is None:
        raise UnknownObject(f"{table} is not a protected table", "list them: wardkey table list")
    return tenant, role, row[0]


def _converted(place: tuple[UUID, str, UUID], rows: int, distinct: bool, seconds: int) -> Budget:
    import msgspec

    tenant, role, model = place
    members: Mapping[str, Any] = {"tenant": str(tenant), "role": role, "model": str(model), "rows": rows}
    return msgspec.convert({**members, "distinct": distinct, "window": seconds}, Budget)


def _text(rows: int, distinct: bool, seconds: int) -> str:
    return f"{rows:,}{' distinct' if distinct else ''} in {timedelta(seconds=seconds)}"


def _rows(connection: Connection, query: str) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def _read(keeper: Path) -> _Budgets:
    if not keeper.is_dir():
        raise ServerError(
            f"the keeper's directory {keeper} is not here",
            "run this on the keeper's host, as a user who may read there, with --keeper-directory",
        )
    try:
        return read_budgets(keeper / BUDGETS_FILE)
    except ValueError as error:
        raise ServerError(
            f"{keeper / BUDGETS_FILE}: {error}", "restore it, or remove it and set budgets again"
        ) from None
