"""What the demo shows of budgets and honey rows: so many rows, and one that nobody has to open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import psycopg

from ..access import budgets
from ..errors import UnknownObject
from .glass import Step
from .load import Connection, Ward

__all__ = ["Limits", "reach_the_limits"]

_ROWS = 5
_ROLE = "VIEWER"
_TABLE = "clinic.patients"
_OPEN = "select family from patients where id = any(%s)"


@dataclass(frozen=True, slots=True)
class Limits:
    """What was done under a budget of ``rows`` and with a honey row, and whose logins that ended."""

    rows: int
    steps: list[Step]
    ended: list[str]

    @property
    def held(self) -> bool:
        got = [step.got for step in self.steps]
        return got[1:3] == ["WK253"] * 2 and got[-1] == "WK255" and len(self.ended) == 1


def reach_the_limits(admin: Connection, ward: Ward) -> Limits:
    """Open rows until the budget is used up, then a honey row; nothing of it lasts."""
    who = token_hex(2)  # what one opened stays counted until the window ends
    nurse, snoop = f"nurse.{who}", f"snoop.{who}"
    with ward.transaction() as cursor:
        query = "select id from patients order by mrn limit %s"
        ids = [one for (one,) in cursor.execute(query, [_ROWS + 2]).fetchall()]
    with _limited(admin, ward, str(ids[-1]), snoop):
        steps = [
            Step(nurse, f"opens {_ROWS} patients", _open(ward, nurse, ids[:_ROWS])),
            Step(nurse, "opens another one", _open(ward, nurse, ids[_ROWS : _ROWS + 1])),
            Step(nurse, "the first again, to roll it back", _open(ward, nurse, ids[:1], end="rollback")),
            Step(nurse, "counts all, which opens none", _ask(ward, nurse, "select count(*) from patients")),
            Step(snoop, "opens the honey row", _open(ward, snoop, ids[-1:])),
            Step(snoop, "opens any row, a transaction later", _open(ward, snoop, ids[:1])),
        ]
        out = budgets.ended(admin, ward.cluster.home.keeper_socket, ward.slug)
        ended = [each["subject"] for each in out if each["subject"] == snoop]
    return Limits(_ROWS, steps, ended)


@contextmanager
def _limited(admin: Connection, ward: Ward, honey: str, snoop: str) -> Iterator[None]:
    home, slug = ward.cluster.home, ward.slug
    _undo(admin, ward, honey)  # what was left when the demo was killed
    try:
        budgets.set_(admin, home.keeper, slug, _ROLE, _TABLE, _ROWS)
        budgets.add_honey(admin, slug, _TABLE, [honey])
        admin.commit()
        yield
    finally:
        admin.rollback()
        _undo(admin, ward, honey)
        with suppress(UnknownObject):
            budgets.lift(admin, home.keeper_socket, slug, snoop)
        admin.commit()


def _undo(admin: Connection, ward: Ward, honey: str) -> None:
    with suppress(UnknownObject):
        budgets.drop(admin, ward.cluster.home.keeper, ward.slug, _ROLE, _TABLE)
    if any(row["slug"] == ward.slug and row["key"] == [honey] for row in budgets.honey(admin)):
        budgets.drop_honey(admin, ward.slug, _TABLE, [honey])
    admin.commit()


def _open(ward: Ward, subject: str, ids: list[Any], end: str = "commit") -> str:
    return _ask(ward, subject, _OPEN, ids, end=end)


def _ask(ward: Ward, subject: str, query: str, *values: Any, end: str = "commit") -> str:
    """Return how many rows came, or the value of a count, or an SQLSTATE."""
    try:
        with ward.transaction(_ROLE, subject) as cursor:
            rows = cursor.execute(query, values).fetchall()
            cursor.execute(end)
    except psycopg.Error as error:
        return error.sqlstate or "refused"
    return str(rows[0][0] if isinstance(rows[0][0], int) else len(rows))
