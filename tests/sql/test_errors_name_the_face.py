"""Violated constraints are told as on the declared table, at once and at COMMIT, and without a value.

They are the leaf's, which has the name of its face, in a schema of its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.sqlstate import everything

MODELS = """
create extension citext;
create table clinic.beds (
  ward text collate "C", number int, label text unique, weight int not null check (weight > 0),
  tag citext unique, twice int generated always as (weight * 2) stored check (twice < 1000),
  "new" int, "Old" text default 'x' not null,
  owner text not null check (owner <> '' and length(owner) < 9), born date check (born > '1900-01-01'),
  wing int, place int, primary key (ward, number), unique nulls not distinct (wing, place),
  constraint both_or_none check (("new" is null) = (born is null))
);
create unique index only_heavy on clinic.beds (weight) where weight > 100;
select ward.protect('clinic.beds', '{owner,born}');
create table clinic.late (id int primary key, number int unique deferrable initially deferred);
select ward.protect('clinic.late');
create table clinic.colours (name text primary key);
insert into clinic.colours values ('red');
select ward.share('clinic.colours');
create table clinic.rooms (
  id int primary key, floor int, area int,
  half int generated always as (nullif(area, 0) / 2) stored not null check (half < 100), unique (half),
  constraint one_floor exclude using btree (floor with =)
);
alter table clinic.rooms drop constraint one_floor;
create unique index on clinic.rooms (abs(floor)) where floor <> 0;
select ward.protect('clinic.rooms');
create table clinic.lamps (
  id int primary key, note text, room int constraint lamps_room references ward_model.clinic__rooms,
  other int references clinic.lamps on delete cascade,
  colour text references clinic.colours, wing text, number int,
  late int references clinic.lamps deferrable initially deferred,
  foreign key (wing, number) references ward_model.clinic__beds on delete restrict on update cascade
);
select ward.protect('clinic.lamps', '{note}');
create table clinic.switches (id int primary key, lamp int references ward_model.clinic__lamps);
select ward.protect('clinic.switches');
"""
ROW = "insert into beds (ward, number, label, weight, tag, owner, wing, place) values "
FIRST = ROW + "('a', 1, 'one', 10, 'Tag', 'Ada', 1, null), ('a', 2, 'two', 200, 'other', 'Bo', 2, null)"
VIOLATIONS = [
    (ROW + "('a', 1, 'x', 1, 'x', 'x', 9, 9)", "23505", "beds_pkey", None),
    (ROW + "('b', 1, 'one', 1, 'x', 'x', 9, 9)", "23505", "beds_label_key", None),
    (ROW + "('b', 1, 'x', 1, 'TAG', 'x', 9, 9)", "23505", "beds_tag_key", None),
    (ROW + "('b', 1, 'x', 1, 'x', 'x', 1, null)", "23505", "beds_wing_place_key", None),
    ("update beds set number = 1 where number = 2", "23505", "beds_pkey", None),
    ("update beds set label = 'one' where number = 2", "23505", "beds_label_key", None),
    ("update beds set tag = 'tAG' where number = 2", "23505", "beds_tag_key", None),
    ("update beds set wing = 1 where number = 2", "23505", "beds_wing_place_key", None),
    (ROW + "('b', 1, 'x', 0, 'x', 'x', 9, 9)", "23514", "beds_weight_check", None),
    (ROW + "('b', 1, 'x', 1, 'x', '', 9, 9)", "23514", "beds_owner_check", None),
    ("update beds set weight = -1", "23514", "beds_weight_check", None),
    ("update beds set owner = '123456789'", "23514", "beds_owner_check", None),
    ("update beds set born = '1800-01-01', \"new\" = 1", "23514", "beds_born_check", None),
    ("update beds set \"new\" = 1", "23514", "both_or_none", None),
    (ROW + "('b', 1, 'x', null, 'x', 'x', 9, 9)", "23502", None, "weight"),
    (ROW + "('b', 1, 'x', 1, 'x', null, 9, 9)", "23502", None, "owner"),
    (ROW + "('b', null, 'x', 1, 'x', 'x', 9, 9)", "23502", None, "number"),
    ("update beds set \"Old\" = null", "23502", None, "Old"),
]  # fmt: skip


@pytest.fixture
def beds(acme: Connection) -> Connection:
    acme.execute(FIRST)
    return acme


@pytest.mark.parametrize(("statement", "sqlstate", "constraint", "column"), VIOLATIONS)
def test_constraints(
    beds: Connection, statement: str, sqlstate: str, constraint: str | None, column: str | None
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        beds.execute(statement)
    error = caught.value.diag
    assert (error.sqlstate, error.constraint_name, error.column_name) == (sqlstate, constraint, column)
    assert (error.schema_name, error.table_name) == ("sealed_acme", "beds")
    assert (constraint or column or "") in (error.message_primary or "")
    assert error.message_detail is None and "ward_internal" not in everything(caught.value)


ROOM = "insert into rooms (id, floor, area) values "
LAMP = "insert into lamps (id, room, other, colour, wing, number, late) values "
OTHERS = [
    (ROOM + "(1, 9, 90)", "23505", "rooms_pkey", "rooms"),
    (ROOM + "(3, 9, 10)", "23505", "rooms_half_key", "rooms"),
    (ROOM + "(3, -1, 90)", "23505", "rooms_abs_idx", "rooms"),
    (ROOM + "(3, 9, 0)", "23502", None, "rooms"),
    (ROOM + "(3, 9, 200)", "23514", "rooms_half_check", "rooms"),
    ("update rooms set area = 0", "23502", None, "rooms"),
    ("update rooms set area = 200", "23514", "rooms_half_check", "rooms"),
    ("update rooms set floor = -1 where id = 2", "23505", "rooms_abs_idx", "rooms"),
    ("update rooms set area = 10 where id = 2", "23505", "rooms_half_key", "rooms"),
    (LAMP + "(9, 8, null, null, null, null, null)", "23503", "lamps_room", "lamps"),
    (LAMP + "(9, 1, 8, null, null, null, null)", "23503", "lamps_other_fkey", "lamps"),
    (LAMP + "(9, 1, 1, 'blue', null, null, null)", "23503", "lamps_colour_fkey", "lamps"),
    (LAMP + "(9, 1, 1, 'red', 'a', 9, null)", "23503", "lamps_wing_number_fkey", "lamps"),
    (LAMP + "(1, 1, 1, 'red', 'a', 1, null)", "23505", "lamps_pkey", "lamps"),
    ("update lamps set room = 8", "23503", "lamps_room", "lamps"),
    ("update lamps set colour = 'blue'", "23503", "lamps_colour_fkey", "lamps"),
    ("delete from rooms where id = 1", "23503", "lamps_room", "lamps"),
    ("update rooms set id = 7 where id = 1", "23503", "lamps_room", "lamps"),
    ("delete from beds", "23001", "lamps_wing_number_fkey", "lamps"),  # 23503 before PostgreSQL 18
    ("delete from lamps where id = 1", "23503", "switches_lamp_fkey", "switches"),
    ("delete from lamps where id = 3", "23503", "switches_lamp_fkey", "switches"),  # of one that goes along
]


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
@pytest.mark.parametrize(("statement", "sqlstate", "constraint", "table"), OTHERS)
def test_the_rarer_ones(
    acme: Connection, statement: str, sqlstate: str, constraint: str | None, table: str, level: str
) -> None:
    acme.rollback()
    acme.execute(f"set transaction isolation level {level}")
    acme.execute(FIRST)
    acme.execute(ROOM + "(1, 1, 10), (2, 2, 20)")
    acme.execute(
        LAMP
        + "(1, 1, 1, 'red', 'a', 1, 1), (3, null, null, null, null, null, null), (2, 1, 3, 'red', null, 1, 9)"
    )
    acme.execute("insert into switches values (1, 1), (2, 2)")
    with pytest.raises(psycopg.Error) as caught:
        acme.execute(statement)
    error = caught.value.diag
    assert sqlstate in (error.sqlstate, "23001") and error.sqlstate in (sqlstate, "23503")
    assert (error.schema_name, error.table_name, error.constraint_name) == ("sealed_acme", table, constraint)
    assert table in (error.message_primary or "") and "ward_internal" not in everything(caught.value)
    assert re.fullmatch(
        r"Key is (not present in|(still )?referenced from) table .*", error.message_detail or ""
    ) or (error.message_detail is None and sqlstate != "23503")


def test_a_conflict_is_ignored_before_a_reference_is_looked_at(acme: Connection) -> None:
    acme.execute("insert into lamps (id) values (1)")
    assert acme.execute("insert into lamps (id, room) values (1, 8) on conflict do nothing").rowcount == 0
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        acme.execute("insert into lamps (id, room) values (2, 8) on conflict do nothing")


def test_the_declared_table_has_the_same_errors(shared: Database) -> None:
    """Each is one of PostgreSQL's own."""
    with shared.admin() as admin, pytest.raises(psycopg.Error) as caught, admin.transaction():
        admin.execute("alter table sealed_acme.switches disable trigger ward_audit")
        admin.execute(
            "insert into sealed_acme.switches select id, 1, 99 from ward.tenants where slug = 'acme'"
        )
    assert caught.value.diag.table_name == "switches"


