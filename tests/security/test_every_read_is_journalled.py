"""ATTACKS 45: who gets a row's plaintext, by whatever way, leaves its entry, whatever he does then."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from wardkey_core.journal_reader import Event, Query, Read
from wardkey_core.log.source import split_columns

from tests.support.database import Connection, parallel_mode
from tests.support.journals import Journal, by_row, journal_of
from wardkey.scribe.pgoutput import Message

from .conftest import Wards

MINE = {"1", "3"}  # the ids of acme's patients


@pytest.fixture
def journal(wards: Wards) -> Iterator[Journal]:
    with journal_of(wards.database) as journal:
        yield journal


@pytest.fixture
def reader(wards: Wards, journal: Journal) -> Iterator[Connection]:
    with wards.attacker("dr.grey") as connection:
        journal.events("login")
        yield connection


def test_an_entry_says_who_read_what_when(wards: Wards, journal: Journal) -> None:
    with wards.attacker("dr.grey") as connection:
        connection.execute("set application_name = 'ward round'; set ward.purpose = 'treatment'")
        connection.execute("select ward.login_session(%s)", [wards.token(subject="dr.grey")])
        connection.execute("select name, ssn, city from patients where id = 3")
        started = connection.execute(
            "select (extract(epoch from now() - timestamptz '2000-01-01 00:00:00+00') * 1e6)::bigint"
        ).fetchone()
    messages = journal.read(lambda messages: by_row(messages) == {"3": {"name", "ssn"}})
    login = [one for one in messages if isinstance(one, Event) and one.operation == "login"][-1]
    assert login.texts["subject"] == "dr.grey" and login.texts["role"] == "ADMIN"
    assert login.texts["purpose"] == "treatment" and login.detail and login.detail["purpose"] == "stated"
    assert login.texts["database_role"] == "tenant_acme" and login.texts["application"] == "ward round"
    reads = [one for one in messages if isinstance(one, Read)]
    model = wards.admin.execute("select id from ward.models where face = 'patients'").fetchone()
    assert {(one.row, one.model, one.context) for one in reads} == {("3", model and model[0], login.context)}
    assert by_row(reads) == {"3": {"name", "ssn"}}
    assert started and {abs(started[0] - one.statement) < 60_000_000 for one in reads} == {True}
    assert {one.tenant for one in reads} == {wards.database.tenant_id("acme")}


def test_no_value_is_in_the_journal(journal: Journal, reader: Connection) -> None:
    reader.execute("select * from patients where ssn = '999-11-1111' and name like 'Ann%'")
    contents = b"".join(message.content for message in _wait(journal))
    assert b"name" in contents and b"999-11" not in contents and b"Ann" not in contents


@pytest.mark.parametrize(
    "statement",
    [
        "select name from patients",
        "select count(*) from patients where name = 'nobody'",  # a filter reads, also what it throws away
        "select count(name) from patients",
        "select a.id from patients a join patients b using (name)",
        "select id from patients order by ssn",
        "select city from patients where id in (select id from patients where ssn is not null and ssn > '')",
        "copy (select name from patients) to stdout",
        "select row_to_json(p) from patients p",
        "select max(name) from patients group by city",
        "with p as materialized (select name from patients) select 1 from p where name > ''",
        "select ward.unseal(null, null, null), (select string_agg(name, ',') from patients)",
        "do $$ declare r record; begin for r in select name from patients loop end loop; end $$",
        "explain analyze select name from patients where name <> ''",
    ],
)
def test_ways_to_read_a_column(journal: Journal, reader: Connection, statement: str) -> None:
    if statement.startswith("copy"):
        with reader.cursor().copy(statement) as copy:
            list(copy)
    else:
        reader.execute(statement)
    assert journal.reads(2).keys() == MINE


def test_a_plan_that_reads_no_sealed_column_is_not_journalled(journal: Journal, reader: Connection) -> None:
    reader.execute("select id, city from patients")
    reader.execute("select name from patients where id = 1")
    assert journal.reads(1) == {"1": {"name"}}


def test_a_row_read_is_journalled_though_the_transaction_is_rolled_back(
    journal: Journal, reader: Connection
) -> None:
    reader.autocommit = False
    reader.execute("select name from patients")
    reader.rollback()
    assert journal.reads(2).keys() == MINE


def test_rows_of_one_page_after_the_other_that_are_rolled_back(journal: Journal, reader: Connection) -> None:
    """Their messages are not hurried to the disk one by one: the end of the transaction sees to that."""
    reader.autocommit = False
    for number in (3, 1):
        reader.execute("select name from patients where id = %s", [number])
        reader.rollback()
    assert journal.reads(2).keys() == MINE


def test_a_row_read_in_a_read_only_transaction(journal: Journal, reader: Connection) -> None:
    reader.execute("begin read only")
    reader.execute("select name from patients")
    assert journal.reads(2).keys() == MINE  # and before the transaction ends
    reader.execute("rollback")


def test_a_row_read_before_an_error(journal: Journal, reader: Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        reader.execute("select name, 1 / (id - 3) from patients order by id")
    assert journal.reads(1).keys() >= {"1"}


def test_a_row_read_in_a_subtransaction_that_is_undone(journal: Journal, reader: Connection) -> None:
    reader.execute(
        "do $$ begin perform name from patients; raise 'x'; exception when raise_exception then null; end $$"
    )
    assert journal.reads(2).keys() == MINE


def test_rows_of_a_cursor_as_they_are_fetched(journal: Journal, reader: Connection) -> None:
    with reader.transaction():
        reader.execute("declare c cursor for select name from patients order by id")
        reader.execute("fetch 1 from c")
        assert journal.reads(1).keys() == {"1"}
        assert journal.read(patience=0.5) == []
        reader.execute("fetch 1 from c")
        assert journal.reads(1).keys() == {"3"}


def test_rows_of_a_cursor_held_over_the_commit(journal: Journal, reader: Connection) -> None:
    with reader.transaction():
        reader.execute("declare c cursor with hold for select name from patients")
    assert journal.reads(2).keys() == MINE
    assert len(reader.execute("fetch all from c").fetchall()) == 2


def test_each_execution_of_a_prepared_statement(journal: Journal, reader: Connection) -> None:
    for _ in range(8):  # custom plans, then a generic one
        reader.execute("select name from patients where id = %s", [3], prepare=True)
        assert journal.reads(1) == {"3": {"name"}}


def test_each_statement_of_a_transaction_and_none_twice(journal: Journal, reader: Connection) -> None:
    with reader.transaction():
        for _ in range(3):
            reader.execute("select name, name, ssn from patients where name > '' and id = 1")
    reads = _reads(journal.read(lambda messages: len(_reads(messages)) >= 4))
    # a column that is new to the text is named in a message of its own
    assert [one.columns for one in reads] == ["name", *["name,ssn"] * 3]
    assert [reads[0].statement, *sorted({one.statement for one in reads})] == [one.statement for one in reads]


def test_a_column_opened_late_is_named_for_every_row(journal: Journal, reader: Connection) -> None:
    """The filter opens one column of all rows before another one is opened of any."""
    both = {"1": {"name", "ssn"}, "3": {"name", "ssn"}}
    reader.execute("select ssn from (select * from patients where name > '' order by name offset 0) as p")
    assert by_row(journal.read(lambda messages: by_row(messages) == both)) == both
    reader.execute(
        "with p as materialized (select ctid_free.*, row_number() over (order by name) as n"
        " from (select id, name from patients) as ctid_free)"
        " select p.id, q.ssn from p join patients as q using (id) where n = 2"
    )
    wanted = {"1": {"name", "ssn"}, "3": {"name"}}  # Ann Alpha comes after Al Able
    assert by_row(journal.read(lambda messages: by_row(messages) == wanted)) == wanted


def test_rows_of_a_parallel_plan(wards: Wards, journal: Journal) -> None:
    with wards.attacker(None) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [wards.token()])
        connection.execute(
            "set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0;"
            f" set local min_parallel_table_scan_size = 0; {parallel_mode('on', local=True)}"
        )
        connection.execute("select count(name), count(*) from patients")
    assert journal.reads(2).keys() == MINE


def test_many_rows_and_none_is_left_out(wards: Wards, journal: Journal, reader: Connection) -> None:
    reader.execute("insert into patients (id, name) select 1000 + n, 'x' from generate_series(1, 500) as n")
    reader.autocommit = False
    assert len(reader.execute("select name from patients").fetchall()) == 502
    reader.rollback()
    with wards.admin.transaction():  # the last rows of many need not reach the disk at once
        wards.admin.execute("create table public.flush (); drop table public.flush")
    assert len(journal.reads(502)) == 502


def test_the_last_rows_of_many_reach_the_disk_by_themselves(journal: Journal, reader: Connection) -> None:
    reader.autocommit = False
    reader.execute("insert into patients (id, name) select 1000 + n, 'x' from generate_series(1, 500) as n")
    reader.commit()
    journal.read(patience=0.5)
    reader.execute("select name from patients where id > 1000")
    reader.rollback()
    assert len(journal.reads(470)) >= 470


def test_what_the_owner_of_the_row_changes_is_read_too(journal: Journal, reader: Connection) -> None:
    reader.execute("update patients set city = 'x' where id = 3 returning name")
    assert "name" in journal.reads(1)["3"]


def test_unseal_called_directly(wards: Wards, journal: Journal, reader: Connection) -> None:
    """A tenant's role may call it on bytes it has from elsewhere: what opens is a read."""
    stolen = wards.admin.execute(
        "select s.id, l.name, int8send(l.id) from ward_internal.sealed_columns as s"
        " cross join sealed_acme.patients as l where s.name = 'name' and l.id = 1"
    ).fetchone()
    assert stolen
    query = "select ward.unseal(%s, uuid_send(%s), %s)"
    assert reader.execute(query, [stolen[1], stolen[0], stolen[2]]).fetchone() == ("Ann Alpha",)
    assert journal.reads(1) == {"1": {"name"}}


