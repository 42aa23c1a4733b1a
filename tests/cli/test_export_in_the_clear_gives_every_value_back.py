"""An export in the clear, loaded elsewhere by its own script, is the ward's data bit by bit."""

from __future__ import annotations

import csv
import hashlib
import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.sql.extremes import EXTREMES, TYPES, WITH_NULLS
from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.support.dumps import empty_database, run
from wardkey.embedded import Cluster

_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
_MODELS = f"""
create type clinic."Mood" as enum ('sad', 'so, "so"', 'it''s', '', 'ünï');
create table clinic.plain (id bigint primary key, {_COLUMNS});
create table clinic.every (like clinic.plain including all);
select ward.protect('clinic.plain');
select ward.protect('clinic.every', array[{", ".join(repr(name) for name in TYPES)}]);
create domain clinic.zip as text check (value ~ '^[0-9]+$');
create table clinic."Odd visits" (
  id uuid primary key default gen_random_uuid(),
  "patient id" bigint not null references ward_model.clinic__patients on delete cascade,
  code text references clinic.icd10,
  kind clinic."Mood" not null default 'it''s',
  zip clinic.zip,
  cost numeric(8, 2) constraint "not dear" check (cost < 1000),
  "double" numeric generated always as (cost * 2) stored,
  label text collate "C",
  note text unique,
  secret text default 'none' check (secret <> ''),
  before uuid references clinic."Odd visits"
);
create index odd_kind on clinic."Odd visits" (kind) where kind <> 'sad';
create unique index odd_label on clinic."Odd visits" (lower(label));
select ward.protect('clinic."Odd visits"', seal => '{{secret}}');
"""
_HUGE = 30_000_000


