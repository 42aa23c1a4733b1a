"""Unique over sealed columns: as PostgreSQL's UNIQUE, at every moment of a rotation, and no value is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire, rotate
from wardkey.doctor import Server, checks

_INSERT = "insert into patients (name, ssn, city) values (%s, %s, %s)"
_TOKENS = "select stored from ward_internal.searches where kind = %s"


@pytest.fixture
def ward(database: Database) -> Iterator[Connection]:
    """Acme's, where no two patients have one SSN."""
    with database.admin() as admin:
        assert admin.execute("select ward.add_unique('clinic.patients', '{ssn}')").fetchall() == [(0,)]
    with database.tenant("acme", subject="tester") as ward:
        yield ward


def _complaints(admin: Connection) -> set[tuple[str, str]]:
    return {
        (check.name, problem.object)
        for theme in ("wards", "models", "roles", "privileges", "functions", "tables")
        for check in checks()[theme]
        for problem in check.run(theme, Server(admin)).problems
    }


def _refused(ward: Connection, ssn: str, query: str = _INSERT) -> psycopg.errors.UniqueViolation:
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        ward.execute(query, ["Twin", ssn, "Boston"])
    return error.value


def test_a_duplicate_is_refused_by_the_constraints_name_and_tells_no_value(ward: Connection) -> None:
    ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
    error = _refused(ward, "999-11-0001")
    assert (error.diag.constraint_name, error.diag.table_name) == ("patients_ssn_key", "patients")
    assert error.diag.message_primary == 'duplicate key value violates unique constraint "patients_ssn_key"'
    assert error.diag.message_detail is None and error.diag.message_hint is None
    ward.execute(_INSERT, ["Bob", "999-11-0002", "Boston"])
    with pytest.raises(psycopg.errors.UniqueViolation):
        ward.execute("update patients set ssn = '999-11-0001' where name = 'Bob'")
    ward.execute("update patients set city = 'Salem', ssn = ssn")
    ward.execute("insert into patients (name, ssn) values ('Twin', '999-11-0001') on conflict do nothing")
    assert ward.execute("select count(*) from patients").fetchall() == [(2,)]
    ward.execute("delete from patients where name = 'Ada'")
    ward.execute("update patients set ssn = '999-11-0001' where name = 'Bob'")
    ward.execute(_INSERT, ["Cem", "999-11-0002", "Boston"])
    for _ in range(2):
        ward.execute(_INSERT, ["Nobody", None, "Boston"])  # nulls are distinct


def test_another_ward_may_have_the_value(ward: Connection, database: Database) -> None:
    ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
    with database.tenant("globex", subject="tester") as other:
        other.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
        _refused(other, "999-11-0001")