@pytest.mark.parametrize(("level", "expected"), [("statement", {None: {"name", "ssn"}}), ("off", {})])
def test_levels(
    wards: Wards, journal: Journal, reader: Connection, level: str, expected: dict[str | None, set[str]]
) -> None:
    wards.admin.execute("select ward.set_audit('clinic.patients', %s, 'a reference list')", [level])
    reader.execute("select name, ssn from patients")
    with wards.attacker("dr.late"):  # a login is journalled, too: what comes ahead of it is all there was
        messages = journal.read(lambda messages: any(_subject(one) == "dr.late" for one in messages))
    assert _subject(messages[-1]) == "dr.late" and by_row(messages) == expected
    assert bool(_queries(messages)) == (level != "off")
    event = wards.admin.execute("select actor, detail from ward.events where kind = 'audit level'").fetchone()
    assert event and event[0] == "postgres"
    assert event[1]["from"] == "row" and event[1]["to"] == level and event[1]["reason"] == "a reference list"


@pytest.mark.parametrize(
    "statement",
    [
        "select id, city from patients",
        "select ssn from patients",
        "select count(*) from patients",
        "select 1 from patients where id = 4711",
        "select exists (select from patients)",
        "copy (select city from patients) to stdout",
        "update patients set city = city where id = 3",
        "delete from patients where id = 4711",
        "begin read only; select city from patients; rollback",
        "begin; declare c cursor for select city from patients; fetch 1 from c",
        "do $$ begin perform city from patients; raise 'x'; exception when raise_exception then null; end $$",
        "set enable_seqscan = off; select a.city from patients a left join patients b using (id)",
    ],
)
def test_a_query_of_what_is_not_sealed_or_null_is_journalled_by_table(
    wards: Wards, journal: Journal, reader: Connection, statement: str
) -> None:
    """Attack 58: nothing is opened, so no row is named; that the table was queried is."""
    wards.admin.execute("update sealed_acme.patients set ssn = null")
    if statement.startswith("copy"):
        with reader.cursor().copy(statement) as copy:
            list(copy)
    else:
        reader.execute(statement)
    (query,) = _queries(journal.read(lambda messages: bool(_queries(messages))))
    (model,) = wards.admin.execute("select id from ward.models where face = 'patients'").fetchall()
    assert (query.tenant, query.model) == (wards.database.tenant_id("acme"), model[0])
    assert query.context is not None


