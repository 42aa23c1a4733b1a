"""ATTACKS 27: what an error says is of one's own values at most; never of keys and tokens."""

from __future__ import annotations

import base64

import psycopg
import pytest
from psycopg.types.json import Jsonb
from wardkey_pg import __version__

from tests.support.database import Connection
from tests.support.sqlstate import everything, refused

from .conftest import SECRET, Wards

OWN = "999-88-5555"
BROKEN = (
    "select name::integer from patients",
    "select 1 / (id - id) from patients where ssn is not null",
    "select ssn::date from patients",
    "update patients set id = 'x' where ssn = '999-77-4321'",
    "update patients set birth_date = ssn::date",
    "insert into patients (id, name) values (1, 'again')",
    "insert into patients (id, name) values (10, null)",
    "insert into patients (id, name, birth_date) values (11, 'x', 'no date')",
    "select ward.unseal('\\x01', '\\x02', '\\x03')",
    "select ward.login('no token')",
    "select * from patients where id = 1 and id::text::uuid is null",
    "do $$ declare r record; begin select * into strict r from patients; end $$",
)


def failure(connection: Connection, statement: str, *args: object) -> str:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(statement, args or None)
    return everything(caught.value)


@pytest.mark.parametrize("statement", BROKEN)
def test_no_error_carries_anothers_value_key_or_token(calm: Wards, statement: str) -> None:
    token = calm.token()
    wrapped = calm.admin.execute("select wrapped, commitment from ward_internal.tenant_keys").fetchall()
    with calm.attacker(None) as connection:
        connection.execute("set plpgsql.print_strict_params = on; set client_min_messages = debug5")
        connection.execute("set debug_print_plan = on; set debug_print_parse = on")
        notices: list[str] = []
        connection.add_notice_handler(
            lambda notice: notices.append(f"{notice.message_primary}{notice.message_detail}")
        )
        connection.execute("select ward.login_session(%s)", [token])
        told = failure(connection, statement) + "".join(notices)
    assert SECRET not in told or SECRET in statement
    assert "Bob Bravo" not in told
    assert token.split(".")[2] not in told
    for values in wrapped:
        for value in values:
            assert value.hex() not in told
            assert base64.b64encode(value).decode() not in told


def test_refused_check_says_its_name_not_the_value(wards: Wards) -> None:
    wards.admin.execute(
        "create table clinic.people (id int primary key, ssn text check (ssn ~ '^000'), note text)"
    )
    wards.admin.execute("select ward.protect('clinic.people', '{ssn}')")
    with wards.attacker() as connection:
        told = failure(connection, "insert into people values (1, %s, 'x')", OWN)
        assert "people_ssn_check" in told
        assert OWN not in told
        told = failure(connection, "select ward.upsert('people', %s)", Jsonb([{"id": 1, "ssn": OWN}]))
        assert OWN not in told


def test_not_null_does_not_show_the_row(wards: Wards) -> None:
    with wards.attacker() as connection:
        told = failure(
            connection, "insert into patients (id, name, ssn, city) values (9, null, %s, %s)", OWN, OWN
        )
    assert OWN not in told


def test_what_does_not_open_shows_no_value(calm: Wards) -> None:
    with calm.attacker() as connection:
        for value in (b"\x01" + bytes(60), b"\xff" * 40, b"", bytes(33)):
            told = failure(connection, "select ward.unseal(%s, %s, %s)", value, b"c" * 16, b"r")
            assert not value or value.hex() not in told
            assert "wardkey" in told  # not an exception of Python's, whose text may quote what it was given


def test_what_is_not_there_and_what_is_anothers_look_the_same(calm: Wards) -> None:
    """Names are visible in the catalogs; whether a row is there is not told by any statement."""
    with calm.attacker() as connection:
        for query in (
            "select name from patients where id = {}",
            "update patients set name = 'x' where id = {}",
            "delete from patients where id = {}",
            "select from patients where id = {} for update",
        ):
            for patient in (2, 999):
                assert connection.execute(query.format(patient)).rowcount == 0


