"""What applications do with Django's ORM, in a ward; and what is not a transaction of its token."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.paginator import Paginator
from django.db import (
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    connections,
    models,
    router,
    transaction,
)
from django.db.transaction import TransactionManagementError
from psycopg.pq import Trace

from tests.support.database import Database
from wardkey.django import tokens
from wardkey.django.models import upsert
from wardkey.errors import ClassHidden, NoContext, PoolExhausted, RoleMayNotWrite

from .hospital.models import Code, Person, Tag, Visit

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
wards = connections["wards"]


class _Undo(Exception):
    pass


@pytest.fixture
def token(site: Database) -> str:
    return site.token("acme")


@pytest.fixture
def ward(token: str) -> Iterator[None]:
    """A transaction in acme's ward, taken back after the test."""
    with pytest.raises(_Undo), tokens.use(token), transaction.atomic(using="wards"):
        yield
        raise _Undo


@pytest.fixture
def ann(ward: None) -> Person:
    return Person.objects.create(
        mrn="1", name="Ann", born=date(1960, 1, 2), balance=Decimal("12.34"), findings={"a": [1]}, city="Rome"
    )


def test_every_value_comes_back(ann: Person) -> None:
    again = Person.objects.get(pk=ann.pk)
    for field in Person._meta.fields:
        assert getattr(again, field.attname) == getattr(ann, field.attname), field
    assert again.created.tzinfo is UTC
    visit = Visit.objects.create(person=ann, reason="cough", began=NOON)
    visit.refresh_from_db()
    assert visit.began == NOON


def test_queries(ann: Person) -> None:
    Code.objects.using("owner").get_or_create(code="I10", defaults={"title": "Hypertension"})
    for number in range(5):
        Visit.objects.create(
            person=ann, reason=f"r{number}", began=NOON.replace(day=number + 1), code_id="I10"
        )
    assert Visit.objects.filter(code__title="Hypertension", person__name="Ann").count() == 5
    assert [page.number for page in Paginator(Visit.objects.order_by("began"), 2)] == [1, 2, 3]
    assert Visit.objects.order_by("-began")[1:3][0].reason == "r3"
    assert Person.objects.annotate(n=models.Count("visit")).get().n == 5
    assert Person.objects.filter(findings__a__contains=1).exists()
    assert Person.objects.aggregate(total=models.Sum("balance"))["total"] == Decimal("12.34")
    assert Person.objects.filter(born__year=1960, name__icontains="NN").exists()
    assert Visit.objects.select_related("person", "code").first().person.name == "Ann"
    assert len(Person.objects.prefetch_related("visit_set").get().visit_set.all()) == 5
    Person.objects.update(balance=models.F("balance") * 2)
    assert Person.objects.values_list("balance", flat=True).get() == Decimal("24.68")
    tag = Tag.objects.create(word="x")
    ann.tags.set([tag])
    assert list(Person.objects.filter(tags__word="x")) == [ann] and ann.tags.count() == 1
    ann.delete()
    assert not Visit.objects.exists()


def test_a_server_side_cursor_ends_with_its_transaction(ward: None) -> None:
    Tag.objects.bulk_create(Tag(word=str(number)) for number in range(250))
    rows = Tag.objects.order_by("id").iterator(chunk_size=100)
    assert next(rows).word == "0"
    with wards.cursor() as cursor:
        cursor.execute("select is_holdable from pg_cursors where name like '_django_curs_%'")
        assert cursor.fetchall() == [(False,)]
    assert sum(1 for _ in rows) == 249


def test_writing_in_bulk(ward: None) -> None:
    made = Tag.objects.bulk_create([Tag(word="a"), Tag(word="b")])
    assert all(tag.pk for tag in made)
    Tag.objects.bulk_create([Tag(word="b"), Tag(word="c")], ignore_conflicts=True)
    assert Tag.objects.count() == 3
    with pytest.raises(NotSupportedError, match="does not support updating conflicts"):
        Tag.objects.bulk_create(
            [Tag(word="b")], update_conflicts=True, update_fields=["word"], unique_fields=["word"]
        )
    made[0].word = "z"
    Tag.objects.bulk_update(made[:1], ["word"])
    assert Tag.objects.filter(word="z").exists()


def test_upsert_stands_in_for_update_conflicts(ward: None) -> None:
    fields = ("name", "born", "balance", "findings", "city", "created")
    people = [
        Person(
            mrn=str(number),
            name="A",
            born=date(1960, 1, 2),
            balance=Decimal("1.20"),
            created=NOON,
            findings={"b": None},
        )
        for number in range(2)
    ]
    assert upsert(people, fields=fields, key=["mrn"]) == 2
    people[0].name = 'B"\\'
    assert upsert(people[:1], fields=["name"], key=["mrn"]) == 1
    first, second = Person.objects.order_by("mrn")
    assert (first.name, second.name, first.findings, first.balance) == (
        'B"\\',
        "A",
        {"b": None},
        Decimal("1.20"),
    )
    assert first.born == date(1960, 1, 2)
    assert upsert([], fields=["name"]) == 0
    people[0].name = models.F("mrn")
    with pytest.raises(TypeError, match="upsert takes values"):
        upsert(people[:1], fields=["name"], key=["mrn"])


