"""``wardkey search``: declared, counted, accepted, dropped."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database

_NAME = ("clinic.patients", "name")


@pytest.fixture
def search(database: Database, monkeypatch: pytest.MonkeyPatch) -> Wardkey:
    monkeypatch.setenv("WARDKEY_DSN", database.dsn())
    return Wardkey(database.cluster.home.path)


def test_what_tokens_tell_is_shown_and_accepted(database: Database, search: Wardkey) -> None:
    assert search("search", "add", *_NAME, "--kind", "exact").stdout.endswith("is searched: exact\n")
    with database.tenant("acme", subject="t") as ward:
        ward.execute(
            "insert into patients (name) select 'Name ' || n % 10 from generate_series(1, 1000) as n"
        )
    acme = next(row for row in search.json("search", "plan", *_NAME) if row["tenant"] == "acme")
    assert (acme["rows"], acme["distinct_values"], acme["commonest_value"]) == (1000, 10, 10.0)
    assert acme["verdict"] == "tells too much"
    (of_globex,) = search.json("search", "plan", "--tenant", "globex")
    assert of_globex["tenant"] == "globex" and of_globex["verdict"] == "few rows"
    assert "tells too much" in search("search", "plan", "clinic.patients").stdout
    search("search", "accept", *_NAME, "--reason", "a test")
    assert search.json("search", "plan", "--tenant", "acme")[0]["verdict"] == "accepted"
    search("search", "drop", *_NAME)
    assert "no searches" in search("search", "plan").stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("accept", *_NAME, "--reason", "why"), "has no search"),
        (("accept", "clinic.patients", "city", "--reason", "why"), "WK204"),
        (("plan", "clinic.nothing"), "clinic.nothing"),
    ],
)
def test_what_is_not_there_is_named(search: Wardkey, arguments: Sequence[str], text: str) -> None:
    assert text in search("search", *arguments, code=1).stderr