def test_the_attack_works_on_a_definer_function_that_casts(wards: Wards) -> None:
    wards.admin.execute(
        f"""
        create table public.notes (body text);
        insert into public.notes values ('{SECRET}');
        create function public.total() returns bigint language sql security definer
          set search_path = pg_catalog, pg_temp as 'select sum(body::integer) from public.notes'
        """
    )
    assert wards.sees("select public.total()")


REFUSED = {
    "select * from patients": "WK001",
    "insert into patients (name) values ('x')": "WK001",
    "select nextval('patients_id_seq')": "WK001",
    "select ward.audit_export()": "WK001",
    "select ward.request_rotation('why')": "WK001",
    "select ward.login('no token')": "WK002",
    "select ward.login_session('no token')": "WK002",
}


@pytest.mark.parametrize("statement", REFUSED)
def test_refusals_show_no_traceback(calm: Wards, statement: str) -> None:
    with calm.attacker(None) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(statement)
    assert caught.value.sqlstate == REFUSED[statement] and caught.value.diag.message_hint
    told = everything(caught.value)
    assert "Traceback" not in told and "PL/Python" not in told


PYTHON = """
select p.oid::regprocedure::text, array(
    select case type when 'text'::regtype then 'x' when 'uuid'::regtype then gen_random_uuid()::text
      when 'bytea'::regtype then '' when 'text[]'::regtype then '{}' when 'bytea[]'::regtype then '{}'
      when 'uuid[]'::regtype then '{}'
      when 'timestamptz'::regtype then 'now' else '0' end || '|' || type::regtype
    from unnest(p.proargtypes) as type)
from pg_proc as p join pg_language as l on l.oid = p.prolang
where l.lanname = 'plpython3u' and p.pronamespace in ('ward'::regnamespace, 'ward_internal'::regnamespace)
  and p.proname <> 'take_refusal'
"""


def test_no_function_in_python_raises_one_of_our_errors(wards: Wards) -> None:
    """Each is made to refuse: as of another version."""
    rows = wards.admin.execute(PYTHON).fetchall()
    assert len(rows) > 15
    for function, given in rows:
        query = "select pg_get_functiondef(%s::regprocedure)"
        ((definition,),) = wards.admin.execute(query, [function]).fetchall()
        wards.admin.execute(definition.replace(f'"{__version__}"', '"0.0.1"'))
        arguments = ", ".join("'{}'::{}".format(*argument.split("|")) for argument in given)
        call = f"select {function.partition('(')[0]}({arguments})"
        assert wards.admin.execute(call).fetchone() == (None,), function
        with refused("WK301") as caught:
            wards.admin.execute("select ward.raise_refusal(true)")
        assert "0.0.1" in (caught.value.diag.message_primary or ""), function
        wards.admin.execute("select ward.raise_if_refused(true)")  # once


def test_bytes_that_are_no_text_are_not_told(wards: Wards) -> None:
    wards.admin.execute("create table clinic.scans (id int primary key, image bytea)")
    wards.admin.execute("select ward.protect('clinic.scans', '{image}')")
    with wards.attacker() as connection:
        connection.execute("insert into scans values (1, '\\xfffefd')")
        ((value, column),) = wards.admin.execute(
            "select image, uuid_send(s.id) from sealed_acme.scans, ward_internal.sealed_columns as s"
            " where s.name = 'image'"
        ).fetchall()
        with refused("WK101") as caught:
            connection.execute("select ward.unseal(%s, %s, int8send(1))", [value, column])
        assert "0xff" not in everything(caught.value)
        query = "select ward.unseal_bytes(%s, %s, int8send(1))"
        assert connection.execute(query, [value, column]).fetchone() == (b"\xff\xfe\xfd",)


def test_an_error_raised_in_python_does_show_its_traceback(wards: Wards) -> None:
    wards.admin.execute("create function public.f() returns int language plpython3u as 'raise plpy.Error(1)'")
    assert "Traceback" in failure(wards.admin, "select public.f()")
