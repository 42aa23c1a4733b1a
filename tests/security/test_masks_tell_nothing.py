"""Who sees a mask learns no more by asking otherwise: each attack is shown to work in the clear.

There are no oracles of UNIQUE and foreign keys: protect takes no table that has one on a sealed column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import psycopg
import pytest

from tests.support.database import Connection, Database, clone
from tests.support.sqlstate import everything, refused
from wardkey.embedded import Cluster

BIRTH = date(1985, 12, 10)
ZIP = "62704"
SCHEMA = """
create schema chart;
create table chart.people (
  id integer primary key, ward text, name text, birth date check (birth > '1900-01-01'), zip char(5),
  finding text, weight numeric, age smallint, phone text
);
select ward.protect('chart.people', seal => '{"name": "identifier", "birth": "quasi", "zip": "quasi",
  "finding": "clinical", "weight": "quasi", "age": "quasi", "phone": "quasi"}');
select ward.set_mask('chart.people', 'zip', 'zip3'), ward.set_mask('chart.people', 'age', 'age90'),
  ward.set_mask('chart.people', 'phone', 'last4');
select ward.set_policy('ANALYST', 'quasi', 'mask', true), ward.set_policy('ANALYST', 'identifier', 'mask'),
  ward.set_policy('ANALYST', 'clinical', 'clear', true);
"""
FILL = """
insert into people values
  (1, 'east', 'Ada', '1985-12-10', '62704', 'asthma', 71.5, 34, '555-0199-1234'),
  (2, 'east', 'Bob', '1985-03-01', '62799', 'none', 80, 93, '555-1'),
  (3, 'west', 'Cleo', '1985-07-07', '10201', 'none', null, 90, null),
  (4, 'west', 'Dan', '1990-01-31', 'abc', 'none', 60, 12, '')
