"""psql and SQLAlchemy work on faces as on tables: reflection, ORM with an explicit key, \\copy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, registry

from tests.support.database import Database


def psql(shared: Database, script: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "WARD_TOKEN": shared.token("acme"),
        "PGPASSFILE": str(shared.cluster.home.pgpass),
    }
    # the token goes in by the environment and a bound variable, not by argv
    head = "\\getenv token WARD_TOKEN\n\\o /dev/null\nselect ward.login_session(:'token');\n\\o\n"
    return subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
         "-d", shared.dsn("tenant_acme")],
        input=head + script, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def empty(shared: Database) -> None:
    with shared.tenant("acme", subject="t") as ward:
        ward.execute("delete from patients")


def test_psql_reads_and_writes(shared: Database) -> None:
    script = """
    insert into patients (id, name, birth_date) values (1, 'Ada', '1815-12-10'), (2, '', null);
    update patients set name = 'Bo' where id = 2;
    \\pset null NULL
    select name, birth_date from patients order by id;
    \\copy patients (id, name) from pstdin csv
    \\.
    delete from patients where id = 1 returning name;
    """.replace("    ", "")
    done = psql(shared, script)
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout.splitlines() == ["Ada|1815-12-10", "Bo|NULL", "Ada"]


def test_psql_copies_in_and_out(shared: Database) -> None:
    done = psql(shared, '\\copy patients (id, name, ssn) from stdin csv\n5,"a, ""b""",\n6,,x\n\\.\n')
    assert "null value" in done.stderr
    script = (
        '\\copy patients (id, name, ssn) from stdin csv\n5,"a, ""b""",\n6,"",x\n\\.\n'
        "\\copy (select id, name, ssn from patients order by id) to stdout csv\n"
    )
    assert psql(shared, script).stdout.splitlines() == ['5,"a, ""b""",', '6,"",x']


def test_psql_describes(shared: Database) -> None:
    done = psql(shared, "\\d patients\n\\dv\n\\d\n")
    assert done.returncode == 0, done.stderr
    assert "name|text" in done.stdout and "birth_date|date" in done.stdout
    assert "patients" in done.stdout


@pytest.fixture
def engine(shared: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: shared.tenant("acme", subject="t"))

    @sa.event.listens_for(engine, "connect")
    def transactions(connection: Any, _: Any) -> None:
        connection.autocommit = False

    yield engine
    engine.dispose()


def test_sqlalchemy_reflects(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert "patients" in inspector.get_view_names()
    columns = {column["name"]: column for column in inspector.get_columns("patients")}
    assert list(columns) == ["id", "name", "ssn", "birth_date", "city", "created_at"]
    assert isinstance(columns["birth_date"]["type"], sa.Date)
    assert "nextval" in str(columns["id"]["default"])
    table = sa.Table("patients", sa.MetaData(), autoload_with=engine)
    assert isinstance(table.c.name.type, sa.Text)


def test_sqlalchemys_orm_writes_through_a_reflected_face(engine: sa.Engine) -> None:
    mapper = registry()
    table = sa.Table(
        "patients", mapper.metadata, sa.Column("id", sa.BigInteger, primary_key=True), autoload_with=engine
    )

    class Patient:
        id: int
        name: str
        ssn: str | None
        city: str

        def __init__(self, **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)

    mapper.map_imperatively(Patient, table)
    with Session(engine) as session:
        ada = Patient(id=1, name="Ada", birth_date=date(1815, 12, 10))
        session.add_all([ada, Patient(id=2, name="Bo"), Patient(id=3, name="Cy", ssn="")])
        session.commit()
        assert (ada.city, ada.ssn) == ("Springfield", None)
        ada.ssn = "12"
        session.delete(session.get_one(Patient, 2))
        session.commit()
    with Session(engine) as session:
        patients = session.scalars(sa.select(Patient).order_by(table.c.id)).all()
        assert [(p.id, p.name, p.ssn) for p in patients] == [(1, "Ada", "12"), (3, "Cy", "")]


def test_sqlalchemy_core_returns_generated_keys(engine: sa.Engine) -> None:
    table = sa.Table(
        "patients", sa.MetaData(), sa.Column("id", sa.BigInteger, sa.FetchedValue(), primary_key=True),
        autoload_with=engine,
    )  # fmt: skip
    with engine.begin() as connection:
        made = connection.execute(
            sa.insert(table).returning(table.c.id, table.c.name), [{"name": "x"}, {"name": "y"}]
        )
        rows = made.all()
        assert [row.name for row in rows] == ["x", "y"] and all(row.id for row in rows)
        changed = connection.execute(sa.update(table).where(table.c.name == "x").values(ssn="1"))
        assert changed.rowcount == 1


def test_constraints_of_faces_are_told(database: Database) -> None:
    with database.admin() as admin:
        admin.execute(
            "create table clinic.stays (id int primary key, patient bigint not null"
            " references ward_model.clinic__patients, code text constraint known references clinic.icd10,"
            " note text check (note <> ''), unique (patient, code));"
            " select ward.protect('clinic.stays', '{note}')"
        )
    with database.tenant("acme") as ward:
        rows = ward.execute("select * from ward.face_constraints() where face = 'stays'").fetchall()
    assert [row[1:] for row in rows] == [
        ("stays_note_check", "CHECK", ["note"], None, None, "(note <> ''::text)"),
        ("known", "FOREIGN KEY", ["code"], "clinic.icd10", ["code"], None),
        ("stays_patient_fkey", "FOREIGN KEY", ["patient"], "patients", ["id"], None),
        (None, "NOT NULL", ["id"], None, None, None),
        (None, "NOT NULL", ["patient"], None, None, None),
        ("stays_pkey", "PRIMARY KEY", ["id"], None, None, None),
        ("stays_patient_code_key", "UNIQUE", ["patient", "code"], None, None, None),
    ]
