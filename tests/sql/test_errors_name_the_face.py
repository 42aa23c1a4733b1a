"""Violated constraints are told as on the declared table: by face, constraint and column, not by the leaf."""

from __future__ import annotations

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
    assert (error.schema_name, error.table_name) == ("tenant_acme", "beds")
    assert (constraint or column or "") in (error.message_primary or "")
    told = everything(caught.value)
    assert "beds_sealed" not in told and "ward_internal" not in told


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
    assert one.replace("tenant_acme", "tenant_globex").replace(acme, globex) == two
