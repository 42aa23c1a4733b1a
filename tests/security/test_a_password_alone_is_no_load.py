"""ATTACKS 57, 60: who has a tenant's password and no token writes little, and holds up nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wardkey_pg.journal import Event

from tests.support.database import Connection
from tests.support.journals import Journal, journal_of

from .conftest import Wards

TIMES = 300
RUBBISH = "perform ward.unseal('\\x0100000001', uuid_send(gen_random_uuid()), int8send(n))"
FLOODS = {
    "logins": ("perform ward.login('rubbish' || n)", None),
    "no login": ("insert into patients (id, name) values (n, 'x')", None),
    "rubbish": (RUBBISH, "mallory"),
    "not allowed": ("perform ward.audit_entries()", "mallory"),
}


def flood(connection: Connection, statement: str) -> None:
    connection.execute(
        f"""do $$ begin for n in 1 .. {TIMES} loop
          begin {statement}; exception when others then null; end;
        end loop; end $$"""
    )


@pytest.fixture
def journal(wards: Wards) -> Iterator[Journal]:
    with journal_of(wards.database) as journal:
        yield journal


def events(journal: Journal) -> list[Event]:
    def counted(found: list[object]) -> bool:
        return any(isinstance(one, Event) and (one.detail or {}).get("count") for one in found)

    found = journal.read(counted)
    return [one for one in found if isinstance(one, Event) and one.operation in ("refusal", "tampered")]


@pytest.mark.parametrize("kind", FLOODS)
def test_refusals_are_counted(wards: Wards, journal: Journal, kind: str) -> None:
    statement, subject = FLOODS[kind]
    with wards.attacker(subject, role="VIEWER") as connection:
        flood(connection, statement)
    found = events(journal)
    assert len(found) <= 25
    assert sum((one.detail or {}).get("count", 1) for one in found) == TIMES
    last = found[-1]
    assert last.texts.get("database_role") == ("tenant_acme" if subject is None else None)


def test_the_attack_works_where_every_refusal_is_written(wards: Wards, journal: Journal) -> None:
    with wards.database.admin() as connection:
        connection.execute(
            "do language plpython3u $$\nfrom wardkey_pg import tally\ntally._WINDOW = 0\n$$;"
            " set session authorization tenant_acme"
        )
        flood(connection, FLOODS["logins"][0])
    found = journal.read(lambda found: len(found) >= TIMES)
    assert len(found) == TIMES