def test_plain_columns_join_in(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("select ward.add_unique('clinic.patients', '{city, name}', 'one_name', 'text')")
        assert admin.execute("select name, columns, normaliser from ward.uniques").fetchall() == [
            ("one_name", ["city", "name"], "text")
        ]
    with database.tenant("acme", subject="tester") as ward:
        ward.execute(_INSERT, ["Ada", None, "Boston"])
        ward.execute(_INSERT, ["Ada", None, "Salem"])
        _refused(
            ward, "1", "insert into patients (name, ssn, city) values (replace(%s, 'Twin', 'ÁDA'), %s, %s)"
        )
        for _ in range(2):
            ward.execute(_INSERT, ["Ada", None, None])


def test_who_comes_second_waits_for_the_first(ward: Connection, database: Database) -> None:
    outcome: list[object] = []
    with database.tenant("acme", subject="tester") as second, database.admin() as admin:

        def insert() -> None:
            try:
                outcome.append(second.execute(_INSERT, ["Twin", "999-11-0001", "Boston"]).rowcount)
            except psycopg.errors.UniqueViolation as error:
                outcome.append(error.diag.constraint_name)

        for end in ("commit", "rollback"):
            ward.execute("delete from patients")
            with ward.transaction(force_rollback=end == "rollback"):
                ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
                thread = threading.Thread(target=insert)
                thread.start()
                while not admin.execute(
                    "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                    [second.info.backend_pid],
                ).fetchone():
                    assert thread.is_alive()
            thread.join()
    assert outcome == ["patients_ssn_key", 1]


def test_there_is_no_window_while_keys_are_replaced(ward: Connection, database: Database) -> None:
    """At every step each earlier value is refused, under the former key and the new one."""
    taken: list[str] = []
    uncommitted: set[str] = set()  # another one would wait for these
    with database.admin() as admin:
        admin.execute("select ward.drop_unique('clinic.patients', 'patients_ssn_key')")
        before = _complaints(admin)
        admin.execute("select ward.add_unique('clinic.patients', '{ssn}')")

    def take(connection: Connection, ssn: str) -> None:
        for known in taken:
            if connection is ward and known in uncommitted:
                continue
            with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                connection.execute(_INSERT, ["Twin", known, "Boston"])
        connection.execute(_INSERT, [ssn, ssn, "Boston"])
        taken.append(ssn)
        if connection is not ward:
            uncommitted.add(ssn)

    with database.admin() as admin, database.tenant("acme", subject="old") as old:
        for version in (2, 3, 4):
            take(ward, f"{version}-before")
            with old.transaction():
                old.execute("select count(*) from patients")
                assert rotate(admin) == version
                take(ward, f"{version}-new")
                take(old, f"{version}-old")  # sealed under the former version
                reseal(admin, blocks=1)
                take(ward, f"{version}-resealed")
                take(old, f"{version}-old too")
            uncommitted.clear()
            reseal(admin)
            take(ward, f"{version}-again")
            with pytest.raises(psycopg.Error) as error:
                rotate(admin)
            assert error.value.sqlstate == "WK213"
            assert retire(admin) == [version - 1]
            take(ward, f"{version}-retired")
            reseal(admin)  # what is left of the former's tokens
            assert retire(admin) == []
            take(ward, f"{version}-after")
            (former,) = admin.execute(
                _TOKENS, ["unique_odd" if version % 2 == 0 else "unique_even"]
            ).fetchall()
            counts = admin.execute(
                f"select count(*), count({former[0]}) from sealed_acme.patients"
            ).fetchall()
            assert counts == [(len(taken), 0)]
            error = _refused(ward, taken[0])
            assert error.diag.constraint_name == "patients_ssn_key"
        finished = admin.execute("select bool_and(finished_at is not null) from ward_internal.rotations")
        assert finished.fetchall() == [(True,)]
        assert _complaints(admin) == before


def test_a_third_version_waits_until_the_first_is_retired(ward: Connection, database: Database) -> None:
    ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
    with database.admin() as admin:
        rotate(admin)
        with pytest.raises(psycopg.Error) as error:
            admin.execute("select ward.rotate_key('acme', 'a second incident', p_incident => true)")
        assert error.value.sqlstate == "WK214" and "wardkey keys reseal acme" in str(
            error.value.diag.message_hint
        )
        reseal(admin)
        retire(admin)
        assert admin.execute("select ward.rotate_key('acme', 'now', p_incident => true)").fetchall() == [(3,)]
    _refused(ward, "999-11-0001")


def test_rows_that_are_there_get_tokens_and_those_that_are_not_unique_are_named(database: Database) -> None:
    with database.tenant("acme", subject="tester") as ward, database.admin() as admin:
        for number, ssn in enumerate(["1", "2", "1", "3"], 101):
            ward.execute("insert into patients (id, name, ssn) values (%s, 'x', %s)", [number, ssn])
        assert admin.execute("select ward.add_unique('clinic.patients', '{ssn}', 'ssns')").fetchall() == [
            (1,)
        ]
        assert admin.execute("select pending from ward.uniques").fetchall() == [(["acme"],)]
        assert reseal(admin).failed == 1
        (detail,) = admin.execute("select detail from ward.events where kind = 'unopened'").fetchall()
        assert detail[0]["named"] in ([{"column": "ssn", "row": {"id": n}}] for n in (101, 103))
        with pytest.raises(psycopg.Error) as error:
            retire(admin)
        assert error.value.sqlstate == "WK214"
        _refused(ward, "2")
        ward.execute("delete from patients where id = 103")
        assert reseal(admin).failed == 0
        retire(admin)
        assert admin.execute("select pending from ward.uniques").fetchall() == [([],)]
        assert _refused(ward, "1").diag.constraint_name == "ssns"


def test_what_is_dropped_leaves_nothing(ward: Connection, database: Database) -> None:
    left = (
        "select (select count(*) from ward_internal.searches), (select count(*) from ward.uniques),"
        " (select count(*) from pg_attribute"
        " where attname ~ '^ward_search' and not attisdropped and attrelid in"
        " ('clinic.patients'::regclass, 'sealed_acme.patients'::regclass))"
    )
    with database.admin() as admin:
        admin.execute("select ward.add_unique('clinic.patients', '{ssn, city}', 'both')")
        admin.execute("select ward.drop_unique('clinic.patients', 'both')")
        ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
        _refused(ward, "999-11-0001")
        admin.execute("select ward.drop_unique('clinic.patients', 'patients_ssn_key')")
        assert admin.execute(left).fetchall() == [(0, 0, 0)]
        ward.execute(_INSERT, ["Twin", "999-11-0001", "Boston"])
        admin.execute("select ward.add_unique('clinic.patients', '{city, birth_date}')")
        admin.execute("alter table clinic.patients drop column city cascade")
        assert admin.execute(left).fetchall() == [(0, 0, 0)]


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ("'{}'", "WK204"),
        ("'{ssn, ssn}'", "WK204"),
        ("'{nothing}'", "WK204"),
        ("'{tenant_id, ssn}'", "WK204"),
        ("'{city}'", "WK209"),
        ("'{ssn}', 'patients_pkey'", "WK209"),
        ("'{birth_date}', null, 'digits'", "WK271"),
    ],
)
def test_what_cannot_be_unique_is_refused(database: Database, arguments: str, state: str) -> None:
    with database.admin() as admin, pytest.raises(psycopg.Error) as error:
        admin.execute(f"select ward.add_unique('clinic.patients', {arguments})")
    assert error.value.sqlstate == state and error.value.diag.message_hint


