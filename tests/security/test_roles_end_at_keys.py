"""What a role sees of a class, whatever way it asks, and that it has no key of what it does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.support.database import Connection, Database, clone
from tests.support.sqlstate import refused
from wardkey.embedded import Cluster

HIDDEN = "WK232"
NO_WRITE = "WK006"
ROW = {
    "name": "Ada Lovelace",
    "birth": "1985-12-10",
    "zip": "62704",
    "finding": "asthma",
    "note": "is worried",
    "account": "DE89370400440532013000",
}
CLASSES = {
    "name": "identifier",
    "birth": "quasi",
    "zip": "quasi",
    "finding": "clinical",
    "note": "note",
    "account": "financial",
}
MASKED = {"birth": "1985-01-01", "zip": "627"}
SEES: dict[str, dict[str, str]] = {
    "ADMIN": ROW,
    "EVALUATOR": ROW,
    "ANALYST": {**MASKED, "finding": ROW["finding"]},
    "VIEWER": {name: ROW[name] for name in ("name", "birth", "zip", "finding")},
    "SUPER_ADMIN": {},
}
"""By role, the columns that it sees, and what; the others are refused."""

SCHEMA = """
create schema chart;
create table chart.people (
  id integer primary key, ward text, name text, birth date, zip char(5), finding text, note text, account text
);
select ward.protect('chart.people', seal => '{"name": "identifier", "birth": "quasi", "zip": "quasi",
  "finding": "clinical", "note": "note", "account": "financial"}');
select ward.set_mask('chart.people', 'zip', 'zip3');
create table chart.visits (
  id integer primary key, person integer references ward_model.chart__people on delete cascade, reason text
);
select ward.protect('chart.visits', seal => '{"reason": "clinical"}');
"""
FILL = """
insert into people values
  (1, 'east', %(name)s, %(birth)s, %(zip)s, %(finding)s, %(note)s, %(account)s),
  (2, 'west', 'B', null, null, null, null, null);