"""

Attack = Callable[[Connection], object]


def _first(connection: Connection, statement: str) -> object:
    row = connection.execute(statement).fetchone()
    return row and row[0]


def _search(connection: Connection) -> object:
    """Binary search by WHERE."""
    low, high = date(1900, 1, 1), date(2030, 1, 1)
    while low < high:
        middle = low + timedelta(days=(high - low).days // 2)
        if _first(connection, f"select count(*) from people where id = 1 and birth <= '{middle}'"):
            high = middle
        else:
            low = middle + timedelta(days=1)
    return low


def _fails(statement: str) -> Attack:
    """Whether the statement fails is one bit of the value."""

    def attack(connection: Connection) -> object:
        try:
            with connection.transaction():
                connection.execute(statement).fetchall()
        except psycopg.Error as error:
            assert error.sqlstate and not error.sqlstate.startswith("WK")
            return BIRTH if "birth" in statement else ZIP
        return None

    return attack


def _if(expected: object, statement: str) -> Attack:
    """The value is known when the answer is ``expected``."""
    return lambda connection: BIRTH if connection.execute(statement).fetchall() == expected else None


def _value(statement: str) -> Attack:
    return lambda connection: _first(connection, statement)


_ONE = "from people where id = 1"
ATTACKS: dict[str, Attack] = {
    "it is there": _value(f"select birth {_ONE}"),
    "binary search by WHERE": _search,
    "equality": _value(f"select max(birth) from people where birth = '{BIRTH}'"),
    "LIKE": _value(f"select '{ZIP}' from people where zip like '{ZIP}%'"),
    "HAVING": _value(f"select max(birth) from people group by birth having birth = '{BIRTH}'"),
    "join with guesses": _value(
        f"select g.d from (values (date '{BIRTH}')) as g (d) join people on people.birth = g.d"
    ),
    "CASE": _value(f"select case when birth = '{BIRTH}' then '{BIRTH}' end {_ONE}"),
    "division by zero": _fails(f"select 1 / (birth - '{BIRTH}') {_ONE}"),
    "a cast that fails": _fails(f"select (case when zip = '{ZIP}' then 'x' else '1' end)::int from people"),
    "an array's bound": _fails(f"select (array[1])[0:1 / (birth - '{BIRTH}')] {_ONE}"),
    "ORDER BY": _if([(2,), (3,), (1,)], "select id from people where id < 4 order by birth, id desc"),
    "rank": _if(
        [(3,)], "select r from (select id, rank() over (order by birth) as r from people) as q where id = 1"
    ),
    "DISTINCT": _if([(3,)], "select count(distinct birth) from people where id < 4"),
    "a CHECK's error": _fails(
        f"insert into people (id, birth) select 100, '1900-01-01'::date - (birth - '{BIRTH}') {_ONE}"
        " returning id"
    ),
    "a query as text": _value(f"select cast(substr(q::text, strpos(q::text, '<birth>') + 7, 10) as date)"
                              f" from query_to_xml('select birth {_ONE}', false, true, '') as q"),
    "whole rows": _value(f"select (to_jsonb(p) ->> 'birth')::date from (select birth {_ONE}) as p"),
    "RETURNING": _value("update people set ward = ward where id = 1 returning birth"),
}  # fmt: skip


@pytest.fixture(scope="module")
def chart(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(SCHEMA)
        with database.tenant("acme", role="ADMIN") as connection:
            connection.execute(FILL)
        yield database


@pytest.fixture
def analyst(chart: Database) -> Iterator[Connection]:
    with chart.tenant("acme", role="ANALYST") as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def admin(chart: Database) -> Iterator[Connection]:
    with chart.tenant("acme", role="ADMIN") as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_that_works_in_the_clear_finds_nothing(chart: Database, attack: Attack) -> None:
    seen = {}
    for role in ("ADMIN", "ANALYST"):
        with chart.tenant("acme", role=role) as attacker, attacker.transaction(force_rollback=True):
            seen[role] = str(attack(attacker))
    assert seen["ADMIN"] in (str(BIRTH), ZIP)
    assert seen["ANALYST"] not in (str(BIRTH), ZIP)


def test_masks_keep_the_type_and_show_what_they_say(analyst: Connection) -> None:
    query = "select birth, zip, weight, age, phone from people order by id"
    year = date(1985, 1, 1)
    assert analyst.execute(query).fetchall() == [
        (year, "627  ", None, 34, "****1234"),
        (year, "627  ", None, 90, "****"),
        (year, "000  ", None, 90, None),
        (date(1990, 1, 1), "000  ", None, 12, "****"),
    ]


def _stored(chart: Database) -> list[tuple[object, ...]]:
    with chart.admin() as superuser:
        (leaf,) = superuser.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'chart.people'::regclass"
            " and exists (select from pg_class where oid = inhrelid and relname like 'people%')"
            " and inhrelid::regclass::text like '%acme%'"
        ).fetchone()  # type: ignore[misc]
        return superuser.execute(f"select id, birth, zip, weight, age from {leaf} order by id").fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "update people set birth = birth, zip = zip, weight = weight, age = age",
        "update people set ward = 'north'",
        "update people set finding = finding || '.'",
        "update people as p set birth = q.birth from people as q where p.id = q.id",
        "select ward.upsert('people', (select jsonb_agg(p) from (select id, birth from people) as p))",
    ],
)
def test_a_masked_row_that_is_written_back_keeps_its_values(chart: Database, statement: str) -> None:
    before = _stored(chart)
    with chart.tenant("acme", role="ANALYST") as analyst:
        analyst.execute(statement)
    assert _stored(chart) == before
    with chart.tenant("acme", role="ADMIN") as admin:
        admin.execute("update people set ward = 'east', finding = rtrim(finding, '.')")


def test_a_masked_key_change_is_refused_for_it_would_seal_the_masks(
    analyst: Connection, admin: Connection
) -> None:
    with refused("WK006"), analyst.transaction():
        analyst.execute("update people set id = 50 where id = 4")
    admin.execute("update people set id = 50 where id = 1")
    assert admin.execute("select birth from people where id = 50").fetchone() == (BIRTH,)


def test_what_a_role_does_not_see_it_neither_updates_nor_deletes(analyst: Connection) -> None:
    """An INSTEAD OF trigger is given the whole old row, of which the name is hidden."""
    for statement in ("delete from people where id = 1", "update people set name = 'x' where id = 1"):
        with pytest.raises(psycopg.Error) as caught, analyst.transaction():
            analyst.execute(statement)
        assert caught.value.sqlstate in ("WK006", "WK232") and "Ada" not in everything(caught.value)
