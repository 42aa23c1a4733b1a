"""A dump restored elsewhere opens again and goes on living: nothing in it is an OID or of this database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database
from tests.support.dumps import dump, empty_database, restore, run
from tests.support.rotations import reseal, retire, rotate, versions
from tests.support.sqlstate import refused
from wardkey.cli import main
from wardkey.embedded import Cluster

_ROWS = "select id, name, ssn, birth_date::text, city from patients order by id"
_VISITS = """
    create table clinic.visits (
      id uuid primary key default gen_random_uuid(),
      patient_id bigint not null references ward_model.clinic__patients on delete cascade,
      note text not null constraint visits_note_not_blank check (note <> ''),
      kind text not null default 'visit',
      cost numeric(8, 2) not null default 0,
      double_cost numeric generated always as (cost * 2) stored
    );
    create index visits_kind_idx on clinic.visits (kind);
"""


_REMEMBERED = """
    select c.relname from pg_extension as e join pg_class as c on c.oid = any (e.extconfig)
    where e.extname = 'wardkey' and c.relkind = 'r'"""


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[Database]:
    with empty_database(cluster) as database:
        yield database


@pytest.fixture
def full(database: Database) -> Database:
    """A database with data in two wards, and a second model table that references the first."""
    with database.admin() as admin:
        admin.execute(_VISITS)
        searches = '{"note": ["exact", "words"]}'
        admin.execute("select ward.protect('clinic.visits', seal => '{note}', search => %s)", [searches])
        rule = "patient_id = any (ward.claim('patients')::bigint[])"
        admin.execute("select ward.add_row_rule('clinic.visits', '{VIEWER}', %s, 'portal')", [rule])
    for slug in ("acme", "globex"):
        with database.tenant(slug, role="ADMIN") as ward:
            ward.execute(
                "insert into patients (name, ssn, birth_date)"
                " values (%s, '999-1', '1815-12-10'), (%s, null, null)",
                [f"Ada of {slug}", f"Bob of {slug}"],
            )
            ward.execute(
                "insert into visits (patient_id, note, cost) select id, 'of ' || name, 10 from patients"
            )
    return database


def _rows(database: Database, slug: str, query: str = _ROWS) -> list[tuple[object, ...]]:
    with database.tenant(slug, role="ADMIN") as ward:
        return list(ward.execute(query).fetchall())


def _repair(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("select ward.repair_tenant(slug) from ward.tenants")


@pytest.mark.parametrize("options", [(), ("--jobs=2",)], ids=["one", "parallel"])
def test_restored_database_works(
    full: Database, elsewhere: Database, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = dump(full, tmp_path / "all")
    restore(elsewhere, file, *options)
    _repair(elsewhere)
    for slug in ("acme", "globex"):
        assert _rows(elsewhere, slug) == _rows(full, slug) != []
        with elsewhere.tenant(slug, role="VIEWER", patients="{2,9}") as portal:
            assert portal.execute("select patient_id from visits").fetchall() == [(2,)]
        with elsewhere.tenant(slug, role="ADMIN") as ward:
            ward.execute("insert into patients (name) values ('Eve')")
            ward.execute("update patients set ssn = '999-2' where name = 'Eve'")
            assert ward.execute("select id, ssn from patients where name = 'Eve'").fetchall() == [
                (3, "999-2")
            ]
            with pytest.raises(psycopg.errors.CheckViolation):
                ward.execute("insert into visits (patient_id, note) values (1, '')")
            ward.execute("delete from patients where id = 1")
            query = "select note, kind, double_cost from visits where id in (select find_visits(%s => 'bob'))"
            left = ward.execute(query.replace("%s", "note_words")).fetchall()
            assert left == [(f"of Bob of {slug}", "visit", 20)]
        with elsewhere.tenant(slug) as nobody, refused("WK001"):
            nobody.execute("select count(*) from patients")


def test_restored_registry_is_the_same(full: Database, elsewhere: Database, tmp_path: Path) -> None:
    with full.admin() as admin, full.tenant("acme", role="ADMIN") as ward:
        admin.execute("select ward.add_class('genome', 'sequences')")
        admin.execute("select ward.set_policy('VIEWER', 'note', 'mask')")
        ward.execute("select ward.narrow_policy('EVALUATOR', 'financial', 'mask')")
        ward.execute("select ward.request_rotation('a reason')")
        begin = "select ward_internal.begin_shredding(%s, ward_internal.shredding_facts(%s) ->> 'code')"
        admin.execute(begin, ["globex", "globex"])
    restore(elsewhere, dump(full, tmp_path / "all"))
    filled = {"settings", "tenants", "tenant_keys", "issuers", "models", "sealed_columns", "shares"}
    filled |= {
        "shreddings",
        "row_rules",
        "rotation_requests",
        "classes",
        "policy",
        "tenant_policy",
        "searches",
    }
    with full.admin() as there, elsewhere.admin() as here:
        for (table,) in there.execute(_REMEMBERED).fetchall():
            query = f"select to_jsonb(t) from ward_internal.{table} as t order by to_jsonb(t)::text"
            rows = there.execute(query).fetchall()
            assert here.execute(query).fetchall() == rows
            assert rows or table not in filled
            filled.discard(table)
        # the restore grants what the dump says
        events = "select to_jsonb(e) from ward.events as e where kind not in ('grant', 'revoke') order by id"
        assert here.execute(events).fetchall() == there.execute(events).fetchall() != []
    assert not filled


def test_a_rotation_goes_on_after_a_restore(full: Database, elsewhere: Database, tmp_path: Path) -> None:
    """Dumped in its middle; then a dump from before it is restored over its end."""
    before = _rows(full, "acme")
    old = dump(full, tmp_path / "old", "--data-only", "--table=sealed_acme.patients")
    with full.admin() as admin:
        rotate(admin)
        model = admin.execute("select id from ward.models where face = 'visits'").fetchone()
        assert model
        admin.execute("select ward_internal.reseal('acme', %s, 0, 100)", model)
        assert versions(admin) == {1: 4, 2: 2}
    restore(elsewhere, dump(full, tmp_path / "middle"))
    _repair(elsewhere)
    assert _rows(elsewhere, "acme") == before
    with elsewhere.admin() as admin:
        reseal(admin)
        assert retire(admin) == [1]
        assert _rows(elsewhere, "acme") == before
        admin.execute("set session_replication_role = replica; delete from sealed_acme.patients")
        restore(elsewhere, old, "--data-only", "--disable-triggers")
        with pytest.raises(psycopg.Error) as failed:
            _rows(elsewhere, "acme")
        assert failed.value.sqlstate == "WK104"
        with pytest.raises(psycopg.Error) as failed:
            admin.execute("select ward.destroy_key('acme', 1, true)")
        assert failed.value.sqlstate == "WK214"
        admin.execute("select ward.readmit_key('acme', 1, 'restored')")
        assert _rows(elsewhere, "acme") == before
        reseal(admin)
        assert retire(admin) == [1]
    assert _rows(elsewhere, "acme") == before
    with elsewhere.tenant("acme", role="ADMIN") as ward:
        ward.execute("insert into patients (name) values ('Eve')")


def test_restored_database_follows_its_models(full: Database, elsewhere: Database, tmp_path: Path) -> None:
    restore(elsewhere, dump(full, tmp_path / "all"))
    _repair(elsewhere)
    with elsewhere.admin() as admin:
        admin.execute("alter table clinic.patients add column blood_type text default 'O'")
        admin.execute("select ward.add_sealed_column('clinic.patients', 'phone', 'text')")
        slug = elsewhere.new_tenant()
    with elsewhere.tenant("acme", role="ADMIN") as ward:
        ward.execute("update patients set phone = '555' where id = 1")
        assert ward.execute("select blood_type, phone from patients order by id").fetchall() == [
            ("O", "555"),
            ("O", None),
        ]
    with elsewhere.tenant(slug, role="ADMIN") as ward:
        ward.execute("insert into patients (name, phone) values ('new', '1')")


def test_restored_database_passes_the_doctor(
    full: Database, elsewhere: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(elsewhere, dump(full, tmp_path / "all"))
    _repair(elsewhere)
    home = str(full.cluster.home.path)
    code = main(["doctor", "--home", home, "--dsn", elsewhere.dsn(), "--json"])
    assert code == 0, capsys.readouterr().out


def test_renamed_then_restored_still_opens(full: Database, elsewhere: Database, tmp_path: Path) -> None:
    before = _rows(full, "acme")
    with full.admin() as admin:
        admin.execute("alter table clinic.patients rename column ssn to social_security")
        admin.execute("alter table clinic.patients rename to people")
        admin.execute("alter table clinic.people set schema public")
    restore(elsewhere, dump(full, tmp_path / "all"))
    _repair(elsewhere)
    renamed = "select id, name, social_security, birth_date::text, city from patients order by id"
    assert _rows(elsewhere, "acme", renamed) == before
    assert _rows(elsewhere, "acme", "select note from visits order by note") != []


def test_dump_holds_no_plaintext(full: Database, tmp_path: Path) -> None:
    run(full.cluster, "pg_dump", "--format=plain", f"--file={tmp_path / 'sql'}", full.dsn())
    text = (tmp_path / "sql").read_text()
    assert "Springfield" in text  # city is not sealed: the dump has the rows
    for secret in ("Ada of", "Bob of", "999-1", "1815-12-10"):
        assert secret not in text


def test_globals_bring_the_roles_without_passwords_in_clear(full: Database) -> None:
    text = run(full.cluster, "pg_dumpall", "--globals-only", f"--dbname={full.dsn()}")
    assert "CREATE ROLE tenant_acme;" in text and "GRANT ward_tenant TO tenant_acme" in text
    assert "CREATE ROLE ward_owner;" in text
    kept = full.cluster.home.pgpass.read_text()
    password = next(line.split(":")[4] for line in kept.splitlines() if ":tenant_acme:" in line)
    assert "SCRAM-SHA-256$" in text and password not in text
