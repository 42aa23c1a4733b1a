"""Migrations of ward models make, change and take back model tables; nothing is left to detect after them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import IntegrityError, NotSupportedError, ProgrammingError, connections, models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    AlterUniqueTogether,
    CreateModel,
    DeleteModel,
    Migration,
    RemoveConstraint,
    RemoveField,
    RenameField,
    RenameIndex,
    RenameModel,
    RunSQL,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models.functions import Now

from tests.support.database import Database
from wardkey.django.models import Sealed
from wardkey.django.operations import AddRowRule, ProtectTable, RemoveRowRule, SetAudit, ShareTable
from wardkey.django.tables import Ward
from wardkey.errors import MaskDoesNotFit, TableNotEmpty, UnknownObject

_DECLARED = """
    select face, classes::text, (
      select array_agg(conname || ' ' || pg_get_constraintdef(oid) order by conname) from pg_constraint
      where conrelid = shape and contype in ('f', 'u', 'c'))
    from ward.models where relation::text like 'hospital.%' order by face"""


@pytest.fixture(scope="module")
def made(empty: Database) -> Iterator[Database]:
    call_command("migrate", "hospital", database="owner", verbosity=0)
    yield empty
    call_command("migrate", "hospital", "zero", database="owner", verbosity=0)
    with empty.admin() as admin:
        assert admin.execute(_DECLARED).fetchall() == []


@pytest.fixture
def migrate(made: Database) -> Iterator[Callable[..., None]]:
    """Applies operations as a migration of their own; after the test they are taken back."""
    connection, done = connections["owner"], []
    state = MigrationLoader(connection).project_state()

    def apply(*operations: Operation) -> None:
        nonlocal state
        migration, before = Migration(f"m{len(done)}", "hospital"), state.clone()
        migration.operations = list(operations)
        with connection.schema_editor() as editor:
            after = migration.apply(state.clone(), editor)
        done.append((migration, before))
        state = after

    yield apply
    for migration, before in reversed(done):
        with connection.schema_editor() as editor:
            migration.unapply(before, editor)
    assert list(declared(made)) == ["persons", "persons_tags", "tags", "visits"]


def declared(database: Database) -> dict[str, tuple[Any, ...]]:
    with database.admin() as admin:
        return {face: rest for face, *rest in admin.execute(_DECLARED)}


def person(**fields: Any) -> list[Operation]:
    """Operations that add fields to Person."""
    return [AddField("person", name, field) for name, field in fields.items()]


def is_refused(migrate: Callable[..., None], *operations: Operation, by: type[Exception]) -> None:
    with pytest.raises(ProgrammingError) as refused:
        migrate(*operations)
    assert type(refused.value.__cause__) is by


def test_tables_are_protected_as_the_models_say(made: Database) -> None:
    tables = declared(made)
    assert {face: json.loads(classes) for face, (classes, _) in tables.items()} == {
        "persons": {
            "name": "identifier", "born": "quasi", "balance": "financial", "findings": "clinical",
        },
        "persons_tags": {},
        "tags": {},
        "visits": {"reason": "clinical"},
    }  # fmt: skip
    keys = " ".join(tables["visits"][1])
    assert "REFERENCES ward_model.hospital__persons(id) DEFERRABLE INITIALLY DEFERRED" in keys
    assert "REFERENCES hospital.codes(code)" in keys and "UNIQUE (person_id, began)" in keys
    assert masks(made) == {"name": "initial"}
    with made.tenant("acme", subject="t") as acme:
        acme.execute("select * from hospital.codes")


def test_nothing_is_left_to_detect(made: Database) -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_aliases_have_each_their_own(made: Database) -> None:
    with made.admin() as admin:
        owners = (
            "select count(*) from pg_class where relnamespace = 'hospital'::regnamespace and relname = %s"
        )
        assert [admin.execute(owners, [name]).fetchone() for name in ("auth_user", "persons")] == [(0,), (1,)]
    with pytest.raises(ImproperlyConfigured, match="Migrate the alias of the owner"):
        call_command("migrate", database="wards", verbosity=0)


def test_what_is_added_later(made: Database, migrate: Callable[..., None]) -> None:
    migrate(
        *person(
            phone=Sealed(models.CharField(max_length=20, null=True), classified="identifier", mask="last4"),
            weight=Sealed(models.PositiveIntegerField(null=True)),
            insurer=models.CharField(max_length=20, default="none"),
            mother=models.OneToOneField("hospital.person", models.SET_NULL, null=True),
        ),
        AddConstraint("person", models.UniqueConstraint(fields=["city", "created"], name="persons_apart")),
    )
    classes, keys = declared(made)["persons"]
    assert json.loads(classes)["phone"] == "identifier" and masks(made)["phone"] == "last4"
    text = " ".join(keys)
    assert "persons_apart UNIQUE (city, created)" in text and "CHECK ((weight >= 0)) NOT VALID" in text
    assert "FOREIGN KEY (mother_id) REFERENCES ward_model.hospital__persons(id)" in text
    with made.tenant("acme", subject="t") as acme:
        made_by = "insert into persons (mrn, name, findings, city, created, insurer, weight, mother_id)"
        for weight, mother, error in ((1, 7, "23503"), (-1, None, "23514")):
            with pytest.raises(psycopg.Error) as caught:
                acme.execute(f"{made_by} values ('1', 'A', '{{}}', '', now(), '', %s, %s)", [weight, mother])
            assert caught.value.sqlstate == error


def test_a_table_that_references_another_migrations(made: Database, migrate: Callable[..., None]) -> None:
    migrate(
        CreateModel(
            "Letter",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("body", Sealed(models.TextField(), classified="note")),
            ],
            {"db_table": "letters"},
            (Ward, models.Model),
        ),
        CreateModel(
            "Page",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("letter", models.ForeignKey("hospital.letter", models.CASCADE)),
                ("text", Sealed(models.TextField(null=True))),
                ("gone", Sealed(models.TextField(null=True))),
            ],
            {"db_table": "pages"},
            (Ward, models.Model),
        ),
        AddField("letter", "first", models.ForeignKey("hospital.page", models.SET_NULL, null=True)),
        AddField("letter", "person", models.ForeignKey("hospital.person", models.CASCADE)),
        AddField("letter", "title", Sealed(models.TextField(null=True), mask="redact")),
        AlterField("page", "text", Sealed(models.TextField(null=True), classified="note")),
        RenameField("page", "text", "words"),
        RemoveField("page", "gone"),
        AddRowRule("letters", "own", roles=["VIEWER"], expression="person_id = ward.claim('id')::bigint"),
        SetAudit("pages", "statement", "read in bulk"),
    )
    tables = declared(made)
    assert json.loads(tables["letters"][0]) == {"body": "note", "title": "clinical"}
    assert json.loads(tables["pages"][0]) == {"words": "note"}
    assert " ".join(tables["letters"][1]).count("REFERENCES ward_model.hospital__") == 2
    assert masks(made)["title"] == "redact"
    rules = "select name, roles from ward.row_rules where relation::text = 'hospital.letters'"
    with made.admin() as admin:
        assert admin.execute(rules).fetchall() == [("own", ["VIEWER"])]
        assert admin.execute("select audit from ward.models where face = 'pages'").fetchone() == (
            "statement",
        )
        removed = RemoveRowRule("letters", "own", roles=["VIEWER"], expression="person_id = 1")
        migrate(removed)
        assert admin.execute(rules).fetchall() == []


def test_plain_changes_of_a_protected_table(made: Database, migrate: Callable[..., None]) -> None:
    migrate(
        AddIndex("person", models.Index(fields=["city", "-created"], name="persons_city")),
        RenameIndex("person", new_name="persons_by_city", old_name="persons_city"),
        AlterUniqueTogether("person", {("city", "created")}),
        AlterField("person", "city", models.CharField(max_length=40, unique=True, null=True)),
        RemoveConstraint("visit", "visits_once"),
        AlterField("visit", "began", models.DateTimeField(db_default=Now())),
        RenameModel("visit", "Stay"),
        CreateModel(
            "Child",
            [
                ("person_ptr", parent_link()),
                ("school", Sealed(models.TextField(db_default="none"))),
                ("age", models.IntegerField(db_default=7)),
                (
                    "twice",
                    models.GeneratedField(
                        expression=models.F("age") * 2, output_field=models.IntegerField(), db_persist=True
                    ),
                ),
            ],
            {"db_table": "children"},
            ("hospital.person",),
        ),
    )
    tables = declared(made)
    assert list(tables) == ["children", "persons", "persons_tags", "tags", "visits"]
    assert {"UNIQUE (city, created)", "UNIQUE (city)"} <= {
        key.split(" ", 1)[1] for key in tables["persons"][1]
    }
    assert json.loads(tables["children"][0]) == {"school": "clinical"} and "visits_once" not in str(tables)
    with made.tenant("acme", subject="t") as acme:
        acme.execute("insert into persons (mrn, name, findings, created) values ('1', 'A', '{}', now())")
        acme.execute("insert into children (person_ptr_id) select id from persons")
        assert acme.execute("select school, twice from children").fetchone() == ("none", 14)
        acme.execute("delete from children; delete from persons")
    with pytest.raises(NotSupportedError, match="faces keep their name"):
        migrate(AlterModelTable("person", "people"))


def parent_link() -> models.OneToOneField:
    return models.OneToOneField("hospital.person", models.CASCADE, parent_link=True, primary_key=True)


def test_a_sealed_field_changes_class_mask_and_name_and_nothing_else(
    made: Database, migrate: Callable[..., None]
) -> None:
    born = Sealed(models.DateField(default="1900-01-01"), classified="identifier", mask="year")
    migrate(AlterField("person", "born", born), RenameField("person", "born", "birthday"))
    assert json.loads(declared(made)["persons"][0])["birthday"] == "identifier"
    assert masks(made)["birthday"] == "year"
    for name, field in (
        ("city", Sealed(models.CharField(max_length=40))),
        ("name", models.CharField(max_length=80)),
        ("name", Sealed(models.CharField(max_length=81), classified="identifier", mask="initial")),
    ):
        with pytest.raises(NotSupportedError, match="nobody can change what is stored"):
            migrate(AlterField("person", name, field))


def test_no_plaintext_is_written_into_a_sealed_column(made: Database, migrate: Callable[..., None]) -> None:
    """Django fills a column that becomes NOT NULL with its default, of rows of whatever tenant."""
    with made.tenant("acme", subject="t") as acme:
        acme.execute(
            "insert into persons (mrn, name, findings, city, created) values ('1', 'A', '{}', '', now())"
        )
        try:
            for operation in (
                AlterField(
                    "person", "born", Sealed(models.DateField(default="1900-01-01"), classified="quasi")
                ),
                AddField("person", "eyes", Sealed(models.TextField(default="brown"))),
            ):
                with pytest.raises(IntegrityError):
                    migrate(operation)
        finally:
            acme.execute("delete from persons")


def test_an_annotation_that_is_wrong_is_refused(migrate: Callable[..., None]) -> None:
    is_refused(migrate, *person(a=Sealed(models.TextField(null=True), classified="secret")), by=UnknownObject)
    is_refused(migrate, *person(a=Sealed(models.DateField(null=True), mask="last4")), by=MaskDoesNotFit)
    key = Sealed(models.TextField(unique=True))
    key.set_attributes_from_name("key")
    assert "wardkey.E001" in [message.id for message in key.check()]


def test_a_model_that_contradicts_the_database_is_named(made: Database) -> None:
    check = connections["owner"].validation.check
    assert check() == []
    with made.admin() as admin:
        admin.execute("select ward.classify('hospital.persons', 'born', 'clinical')")
        admin.execute("alter table hospital.visits add column person_note text")
        try:
            (message,) = check()
        finally:
            admin.execute("select ward.classify('hospital.persons', 'born', 'quasi')")
            admin.execute("alter table hospital.visits drop column person_note cascade")
    assert message.msg == "column born is of class clinical in the database, quasi in the model"
    with made.admin() as admin:
        admin.execute("select ward.unprotect('hospital.visits')")
        try:
            assert [message.msg for message in check()] == ["table visits is not protected"]
        finally:
            admin.execute("select ward.protect('hospital.visits', '{reason}')")


def test_no_table_is_dropped_with_rows_of_tenants(made: Database, migrate: Callable[..., None]) -> None:
    with made.tenant("acme", subject="t") as acme:
        acme.execute("insert into tags (word) values ('x')")
        try:
            is_refused(migrate, RemoveField("person", "tags"), DeleteModel("tag"), by=TableNotEmpty)
        finally:
            acme.execute("delete from tags")


def test_tables_of_others_are_protected_and_shared(made: Database, migrate: Callable[..., None]) -> None:
    migrate(
        RunSQL(
            "create table loose (id int primary key, a text, b date); create table units (id int)",
            "drop table loose; drop table units",
        ),
        ProtectTable("loose", {"a": "note", "b": "quasi"}, {"b": "year"}),
        ShareTable("units"),
    )
    assert (
        json.loads(declared(made)["loose"][0]) == {"a": "note", "b": "quasi"} and masks(made)["b"] == "year"
    )
    with made.tenant("acme", subject="t") as acme:
        acme.execute("select * from hospital.units, loose")


def masks(database: Database) -> dict[str, str]:
    with database.admin() as admin:
        return dict(
            admin.execute("select name, mask from ward_internal.sealed_columns where mask is not null")
        )
