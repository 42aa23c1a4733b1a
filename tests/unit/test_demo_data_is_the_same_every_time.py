"""The demo's clinics: the same rows at every run, no patient in two of them, references whole."""

from __future__ import annotations

import re

from wardkey.demo import data


def test_a_clinic_has_the_same_rows_every_time() -> None:
    assert data.clinic(3, 40) == data.clinic(3, 40)
    assert data.clinic(3, 40) != data.clinic(3, 40, seed=1)


def test_size_is_known_before() -> None:
    assert data.size(30, 50) == sum(data.clinic(30, 50).counts.values())


def test_clinics_share_nobody_even_when_patients_are_dealt_again() -> None:
    clinics = [data.clinic(number, 300) for number in range(6)]  # 1,800 of 1,100
    for column in ("id", "mrn"):
        place = data.COLUMNS["patients"].index(column)
        values = [row[place] for clinic in clinics for row in clinic.tables["patients"]]
        assert len(set(values)) == len(values) == 1800
    again = clinics[5].tables["patients"]
    ssn = data.COLUMNS["patients"].index("ssn")
    assert all(re.fullmatch(r"999-[0-9]{2}-[0-9]{4}", row[ssn]) for row in again)


def test_every_reference_is_to_a_row_of_the_same_clinic() -> None:
    tables = data.clinic(4, 300).tables
    ids = {table: {row[0] for row in rows} for table, rows in tables.items()}
    assert all(len(ids[table]) == len(rows) for table, rows in tables.items())
    for table in ("encounters", "conditions", "observations"):
        assert {row[1] for row in tables[table]} <= ids["patients"]
    for table in ("conditions", "observations"):
        assert {row[2] for row in tables[table]} - {""} <= ids["encounters"]
    assert {row[3] for row in tables["observations"]} <= set(data.observation_codes())


def test_slugs_are_valid_and_distinct() -> None:
    slugs = data.slugs(500)
    assert len(set(slugs)) == 500
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,47}", slug) for slug in slugs)
    assert data.slugs(5) == slugs[:5]