@pytest.fixture(scope="module")
def ward(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database in which acme has a row of every extreme value of every type, sealed and not."""
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(_MODELS)
        with database.tenant("acme", role="ADMIN") as acme:
            for place, (column, kind) in enumerate(TYPES.items()):
                values = json.dumps([*EXTREMES[column], *WITH_NULLS.get(column, [])])
                for face in ("plain", "every"):
                    acme.execute(
                        f"insert into {face} (id, {column}) select 1000 * %s + n, (v #>> '{{}}')::{kind}"
                        " from json_array_elements(%s::json) with ordinality as u (v, n)",
                        [place, values],
                    )
            acme.execute(
                "insert into every (id, text, bytea)"
                " values (-1, repeat('é', %s), decode(repeat('00ff', %s), 'hex'))",
                [_HUGE // 2, _HUGE // 2],
            )
            acme.execute("insert into every (id) values (-2)")
            acme.execute("insert into patients (name) values ('Ada'), ('Bob'), ('')")
            acme.execute("delete from patients where name = 'Bob'")
            acme.execute("""
                insert into "Odd visits" ("patient id", code, cost, label, zip)
                values (1, 'E11', 10, 'a', '02139'), (3, null, null, null, null)""")
        with database.tenant("globex", role="ADMIN") as globex:
            globex.execute("insert into patients (name) values ('not yours')")
        yield database


@pytest.fixture(scope="module")
def exported(ward: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("export") / "acme"
    wardkey = Wardkey(ward.cluster.home.path)
    done = wardkey(
        "tenant",
        "export",
        "acme",
        "--to",
        str(target),
        "--dsn",
        ward.dsn(),
        PGPASSFILE=str(ward.cluster.home.pgpass),
    )
    assert "rows in" in done.stdout
    return target


@pytest.fixture(scope="module")
def loaded(cluster: Cluster, exported: Path) -> Iterator[Database]:
    """Another database, into which the export was loaded by its own script."""
    with empty_database(cluster) as database:
        done = subprocess.run(
            [cluster.software.program("psql"), "-X", "-d", database.dsn(), "-f", "load.sql"],
            cwd=exported,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[:2000]
        assert "ERROR" not in done.stderr
        yield database


def _binary(connection: psycopg.Connection, table: str) -> bytes:
    with connection.cursor().copy(
        f"copy (select * from {table} order by id) to stdout (format binary)"
    ) as copy:
        return b"".join(bytes(block) for block in copy)


@pytest.mark.parametrize("table", ["every", "plain", "patients", '"Odd visits"'])
def test_every_value_comes_back(ward: Database, loaded: Database, table: str) -> None:
    with ward.tenant("acme", role="VIEWER") as there, loaded.admin() as here:
        expected, restored = _binary(there, table), _binary(here, table)
    assert len(expected) > 100
    assert restored == expected


def test_comparison_would_find_a_difference(ward: Database, loaded: Database) -> None:
    with loaded.admin(autocommit=False) as here, ward.tenant("acme", role="VIEWER") as there:
        here.execute("update every set numeric = 1.00 where numeric::text = '1.0'")
        assert _binary(here, "every") != _binary(there, "every")
        here.rollback()


def test_tables_are_as_declared(ward: Database, loaded: Database) -> None:
    columns = """
        select a.attname, format_type(case t.typtype when 'd' then t.typbasetype else t.oid end, a.atttypmod),
          a.attnotnull, a.attcollation::regcollation::text, a.attgenerated, pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        left join pg_attrdef as d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        where a.attrelid = %s::regclass and a.attnum > 0 order by a.attnum"""
    names = """
        select conname, contype, convalidated from pg_constraint
        where conrelid = %s::regclass and conname <> 'Odd visits_code_fkey'  -- to a shared table, which stays
        order by 1"""
    indexes = "select indexrelid::regclass::text, indisunique, indisprimary, pg_get_expr(indpred, indrelid),"
    indexes += " pg_get_expr(indexprs, indrelid) from pg_index where indrelid = %s::regclass order by 1"
    shapes = {"patients": "patients", "Odd visits": '"Odd visits"', "every": "every"}
    with ward.admin() as there, loaded.admin() as here:
        there.execute("set search_path = ward_model")
        for face, name in shapes.items():
            shape = f'ward_model."clinic__{face}"'
            assert here.execute(columns, [name]).fetchall() == there.execute(columns, [shape]).fetchall()
            assert here.execute(indexes, [name]).fetchall() == there.execute(indexes, [shape]).fetchall()
            assert here.execute(names, [name]).fetchall() == there.execute(names, [shape]).fetchall()


def test_loaded_tables_go_on_living(loaded: Database) -> None:
    with loaded.admin(autocommit=False) as here:
        row = here.execute("insert into patients (name) values ('new') returning id, city").fetchone()
        assert row == (4, "Springfield")
        with pytest.raises(psycopg.errors.CheckViolation):
            here.execute('insert into "Odd visits" ("patient id", cost) values (1, 1000)')
        here.rollback()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            here.execute('insert into "Odd visits" ("patient id") values (2)')
        here.rollback()


def test_manifest_tells_what_is_there(ward: Database, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["tenant"]["id"] == str(ward.tenant_id("acme")) and manifest["sealed"] is False
    assert {table["table"]: table["rows"] for table in manifest["tables"]}["patients"] == 2
    assert {path.name for path in exported.iterdir()} == {
        "manifest.json", "schema.sql", "load.sql", *(table["file"] for table in manifest["tables"])
    }  # fmt: skip
    csv.field_size_limit(200_000_000)
    for table in manifest["tables"]:
        data = (exported / table["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (table["bytes"], table["sha256"])
        rows = list(csv.reader(data.decode().splitlines(keepends=True), strict=True))
        assert rows[0] == [column["name"] for column in table["columns"]]
        assert len(rows) - 1 == table["rows"]
    assert b"not yours" not in (exported / "patients.csv").read_bytes()


def test_only_the_owner_may_read_it(exported: Path) -> None:
    assert stat.S_IMODE(exported.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in exported.iterdir()} == {0o600}


def test_it_is_recorded_by_whom_and_how_much(ward: Database, exported: Path) -> None:
    digest = hashlib.sha256((exported / "manifest.json").read_bytes()).hexdigest()
    with ward.admin() as admin:
        events = admin.execute(
            "select kind, detail from ward.events where kind like 'export%%' and tenant_id = %s order by id",
            [ward.tenant_id("acme")],
        ).fetchall()
    manifest = json.loads((exported / "manifest.json").read_text())
    assert [kind for kind, _ in events] == ["export begun", "exported"]
    assert {detail["by"] for _, detail in events} == {manifest["exported_by"]}
    assert events[1][1]["manifest_sha256"] == digest and events[1][1]["rows"]["patients"] == 2
    assert "Ada" not in str(events)


def test_dump_of_the_server_has_less(ward: Database, exported: Path, tmp_path: Path) -> None:
    """The test of the test: what the export has in the clear, a dump has not."""
    run(
        ward.cluster,
        "pg_dump",
        f"--file={tmp_path / 'sql'}",
        "--table=sealed_acme.patients",
        ward.dsn(),
    )
    assert "Ada" not in (tmp_path / "sql").read_text() and "Ada" in (exported / "patients.csv").read_text()
