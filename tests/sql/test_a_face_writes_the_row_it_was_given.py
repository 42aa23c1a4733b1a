"""UPDATE and DELETE through a face reach the row their WHERE named, whatever became of the key."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database

MODELS = """
create table clinic.steps (id int primary key, title text, tag text);
select ward.protect('clinic.steps', seal => '{title}');
create table clinic.twins (id int primary key, title text, tag text);
select ward.protect('clinic.twins', seal => '{title}');
alter event trigger ward_forget_models disable;
alter event trigger ward_follow_models disable;
alter table clinic.twins drop constraint twins_pkey;
alter event trigger ward_forget_models enable always;
alter event trigger ward_follow_models enable always;
"""


@pytest.fixture
def admin(shared: Database) -> Iterator[Connection]:
    with shared.admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "alter table clinic.steps drop constraint steps_pkey",
        "alter table clinic.steps drop constraint steps_pkey, add primary key (tenant_id, id) deferrable",
        "alter table ward_model.clinic__steps drop constraint steps_pkey",
        "alter table clinic.steps drop column id cascade",
    ],
)
def test_the_key_stays_while_there_are_faces(admin: Connection, statement: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        admin.execute(statement)
    assert refused.value.sqlstate == "WK218"
    assert "key stays as it was declared" in (refused.value.diag.message_hint or "")


def test_a_key_that_is_not_unique_costs_no_row(acme: Connection) -> None:
    """A superuser took the key away behind our back: rows are told apart by their values."""
    acme.execute("insert into twins values (1, 'one', 'a'), (1, 'one', 'b'), (1, 'other', 'b')")
    assert acme.execute("delete from twins where tag = 'b' and title = 'one'").rowcount == 1
    assert acme.execute("update twins set title = 'new' where tag = 'a'").rowcount == 1
    rows = "select title, tag from twins order by tag"
    assert acme.execute(rows).fetchall() == [("new", "a"), ("other", "b")]
    acme.execute("insert into twins values (1, 'other', 'b')")
    assert acme.execute("delete from twins where id = 1").rowcount == 3
    assert acme.execute(rows).fetchall() == []


def test_renumbering_without_a_key_keeps_every_row(acme: Connection) -> None:
    acme.execute("insert into twins values (1, 'one', 'a'), (2, 'two', 'b'), (3, 'three', 'c')")
    acme.execute("update twins set id = id + 1")
    rows = [(2, "one", "a"), (3, "two", "b"), (4, "three", "c")]
    assert acme.execute("select id, title, tag from twins order by id").fetchall() == rows
