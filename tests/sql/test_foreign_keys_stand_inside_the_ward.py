"""Foreign keys of the declared tables do in each ward what they say, actions and deferral included."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from tests.support.database import Connection, Database

MODELS = """
create table clinic.parents (
  id integer primary key, a integer, b text, secret text, constraint parents_ab unique (a, b));
select ward.protect('clinic.parents', '{secret}');
create table clinic.children (
  id integer primary key, secret text,
  cascading integer references ward_model.clinic__parents on delete cascade on update cascade,
  nulled integer references ward_model.clinic__parents on delete set null,
  defaulted integer default 0 references ward_model.clinic__parents on delete set default,
  restricted integer references ward_model.clinic__parents on delete restrict,
  plain integer references ward_model.clinic__parents,
  late integer references ward_model.clinic__parents deferrable initially deferred,
  deferrable_one integer references ward_model.clinic__parents deferrable,
  a integer, b text,
  constraint children_ab foreign key (a, b)
    references ward_model.clinic__parents (a, b) on delete set null (b),
  self integer references clinic.children on delete cascade,
  boss integer references clinic.children on delete set null
);
select ward.protect('clinic.children', '{secret}');
"""


@pytest.fixture
def ward(acme: Connection) -> Connection:
    acme.execute(
        "insert into parents (id, a, b, secret) select n, n, 'b' || n, 'p' || n from generate_series(0, 5) n"
    )
    return acme


def children(connection: Connection, columns: str) -> list[tuple[object, ...]]:
    return connection.execute(f"select {columns} from children order by id").fetchall()


def test_cascade(ward: Connection) -> None:
    ward.execute("insert into children (id, cascading, secret) values (1, 1, 'x'), (2, 2, 'y')")
    ward.execute("delete from parents where id = 1")
    assert children(ward, "id, secret") == [(2, "y")]
    ward.execute("update parents set id = 20 where id = 2")
    assert children(ward, "cascading, secret") == [(20, "y")]
    assert ward.execute("select secret from parents where id = 20").fetchall() == [("p2",)]


def test_set_null_and_set_default_keep_the_seals(ward: Connection) -> None:
    ward.execute("insert into children (id, nulled, defaulted, secret) values (1, 1, 2, 'x')")
    ward.execute("delete from parents where id in (1, 2)")
    assert children(ward, "nulled, defaulted, secret") == [(None, 0, "x")]


@pytest.mark.parametrize("column", ["restricted", "plain", "deferrable_one"])
def test_a_parent_in_use_stays(ward: Connection, column: str) -> None:
    ward.execute(f"insert into children (id, {column}) values (1, 1)")
    refusal = (errors.ForeignKeyViolation, errors.RestrictViolation)  # 23001: RESTRICT, from PostgreSQL 18 on
    with pytest.raises(refusal):
        ward.execute("delete from parents where id = 1")


@pytest.mark.parametrize("column", ["cascading", "restricted", "plain", "deferrable_one", "defaulted"])
def test_a_parent_that_is_not_there_is_refused(ward: Connection, column: str) -> None:
    with pytest.raises(errors.ForeignKeyViolation) as caught:
        ward.execute(f"insert into children (id, {column}) values (1, 99)")
    assert caught.value.diag.schema_name == "sealed_acme"


def test_deferred_is_checked_at_commit(ward: Connection) -> None:
    ward.execute("insert into children (id, late) values (1, 50)")
    ward.execute("insert into parents (id) values (50)")
    ward.execute("set constraints all immediate")
    ward.execute("set constraints all deferred")
    ward.execute("insert into children (id, late, deferrable_one) values (2, 60, 60)")
    with pytest.raises(errors.ForeignKeyViolation):
        ward.commit()


def test_several_columns(ward: Connection) -> None:
    ward.execute("insert into children (id, a, b) values (1, 1, 'b1'), (2, 1, null), (3, null, 'zz')")
    with pytest.raises(errors.ForeignKeyViolation), ward.transaction():
        ward.execute("insert into children (id, a, b) values (4, 1, 'b2')")
    ward.execute("delete from parents where id = 1")
    assert children(ward, "a, b") == [(1, None), (1, None), (None, "zz")]


def test_a_table_that_references_itself(ward: Connection) -> None:
    ward.execute("insert into children (id, self) values (1, null), (2, 1), (3, 2), (4, 4)")
    with pytest.raises(errors.ForeignKeyViolation), ward.transaction():
        ward.execute("insert into children (id, self) values (5, 99)")
    ward.execute("delete from children where id = 1")
    assert children(ward, "id") == [(4,)]
    ward.execute("delete from children")
    assert children(ward, "id") == []


def test_all_rows_of_a_table_that_references_itself_can_go_at_once(ward: Connection) -> None:
    """The first deletion changes the second row under the statement's feet."""
    ward.execute("insert into children (id, boss) values (1, null), (2, 1), (3, 1), (4, 2)")
    ward.execute("delete from children")
    assert children(ward, "id") == []


def test_a_row_that_a_join_finds_twice_is_updated_once(ward: Connection) -> None:
    ward.execute("update parents p set secret = n.x from (values ('one'), ('two')) n (x) where p.id = 1")
    (value,) = ward.execute("select secret from parents where id = 1").fetchone() or ("",)
    assert value in ("one", "two")


def test_keys_do_not_reach_other_tenants(shared: Database, ward: Connection) -> None:
    ward.commit()
    try:
        with shared.tenant("globex", subject="t") as globex:
            with pytest.raises(errors.ForeignKeyViolation):
                globex.execute("insert into children (id, plain) values (1, 1)")
            globex.execute("insert into parents (id, a, b) values (1, 1, 'b1')")
            globex.execute("insert into children (id, cascading, defaulted) values (1, 1, null)")
            ward.execute("delete from parents where id = 1")
            ward.commit()
            assert globex.execute("select count(*) from children").fetchone() == (1,)
            globex.execute("delete from parents")
    finally:
        ward.execute("delete from parents")
        ward.commit()


def test_leaves_reference_leaves_only(shared: Database) -> None:
    with shared.admin() as admin:
        rows = admin.execute(
            "select conrelid::regclass::text, confrelid::regclass::text from pg_constraint"
            " where contype = 'f' and connamespace = 'sealed_acme'::regnamespace"
        ).fetchall()
    assert len(rows) == 10
    assert {target.split(".")[0] for _, target in rows} == {"sealed_acme"}


def test_a_referenced_table_has_to_be_protected_first(shared: Database) -> None:
    with shared.admin(autocommit=False) as admin:
        admin.execute("create table clinic.loose (id integer primary key)")
        admin.execute("create table clinic.needs (id integer primary key, l integer references clinic.loose)")
        with pytest.raises(psycopg.Error) as caught:
            admin.execute("select ward.protect('clinic.needs')")
        assert caught.value.sqlstate == "WK209"
        assert "ward.protect('clinic.loose')" in (caught.value.diag.message_hint or "")
        admin.rollback()