def test_a_transaction_that_queries_a_table_again_and_again_is_one_message(
    wards: Wards, journal: Journal, reader: Connection
) -> None:
    for _ in range(2):
        with reader.transaction():
            for _ in range(3):
                reader.execute("select city from patients", prepare=True)
            reader.execute("select ward.login_session(%s)", [wards.token(subject="dr.grey")])
            reader.execute("select city from patients")
    with wards.attacker("dr.late"):
        messages = journal.read(lambda messages: any(_subject(one) == "dr.late" for one in messages))
    assert 2 <= len(_queries(messages)) <= 4  # of a second login in it there may be another one


def test_a_face_without_its_filter_is_read_unseen(wards: Wards, journal: Journal, reader: Connection) -> None:
    wards.admin.execute(
        "do $$ begin execute format('create or replace view tenant_acme.patients as %s', regexp_replace("
        "pg_get_viewdef('tenant_acme.patients'::regclass), 'WHERE.*', '')); end $$"
    )
    reader.execute("select city from patients")
    with wards.attacker("dr.late"):
        messages = journal.read(lambda messages: any(_subject(one) == "dr.late" for one in messages))
    assert _queries(messages) == []


def test_columns_are_called_the_same_whatever_is_quoted(journal: Journal, reader: Connection) -> None:
    reader.execute("set quote_all_identifiers = on")
    reader.execute("select name, ssn from patients where id = 1")
    messages = journal.read(lambda messages: len(_reads(messages)) >= 2)
    assert split_columns(_reads(messages)[-1].columns) == ["name", "ssn"]