def test_no_write_takes_a_subtransaction(inside: Callable[..., Connection], shared: Database) -> None:
    """Each would cost a transaction id, and every snapshot beside it."""
    acme = inside()
    with shared.admin() as admin:

        def transactions() -> int:
            acme.execute("commit")
            rows = admin.execute("select distinct xmin::text from sealed_acme.lamps").fetchall()
            acme.execute("begin")
            return len(rows)

        acme.execute("begin")
        acme.execute(FIRST)
        acme.execute(ROOM + "(1, 1, 10)")
        acme.execute(LAMP + "(1, 1, null, 'red', 'a', 1, 8), (8, 1, 1, 'red', 'a', 1, null)")
        assert transactions() == 1
        acme.execute("update lamps set note = 'x', number = number")
        assert transactions() == 1
        acme.execute("update lamps set room = null, other = id")
        assert transactions() == 1
        acme.execute("insert into lamps (id) values (1), (9) on conflict do nothing")
        acme.execute("delete from lamps where id = 1")
        assert transactions() == 2
        acme.execute("delete from lamps; delete from rooms; delete from beds; commit")


def test_what_is_no_violation_is_stored(beds: Connection) -> None:
    beds.execute(
        "update beds set ward = 'b', number = 7, label = 'ONE', tag = 'TAG', wing = 1, weight = 11"
        " where number = 1"
    )
    beds.execute("update beds set label = label, tag = tag, number = number")
    beds.execute(ROW + "('c', 1, null, 3, null, 'Cy', 3, 3), ('c', 2, null, 3, null, 'Cy', 3, 4)")
    assert beds.execute("select count(*) from beds").fetchone() == (4,)
    for statement in (
        ROW + "('d', 1, 'x', 200, 'x', 'x', 9, 9)",
        "update beds set weight = 600 where number = 1",
    ):
        with (
            pytest.raises(psycopg.Error) as caught,
            beds.transaction(),
        ):  # an index over a part, and a generated column
            beds.execute(statement)
        assert caught.value.sqlstate in ("23505", "23514")


