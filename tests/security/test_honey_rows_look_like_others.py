"""Nobody but the platform tells a honey row from others; who opens one is out at the next transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest
from wardkey_core import wire

from tests.support.database import Connection, Database
from tests.support.journals import journal_of
from tests.support.sqlstate import refused
from wardkey.access import budgets
from wardkey.errors import UnknownObject

PATIENTS = "clinic.patients"
HONEY = "7"
OPEN = "select name, ssn from patients where id = %s"


@pytest.fixture
def ward(database: Database) -> Iterator[Database]:
    """A database whose tenant acme has ten patients, one of them a honey row."""
    with database.tenant("acme", role="ADMIN") as connection:
        connection.execute(
            "insert into patients (id, name, ssn)"
            " select n, 'P' || n, '999-' || n from generate_series(1, 10) as n"
        )
    with database.admin() as admin:
        budgets.add_honey(admin, "acme", PATIENTS, [HONEY])
    yield database
    socket = database.cluster.home.keeper_socket
    with database.admin() as admin:
        for row in budgets.ended(admin, socket, "acme"):
            budgets.lift(admin, socket, "acme", row["subject"])


def is_out(person: Connection) -> bool:
    try:
        person.execute("select 1 from patients limit 1")
    except psycopg.Error as error:
        return error.sqlstate == "WK255"
    return False


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("begin", ["begin", "begin read only"])
def test_who_opens_one_is_out_at_the_next_transaction(ward: Database, begin: str, end: str) -> None:
    socket = ward.cluster.home.keeper_socket
    with (
        ward.tenant("acme", subject="nosy", role="VIEWER") as nosy,
        ward.tenant("acme", subject="nosy", role="ADMIN") as elsewhere,
        ward.tenant("acme", subject="other", role="VIEWER") as other,
        ward.admin() as admin,
    ):
        assert elsewhere.execute(OPEN, [1]).rowcount == other.execute(OPEN, [1]).rowcount == 1  # warm
        nosy.execute(begin)
        assert nosy.execute(OPEN, [HONEY]).fetchone() == ("P7", "999-7")
        nosy.execute(end)
        assert is_out(nosy) and is_out(elsewhere) and not is_out(other)
        with ward.tenant("acme") as cold, refused("WK255"):
            cold.execute("select ward.login_session(%s)", [ward.token("acme", subject="nosy")])
        with ward.tenant("globex", subject="nosy", role="VIEWER") as namesake:
            assert not is_out(namesake)
        assert [row["subject"] for row in budgets.ended(admin, socket, "acme")] == ["nosy"]
        budgets.lift(admin, socket, "acme", "nosy")
        with ward.tenant("acme", subject="nosy", role="VIEWER") as again:
            assert not is_out(again)
        with pytest.raises(UnknownObject):
            budgets.lift(admin, socket, "acme", "nosy")


def test_the_keeper_releases_nothing_to_who_is_out(ward: Database) -> None:
    """Also where somebody has taken away what it tells backends."""
    told = ward.cluster.home.keeper_socket
    with ward.tenant("acme", subject="nosy", role="VIEWER") as nosy, ward.admin() as admin:
        nosy.execute(OPEN, [HONEY])
        told.with_name(told.name + wire.ENDED_SUFFIX).write_text("")
        admin.execute("select ward_internal.forget_keys()")
        with ward.tenant("acme", subject="nosy", role="VIEWER") as cold, refused("WK255"):
            cold.execute(OPEN, [1])


def test_the_alarm_is_the_platforms_alone(ward: Database) -> None:
    with journal_of(ward) as journal:
        with ward.tenant("acme", subject="nosy", role="VIEWER") as nosy, nosy.transaction():
            for _ in range(3):
                nosy.execute(OPEN, [HONEY])
            nosy.execute("select name from patients")
        (alarm,) = journal.events("honey_row_opened")
    assert alarm.tenant is None and alarm.context is None  # the platform's
    detail = alarm.detail or {}
    assert (detail["alarm"], detail["row"], detail["logins_ended"]) == (True, HONEY, True)
    assert (detail["tenant"], alarm.texts["subject"]) == (str(ward.tenant_id("acme")), "nosy")
    with ward.admin() as admin:
        kinds = "select slug, kind from ward.events where kind like 'honey%'"
        assert admin.execute(kinds).fetchall() == [(None, "honey added")]


def test_an_alarm_ends_nobodys_logins_where_that_is_the_policy(ward: Database) -> None:
    with ward.admin() as admin:
        budgets.add_honey(admin, "acme", PATIENTS, [HONEY], ends_logins=False)
    with journal_of(ward) as journal, ward.tenant("acme", subject="nosy", role="VIEWER") as nosy:
        nosy.execute(OPEN, [HONEY])
        assert len(journal.events("honey_row_opened")) == 1 and not is_out(nosy)


@pytest.mark.parametrize(
    "statement",
    [
        "select id from patients",
        "select count(*) from patients where id = 7",
        "select city, created_at from patients where id = 7",
    ],
)
def test_what_opens_no_sealed_value_is_no_alarm(ward: Database, statement: str) -> None:
    with ward.tenant("acme", subject="calm", role="VIEWER") as calm:
        calm.execute(statement)
        assert not is_out(calm)


def test_nothing_that_a_tenant_sees_tells_it(ward: Database) -> None:
    """Neither columns, catalog, plan and sizes, nor errors, nor the tenant's own log."""
    with ward.admin() as admin, ward.tenant("acme", subject="admin", role="ADMIN") as tenant:
        budgets.drop_honey(admin, "acme", PATIENTS, [HONEY])
        before = _all_that_is_seen(tenant)
        budgets.add_honey(admin, "acme", PATIENTS, [HONEY], ends_logins=False)
        assert _all_that_is_seen(tenant) == before
        for statement in (
            "select * from ward.honey_rows",
            "select * from ward_internal.honey_rows",
            "select ward_internal.look_up_row(ward.tenant_id(), 'clinic.patients', '{7}')",
        ):
            with refused():
                tenant.execute(statement)
        # a change of the row, which opens it, says what it says of others
        changed = tenant.execute(
            "update patients set city = 'x' where id in (6, 7) returning city"
        ).fetchall()
        assert changed == [("x",), ("x",)]
        log = tenant.execute("select to_jsonb(e)::text from ward.audit_entries() as e").fetchall()
        assert "honey" not in repr(log) and "alarm" not in repr(log)


