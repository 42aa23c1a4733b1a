"""Synthetic clinics: the patients of ``synthea/``, dealt out to clinics, re-sampled when more are asked for.

Everything follows from the seed, a clinic's number and a patient's number in it: the same clinic always has
the same rows.
"""

from __future__ import annotations

import csv
import io
import lzma
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from uuid import UUID

__all__ = ["COLUMNS", "Clinic", "Row", "clinic", "observation_codes", "size", "slugs"]

SEED = 2026
Row = list[str]
"""A row in the order of COLUMNS; an empty string is NULL."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patients": (
        *("id", "mrn", "ssn", "given", "family", "birth_date", "gender", "phone", "email"),
        *("address", "city", "state", "zip", "marital_status", "deceased"),
    ),
    "encounters": ("id", "patient_id", "class", "type", "reason", "started_at", "ended_at"),
    "conditions": ("id", "patient_id", "encounter_id", "code", "display", "onset_date"),
    "observations": ("id", "patient_id", "encounter_id", "code", "value", "unit", "observed_at"),
}
"""Tables in the order in which they are loaded, and their columns."""

_PLACES = (
    *("boston", "cambridge", "quincy", "newton", "salem", "lowell", "worcester", "plymouth", "concord"),
    *("waltham", "medford", "malden", "revere", "chelsea", "brockton", "framingham", "lexington"),
)
_KINDS = ("general", "childrens", "heart", "womens", "family_practice", "orthopedic", "cancer_center")


@dataclass(slots=True)
class _Person:
    """One patient of ``synthea/`` with all that belongs to him."""

    row: dict[str, str]
    encounters: list[dict[str, str]] = field(default_factory=list)
    conditions: list[dict[str, str]] = field(default_factory=list)
    observations: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Clinic:
    """The rows of one clinic, by table."""

    tables: Mapping[str, list[Row]]

    @property
    def counts(self) -> dict[str, int]:
        return {table: len(rows) for table, rows in self.tables.items()}


def slugs(count: int) -> list[str]:
    """Return the names of ``count`` clinics, always the same: boston_general, cambridge_childrens …"""
    names: list[str] = []
    for number in range(count):
        round_, place = divmod(number, len(_PLACES))
        name = f"{_PLACES[place]}_{_KINDS[(place + round_) % len(_KINDS)]}"
        names.append(name if round_ < len(_KINDS) else f"{name}_{round_ // len(_KINDS) + 1}")
    return names


def clinic(number: int, patients: int, seed: int = SEED) -> Clinic:
    """Return clinic ``number`` (from 0). Its patients are nobody else's until all 1,100 are dealt out."""
    people = _shuffled(seed)
    tables: dict[str, list[Row]] = {table: [] for table in COLUMNS}
    for place in range(number * patients, (number + 1) * patients):
        copy, index = divmod(place, len(people))
        person = people[index]
        if copy:
            person = replace(person, row=_somebody_else(person.row, place, seed))
        _add(tables, person, f"{seed}/{number}/{place}")
    return Clinic(tables)


def size(number: int, patients: int, seed: int = SEED) -> int:
    """Return how many rows ``clinic`` will have."""
    people = _shuffled(seed)
    dealt = (people[place % len(people)] for place in range(number * patients, (number + 1) * patients))
    return sum(1 + len(one.encounters) + len(one.conditions) + len(one.observations) for one in dealt)


@cache
def observation_codes() -> dict[str, str]:
    """Return the codes of observations and what they mean."""
    return {row["code"]: row["display"] for row in _read("observations")}


def _add(tables: dict[str, list[Row]], person: _Person, name: str) -> None:
    patient = _uuid(name)
    encounters = {row["id"]: _uuid(f"{name}/e{row['id']}") for row in person.encounters}
    sources = {
        "patients": [person.row],
        "encounters": person.encounters,
        "conditions": person.conditions,
        "observations": person.observations,
    }
    for table, rows in sources.items():
        columns = COLUMNS[table][1:]
        for place, row in enumerate(rows):
            known = {
                **row,
                "patient_id": patient,
                "encounter_id": encounters.get(row.get("encounter_id", ""), ""),
            }
            own = {"patients": patient, "encounters": encounters.get(row.get("id", ""))}.get(table)
            tables[table].append([own or _uuid(f"{name}/{table[0]}{place}"), *(known[c] for c in columns)])


def _somebody_else(row: dict[str, str], number: int, seed: int) -> dict[str, str]:
    """Return a new person like this one: another name and number, the same age, sex and history."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    given, family = rng.choice(_names(row["gender"])), rng.choice(_names("family"))
    return {
        **row,
        "mrn": str(10_000_000 + number),
        "ssn": f"999-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",
        "given": given,
        "family": family,
        "phone": f"555-{rng.randrange(200, 999)}-{rng.randrange(1000, 9999)}",
        "email": f"{given.lower()}.{family.lower()}{rng.randrange(1000)}@example.com",
        "address": f"{rng.randrange(1, 9999)} {row['address'].partition(' ')[2]}",
    }


@cache
def _names(kind: str) -> list[str]:
    """Return the family names, or the given names of a gender."""
    rows = [person.row for person in _people()]
    names = {
        row["family"] if kind == "family" else row["given"]
        for row in rows
        if kind in ("family", row["gender"])
    }
    return sorted(names)


@cache
def _shuffled(seed: int) -> list[_Person]:
    people = list(_people())
    random.Random(seed).shuffle(people)  # noqa: S311
    return people


@cache
def _people() -> list[_Person]:
    people = {row["id"]: _Person(row) for row in _read("patients")}
    for row in _read("encounters"):
        people[row["patient_id"]].encounters.append(row)
    for row in _read("conditions"):
        people[row["patient_id"]].conditions.append(row)
    for row in _read("observations"):
        people[row["patient_id"]].observations.append(row)
    return list(people.values())


def _read(table: str) -> Iterator[dict[str, str]]:
    packed = files(__package__).joinpath("synthea", f"{table}.csv.xz").read_bytes()
    return iter(csv.DictReader(io.StringIO(lzma.decompress(packed).decode())))


def _uuid(name: str) -> str:
    return str(UUID(bytes=blake2b(name.encode(), digest_size=16).digest(), version=4))
