"""``ward.unprotect`` undoes ``ward.protect`` and loses nothing; ``ward.unshare`` undoes ``ward.share``."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.database import Database

_DECLARED = """
    create table clinic.notes (
      id bigint generated always as identity primary key,
      patient_id bigint references ward_model.clinic__patients on delete cascade,
      text text not null constraint notes_text_short check (length(text) < 100),
      kind text not null default 'note'
    );
    create index notes_kind_idx on clinic.notes (kind);
"""
_CATALOG = """
    select array_agg(format('%%s %%s %%s %%s %%s', attname, format_type(atttypid, atttypmod), attnotnull,
        attidentity, pg_get_expr(adbin, adrelid)) order by attnum)
      from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
      where attrelid = %(table)s::regclass and attnum > 0
    union all
    select array_agg(format('%%s %%s', conname, pg_get_constraintdef(oid)) order by conname)
      from pg_constraint where conrelid = %(table)s::regclass
    union all
    select array_agg(pg_get_indexdef(indexrelid) order by indexrelid::regclass::text)
      from pg_index where indrelid = %(table)s::regclass
    union all
    select array[relowner::regrole::text, relrowsecurity::text, relkind::text] from pg_class
      where oid = %(table)s::regclass
"""


def test_table_is_as_declared_and_nothing_else_remains(database: Database) -> None:
    with database.admin() as admin:
        objects = "select array_agg(oid::regclass::text order by 1) from pg_class where relname ~ '^notes'"
        admin.execute(_DECLARED)
        declared = admin.execute(_CATALOG, {"table": "clinic.notes"}).fetchall()
        before = admin.execute(objects).fetchone()
        for _ in range(2):
            admin.execute("select ward.protect('clinic.notes', seal => '{text}')")
            admin.execute("select ward.unprotect('clinic.notes')")
        assert admin.execute(_CATALOG, {"table": "clinic.notes"}).fetchall() == declared
        assert admin.execute(objects).fetchone() == before
        writers = admin.execute("select count(*) from pg_proc where proname like 'notes_write%'").fetchone()
        assert writers == (0,)
        assert admin.execute("select count(*) from ward.models where face = 'notes'").fetchone() == (0,)


def test_refuses_while_a_tenant_has_rows(database: Database) -> None:
    with database.tenant("acme", role="ADMIN") as acme:
        acme.execute("insert into patients (name) values ('Ada')")
    with database.admin() as admin:
        with pytest.raises(psycopg.Error) as refused:
            admin.execute("select ward.unprotect('clinic.patients')")
        assert refused.value.sqlstate == "WK208"
        assert admin.execute("select count(*) from clinic.patients").fetchone() == (1,)


def test_refuses_while_another_model_references_it(database: Database) -> None:
    with database.admin() as admin:
        admin.execute(_DECLARED)
        admin.execute("select ward.protect('clinic.notes', seal => '{text}')")
        with pytest.raises(psycopg.Error) as refused:
            admin.execute("select ward.unprotect('clinic.patients')")
        assert refused.value.sqlstate == "WK209"


def test_unshare_takes_the_table_from_tenants(database: Database) -> None:
    with database.admin() as admin, database.tenant("acme", role="ADMIN") as acme:
        assert acme.execute("select count(*) from clinic.icd10").fetchone() == (3,)
        admin.execute("select ward.unshare('clinic.icd10')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            acme.execute("select count(*) from clinic.icd10")
        with pytest.raises(psycopg.Error) as refused:
            admin.execute("select ward.unshare('clinic.icd10')")
        assert refused.value.sqlstate == "WK204"