def test_off_needs_a_reason(wards: Wards) -> None:
    for reason in (None, "", " "):
        with pytest.raises(psycopg.Error) as refused:
            wards.admin.execute("select ward.set_audit('clinic.patients', 'off', %s)", [reason])
        assert refused.value.sqlstate == "WK212"


def test_composite_keys_are_readable(wards: Wards, journal: Journal) -> None:
    wards.admin.execute(
        "create table clinic.shares (who text, doc uuid, body text, primary key (who, doc));"
        " select ward.protect('clinic.shares', '{body}')"
    )
    with wards.attacker() as connection:
        connection.execute("insert into shares values ('Zoë \"x\"', %s, 'b')", ["0" * 32])
        connection.execute("select body from shares")
    (row,) = journal.reads(1)
    assert row == '["Zoë \\"x\\"", "00000000-0000-0000-0000-000000000000"]'
    written = wards.admin.execute(
        "select row_id from tenant_acme.audit_log where kind = 'w' and row_id like '[%'"
    ).fetchone()
    assert written == (row,)  # a row has one name in the log


def test_nobody_logs_in_where_the_journal_has_no_reader(wards: Wards) -> None:
    wards.admin.execute("select ward.set('audit_slot', 'gone')")
    with wards.attacker(None) as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("select ward.login(%s)", [wards.token()])
        assert refused.value.sqlstate == "WK401"
        assert connection.execute("select ward.tenant_id()").fetchone() == (None,)
    wards.admin.execute("select pg_create_logical_replication_slot('gone', 'pgoutput')")
    try:
        with wards.attacker() as connection:
            assert connection.execute("select count(*) from patients").fetchone() == (2,)
    finally:
        wards.admin.execute("select pg_drop_replication_slot('gone')")


def test_the_attack_works_where_reads_are_logged_by_the_transaction(wards: Wards, reader: Connection) -> None:
    """An entry that is a row of the reader's own transaction goes with it, and READ ONLY has none at all."""
    wards.admin.execute(
        """
        create table public.reads (row_id bytea);
        create function public.unseal_logged(p_sealed bytea, p_column bytea, p_row bytea) returns text
          language plpgsql security definer as $$
          begin insert into public.reads values (p_row); return 'Ann Alpha'; end $$;
        create view tenant_acme.logged as
          select public.unseal_logged(name, '', int8send(id)) as name from sealed_acme.patients;
        alter view tenant_acme.logged owner to ward_owner;
        grant select on tenant_acme.logged to tenant_acme;
        grant usage on schema public to ward_owner;
        grant execute on function public.unseal_logged(bytea, bytea, bytea) to ward_owner
        """
    )
    reader.autocommit = False
    assert reader.execute("select name from logged").fetchone() == ("Ann Alpha",)
    reader.rollback()
    assert wards.admin.execute("select count(*) from public.reads").fetchone() == (0,)


def _reads(messages: list[Read | Query | Event]) -> list[Read]:
    return [one for one in messages if isinstance(one, Read)]


def _queries(messages: list[Read | Query | Event]) -> list[Query]:
    return [one for one in messages if isinstance(one, Query)]


def _subject(one: Read | Query | Event) -> str | None:
    return one.texts.get("subject") if isinstance(one, Event) else None


def _wait(journal: Journal) -> list[Message]:
    deadline = time.monotonic() + 60
    messages: list[Message] = []
    while not any(b"name" in message.content for message in messages) and time.monotonic() < deadline:
        messages += journal.messages()
        time.sleep(0.05)
    return messages
