"""The files of docs/examples run as the pages say, and say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.database import Database
from tests.support.dumps import empty_database
from wardkey.embedded import Cluster
from wardkey.embedded.issuer import embedded_issuer
from wardkey.install import migrations

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def _psql(dsn: str, name: str, *words: str) -> str:
    command = ["psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-At", dsn, *words, "-f", EXAMPLES / name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_model_is_declared_and_used(database: Database) -> None:
    said = _psql(database.dsn(), "protect.sql")
    assert said.splitlines()[-2:] == ["lab.orders|orders|{reason}", "lab.results|results|{comment,value}"]
    login = f"select ward.login_session('{database.token('acme')}')"
    said = _psql(database.dsn("tenant_acme"), "ward.sql", "-c", login)
    assert "A-17|chest pain|1.2|mg/dL" in said.splitlines() and said.splitlines()[-1] == "1"
    with database.tenant("globex", subject="other") as other:
        assert other.execute("select count(*) from orders").fetchone() == (0,)


def test_the_client_reads_what_it_wrote(database: Database) -> None:
    _psql(database.dsn(), "protect.sql")
    environment = {"WARDKEY_WARD_DSN": database.dsn("tenant_acme"), "WARDKEY_TOKEN": database.token("acme")}
    command = [sys.executable, EXAMPLES / "client.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inserted, refused, reason = done.stdout.splitlines()
    assert (inserted, reason) == ("inserted ('cough',)", "cough") and refused.startswith("WK002 ")


def test_one_object_serves_two_tenants(database: Database) -> None:
    _psql(database.dsn(), "protect.sql")
    both = [database.token(slug, tenant=slug) for slug in ("acme", "globex")]
    environment = {"WARDKEY_WARD_DSN": database.dsn("tenant_{tenant}"), "WARDKEY_TOKENS": " ".join(both)}
    command = [sys.executable, EXAMPLES / "many_tenants.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, refused, awaited, rest = done.stdout.splitlines()
    assert (first, second) == ("first 1 2", "second 1")
    assert refused.startswith("WK002 ")
    assert (awaited, rest) == ("awaited [2, 1]", "timed out 2")


def test_a_measure_counts_in_the_reference_clinic(cluster: Cluster) -> None:
    with empty_database(cluster) as database:
        migrations.migrate(database.dsn())
        with database.admin() as admin:
            admin.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])
            embedded_issuer(admin, cluster.home)
            for name in ("diabetes", "hypertension"):
                query = (EXAMPLES / f"{name}.sql").read_text()
                admin.execute("select ward.register_measure(%s, %s, 11)", [name, query])
            admin.execute("insert into clinic.observation_codes values ('8480-6', 'Systolic')")
        clinic, payer = database.new_tenant(), database.new_tenant()
        with database.admin() as admin:
            admin.execute("select ward.register_payer(%s)", [payer])
        with database.tenant(clinic, subject="admin") as admin:
            for mrn, born, died in (
                ("1", "1950-01-01", None),
                ("2", "1950-01-01", None),
                ("3", "1950-01-01", "2026-01-01"),
                ("4", "2026-09-01", None),
            ):
                admin.execute(
                    "insert into patients (mrn, given, family, birth_date, gender, deceased)"
                    " values (%s, 'A', 'B', %s, 'female', %s)",
                    [mrn, born, died],
                )
            admin.execute(
                "insert into conditions (patient_id, code, display, onset_date)"
                " select id, '44054006', 'Diabetes', date '2026-06-30' + (mrn <> '1')::integer from patients"
            )
            # the pressure of the patient who died does not count, nor one after the period
            admin.execute(
                "insert into observations (patient_id, code, value, observed_at)"
                " select id, '8480-6', value, at::timestamptz from patients,"
                " lateral (values (120, '2026-05-01'),"
                " (139.9 + mrn::int / 20.0, '2026-06-01'), (190, '2026-07-01')) as v (value, at)"
                " where birth_date < '2000-01-01'"
            )
            admin.execute("select ward.delegate(%s, '{diabetes,hypertension}')", [payer])
            admin.execute("select ward.publish_measures('[2026-04-01,2026-07-01)')")
        with database.admin() as admin:
            counted = admin.execute(
                "select p.measure, group_values, numerator, complement from ward_internal.measure_cells"
                " join ward_internal.publications as p on p.id = publication_id order by 1"
            ).fetchall()
    old = {"gender": "female", "age_band": "65+"}
    assert counted == [("diabetes", old, 1, 1), ("hypertension", old, 1, 1)]


def test_a_patient_of_the_portal_sees_the_one_patient(database: Database) -> None:
    """How it holds against attacks: tests/security/test_row_rules_keep_rows_apart.py."""
    said = _psql(database.dsn(), "portal.sql").splitlines()
    assert said[-3] == "portal.people|own|{VIEWER}|(id = (ward.claim('patient_id'::text))::bigint)"
    with database.tenant("acme", subject="doctor") as staff:
        staff.execute("insert into people (name) values ('Ann'), ('Bob')")
        staff.execute(
            "insert into letters (person_id, released, body)"
            " select person, released, person::text from (values (1), (2)) as p (person),"
            " (values (true), (false)) as r (released)"
        )
        assert staff.execute("select count(*) from letters").fetchone() == (4,)
    for patient, seen in ({"patient_id": "1"}, [("1",)]), ({"patient_id": "2"}, [("2",)]), ({}, []):
        with database.tenant("acme", subject="p", role="VIEWER", **patient) as portal:
            assert portal.execute("select body from letters where true or id = 3").fetchall() == seen
            assert len(portal.execute("select * from people").fetchall()) == len(seen)


def test_every_example_is_run() -> None:
    """Here, or by a test of what it shows: its name stands in some test, with or without suffix."""
    tests = "".join(test.read_text() for test in EXAMPLES.parents[1].glob("tests/**/*.py"))
    examples = list(EXAMPLES.glob("[!_]*"))
    assert examples
    assert [path.name for path in examples if path.name not in tests and f'"{path.stem}"' not in tests] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*")), ids=lambda path: path.name)
def test_every_example_is_told_of(path: Path) -> None:
    pages = "".join(page.read_text() for page in EXAMPLES.parent.glob("*.md"))
    assert f"examples/{path.name}" in pages