def test_get_or_create_update_or_create_and_locks(ward: None) -> None:
    tag, made = Tag.objects.get_or_create(word="a")
    assert made and Tag.objects.get_or_create(word="a") == (tag, False)
    person, made = Person.objects.update_or_create(
        mrn="1", defaults={"name": "Ann"}, create_defaults={"name": "New"}
    )
    assert made and person.name == "New"
    person, made = Person.objects.update_or_create(mrn="1", defaults={"name": "Ann"})
    assert not made and Person.objects.select_for_update().get(name="Ann") == person


def test_savepoints(ward: None) -> None:
    Tag.objects.create(word="kept")
    with pytest.raises(IntegrityError), transaction.atomic(using="wards"):
        Tag.objects.create(word="lost")
        Tag.objects.create(word="kept")
    with pytest.raises(_Undo), transaction.atomic(using="wards"):
        Tag.objects.create(word="lost too")
        raise _Undo
    with transaction.atomic(using="wards"):
        Tag.objects.create(word="kept too")
    assert {tag.word for tag in Tag.objects.all()} == {"kept", "kept too"}


def test_on_commit_runs_when_the_connection_is_back(token: str) -> None:
    seen = []
    with tokens.use(token):
        with transaction.atomic(using="wards"):
            transaction.on_commit(lambda: seen.append(wards.connection), using="wards")
            tag = Tag.objects.create(word="a")
        assert seen == [None]
        with transaction.atomic(using="wards"):
            tag.delete()


def test_refusals_are_errors_of_django_with_the_cause(site: Database, token: str) -> None:
    in_ward = transaction.atomic(using="wards")
    with pytest.raises(OperationalError) as refused, in_ward:
        Tag.objects.exists()
    assert type(refused.value.__cause__) is NoContext
    for role, cause, do in (
        ("ANALYST", ClassHidden, lambda: list(Person.objects.values_list("name"))),
        ("VIEWER", RoleMayNotWrite, lambda: Tag.objects.create(word="a")),
    ):
        with tokens.use(token), in_ward:
            Person.objects.create(mrn="1", name="Ann")
        with tokens.use(site.token("acme", role=role)), pytest.raises(ProgrammingError) as refused, in_ward:
            do()
        assert type(refused.value.__cause__) is cause and refused.value.__cause__.hint in str(refused.value)
        with tokens.use(token), in_ward:
            Person.objects.all().delete()


def test_the_login_is_in_the_round_trip_of_the_first_statement(token: str, tmp_path: Path) -> None:
    """libpq's trace: an answer is waited for after each Sync or Query."""
    trace = tmp_path / "trace"
    with tokens.use(token), trace.open("wb") as file, transaction.atomic(using="wards"):
        wards.ensure_connection()
        wards.connection.pgconn.trace(file.fileno())
        wards.connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        assert not Tag.objects.exists()
        wards.connection.pgconn.untrace()
    sent = re.findall(r"^F\t\d+\t(\w+)", trace.read_text("latin-1"), re.M)
    assert sent.count("Sync") + sent.count("Query") == 1 and sent.count("Parse") == 3


def test_masks_are_what_the_application_sees(site: Database, token: str) -> None:
    with tokens.use(token), transaction.atomic(using="wards"):
        Person.objects.create(mrn="1", name="Ann", born=date(1960, 1, 2))
    with tokens.use(site.token("acme", role="ANALYST")), transaction.atomic(using="wards"):
        assert Person.objects.values_list("born", flat=True).get() == date(1960, 1, 1)
    with tokens.use(token), transaction.atomic(using="wards"):
        Person.objects.all().delete()


def test_a_statement_outside_of_atomic_is_refused(token: str) -> None:
    for do in (Tag.objects.exists, lambda: Tag(word="a").save(), wards.cursor):
        with tokens.use(token), pytest.raises(TransactionManagementError, match="outside of a transaction"):
            do()
    assert wards.connection is None


def test_one_transaction_has_one_token(site: Database, token: str) -> None:
    in_ward, changed = transaction.atomic(using="wards"), "token has changed"
    with pytest.raises(TransactionManagementError, match=changed), tokens.use(token), in_ward:
        Tag.objects.create(word="a")
        with tokens.use(site.token("globex")):
            Tag.objects.exists()
    with tokens.use(token), in_ward:
        assert not Tag.objects.exists()


def test_a_thread_has_no_token_unless_it_is_given_the_context(token: str) -> None:
    def read() -> bool:
        with transaction.atomic(using="wards"):
            return Tag.objects.exists()

    with tokens.use(token), ThreadPoolExecutor(1) as thread:
        with pytest.raises(OperationalError, match="no token"):
            thread.submit(read).result()
        assert thread.submit(contextvars.copy_context().run, read).result() is False