def test_deferrable_keys_are_checked_at_the_end(acme: Connection) -> None:
    acme.execute("insert into late values (1, 1), (2, 1)")
    acme.execute("update late set number = 2 where id = 2")
    acme.execute("set constraints all immediate")


INSERTED = (
    'ERROR:  insert or update on table "lamps" violates foreign key constraint "lamps_late_fkey"\n'
    'DETAIL:  Key is not present in table "lamps".'
)
DELETED = (
    'ERROR:  update or delete on table "lamps" violates foreign key constraint "lamps_late_fkey"'
    ' on table "lamps"\nDETAIL:  Key is still referenced from table "lamps".'
)
PAIR = "insert into lamps (id, late) values (1, null), (2, 1);"
AT_THE_END = [
    ("insert into late values (1, 1), (2, 1)", "23505", "late_number_key", "late",
     'ERROR:  duplicate key value violates unique constraint "late_number_key"'),
    ("insert into lamps (id, late) values (1, 9)", "23503", "lamps_late_fkey", "lamps", INSERTED),
    (f"{PAIR} set constraints all immediate; set constraints all deferred; delete from lamps where id = 1",
     "23503", "lamps_late_fkey", "lamps", DELETED),
]  # fmt: skip


@pytest.mark.parametrize("end", ["commit", "set constraints all immediate"])
@pytest.mark.parametrize(("statements", "sqlstate", "constraint", "table", "told"), AT_THE_END)
def test_what_is_checked_at_the_end_names_constraint_and_face(
    shared: Database,
    acme: Connection,
    statements: str,
    sqlstate: str,
    constraint: str,
    table: str,
    told: str,
    end: str,
) -> None:
    """No value, key or tenant is told.

    Exclusion constraints and constraint triggers, the other kinds that can wait, are refused by protect.
    """
    acme.execute(statements)
    with pytest.raises(psycopg.Error) as caught:
        acme.execute(end)
    error = caught.value.diag
    assert (error.sqlstate, error.constraint_name) == (sqlstate, constraint)
    assert (error.schema_name, error.table_name) == ("sealed_acme", table)
    assert not re.search(r"tenant_id|ward_|[0-9a-f]{8}-", everything(caught.value))
    script = f"begin; select ward.login('{shared.token('acme')}'); {statements}; {end}; commit"
    run = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", shared.dsn("tenant_acme")]
    done = subprocess.run(run, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.strip().removeprefix("psql:<stdin>:1: ") == told


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_other_isolation_levels_have_the_same_errors(acme: Connection, level: str) -> None:
    acme.rollback()
    acme.execute(f"set transaction isolation level {level}")
    acme.execute(FIRST)
    with pytest.raises(psycopg.errors.UniqueViolation):
        acme.execute(VIOLATIONS[0][0])


def test_writers_differ_by_their_ward_alone(shared: Database) -> None:
    """The doctor compares each with that of a ward it makes."""
    with shared.admin() as admin:
        query = (
            "select t.id::text, p.prosrc from ward.tenants as t"
            " join pg_proc as p on p.proname = 'beds_write_' || t.slug"
        )
        rows = admin.execute(query + " where slug = any ('{acme,globex}') order by slug").fetchall()
    (acme, one), (globex, two) = rows
    assert re.sub(r"\b(tenant|sealed)_acme", r"\1_globex", one).replace(acme, globex) == two
