"""What the demo shows of break-glass: somebody sees more for a while, on the tokens of two people."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from .load import Ward

__all__ = ["Step", "Told", "break_the_glass"]

_ASKER, _APPROVER = "dr. night", "dr. chief"
_READ = "select family from patients order by mrn limit 1"


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody did, and got: a value, or an SQLSTATE."""

    who: str
    did: str
    got: str


@dataclass(frozen=True, slots=True)
class Told:
    """The steps, and what the tenant's ADMIN is told of them afterwards."""

    steps: list[Step]
    trail: dict[str, str]


def break_the_glass(ward: Ward) -> Told:
    """Ask, approve, read and end as two people; nothing of it lasts but its trail."""
    asker, approver = (_ASKER, "ANALYST"), (_APPROVER, "ADMIN")
    steps = [Step(_ASKER, "reads names", _do(ward, *asker, _READ))]
    request = _do(ward, *asker, "select ward.break_glass(%s, '{identifier}', 15)", "unconscious, who is it?")
    steps.append(Step(_ASKER, "asks for 15 minutes of identifiers", "waits"))
    own = _do(ward, _ASKER, "ADMIN", "select ward.approve_break_glass(%s)", request)
    steps.append(Step(_ASKER, "approves that, with a token of role ADMIN", own))
    _do(ward, *approver, "select ward.approve_break_glass(%s)", request)
    steps.append(Step(_APPROVER, "approves it", "started"))
    steps.append(Step(_ASKER, "reads names", _do(ward, *asker, _READ)))
    _do(ward, *asker, "select ward.end_break_glass(%s)", request)
    steps.append(Step(_ASKER, "ends it", "ended"))
    steps.append(Step(_ASKER, "reads names", _do(ward, *asker, _READ)))
    with ward.transaction("ADMIN", _APPROVER) as cursor:
        query = "select subject, role, reason, approver, state from ward.break_glass_requests() where id = %s"
        (row,) = cursor.execute(query, [request]).fetchall()
        names = [column.name for column in cursor.description or ()]
    return Told(steps, dict(zip(names, map(str, row), strict=True)))


def _do(ward: Ward, subject: str, role: str, query: str, *values: str) -> str:
    try:
        with ward.transaction(role, subject) as cursor:
            row = cursor.execute(query, values).fetchone()
    except psycopg.Error as error:
        return error.sqlstate or "refused"
    return "" if row is None else str(row[0])
