"""ward.upsert stands in for ON CONFLICT: it updates given columns of the row with that key, or inserts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Connection

MODELS = """
create table clinic.readings (
  device text, at integer, seen timestamptz, value numeric, tags text[], raw jsonb, note text unique,
  primary key (device, at)
);
select ward.protect('clinic.readings', '{value,tags,raw}');
"""


def upsert(connection: Connection, face: str, *rows: Any) -> int:
    (count,) = connection.execute("select ward.upsert(%s, %s)", [face, Jsonb(list(rows))]).fetchone() or (-1,)
    return int(count)


def test_inserts_then_updates(acme: Connection) -> None:
    assert upsert(acme, "patients", {"id": 1, "name": "a", "ssn": "1"}, {"id": 2, "name": "b"}) == 2
    assert (
        upsert(acme, "patients", {"id": 1, "name": "A"}, {"id": 3, "name": "c", "birth_date": "1950-01-02"})
        == 2
    )
    rows = acme.execute("select id, name, ssn, city, birth_date::text from patients order by id").fetchall()
    assert rows == [(1, "A", "1", "Springfield", None), (2, "b", None, "Springfield", None),
                    (3, "c", None, "Springfield", "1950-01-02")]  # fmt: skip


def test_given_null_is_null_and_not_given_is_left(acme: Connection) -> None:
    upsert(acme, "patients", {"id": 1, "name": "a", "ssn": "1", "city": "Rome"})
    upsert(acme, "patients", {"id": 1, "name": "a", "ssn": None})
    assert acme.execute("select ssn, city from patients").fetchone() == (None, "Rome")


def test_keys_of_several_columns_and_any_type(acme: Connection) -> None:
    row = {
        "device": "d",
        "at": 1,
        "seen": "2024-01-01T00:00:00Z",
        "value": 1.50,
        "tags": ["a", None],
        "raw": {"k": [1]},
    }
    assert upsert(acme, "readings", row, {**row, "value": 2}, {**row, "device": "e"}) == 3
    rows = acme.execute("select device, value, tags, raw from readings order by 1").fetchall()
    assert rows == [("d", 2, ["a", None], {"k": [1]}), ("e", 1.5, ["a", None], {"k": [1]})]


def test_nothing_to_do(acme: Connection) -> None:
    assert upsert(acme, "patients") == 0


@pytest.mark.parametrize(
    "rows",
    [{"id": 1}, [{"name": "x"}], [{}], [1], ["id"], [["id"]], [None], [{"id": 1, "nope": 2}],
     [{"nope": 2}], "x", None,
     [{"ID": 1, "name": "x"}], [{"id": 1, "tenant_id": "x"}], [{"id": 1, "ctid": "(0,1)"}]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_row_is_refused(acme: Connection, rows: Any) -> None:
    with pytest.raises(psycopg.Error) as caught:
        acme.execute("select ward.upsert('patients', %s)", [Jsonb(rows)])
    assert caught.value.sqlstate == "WK204"
    assert caught.value.diag.message_hint


@pytest.mark.parametrize("face", ["clinic.icd10", "pg_class", "ward.tenants"])
def test_what_is_no_face_is_refused(acme: Connection, face: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        upsert(acme, face, {"id": 1})
    assert caught.value.sqlstate in ("WK204", "42501")


def test_another_unique_key_is_still_a_conflict(acme: Connection) -> None:
    upsert(acme, "readings", {"device": "d", "at": 1, "note": "n"})
    with pytest.raises(psycopg.errors.UniqueViolation):
        upsert(acme, "readings", {"device": "e", "at": 1, "note": "n"})


def test_all_or_nothing(acme: Connection) -> None:
    with pytest.raises(psycopg.Error), acme.transaction():
        upsert(acme, "patients", {"id": 1, "name": "a"}, {"id": 2, "name": None})
    assert acme.execute("select count(*) from patients").fetchone() == (0,)


def test_viewers_do_not_upsert(inside: Callable[..., Connection]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        upsert(inside(role="VIEWER"), "patients", {"id": 1, "name": "a"})
    assert caught.value.sqlstate == "WK006"


def test_upserts_of_one_key_at_once(inside: Callable[..., Connection]) -> None:
    connections = [inside() for _ in range(4)]
    outcomes: list[object] = []
    barrier = threading.Barrier(4)

    def run(number: int) -> None:
        barrier.wait(10)
        for _ in range(5):
            try:
                outcomes.append(upsert(connections[number], "patients", {"id": 77, "name": str(number)}))
            except psycopg.errors.SerializationFailure:
                outcomes.append("retry")

    threads = [threading.Thread(target=run, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 20 and set(outcomes) <= {1, "retry"}
    assert connections[0].execute("delete from patients where id = 77 returning id").fetchall() == [(77,)]