def _all_that_is_seen(tenant: Connection) -> list[object]:
    row = "(select to_jsonb(p) - 'id' - 'name' - 'ssn' from patients as p where id = {})"
    return [
        tenant.execute(f"select {row.format(6)} = {row.format(7)}").fetchall(),
        tenant.execute("explain select name from patients where id = 7").fetchall(),
        tenant.execute("select relname, relkind, reloptions from pg_class order by 1, 2").fetchall(),
        tenant.execute("select proname, prosrc from pg_proc order by 1, 2").fetchall(),
    ]


# What a tenant may ask of a row, as text with {} for its key: in each of these it looks for a difference.
QUESTIONS = (
    "select name, ssn, city, xmin from patients where id = {}",
    "select to_jsonb(p) - 'created_at' from patients as p where id = {} and name is not null",
    "select count(*) from patients where id = {} and name like 'P%'",
    "select row(name, ssn)::text from patients where id = {}",
    "select name::integer from patients where id = {}",
    "select 1 / (length(name) - 2) from patients where id = {}",
    "insert into patients (id, name) values ({}, 'twice')",
    "insert into visits (id, patient_id) values (1, {})",
    "update patients set city = 'x' where id = {} returning name, city",
    "update patients set name = name || 'x' where id = {} returning name",
    "update patients set id = id + 100 where id = {} returning name",
    'select ward.upsert(\'patients\', \'[{{"id": {}, "city": "y"}}]\')',
    "delete from patients where id = {} returning name",
    "select 1 from patients where id = {} for update",
    "explain (verbose) select name from patients where id = {}",
)
PLANS = (
    "explain (analyze, buffers, wal, timing off, summary off) select name from patients where id = {}",
    "explain (analyze, buffers, timing off, summary off) select id from patients where name > '' and id = {}",
    "explain (analyze, buffers, timing off, summary off) update patients set city = 'x' where id = {}",
)
# What it may ask afterwards, of the server and of its session.
AFTERWARDS = (
    "select lastval()",
    "select ward.lastval()",
    "select pg_current_xact_id_if_assigned() is null",
    "select pg_current_wal_insert_lsn()",
    "select pg_current_wal_lsn()",
    "select pg_stat_get_wal()",
    "select * from pg_stat_wal",
    "select * from pg_stat_xact_user_tables",
    "select * from pg_stat_database",
    "select * from pg_locks",
    "select * from pg_stat_activity",
    "select * from pg_backend_memory_contexts",
    "select * from pg_prepared_statements where name like '%ward%'",
    "select pg_relation_size('ward_internal.honey_rows')",
    "select count(*) from pg_cursors where name <> 'c'",
    "show all",
)


