"""``wardkey migrate``: whole or not at all, safe to repeat, and back only while nothing is lost by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database
from tests.support.dumps import empty_database
from wardkey.cli import main
from wardkey.embedded import Cluster
from wardkey.embedded.issuer import embedded_issuer
from wardkey.errors import DatabaseError, TableInUse, TableNotEmpty, UnknownObject, Unreachable, WardNotEmpty
from wardkey.install import migrations

_FACES = {"patients", "encounters", "conditions", "observations"}
_PERSON = """
    insert into patients (mrn, ssn, given, family, birth_date, gender)
      values (%s, %s, 'Ada', 'Lovelace', '1815-12-10', 'female')"""


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Database]:
    with empty_database(cluster) as database:
        yield database


def _ready(database: Database) -> str:
    with database.admin() as admin:
        admin.execute("select ward.set('keeper_socket', %s)", [str(database.cluster.home.keeper_socket)])
        embedded_issuer(admin, database.cluster.home)
    return database.new_tenant()


def test_up_down_and_up_again(empty: Database) -> None:
    dsn = empty.dsn()
    assert migrations.current(dsn) is None
    first = migrations.migrate(dsn)
    assert (first.before, first.after, first.changed) == (None, migrations.revisions()[-1][0], True)
    assert not migrations.migrate(dsn).changed
    down = migrations.migrate(dsn, "base")
    assert (down.after, down.extension) == (None, None)
    assert migrations.migrate(dsn).after == first.after
    with empty.admin() as admin:
        assert {row[0] for row in admin.execute("select face from ward.models")} == _FACES


def test_model_works_in_a_ward(empty: Database) -> None:
    migrations.migrate(empty.dsn())
    slug = _ready(empty)
    with empty.admin() as admin:
        admin.execute("insert into clinic.observation_codes values ('4548-4', 'Hemoglobin A1c')")
    with empty.tenant(slug, role="ADMIN") as ward:
        patient = ward.execute(f"{_PERSON} returning id", ["1", "999-12-3456"]).fetchone()
        assert patient
        with pytest.raises(psycopg.errors.UniqueViolation):
            ward.execute(_PERSON, ["1", None])
        with pytest.raises(psycopg.errors.CheckViolation):
            ward.execute(_PERSON, ["2", "123"])
        encounter = ward.execute(
            "insert into encounters (patient_id, class, type, started_at) values (%s, 'AMB', 'check', now())"
            " returning id",
            patient,
        ).fetchone()
        assert encounter
        ward.execute(
            "insert into observations (patient_id, encounter_id, code, value, observed_at)"
            " values (%s, %s, '4548-4', 5.7, now())",
            [patient[0], encounter[0]],
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            ward.execute(
                "insert into observations (patient_id, code, value, observed_at) values (%s, 'no', 1, now())",
                patient,
            )
        ward.execute("delete from encounters")
        assert ward.execute("select encounter_id, value::text from observations").fetchall() == [
            (None, "5.7")
        ]
        ward.execute("delete from patients")
        assert ward.execute("select count(*) from observations").fetchone() == (0,)


_WAITING = """
select pid from pg_stat_activity where application_name = 'wardkey migrate' and wait_event_type = 'Lock'
  and datname = current_database()"""


def test_a_migration_lets_go_and_tries_again(empty: Database) -> None:
    dsn = empty.dsn()
    migrations.migrate(dsn)
    with empty.admin() as holder, empty.admin() as watcher, ThreadPoolExecutor(1) as pool:
        holder.execute("begin; lock table ward_migrations.alembic_version")
        running = pool.submit(migrations.migrate, dsn, "0001")
        seen: set[int] = set()
        while len(seen) < 2:  # a second attempt, of a session of its own
            assert not running.done()
            seen |= {pid for (pid,) in watcher.execute(_WAITING).fetchall()}
        holder.execute("rollback")
        assert running.result().after == "0001"


def test_a_migration_that_gives_up_says_who_is_in_the_way(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_ATTEMPTS", 1)
    migrations.migrate(empty.dsn())
    slug = _ready(empty)
    with empty.tenant(slug) as tenant, empty.admin() as holder:
        tenant.execute("begin; lock table patients in share mode")
        holder.execute("begin; lock table only ward_migrations.alembic_version, only clinic.patients")
        with pytest.raises(TableInUse) as caught:
            migrations.migrate(empty.dsn(), "0001")
        assert f"pid {tenant.info.backend_pid} (tenant_{slug}, idle in transaction" in str(caught.value)
        assert f"pid {holder.info.backend_pid} (postgres" in str(caught.value)
        holder.execute("rollback")
    assert migrations.current(empty.dsn()) == migrations.revisions()[-1][0]


def test_down_refuses_while_tenants_have_data(empty: Database) -> None:
    migrations.migrate(empty.dsn())
    slug = _ready(empty)
    with empty.tenant(slug, role="ADMIN") as ward:
        ward.execute(_PERSON, ["1", None])
    with pytest.raises(TableNotEmpty):
        migrations.migrate(empty.dsn(), "0001")
    with empty.tenant(slug, role="ADMIN") as ward:
        assert ward.execute("select given from patients").fetchall() == [("Ada",)]
        ward.execute("delete from patients")
    assert migrations.migrate(empty.dsn(), "0001").after == "0001"
    with pytest.raises(WardNotEmpty):
        migrations.migrate(empty.dsn(), "base")
    assert migrations.migrate(empty.dsn()).changed


def test_no_tenant_can_see_the_version(empty: Database) -> None:
    migrations.migrate(empty.dsn())
    slug = _ready(empty)
    with empty.tenant(slug, role="ADMIN") as ward, pytest.raises(psycopg.errors.InsufficientPrivilege):
        ward.execute("select * from ward_migrations.alembic_version")


def test_a_failing_migration_changes_nothing(empty: Database) -> None:
    with empty.admin() as admin:
        admin.execute("create schema clinic create table patients (id int)")
    with pytest.raises(DatabaseError) as failed:
        migrations.migrate(empty.dsn())
    assert failed.value.sqlstate == "42P07"
    with empty.admin() as admin:
        assert admin.execute(
            "select to_regnamespace('ward'), to_regnamespace('ward_migrations')"
        ).fetchone() == (None, None)


def test_unknown_revision_and_server_are_clear_errors(empty: Database) -> None:
    with pytest.raises(UnknownObject, match="no such revision"):
        migrations.migrate(empty.dsn(), "9999")
    with pytest.raises(Unreachable):
        migrations.migrate("host=/nonexistent dbname=wardkey")


def test_command_prints_facts(empty: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--dsn", empty.dsn(), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["before"] is None and facts["changed"] is True
    assert main(["migrate", "--dsn", empty.dsn()]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_migrations_make_no_function() -> None:
    for file in Path(migrations.resources.migrations()).rglob("*.py"):
        assert "create function" not in file.read_text().lower()
        assert "create or replace function" not in file.read_text().lower()