insert into visits values (10, 1, 'cough'), (20, 2, 'fever');
"""

Reader = Callable[[Connection, str], Any]


def _copied(connection: Connection, column: str) -> Any:
    with connection.cursor().copy(f"copy (select {column} from people where id = 1) to stdout") as copy:
        ((value,),) = copy.rows()
    return value


def _fetched(connection: Connection, column: str) -> Any:
    with connection.transaction():
        connection.execute(f"declare c cursor for select {column}::text from people where id = 1")
        return connection.execute("fetch c").fetchone()[0]  # type: ignore[index]


def _prepared(connection: Connection, column: str) -> Any:
    for _ in range(7):  # the plan becomes a generic one
        row = connection.execute(
            f"select {column}::text from people where id = %s", [1], prepare=True
        ).fetchone()
    return row and row[0]


def _query(text: str) -> Reader:
    def read(connection: Connection, column: str) -> Any:
        row = connection.execute(text.format(column)).fetchone()
        return row and row[0]

    return read


READERS: dict[str, Reader] = {
    "select": _query("select {}::text from people where id = 1"),
    "copy": _copied,
    "cursor": _fetched,
    "prepared": _prepared,
    "join": _query("select p.{}::text from visits v join people p on p.id = v.person where v.id = 10"),
    "outer join": _query(
        "select p.{}::text from visits v left join people p on p.id = v.person where v.id = 10"
    ),
    "subquery": _query("select (select max({}::text) from people where id = 1)"),
    "whole row": _query("select to_jsonb(p) ->> '{0}' from (select {0} from people where id = 1) as p"),
    "aggregate": _query("select string_agg({}::text, '') from people where id = 1"),
    "window": _query("select first_value({0}::text) over (order by id) from people where id = 1"),
    "array": _query("select (array(select {}::text from people where id = 1))[1]"),
    "CTE": _query("with p as materialized (select {0} from people where id = 1) select {0}::text from p"),
}


@pytest.fixture(scope="module")
def chart(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(SCHEMA)
        for slug in ("acme",):
            with psycopg.connect(database.dsn(f"tenant_{slug}"), autocommit=True) as connection:
                connection.execute("select ward.login_session(%s)", [database.token(slug)])
                with psycopg.ClientCursor(connection) as cursor:
                    cursor.execute(FILL, ROW)
        yield database


@pytest.fixture(params=SEES)
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def as_role(chart: Database, role: str) -> Iterator[Connection]:
    with chart.tenant("acme", role=role) as connection:
        yield connection


@pytest.mark.parametrize("way", READERS)
def test_each_cell_of_the_matrix_holds_whatever_way_one_reads(
    as_role: Connection, role: str, way: str
) -> None:
    for column in ROW:
        if column in SEES[role]:
            value = READERS[way](as_role, column)
            assert value.rstrip() == SEES[role][column], column
        else:
            with refused(HIDDEN):
                READERS[way](as_role, column)


Writer = Callable[[Connection], object]


def _copied_in(connection: Connection) -> None:
    with connection.cursor().copy("copy people (id, ward, name) from stdin") as copy:
        copy.write_row((3, "east", "Cleo"))


def _statement(text: str) -> Writer:
    return lambda connection: connection.execute(text)  # type: ignore[arg-type]


WRITERS: dict[str, Writer] = {
    "insert": _statement("insert into people (id, name) values (3, 'Cleo')"),
    "insert of plain columns": _statement("insert into people (id, ward) values (3, 'east')"),
    "insert … returning": _statement("insert into people (id, name) values (3, 'Cleo') returning id"),
    "insert of a query": _statement("insert into people (id) select id + 10 from people where id = 1"),
    "copy": _copied_in,
    "update": _statement("update people set finding = 'none' where id = 1"),
    "update of a plain column": _statement("update people set ward = 'north' where id = 1"),
    "update from a join": _statement("update people p set ward = 'x' from visits v where v.person = p.id"),
    "prepared update": lambda connection: connection.execute(
        "update people set ward = %s where id = %s", ["north", 1], prepare=True
    ),
    "delete": _statement("delete from people where id = 1"),
    "delete that cascades": _statement("delete from people where id = 1 returning id"),
    "upsert": _statement("select ward.upsert('people', '[{\"id\": 1, \"ward\": \"north\"}]')"),
    "upsert of a new row": _statement("select ward.upsert('people', '[{\"id\": 3, \"name\": \"Cleo\"}]')"),
    "upsert that ignores": _statement(
        "select ward.upsert('people', '[{\"id\": 3, \"name\": \"Cleo\"}]', ignore => true)"
    ),
    "in a CTE": _statement("with d as (delete from visits where id = 10 returning 1) select * from d"),
}  # fmt: skip


@pytest.mark.parametrize("way", WRITERS)
def test_who_may_not_write_changes_nothing_whatever_way_it_writes(
    as_role: Connection, role: str, way: str
) -> None:
    def content() -> list[tuple[Any, ...]]:
        return as_role.execute(
            "select p.id, ward, v.id from people p left join visits v on v.person = p.id order by p.id"
        ).fetchall()

    with as_role.transaction(force_rollback=True):
        before = content()
        if role in ("ADMIN", "EVALUATOR"):
            WRITERS[way](as_role)
            if way != "update":
                assert content() != before
            return
        with refused(NO_WRITE, HIDDEN), as_role.transaction():  # the face's trigger is given the whole row
            WRITERS[way](as_role)
        assert content() == before


RETURNED: dict[str, str] = {
    "update": "update people set ward = ward where id = 1 returning {}::text",
    "update of an alias": "update people as p set ward = ward where p.id = 1 returning p.{}::text",
    "CTE": "with u as (update people set ward = ward where id = 1 returning *) select {}::text from u",
}


@pytest.fixture
def writing_analyst(chart: Database) -> Iterator[Connection]:
    """The platform lets ANALYST write, and see masks of what it does not see else."""
    policy = "select ward.set_policy('ANALYST', c, %s, %s) from unnest(%s::text[]) as c"
    masked = ["identifier", "note", "financial"]
    with chart.admin() as admin:
        admin.execute(policy, ["mask", False, masked])
        admin.execute(policy, ["mask", True, ["quasi"]])
        admin.execute(policy, ["clear", True, ["clinical"]])
    with chart.tenant("acme", role="ANALYST") as analyst:
        yield analyst
    with chart.admin() as admin:
        admin.execute(policy, ["none", False, masked])
        admin.execute(policy, ["mask", False, ["quasi"]])
        admin.execute(policy, ["clear", False, ["clinical"]])


@pytest.mark.parametrize("way", RETURNED)
def test_a_role_that_may_write_is_returned_the_masks_it_sees(writing_analyst: Connection, way: str) -> None:
    for column in ROW:
        with writing_analyst.transaction(force_rollback=True):
            seen = READERS["select"](writing_analyst, column)
            (value,) = writing_analyst.execute(RETURNED[way].format(column)).fetchone()  # type: ignore[misc]
            assert value == seen and (value == ROW[column]) == (column == "finding"), column


def test_what_is_plain_is_seen_by_all(as_role: Connection) -> None:
    assert as_role.execute("select id, ward from people order by id").fetchall() == [(1, "east"), (2, "west")]


HELD = """
do language plpython3u $$
from wardkey_pg.entry import _session
from wardkey_core.envelope import ColumnKey
import gc
ring = _session._keyring._keys
names = {name for keys in ring.values() for held, _ in keys._released.values() for name in held}
made = sum(type(one) is ColumnKey for one in gc.get_objects())
plpy.execute("select set_config('test.held', '%s', false)" % ','.join(sorted(names)))
$$
"""


def _held(connection: Connection) -> set[str]:
    """Return the classes of which the backend has keys."""
    admin = "set local session authorization postgres"
    with connection.transaction():
        connection.execute(admin)
        connection.execute(HELD)
    (names,) = connection.execute("select current_setting('test.held')").fetchone()  # type: ignore[misc]
    return set(filter(None, names.split(",")))


def test_a_backend_has_no_key_of_what_its_role_does_not_see(chart: Database, role: str) -> None:
    """A superuser's session that took on the tenant's role, to look into the backend afterwards."""
    with psycopg.connect(chart.dsn(), autocommit=True) as connection:
        connection.execute("set session authorization tenant_acme")
        with connection.transaction():
            connection.execute("select ward.login(%s)", [chart.token("acme", role=role)])
            connection.execute("set local search_path = tenant_acme")
            for column in ROW:
                try:
                    with connection.transaction():
                        connection.execute(f"select {column} from people").fetchall()
                except psycopg.Error as error:
                    assert error.sqlstate == HIDDEN
        connection.execute("reset session authorization")
        connection.execute(HELD)
        (names,) = connection.execute("select current_setting('test.held')").fetchone()  # type: ignore[misc]
    assert set(filter(None, names.split(","))) == {CLASSES[column] for column in SEES[role]}