def test_two_aliases_are_two_transactions(token: str) -> None:
    with tokens.use(token):
        with transaction.atomic(using="wards"):
            Tag.objects.create(word="a")
            with pytest.raises(_Undo), transaction.atomic(using="narrow"):
                assert not Tag.objects.using("narrow").exists()
                Tag.objects.using("narrow").create(word="b")
                raise _Undo
        with transaction.atomic(using="narrow"):
            assert [tag.word for tag in Tag.objects.using("narrow").all()] == ["a"]
            Tag.objects.using("narrow").all().delete()


def test_relations_stay_in_their_alias(token: str) -> None:
    with tokens.use(token), pytest.raises(_Undo), transaction.atomic(using="narrow"):
        person = Person.objects.using("narrow").create(mrn="1", name="Ann")
        visit = Visit.objects.using("narrow").create(person=person, reason="x", began=NOON)
        assert Visit.objects.using("narrow").get().person == person
        assert person.visit_set.get() == visit and not person.tags.exists()
        raise _Undo
    user = User(username="u")
    user._state.db = "default"
    assert router.db_for_read(User, instance=person) == router.db_for_read(User) == "default"
    assert router.db_for_write(Person, instance=user) == router.db_for_write(Person) == "wards"
    assert router.allow_relation(user, person) and router.allow_relation(person, visit)
    visit._state.db = "wards"
    assert not router.allow_relation(person, visit)


def test_a_pool_that_is_full_is_one_clear_error(token: str) -> None:
    def read() -> Any:
        with transaction.atomic(using="narrow"):
            return Tag.objects.using("narrow").count()

    with tokens.use(token), transaction.atomic(using="narrow"), ThreadPoolExecutor(1) as thread:
        Tag.objects.using("narrow").count()
        with pytest.raises(OperationalError) as full:
            thread.submit(contextvars.copy_context().run, read).result()
        assert type(full.value.__cause__) is PoolExhausted
    with tokens.use(token):
        assert read() == 0


def test_a_connection_that_is_lost_is_the_next_transactions_no_more(site: Database, token: str) -> None:
    in_ward = transaction.atomic(using="wards")
    with tokens.use(token):
        with pytest.raises(OperationalError), in_ward:
            Tag.objects.create(word="a")
            with site.admin() as admin:
                admin.execute("select pg_terminate_backend(%s)", [wards.connection.info.backend_pid])
            Tag.objects.exists()
        with in_ward:
            assert not Tag.objects.exists()
        with pytest.raises(ProgrammingError, match="Cannot open a new connection"), in_ward:
            Tag.objects.create(word="a")
            wards.close()
            Tag.objects.exists()
        with in_ward:
            assert not Tag.objects.exists()


def test_a_transaction_that_was_left_open_ends_with_the_request(token: str) -> None:
    with tokens.use(token):
        left = transaction.atomic(using="wards")
        left.__enter__()
        Tag.objects.create(word="a")
        close_old_connections()
        with transaction.atomic(using="wards"):
            assert not Tag.objects.exists()
        wards.set_autocommit(False)
        Tag.objects.create(word="b")
        close_old_connections()
        assert wards.get_autocommit()
        with transaction.atomic(using="wards"):
            assert not Tag.objects.exists()


def test_transactions_by_hand(token: str) -> None:
    with tokens.use(token):
        wards.set_autocommit(False)
        Tag.objects.create(word="a")
        wards.commit()
        Tag.objects.create(word="b")
        wards.rollback()
        assert [tag.word for tag in Tag.objects.all()] == ["a"]
        Tag.objects.all().delete()
        wards.commit()
        wards.set_autocommit(True)


def test_an_error_at_commit_leaves_nothing_open(token: str) -> None:
    with tokens.use(token):
        with pytest.raises(IntegrityError), transaction.atomic(using="wards"):
            Visit.objects.create(person_id=4711, reason="x", began=NOON)
        with transaction.atomic(using="wards"):
            assert not Visit.objects.exists()


def test_values_that_do_not_fit_are_djangos_errors(ward: None) -> None:
    with pytest.raises(DataError), transaction.atomic(using="wards"):
        Tag.objects.create(word="x" * 21)


@pytest.mark.parametrize(
    "settings",
    [
        {"OPTIONS": {"pool": True}},
        {"OPTIONS": {"assume_role": "x"}},
        {"CONN_MAX_AGE": 5},
        {"AUTOCOMMIT": False},
    ],
)
def test_settings_that_would_not_hold_are_refused(settings: dict[str, Any], token: str) -> None:
    wrong = type(wards)({**wards.settings_dict, **settings}, "wrong")
    wrong.set_autocommit(False)
    with tokens.use(token), pytest.raises(ImproperlyConfigured, match="'wrong'"):
        wrong.cursor()


def test_the_isolation_level_can_be_set(token: str) -> None:
    strict = type(wards)(
        {**wards.settings_dict, "OPTIONS": {**wards.settings_dict["OPTIONS"], "isolation_level": 4}}, "wards"
    )
    with tokens.use(token):
        strict.set_autocommit(False)
        with strict.cursor() as cursor:
            cursor.execute("show transaction_isolation")
            assert cursor.fetchone() == ("serializable",)
        strict.rollback()
