"""What the demo shows of roles: one patient as each of them sees it, and what is found behind a mask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg

from .load import Connection, Ward

__all__ = ["ROLES", "Guess", "Seen", "guess_behind_the_mask", "one_patient"]

ROLES = ("ADMIN", "EVALUATOR", "ANALYST", "VIEWER")
_COLUMNS = (
    ("patients", "family"),
    ("patients", "birth_date"),
    ("patients", "zip"),
    ("conditions", "display"),
)
# Each counts more than 0, or fails, where the day itself is looked at.
_GUESSES = {
    "WHERE": "select count(*) from patients where birth_date = %(born)s",
    "ORDER BY": "select count(*) from (select birth_date from patients order by abs(birth_date - %(born)s)"
    " limit 1) as p where birth_date = %(born)s",
    "GROUP BY": "select count(*) from (select birth_date from patients group by 1) as p"
    " where birth_date::text = %(born)s::text",
    "a division by zero": "select count(1 / (birth_date - %(born)s)) * 0 from patients",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A column, its class, and by role what is shown of one patient's value, or why nothing is."""

    column: str
    kind: str
    shown: dict[str, str]


@dataclass(frozen=True, slots=True)
class Guess:
    """What an ANALYST asked about a day of birth that it sees as a year, and how often the answer told it."""

    tried: list[str]
    days: int
    told: int

    @property
    def held(self) -> bool:
        return self.told == 0


def one_patient(admin: Connection, ward: Ward) -> list[Seen]:
    """Ask for each column on tokens of each role."""
    kinds = {
        name: kind
        for kind, names in admin.execute("select name, columns from ward.classes").fetchall()
        for name in names
    }
    admin.commit()
    with ward.transaction() as cursor:
        query = """
            select p.id from patients as p join conditions as c on c.patient_id = p.id
            where p.zip is not null and extract(doy from p.birth_date) <> 1 order by p.mrn limit 1"""
        ((patient,),) = cursor.execute(query).fetchall()
    shown: dict[tuple[str, str], dict[str, str]] = {place: {} for place in _COLUMNS}
    for role in ROLES:
        for table, column in _COLUMNS:
            shown[table, column][role] = _ask(ward, role, table, column, patient)
    return [Seen(column, kinds[f"{table}.{column}"], shown[table, column]) for table, column in _COLUMNS]


def _ask(ward: Ward, role: str, table: str, column: str, patient: Any) -> str:
    key = "id" if table == "patients" else "patient_id"
    query = f"select {column} from {table} where {key} = %s order by id limit 1"  # noqa: S608
    try:
        with ward.transaction(role) as cursor:
            row = cursor.execute(query, [patient]).fetchone()
    except psycopg.Error as error:
        return error.sqlstate or "refused"
    return "NULL" if row is None or row[0] is None else str(row[0])


def guess_behind_the_mask(ward: Ward) -> Guess:
    """Let an ANALYST search for days of birth that only others may see."""
    with ward.transaction() as cursor:
        query = "select birth_date from patients where extract(doy from birth_date) <> 1 order by mrn limit 5"
        born = [day for (day,) in cursor.execute(query).fetchall()]
    told = sum(_tells(ward, query, day) for day in born for query in _GUESSES.values())
    return Guess(list(_GUESSES), len(born), told)


def _tells(ward: Ward, query: str, day: date) -> bool:
    try:
        with ward.transaction("ANALYST") as cursor:
            ((count,),) = cursor.execute(query, {"born": day}).fetchall()
    except psycopg.errors.DivisionByZero:
        return True
    return bool(count)
