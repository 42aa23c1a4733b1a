"""Resealing leaves every value, every row and every watcher as it was; only the key is another."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire, rotate, states, versions
from tests.support.sqlstate import refused

_TYPES = {
    "t": ("text", "'Grüße 🌻'"),
    "v": ("varchar(5)", "''"),
    "c": ("char(4)", "'a'"),
    "b": ("boolean", "true"),
    "s": ("smallint", "-32768"),
    "i": ("integer", "2147483647"),
    "l": ("bigint", "-9223372036854775808"),
    "n": ("numeric", "'1e-300'"),
    "r": ("real", "'1e-45'"),
    "d": ("double precision", "'-0'"),
    "da": ("date", "'infinity'"),
    "ti": ("time", "'24:00'"),
    "tz": ("timetz", "'12:00+15:59'"),
    "ts": ("timestamp", "'4713-01-01 BC'"),
    "tt": ("timestamptz", "'294276-12-31 23:59:59.999999+00'"),
    "iv": ("interval", "'-178000000 years'"),
    "u": ("uuid", "gen_random_uuid()"),
    "j": ("json", """'{"a" : 1}'"""),
    "jb": ("jsonb", """'{"a": [null]}'"""),
    "ba": ("bytea", "'\\x00ff'"),
    "ip": ("inet", "'::1/64'"),
    "ta": ("text[]", "array['a', null, '']"),
    "ia": ("integer[]", "'{}'"),
}


def _content(
    database: Database, query: str = "select * from patients order by id"
) -> list[tuple[object, ...]]:
    with database.tenant("acme", role="ADMIN") as ward:
        return list(ward.execute(query).fetchall())


@pytest.fixture
def filled(database: Database) -> Database:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(
            "insert into patients (name, ssn, birth_date)"
            " select 'Patient ' || n, nullif('999-' || n, '999-7'),"
            " case when n % 2 = 0 then date '1990-01-01' + n end"
            " from generate_series(1, 300) as n"
        )
    return database


def test_values_and_nulls_stay_and_every_value_moves(filled: Database, postgresql: Connection) -> None:
    before = _content(filled)
    assert versions(postgresql) == {1: 749}
    rotate(postgresql)
    assert _content(filled) == before
    done = reseal(postgresql, blocks=3)
    assert done == (300, 749, 0, 0)
    assert versions(postgresql) == {2: 749}
    assert reseal(postgresql) == (0, 0, 0, 0)
    assert _content(filled) == before
    assert retire(postgresql) == [1]
    assert _content(filled) == before
    assert states(postgresql) == {1: "retired", 2: "active"}
    row = postgresql.execute(
        "select rows, fields, failed, finished_at is null from ward.rotations"
    ).fetchone()
    assert row == (300, 749, 0, False)


def test_every_type_key_and_size_survives(database: Database, postgresql: Connection) -> None:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in _TYPES.items())
    postgresql.execute(
        f"""
        create table clinic.wide (
          k1 int, k2 text, k3 uuid default gen_random_uuid(), {columns}, primary key (k2, k1, k3));
        create table clinic.named (name text primary key, secret text);
        create table clinic.open (id int primary key, note text);
        """
    )
    postgresql.execute("select ward.protect('clinic.wide', seal => %s)", [list(_TYPES)])
    postgresql.execute("select ward.protect('clinic.named', seal => '{secret}'), ward.protect('clinic.open')")
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(f"insert into wide values (1, 'k', default, {', '.join(v for _, v in _TYPES.values())})")
        ward.execute("insert into wide (k1, k2) values (2, '')")
        ward.execute(
            "insert into wide (k1, k2, t, ba) values (3, 'huge', repeat('x', 5000000), %s)", [b"\x01" * 70000]
        )
        ward.execute("insert into named values ('Zoë', 'secret'), ('', null)")
        ward.execute("insert into open values (1, 'plain')")
    queries = [
        "select w::text from wide w order by k1",
        "select * from named order by name",
        "select * from open",
    ]
    before = [_content(database, query) for query in queries]
    rotate(postgresql)
    assert reseal(postgresql).failed == 0
    assert set(versions(postgresql)) == {2}
    assert [_content(database, query) for query in queries] == before
    assert retire(postgresql) == [1]
    assert [_content(database, query) for query in queries] == before


def test_no_trigger_fires_and_the_session_is_as_before(filled: Database, postgresql: Connection) -> None:
    postgresql.execute(
        """
        create function clinic.refuse() returns trigger language plpgsql as
          $$ begin raise 'somebody changed a row'; end $$;
        alter event trigger ward_follow_models disable;
        create trigger watch before update on clinic.patients for each row execute function clinic.refuse();
        """
    )
    rotate(postgresql)
    assert reseal(postgresql).rows == 300
    assert postgresql.execute("show session_replication_role").fetchone() == ("origin",)
    with filled.tenant("acme", role="ADMIN") as ward, pytest.raises(psycopg.Error, match="somebody changed"):
        ward.execute("update patients set city = 'Elsewhere' where id = 1")


@pytest.mark.parametrize("kind", ["always", "replica"])
def test_a_trigger_that_would_fire_all_the_same_is_named(
    filled: Database, postgresql: Connection, kind: str
) -> None:
    postgresql.execute(
        f"""
        create function clinic.watch() returns trigger language plpgsql as $$ begin return new; end $$;
        alter event trigger ward_follow_models disable;
        create trigger watch after update on clinic.patients for each row execute function clinic.watch();
        alter table clinic.patients enable {kind} trigger watch;
        """
    )
    rotate(postgresql)
    with pytest.raises(psycopg.Error, match="watch") as failed:
        reseal(postgresql)
    assert failed.value.sqlstate == "WK209"


def test_an_altered_value_is_named_left_and_keeps_its_key(filled: Database, postgresql: Connection) -> None:
    postgresql.execute(
        "update sealed_acme.patients set ssn = set_byte(ssn, 20, get_byte(ssn, 20) # 1) where id = 5"
    )
    rotate(postgresql)
    for _ in range(2):
        assert reseal(postgresql).failed == 1
    assert versions(postgresql) == {1: 1, 2: 748}
    named = postgresql.execute("select detail from ward.events where kind = 'unopened'").fetchall()
    assert named == [({"table": "patients", "values": 1, "named": [{"column": "ssn", "row": {"id": 5}}]},)]
    with refused("WK214"):
        retire(postgresql)
    assert len(_content(filled, "select name from patients")) == 300
    postgresql.execute(
        "update sealed_acme.patients set ssn = set_byte(ssn, 20, get_byte(ssn, 20) # 1) where id = 5"
    )
    assert reseal(postgresql) == (1, 1, 0, 0)
    assert retire(postgresql) == [1]
    assert _content(filled, "select ssn from patients where id = 5") == [("999-5",)]


@pytest.mark.parametrize("wreck", ["'\\x00'::bytea", "set_byte(ssn, 4, 77)", "''::bytea"])
def test_bytes_of_no_key_block_retirement(filled: Database, postgresql: Connection, wreck: str) -> None:
    postgresql.execute(f"update sealed_acme.patients set ssn = {wreck} where id = 5")
    rotate(postgresql)
    assert reseal(postgresql).failed == 1
    with refused("WK214"):
        retire(postgresql)


def test_writers_of_the_same_rows_lose_nothing(filled: Database, postgresql: Connection) -> None:
    """Each writer counts in rows that resealing moves meanwhile, round after round."""
    stop = threading.Event()
    counts, errors = [0, 0], []
    with filled.tenant("acme", role="ADMIN") as ward:
        ward.execute("update patients set ssn = '0', city = '0'")

    def count(number: int) -> None:
        try:
            with filled.tenant("acme", subject=f"w{number}") as ward:
                while not stop.is_set():
                    ward.execute(
                        "update patients set ssn = (ssn::int + 1)::text where id between %s and %s",
                        [number * 100 + 1, number * 100 + 20],
                    )
                    counts[number] += 1
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=count, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for version in range(2, 6):
        rotate(postgresql)
        while set(versions(postgresql)) != {version}:
            reseal(postgresql, blocks=1)
        for _ in range(100):
            try:
                retire(postgresql)
                break
            except psycopg.errors.Error as error:
                assert error.sqlstate == "WK214"
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    for number in range(2):
        query = (
            f"select distinct ssn from patients where id between {number * 100 + 1} and {number * 100 + 20}"
        )
        assert _content(filled, query) == [(str(counts[number]),)]
    assert states(postgresql)[5] == "active" and set(versions(postgresql)) == {5}


def test_rows_that_somebody_holds_are_left_for_another_pass(filled: Database, postgresql: Connection) -> None:
    rotate(postgresql)
    with filled.tenant("acme", role="ADMIN") as ward:
        ward.execute("begin")
        ward.execute("update patients set ssn = 'mine' where id <= 10")
        done = reseal(postgresql)
        assert (done.rows, done.skipped) == (290, 10)
        ward.execute("commit")
    assert reseal(postgresql).rows == 10  # names and birth dates; the new ssn is of the new key
    assert set(versions(postgresql)) == {2}


def test_a_paused_rotation_moves_nothing(filled: Database, postgresql: Connection) -> None:
    rotate(postgresql)
    postgresql.execute("select ward.pause_rotation('acme')")
    with refused("WK215"):
        reseal(postgresql)
    postgresql.execute("select ward.pause_rotation('acme', false)")
    assert reseal(postgresql).rows == 300


def test_an_incident_in_the_middle_ends_with_one_key(filled: Database, postgresql: Connection) -> None:
    before = _content(filled)
    rotate(postgresql)
    model = postgresql.execute("select id from ward.models").fetchone()
    assert model
    postgresql.execute("select ward_internal.reseal('acme', %s, 0, 2)", model)
    with refused("WK213"):
        rotate(postgresql)
    postgresql.execute("select ward.rotate_key('acme', 'laptop stolen', p_incident => true)")
    assert set(versions(postgresql)) == {1, 2}
    with refused("WK214"):
        retire(postgresql)
    assert _content(filled) == before
    assert reseal(postgresql).rows == 300
    assert retire(postgresql) == [1, 2]
    assert _content(filled) == before
    rows = postgresql.execute(
        "select version, incident, finished_at is null from ward.rotations order by 1"
    ).fetchall()
    assert rows == [(2, False, False), (3, True, False)]
