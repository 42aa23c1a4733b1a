"""Alembic: models are compared with the database, and what is written brings it there and back."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.pool import NullPool

from tests.support.database import Database
from tests.support.dumps import empty_database
from wardkey.embedded import Cluster
from wardkey.errors import Unsupported
from wardkey.install import migrations
from wardkey.sqlalchemy import Plain, Protected, RowRule, Sealed, Shared

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
ENV = """
from alembic import context
import wardkey.alembic

attributes = context.config.attributes
with attributes["engine"].connect() as connection:
    context.configure(
        connection=connection, target_metadata=attributes["metadata"], include_schemas=True,
        compare_server_default=True, version_table="app_version",
        include_object=lambda thing, name, kind, reflected, other: attributes["sees"](thing, kind),
    )
    with context.begin_transaction():
        context.run_migrations()
"""
MAKO = """\"\"\"${message}\"\"\"
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades}

def downgrade():
    ${downgrades}
"""


class Project:
    """An Alembic environment of its own, whose models a test gives it."""

    def __init__(self, directory: Path, database: Database) -> None:
        (directory / "versions").mkdir(parents=True)
        (directory / "env.py").write_text(ENV)
        (directory / "script.py.mako").write_text(MAKO)
        self.directory = directory
        self.config = Config()
        self.config.set_main_option("script_location", str(directory))
        self.config.set_main_option("path_separator", "os")
        self.engine = sa.create_engine(
            "postgresql+psycopg://", creator=lambda: database.admin(autocommit=False), poolclass=NullPool
        )
        self.config.attributes.update(engine=self.engine, sees=lambda thing, kind: True)

    def models(self, metadata: sa.MetaData) -> None:
        self.config.attributes["metadata"] = metadata

    def check(self) -> None:
        command.check(self.config)

    def differences(self) -> Any:
        """What models and database differ in, also where revisions are left to run."""
        options = {"include_schemas": True, "compare_server_default": True, "version_table": "app_version"}
        with self.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            return compare_metadata(context, self.config.attributes["metadata"])

    def write(self, message: str = "next") -> str:
        script = command.revision(self.config, message, autogenerate=True)
        return Path(script.path).read_text()

    def upgrade(self) -> None:
        command.upgrade(self.config, "head")

    def downgrade(self, to: str = "-1") -> None:
        command.downgrade(self.config, to)


@pytest.fixture
def project(database: Database, tmp_path: Path) -> Project:
    return Project(tmp_path / "alembic", database)


def template(**more: Any) -> sa.MetaData:
    """The models of the template database: tests/support/clinic.sql."""
    metadata = sa.MetaData(schema="clinic")
    sa.Table(
        "icd10", metadata, sa.Column("code", sa.Text, primary_key=True),
        sa.Column("title", sa.Text, nullable=False), info={"wardkey": Shared()},
    )  # fmt: skip
    sa.Table(
        "patients",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", Sealed, nullable=False),
        sa.Column("ssn", more.pop("ssn", Sealed(sa.Text))),
        sa.Column("birth_date", Sealed(sa.Date)),
        sa.Column("city", more.pop("city", sa.Text), server_default="Springfield"),
        sa.Column("created_at", sa.DateTime(True), server_default=sa.func.now(), nullable=False),
        *more.pop("columns", ()),
        info=more,
    )
    return metadata


def test_the_reference_models_are_what_the_reference_migrations_make(
    cluster: Cluster, tmp_path: Path
) -> None:
    with empty_database(cluster) as database:
        migrations.migrate(database.dsn())
        project = Project(tmp_path / "alembic", database)
        project.models(runpy.run_path(str(EXAMPLES / "models.py"))["Base"].metadata)
        project.check()


def test_nothing_is_found_where_models_say_what_is_there(project: Project) -> None:
    project.models(template())
    project.check()


def clinic(*, later: bool = False) -> sa.MetaData:
    """Models of an application, beside those of the template: first and later ones."""
    metadata = template()
    rule = RowRule("own", ("VIEWER",), "ward.claim('person')::bigint = id")
    said = Protected(audit="statement", rules=(rule,))
    if later:
        rule = RowRule("own", ("VIEWER", "ANALYST"), "id = ward.claim('person')::bigint")
        said = Protected(audit="off", audit_reason="load test", rules=(rule,))
    sa.Table(
        "rooms", metadata, sa.Column("name", sa.String(20), primary_key=True), info={"wardkey": Shared()}
    )
    people = sa.Table(
        "people",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("mrn", sa.String(20), nullable=False),
        sa.Column("ssn", Sealed(sa.String(11), classified="identifier", mask=None if later else "last4")),
        sa.Column("born", Sealed(sa.Date, classified="quasi")),
        sa.Column(
            "note", Sealed(classified="note") if later else Sealed, server_default="x" if later else None
        ),
        sa.UniqueConstraint("mrn", name="people_mrn_key"),
        info={"wardkey": said},
    )
    visits = sa.Table(
        "visits",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("person_id", sa.ForeignKey(people.c.id, name="visits_person_id_fkey"), nullable=False),
        sa.Column("room", sa.ForeignKey("clinic.rooms.name", name="visits_room_fkey")),
        sa.Column("at", sa.DateTime(True), nullable=False),
        info={"wardkey": Protected()},
    )
    if later:
        visits.append_column(
            sa.Column(
                "reason",
                Sealed(sa.Text, classified="note", mask="redact"),
                nullable=False,
                server_default="none",
            )
        )
        visits.append_column(
            sa.Column("patient", sa.ForeignKey("clinic.patients.id", name="visits_patient_fkey"))
        )
        sa.Index("visits_at_idx", visits.c.at)
        sa.Index("visits_once_idx", visits.c.person_id, visits.c.at, unique=True)
        sa.Table(
            "bills",
            metadata,
            sa.Column("visit_id", sa.ForeignKey(visits.c.id, name="bills_visit_fkey"), primary_key=True),
            sa.Column("amount", Sealed(sa.Numeric(10, 2), classified="financial")),
        )
    else:
        visits.append_column(
            sa.Column("doctor", Sealed(sa.Text, classified="identifier"), server_default="Grey")
        )
        sa.Index("visits_room_idx", visits.c.room)
    return metadata


def test_written_revisions_lead_there_and_back(project: Project, database: Database) -> None:
    project.models(clinic())
    first = project.write("first")
    project.upgrade()
    project.check()
    with database.tenant("acme", subject="t") as ward:
        ward.execute("insert into people (mrn, ssn, born) values ('1', '999-12-3456', '1990-01-02')")
        with pytest.raises(Exception, match="people_mrn_key"):
            ward.execute("insert into people (mrn) values ('1')")
        with pytest.raises(Exception, match="visits_person_id_fkey"):
            ward.execute("insert into visits (person_id, at) values (99, now())")
        ward.execute("insert into visits (person_id, at) select id, now() from people")
        assert ward.execute("select doctor from visits").fetchone() == ("Grey",)
    assert (
        "op.protect_table('people', {'ssn': 'identifier'" in first and "op.unprotect_table('people'" in first
    )

    project.models(clinic(later=True))
    second = project.write("second")
    with database.tenant("acme", subject="t") as ward:
        ward.execute("delete from visits")  # a column that may not be NULL comes
    project.upgrade()
    project.check()
    with database.tenant("acme", subject="t") as ward:
        ward.execute("insert into visits (person_id, at) select id, '2026-01-01' from people")
        for statement, constraint in (
            ("insert into visits (person_id, at) select id, '2026-01-01' from people", "visits_once_idx"),
            ("update visits set patient = 99", "visits_patient_fkey"),
            ("insert into bills (visit_id, amount) values (99, 1)", "bills_visit_fkey"),
        ):
            with pytest.raises(Exception, match=constraint):
                ward.execute(statement)
        assert ward.execute("select reason from visits").fetchone() == ("none",)
        ward.execute("delete from visits")
    for operation in (
        "add_sealed_column",
        "classify_column",
        "set_mask",
        "set_audit",
        "add_row_rule",
        "drop_row_rule",
    ):
        assert second.count(f"op.{operation}(") >= 2 or operation == "add_sealed_column", operation

    project.downgrade()
    project.models(clinic())
    assert project.differences() == []
    with pytest.raises(sa.exc.DBAPIError, match="tenants have rows in"):
        project.downgrade("base")
    with database.tenant("acme", subject="t") as ward:
        ward.execute("delete from people")
    project.downgrade("base")
    project.models(template())
    assert project.differences() == []
    project.models(clinic(later=True))
    project.upgrade()
    project.check()


def test_dropped_tables_come_back_as_they_were(project: Project) -> None:
    project.models(clinic(later=True))
    project.write("first")
    project.upgrade()
    project.models(template())
    project.write("drop")
    project.upgrade()
    project.check()
    project.downgrade()
    project.models(clinic(later=True))
    assert project.differences() == []


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (template(ssn=sa.Text()), r"clinic\.patients\.ssn is sealed: say Sealed"),
        (template(city=Sealed()), r"clinic\.patients\.city is Sealed\(…\), and is in the database unsealed"),
        (template(ssn=Sealed(sa.Integer)), r"clinic\.patients\.ssn is of another type"),
    ],
)
def test_models_that_contradict_the_database_are_refused(
    project: Project, metadata: sa.MetaData, said: str
) -> None:
    project.models(metadata)
    with pytest.raises(CommandError, match=said):
        project.check()
    with pytest.raises(CommandError, match=said):
        project.write()
    assert not list((project.directory / "versions").glob("*.py"))


def test_unique_constraints_over_sealed_columns_come_and_go(project: Project, database: Database) -> None:
    def models(*constraints: sa.UniqueConstraint) -> None:
        metadata = template(ssn=Sealed(sa.Text))
        for constraint in constraints:
            metadata.tables["clinic.patients"].append_constraint(constraint)
        project.models(metadata)

    def uniques() -> list[Any]:
        with database.admin() as admin:
            return admin.execute("select name, columns from ward.uniques").fetchall()

    models(sa.UniqueConstraint("ssn", "city", name="one_ssn"))
    assert "op.add_unique('patients', ['ssn', 'city'], 'one_ssn', schema='clinic')" in project.write("first")
    project.upgrade()
    project.check()
    assert uniques() == [("one_ssn", ["ssn", "city"])]
    models()
    assert "op.drop_unique('patients', 'one_ssn', schema='clinic')" in project.write("second")
    project.upgrade()
    project.check()
    assert uniques() == []
    project.downgrade()
    assert uniques() == [("one_ssn", ["ssn", "city"])]
    project.downgrade()
    assert uniques() == []
    project.upgrade()
    metadata = template()
    sa.Table(
        "cards", metadata, sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", Sealed(sa.Text), unique=True), info={"wardkey": Protected()}, schema="clinic",
    )  # fmt: skip
    project.models(metadata)
    project.write("third")
    project.upgrade()
    project.check()
    assert uniques() == [("cards_number_key", ["number"])]
    project.models(template())
    project.write("fourth")
    project.upgrade()
    project.check()
    assert uniques() == []
    project.downgrade()  # the table comes back with what is unique
    assert uniques() == [("cards_number_key", ["number"])]
    project.downgrade()
    assert uniques() == []


def test_searches_come_change_and_go(project: Project, database: Database) -> None:
    def models(*ssn: Any, **more: Any) -> None:
        project.models(template(ssn=Sealed(sa.Text, **more)))

    def searches() -> list[Any]:
        with database.admin() as admin:
            query = (
                "select kind, normaliser from ward.searches where column_name in ('ssn', 'note') order by 1"
            )
            return admin.execute(query).fetchall()

    models(search="exact", normaliser="digits")
    written = project.write("first")
    assert "op.add_search('patients', 'ssn', ['exact'], schema='clinic', normaliser='digits')" in written
    project.upgrade()
    project.check()
    assert searches() == [("exact", "digits")]
    models()  # does not say
    project.check()
    models(search=("exact", "prefix"), normaliser="text")
    written = project.write("second")
    assert "op.drop_search('patients', 'ssn', ['exact'], schema='clinic')" in written
    project.upgrade()
    project.check()
    assert searches() == [("exact", "text"), ("prefix", "text")]
    models(search=())
    assert project.write("third").count("op.drop_search(") == 2
    project.upgrade()
    project.check()
    assert searches() == []
    note = sa.Column("note", Sealed(sa.Text, search="words"))
    project.models(template(columns=(note,)))
    assert "op.add_search('patients', 'note', ['words'], schema='clinic')" in project.write("fourth")
    project.upgrade()
    assert searches() == [("words", "text")]
    project.models(template())
    project.write("fifth")
    project.upgrade()
    assert searches() == []
    for expected in (
        [("words", "text")],
        [],
        [("exact", "text"), ("prefix", "text")],
        [("exact", "digits")],
        [],
    ):
        project.downgrade()
        assert searches() == expected


def test_a_type_changes_while_there_are_no_tenants(
    project: Project, cluster: Cluster, tmp_path: Path
) -> None:
    project.models(template(city=sa.String(80)))
    with pytest.raises(CommandError, match=r"patients\.city is of another type, and there are tenants"):
        project.write()
    with empty_database(cluster) as database:
        migrations.migrate(database.dsn())
        project = Project(tmp_path / "without", database)
        metadata = runpy.run_path(str(EXAMPLES / "models.py"))["Base"].metadata
        metadata.tables["clinic.patients"].c.mrn.type = sa.String(80)
        project.models(metadata)
        assert "op.change_model_type('patients', 'mrn', sa.String(length=80)" in project.write()
        project.upgrade()
        project.check()
        with database.admin() as admin:
            admin.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])
        database.new_tenant()
        with pytest.raises(Unsupported, match=r"clinic\.patients\.mrn keeps its type: there are tenants"):
            project.downgrade()


def test_protection_ends_only_where_a_model_says_so(project: Project) -> None:
    def models(*said: Any) -> sa.MetaData:
        metadata = template()
        for name in ("icd10", "patients"):
            metadata.remove(metadata.tables[f"clinic.{name}"])
        for name, columns in (("icd10", ("title",)), ("patients", ("name", "ssn", "city"))):
            sa.Table(
                name, metadata, *(sa.Column(column, sa.Text) for column in columns),
                info={"wardkey": said[0]} if said else {},
            )  # fmt: skip
        return metadata

    project.models(models())
    with pytest.raises(CommandError, match=r"icd10 is shared: (.*\n)+.*patients is a model table: "):
        project.check()
    project.models(models(Plain()))
    written = project.write()
    assert "op.unshare_table('icd10', schema='clinic')" in written
    assert written.count("op.unprotect_table('patients', schema='clinic')") == 1


def test_a_sealed_column_is_made_by_no_plain_create_table(project: Project) -> None:
    metadata = sa.MetaData(schema="clinic")
    sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("ssn", Sealed))
    with project.engine.connect() as connection, pytest.raises(Unsupported, match="would not be sealed"):
        metadata.create_all(connection)
