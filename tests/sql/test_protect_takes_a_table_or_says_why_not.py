"""protect, share and add_sealed_column do what is asked, or say why not, and by a hint what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database

MODELS = """
create type clinic.mood as enum ('sad', 'happy');
create domain clinic.email as text;
create type clinic.pair as (a text, b text);
"""


@pytest.fixture
def admin(shared: Database) -> Iterator[Connection]:
    with shared.admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


def refused(connection: Connection, statement: str, sqlstate: str, *words: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(statement)
    error = caught.value.diag
    assert caught.value.sqlstate == sqlstate, error.message_primary
    assert error.message_hint
    for word in words:
        assert word in f"{error.message_primary} {error.message_hint}"


SHORT = {
    "T;": "T(KEY, s text);",
    r"T\(": "create table C (",
    "KEY": "id int primary key",
    r"C\b": "clinic.t",
    "PATIENTS": "ward_model.clinic__patients",
}
PROTECT = "select ward.protect('clinic.t', '{s}')"


@pytest.mark.parametrize(
    ("ddl", "sqlstate", "word"),
    [
        ("T(id int, s text)", "WK205", "add primary key"),
        ("T(id int primary key)", "WK204", "no column s"),
        ("T(id int primary key deferrable, s text)", "WK209", "deferrable"),
        ("T(id int primary key deferrable initially deferred, s text)", "WK209", "NOT DEFERRABLE"),
        ("T(KEY, s text unique deferrable)", "WK207", "t_s_key"),
        ("T(KEY, s text unique nulls not distinct)", "WK207", "t_s_key"),
        ("T(id int, s text, primary key (id, s))", "WK207", "t_pkey"),
        ("T; create index i on C (s)", "WK207", "index i"),
        ("T; create index i on C (lower(s))", "WK207", "i "),
        ("T; create index i on C (id) where s > ''", "WK207", "i "),
        ("T; create index i on C (id) include (s)", "WK207", "i "),
        ("T(KEY, s text references clinic.icd10)", "WK207", "t_s_fkey"),
        ("T(KEY, s point)", "WK206", "type point"),
        ("T(KEY, s clinic.email)", "WK206", "clinic.email"),
        ("T(KEY, s clinic.pair)", "WK206", "clinic.pair"),
        ("T(KEY, s date[])", "WK206", "date[]"),
        ("T(KEY, s money)", "WK206", "money"),
        ("T(KEY, s oid)", "WK206", "oid"),
        ("T(KEY, s xml)", "WK206", "xml"),
        ("T(KEY, s int generated always as (id) stored)", "WK209", "generated"),
        ("T(KEY, s int generated always as identity)", "WK209", "generated"),
        ("T(KEY, s int, g int generated always as (s) stored)", "WK209", "made from"),
        ("T; insert into C values (1)", "WK208", "has rows"),
        ("T(KEY, s text, tenant_id uuid)", "WK209", "tenant_id"),
        ("T(id date primary key, s text)", "WK209", "integer, uuid or text keys"),
        ("create view C as select 1 as id, 'x' as s", "WK209", "not an ordinary table"),
        ("create materialized view C as select 1 as id, 'x' as s", "WK209", "not an ordinary table"),
        ("create temp table t (id int primary key, s text)", "42P01", ""),
        ("create unlogged table C (id int primary key, s text)", "WK209", "not an ordinary table"),
        ("T(KEY, s text) partition by list (id)", "WK209", "not an ordinary table"),
        ("create table clinic.b (id int); T(s text, primary key (id)) inherits (clinic.b)", "WK209",
         "inheritance"),
        ("T; create view clinic.v as select * from C", "WK209", "views"),
        ("T; create rule r as on insert to C do also nothing", "WK209",
         "rules"),
        ("T; alter table C enable row level security", "WK209",
         "row-level security"),
        ("T; create trigger g before update on C"
         " for each row execute function suppress_redundant_updates_trigger()", "WK209", "triggers"),
        ("T; create publication p for table C", "WK209", "published"),
        ("T(KEY, s text, exclude (id with =))", "WK209", "exclusion"),
        ("T(KEY, s text, check (id > 0) no inherit)", "WK209", "NO INHERIT"),
        ("create table clinic.o (id int primary key); T(id int primary key references clinic.o, s text)",
         "WK209", "not protected"),
        ("T(id bigint primary key references PATIENTS on update cascade, s text)",
         "WK209", "behind the seals"),
        ("T(id bigint primary key, s text, p bigint references PATIENTS on update set null)",
         "WK209", "SET NULL"),
        ("T(KEY, s text, a int, b int, c int, unique (a, b),"
         " foreign key (b, c) references C (a, b) match full)", "WK209", "MATCH FULL"),
    ],
)  # fmt: skip
def test_refusals(admin: Connection, ddl: str, sqlstate: str, word: str) -> None:
    for short, long in SHORT.items():
        ddl = re.sub(rf"\b{short}", long, ddl)
    admin.execute(ddl)
    if sqlstate == "42P01":
        with pytest.raises(psycopg.errors.UndefinedTable):
            admin.execute(PROTECT)
        return
    refused(admin, PROTECT, sqlstate, word)


@pytest.mark.parametrize(
    ("statement", "sqlstate", "word"),
    [
        ("select ward.protect('clinic.patients')", "WK209", "protected already"),
        ("select ward.protect('clinic.patients', '{city}')", "WK209", "add_sealed_column"),
        ("select ward.protect('ward_model.clinic__patients')", "WK209", "schema"),
        ("select ward.protect('sealed_acme.patients')", "WK209", ""),
        ("select ward.protect('tenant_acme.patients')", "WK209", ""),
        ("select ward.protect('ward_internal.tenants')", "WK209", ""),
        ("select ward.protect('pg_catalog.pg_class')", "WK209", ""),
        ("select ward.protect(null)", "WK209", ""),
        ("select ward.share('clinic.patients')", "WK209", ""),
        ("select ward.share('ward_model.clinic__patients')", "WK209", ""),
        ("select ward.share('tenant_acme.patients')", "WK209", ""),
        ("select ward.share('sealed_acme.patients')", "WK209", ""),
        ("select ward.share('ward_internal.tenant_keys')", "WK209", ""),
        ("select ward.share('pg_catalog.pg_authid')", "WK209", ""),
        ("select ward.add_sealed_column('clinic.icd10', 'x', 'text')", "WK204", "protect('clinic.icd10')"),
        ("select ward.add_sealed_column(null, 'x', 'text')", "WK204", ""),
        ("select ward.add_sealed_column('clinic.patients', 'name', 'text')", "WK209", "already"),
        ("select ward.add_sealed_column('clinic.patients', 'x', 'point')", "WK206", "point"),
        ("select ward.set('nonsense', '1')", "WK204", "keeper_socket"),
        ("select ward.set('key_ttl', 'forever')", "WK212", "seconds"),
        ("select ward.set('key_ttl', 'nan')", "WK212", "seconds"),
        ("select ward.set('keeper_timeout', '-1')", "WK212", "seconds"),
        ("select ward.set('keeper_timeout', null)", "WK212", "seconds"),
        ("select ward.remove_issuer('https://none')", "WK204", "ward.issuers"),
        ("select ward.add_issuer('{}')", "WK209", "issuer"),
    ],
)  # fmt: skip
def test_other_refusals(admin: Connection, statement: str, sqlstate: str, word: str) -> None:
    refused(admin, statement, sqlstate, word)


@pytest.mark.parametrize(
    "seal", ["'{s,s}'", "'{tenant_id}'", "'{ctid}'", "'{\"S\"}'", "array[null]::text[]", "null"]
)
def test_columns_to_seal_are_named_once_and_are_there(admin: Connection, seal: str) -> None:
    admin.execute("create table clinic.t (id int primary key, s text)")
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(f"select ward.protect('clinic.t', {seal})")
    assert (caught.value.sqlstate or "").startswith("WK2"), caught.value


def test_two_faces_of_one_name_are_refused(admin: Connection) -> None:
    admin.execute("create schema other; create table other.patients (id int primary key)")
    refused(admin, "select ward.protect('other.patients')", "WK209", "already a face")


@pytest.mark.parametrize("statement", [
    "select ward.protect('clinic.icd10')", "select ward.share('clinic.icd10')",
    "select ward.create_tenant('x1')",
    "select ward.drop_tenant('globex', 'globex', true)", "select ward.suspend_tenant('globex')",
    "select ward.resume_tenant('globex')", "select ward.set('key_ttl', '1')", "select ward.add_issuer('{}')",
    "select ward.add_sealed_column('clinic.icd10', 'x', 'text')", "select ward.remove_issuer('x')",
])  # fmt: skip
def test_only_superusers_administer(shared: Database, admin: Connection, statement: str) -> None:
    with shared.tenant("acme", subject="t") as acme, pytest.raises(psycopg.errors.InsufficientPrivilege):
        acme.execute(statement)
    admin.execute("grant usage on schema ward, clinic to ward_owner")
    admin.execute("grant execute on all functions in schema ward, ward_internal to ward_owner")
    admin.execute("set local role ward_owner")
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(statement)
    assert caught.value.sqlstate in ("WK212", "42501")


def test_a_refusal_leaves_the_table_as_it_was(admin: Connection) -> None:
    admin.execute("create table clinic.t (id int primary key, s text, u text unique deferrable)")
    refused_in = (
        "begin perform ward.protect('clinic.t', '{s,u}'); exception when sqlstate 'WK207' then null; end"
    )
    admin.execute(f"do $$ {refused_in} $$")
    assert admin.execute("insert into clinic.t values (1, 'x', 'y') returning s").fetchall() == [("x",)]
    assert admin.execute("select count(*) from ward.models where face = 't'").fetchone() == (0,)


def test_any_schema_table_and_column_name(shared: Database) -> None:
    with shared.admin() as admin:
        admin.execute('create schema "My Schema"; create type "My Schema"."Ty pe" as enum (\'a"\', \'b\')')
        admin.execute(
            'create table "My Schema"."old" ("new" int generated always as identity primary key,'
            ' "old" "My Schema"."Ty pe"'
            ' check ("old" <> \'b\'), "a%sb" text default \'%s$body$\', "ünï cöde" text)'
        )
        admin.execute('create index "In dex" on "My Schema"."old" ("a%%sb")'.replace("%%", "%"))
        admin.execute("""select ward.protect('"My Schema"."old"', array['old', 'ünï cöde'])""")
    with shared.tenant("acme", subject="t") as acme:
        acme.execute("""insert into "old" ("old", "ünï cöde") values ('a"', 'x'), ('a"', 'y')""")
        acme.execute("""update "old" set "ünï cöde" = 'z' where "new" = 2""")
        rows = acme.execute('select "old"::text, "a%sb", "ünï cöde" from "old" order by "new"').fetchall()
        assert rows == [('a"', "%s$body$", "x"), ('a"', "%s$body$", "z")]
        with pytest.raises(psycopg.errors.CheckViolation):
            acme.execute("""insert into "old" ("old") values ('b')""")
        assert acme.execute('delete from "old" where "ünï cöde" = \'x\'').rowcount == 1


DESCRIBE = """
select
  array_agg((a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)::text order by a.attnum),
  (select array_agg(replace(pg_get_indexdef(indexrelid), %(s)s, '') order by indexrelid::regclass::text)
    from pg_index where indrelid = a.attrelid),
  (select array_agg((conname, contype, replace(pg_get_constraintdef(oid), %(s)s, ''))::text order by conname)
    from pg_constraint where conrelid = a.attrelid),
  (select array_agg((polname, polpermissive)::text order by polname)
    from pg_policy where polrelid = a.attrelid)