@pytest.fixture
def quiet(ward: Database) -> Database:
    """Its honey row only alarms; each patient may have visits."""
    with ward.admin() as admin:
        budgets.add_honey(admin, "acme", PATIENTS, [HONEY], ends_logins=False)
        admin.execute(
            "create table clinic.visits (id int primary key, patient_id bigint references"
            " ward_model.clinic__patients); select ward.protect('clinic.visits')"
        )
    return ward


def test_no_question_tells_it(quiet: Database) -> None:
    """Of row 7 a tenant is told the same as of rows 6 and 8, each time that a login opens it first."""
    for role in ("ADMIN", "ANALYST", "VIEWER"):
        with quiet.tenant("acme", subject=f"curious {role}", role=role) as tenant:

            def ask(question: str, row: int, role: str = role, tenant: Connection = tenant) -> str:
                token = quiet.token("acme", subject=f"curious {role}", role=role)
                tenant.execute("select ward.login_session(%s)", [token])
                if question in AFTERWARDS:
                    tenant.execute(OPEN, [row])
                return _without(_told(tenant, question.format(row)), row)

            for question in (*QUESTIONS, *PLANS, *AFTERWARDS):
                # counts of buffers change now and then, whatever the row; what tells one is there each time
                for _ in range(5):
                    told = [ask(question, row) for row in (6, 7, 8)]
                    if len(set(told)) == 1:
                        break
                assert len(set(told)) == 1, question


def _told(tenant: Connection, statement: str) -> list[object]:
    """Return all that a client is told of a statement in a transaction that it rolls back."""
    try:
        with tenant.transaction(force_rollback=True):
            cursor = tenant.execute(statement)  # type: ignore[arg-type]
            return [cursor.statusmessage, cursor.fetchall() if cursor.description else []]
    except psycopg.Error as error:
        diag = error.diag
        told = (diag.message_primary, diag.message_detail, diag.message_hint, diag.context, diag.table_name)
        return [error.sqlstate, *told]


def _without(told: list[object], row: int) -> str:
    """Leave out the row's own key and values."""
    own = rf"\bP{row}x?\b|999-{row}\b|(?<=id = ){row}\b|(?<='id': ){row}\b|\b10{row}\b"
    return re.sub(own, "#", repr(told))


def test_a_row_whose_key_changes_stays_a_honey_row(ward: Database) -> None:
    with journal_of(ward) as journal:
        with ward.tenant("acme", subject="mover", role="ADMIN") as mover, mover.transaction():
            with mover.transaction(force_rollback=True):
                mover.execute("update patients set id = 71 where id = 7")
            mover.execute("update patients set id = 70 where id = 7")
            mover.execute("update patients set id = 60 where id = 6")
        assert journal.events("honey_row_opened")
    with ward.admin() as admin:
        assert [row["key"] for row in budgets.honey(admin)] == [["70"]]
        kinds = "select slug, kind from ward.events where kind like 'honey%'"
        assert sorted(admin.execute(kinds).fetchall()) == [(None, "honey added"), (None, "honey moved")]
    with ward.tenant("acme", subject="nosy", role="VIEWER") as nosy:
        assert nosy.execute(OPEN, [60]).rowcount == nosy.execute(OPEN, [8]).rowcount == 1
        assert not is_out(nosy)
        assert nosy.execute(OPEN, [70]).fetchone() == ("P7", "999-7")
        assert is_out(nosy)


def test_a_honey_row_that_takes_the_key_of_one_that_is_gone_is_one(ward: Database) -> None:
    with ward.admin() as admin:
        budgets.add_honey(admin, "acme", PATIENTS, ["8"], ends_logins=False)
    with ward.tenant("acme", subject="mover", role="ADMIN") as mover, mover.transaction():
        mover.execute("delete from patients where id = 8")
        mover.execute("update patients set id = 8 where id = 7")
    with ward.admin() as admin:
        assert [(row["key"], row["ends_logins"]) for row in budgets.honey(admin)] == [(["8"], True)]


def test_a_honey_row_is_a_row_that_is_there(ward: Database) -> None:
    with ward.admin() as admin:
        for key in (["999"], ["7", "8"], ["seven"], []):
            with refused("WK256"):
                budgets.add_honey(admin, "acme", PATIENTS, key)
        with refused("WK256"):
            budgets.add_honey(admin, "globex", PATIENTS, [HONEY])
        admin.execute("create table clinic.open (id int primary key); select ward.protect('clinic.open')")
        with refused("WK256"):
            budgets.add_honey(admin, "acme", "clinic.open", ["1"])
        with refused("WK203"):
            budgets.add_honey(admin, "nobody", PATIENTS, [HONEY])
        with refused("WK204"):
            budgets.drop_honey(admin, "acme", PATIENTS, ["8"])
