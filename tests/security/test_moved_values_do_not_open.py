"""ATTACKS 38, 39, 40: a sealed value opens unchanged, in its row, column, tenant and version, only.

The hand that moves them is a superuser's, who reads and writes leaves past every policy.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.support.sqlstate import everything

from .conftest import SECRET, Wards

LEAF = "sealed_globex.patients"
READ = "select name, ssn from patients where id = 1"


def does_not_open(wards: Wards, *sqlstates: str) -> None:
    """The victim's read fails with one constant error, by itself and within a query over all rows."""
    with wards.victim() as connection:
        for query in (READ, "select count(name), count(ssn) from patients"):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(query)
            assert caught.value.sqlstate in (sqlstates or ("WK101",))
            told = everything(caught.value)
            assert SECRET not in told
            assert "Bob" not in told
            if not sqlstates:
                assert caught.value.diag.message_primary == "wardkey: sealed value does not open"


def put(wards: Wards, column: str, value: bytes) -> None:
    wards.admin.execute(f"update {LEAF} set {column} = %s where id = 1", [value])


def sealed(wards: Wards, column: str = "ssn", leaf: str = LEAF) -> bytes:
    row = wards.admin.execute(f"select {column} from {leaf} where id = 1").fetchone()
    assert row
    return bytes(row[0])


def test_every_byte_counts(wards: Wards) -> None:
    value = sealed(wards)
    with wards.victim() as connection:
        for place in range(len(value)):
            changed = bytearray(value)
            changed[place] ^= 1
            put(wards, "ssn", bytes(changed))
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(READ)
            # bytes 2 to 4 are the version: there is no such key
            assert caught.value.sqlstate == ("WK104" if 2 <= place <= 4 else "WK101"), place
        put(wards, "ssn", value)
        assert connection.execute(READ).fetchone() == ("Bob Bravo", SECRET)


@pytest.mark.parametrize("length", [0, 1, 5, 16, 32, 33, 43])
def test_truncated(wards: Wards, length: int) -> None:
    put(wards, "ssn", sealed(wards)[:length])
    does_not_open(wards)


def test_longer_and_huge(wards: Wards) -> None:
    put(wards, "ssn", sealed(wards) + b"\0")
    does_not_open(wards)
    put(wards, "ssn", sealed(wards)[:17] + bytes(50_000_000))
    does_not_open(wards)


@pytest.mark.parametrize("version", [0, 2, 0x7F, 0xFF])
def test_unknown_format(wards: Wards, version: int) -> None:
    put(wards, "ssn", bytes([version]) + sealed(wards)[1:])
    does_not_open(wards)


def test_moved_to_another_row(wards: Wards) -> None:
    wards.admin.execute(
        f"update {LEAF} set ssn = (select ssn from {LEAF} where id = 1), name = name where id = 2"
    )
    with wards.victim() as connection:
        assert connection.execute(READ).fetchone() == ("Bob Bravo", SECRET)
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("select ssn from patients where id = 2")
        assert caught.value.sqlstate == "WK101"


def test_moved_with_the_key_of_its_row(wards: Wards) -> None:
    wards.admin.execute(f"update {LEAF} set id = 77 where id = 1")
    with wards.victim() as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("select name from patients where id = 77")
    assert caught.value.sqlstate == "WK101"


def test_moved_to_another_column(wards: Wards) -> None:
    put(wards, "name", sealed(wards, "ssn"))
    does_not_open(wards)


def test_moved_to_another_table(wards: Wards) -> None:
    wards.admin.execute("create table clinic.notes (id bigint primary key, ssn text)")
    wards.admin.execute("select ward.protect('clinic.notes', '{ssn}')")
    with wards.victim() as connection:
        connection.execute("insert into notes values (1, 'x')")
        wards.admin.execute("update sealed_globex.notes set ssn = %s", [sealed(wards)])
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("select ssn from notes")
        assert caught.value.sqlstate == "WK101"


def test_moved_to_another_tenant(wards: Wards) -> None:
    """The prize: globex's value, same column and row id, in acme's own leaf, read with acme's own token."""
    wards.admin.execute("update sealed_acme.patients set ssn = %s where id = 1", [sealed(wards)])
    assert not wards.sees("select ssn from patients where id = 1")
    wards.refuses("select ssn from patients where id = 1", "WK101")


def test_asked_of_the_function_itself(calm: Wards) -> None:
    """A tenant may call ward.unseal with any bytes: with its own keys."""
    value = sealed(calm)
    columns = calm.admin.execute("select uuid_send(id) from ward_internal.sealed_columns").fetchall()
    with calm.attacker() as connection:
        for (column,) in columns:
            with pytest.raises(psycopg.Error) as caught:
                connection.execute("select ward.unseal(%s, %s, int8send(1))", [value, column])
            assert caught.value.sqlstate == "WK101"
    with calm.attacker(None) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("select ward.unseal(%s, %s, int8send(1))", [value, columns[0][0]])
    assert caught.value.sqlstate == "WK001"


def test_moved_to_another_version(wards: Wards) -> None:
    """A second version of globex's key exists: the old value under the new number does not open."""
    wards.admin.execute(
        """update ward_internal.tenant_keys set version = 2 where tenant_id = %s""",
        [wards.database.tenant_id("globex")],
    )
    wards.admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1 where slug = 'globex'")
    does_not_open(wards, "WK104")
    value = sealed(wards)
    put(wards, "ssn", value[:1] + (2).to_bytes(4, "big") + value[5:])
    does_not_open(wards, "WK104", "WK103")  # the wrapped key is bound to its version, too


def test_value_goes_with_its_table_and_column_when_they_are_renamed(wards: Wards) -> None:
    wards.admin.execute("alter table clinic.patients rename column ssn to social_security_number")
    wards.admin.execute("alter table clinic.patients rename to persons")
    wards.admin.execute("alter schema clinic rename to hospital")
    with wards.victim() as connection:
        query = "select name, social_security_number from patients where id = 1"
        assert connection.execute(query).fetchone() == ("Bob Bravo", SECRET)


def test_the_attack_works_on_ciphertext_that_is_bound_to_nothing(wards: Wards) -> None:
    """What pgcrypto seals opens wherever it lies: a moved value passes for the row's own."""
    wards.admin.execute("create extension pgcrypto")
    wards.admin.execute("create table public.people (id int, ssn bytea)")
    wards.admin.execute("insert into public.people values (1, pgp_sym_encrypt('right', 'k')), (2, null)")
    wards.admin.execute(
        "update public.people set ssn = (select ssn from public.people where id = 1) where id = 2"
    )
    query = "select pgp_sym_decrypt(ssn, 'k') from public.people where id = 2"
    assert wards.admin.execute(query).fetchone() == ("right",)