from pg_attribute as a
where attrelid = (%(s)s || '.t')::regclass and attnum > 0
group by attrelid"""


def test_protected_before_or_after_its_tenants_a_model_is_the_same(database: Database) -> None:
    with database.admin() as admin:
        admin.execute(
            "create table clinic.t (id serial primary key, s varchar(9) default 'x' not null, u int unique)"
        )
        admin.execute("create index t_u on clinic.t (u desc) where u > 0")
        admin.execute("select ward.protect('clinic.t', '{s}')")
        late = database.new_tenant()
        described = [
            admin.execute(DESCRIBE, {"s": schema}).fetchone() for schema in ("sealed_acme", f"sealed_{late}")
        ]
    assert described[0] == described[1]
    with database.tenant(late, subject="t") as connection:
        assert connection.execute("insert into t default values returning id, s").fetchone() == (1, "x")


def test_shared_tables_are_read_and_not_written(shared: Database) -> None:
    with shared.tenant("acme", subject="t") as acme:
        assert acme.execute("select count(*) from clinic.icd10").fetchone() == (3,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            acme.execute("delete from clinic.icd10")


def test_comments_go_along(admin: Connection) -> None:
    admin.execute(
        "create table clinic.t (id int primary key, s text); comment on table clinic.t is 'about t'"
    )
    admin.execute("comment on column clinic.t.s is 'about s'; select ward.protect('clinic.t', '{s}')")
    row = admin.execute(
        "select obj_description('clinic.t'::regclass), col_description('clinic.t'::regclass, 3)"
    )
    assert row.fetchone() == ("about t", "about s")