def test_a_table_is_protected_with_its_unique_constraints(database: Database) -> None:
    with database.admin() as admin:
        admin.execute(
            "create table clinic.cards (id int primary key, number text unique, clinic text, holder text,"
            " constraint one_card unique (clinic, holder))"
        )
        admin.execute("select ward.protect('clinic.cards', '{number, holder}')")
        assert admin.execute("select name, columns from ward.uniques order by 1").fetchall() == [
            ("cards_number_key", ["number"]),
            ("one_card", ["clinic", "holder"]),
        ]
    with database.tenant("acme", subject="tester") as ward:
        ward.execute("insert into cards values (1, '7', 'a', 'h'), (2, '8', 'b', 'h')")
        for row in ((3, "7", "c", "c"), (4, "9", "b", "h")):
            with pytest.raises(psycopg.errors.UniqueViolation):
                ward.execute("insert into cards values (%s, %s, %s, %s)", row)


def test_a_column_that_is_unique_keeps_its_class(ward: Connection, database: Database) -> None:
    with database.admin() as admin, pytest.raises(psycopg.Error, match="part of a unique index"):
        admin.execute("select ward.classify('clinic.patients', 'ssn', 'financial')")


def test_a_role_that_sees_a_mask_cannot_ask_by_writing(ward: Connection, database: Database) -> None:
    """It has no search key: refused before it is known whether the value is there."""
    ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
    with database.admin() as admin:
        admin.execute("select ward.set_policy('EVALUATOR', 'clinical', 'mask')")
    with database.tenant("acme", subject="e", role="EVALUATOR") as evaluator:
        for ssn in ("999-11-0001", "999-11-0002"):
            with pytest.raises(psycopg.Error) as error:
                evaluator.execute(_INSERT, ["Twin", ssn, "Boston"])
            assert error.value.sqlstate == "WK006"


def _replace(admin: Connection) -> int:
    version = rotate(admin)
    for _ in range(2):
        reseal(admin)
        retire(admin)
    return version


def test_rows_that_are_restored_with_their_key_are_unique_with_the_others(
    ward: Connection, database: Database
) -> None:
    """A restored row has a token under its own key only: no live key may have its tokens in that place."""
    ward.execute(_INSERT, ["Ada", "999-11-0001", "Boston"])
    ward.execute(_INSERT, ["Bob", "999-11-0002", "Boston"])
    with database.admin() as admin:
        admin.execute("create table public.saved as select * from sealed_acme.patients")
        ward.execute("delete from patients")
        assert (_replace(admin), _replace(admin)) == (2, 3)
        with pytest.raises(psycopg.Error) as error:
            admin.execute("select ward.readmit_key('acme', 1, 'restored')")
        assert error.value.sqlstate == "WK214"
        assert _replace(admin) == 4
        ward.execute(_INSERT, ["Bob again", "999-11-0002", "Boston"])
        (names,) = admin.execute(
            "select string_agg(quote_ident(attname), ', ') from pg_attribute"
            " where attrelid = 'public.saved'::regclass and attnum > 0"
        ).fetchall()[0]
        admin.execute(f"insert into sealed_acme.patients ({names}) select {names} from public.saved")
        admin.execute("select ward.readmit_key('acme', 1, 'restored')")
        for ssn in ("999-11-0001", "999-11-0002"):
            _refused(ward, ssn)
        assert reseal(admin).failed == 1
        with pytest.raises(psycopg.Error) as error:
            retire(admin)
        assert error.value.sqlstate == "WK214"
        assert admin.execute("select pending from ward.uniques").fetchall() == [(["acme"],)]
        ward.execute("delete from patients where name = 'Bob'")
        reseal(admin)
        assert retire(admin) == [1]
        assert admin.execute("select pending from ward.uniques").fetchall() == [([],)]


def test_clearing_tokens_waits_for_no_row_of_a_tenant(ward: Connection, database: Database) -> None:
    for number in range(3):
        ward.execute(_INSERT, ["Ada", str(number), "Boston"])
    with database.admin() as admin:
        admin.execute("set lock_timeout = '30s'")  # what waits fails
        rotate(admin)
        reseal(admin)
        retire(admin)
        with ward.transaction():
            ward.execute("update patients set city = 'Salem' where ssn = '2'")
            assert reseal(admin).skipped == 1
            retire(admin)
            unfinished = "select from ward_internal.rotations where finished_at is null"
            assert admin.execute(unfinished).rowcount == 1
        assert reseal(admin).skipped == 0
        retire(admin)
        assert admin.execute(unfinished).rowcount == 0
