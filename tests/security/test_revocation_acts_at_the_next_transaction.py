"""ATTACKS 34, 37: revoked issuer, retired key, suspended tenant, expired token."""

from __future__ import annotations

import json
import time

import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Connection
from tests.support.sqlstate import refused

from .conftest import Wards

COUNT = "select count(*) from patients"


def issuer_of(admin: Connection) -> dict:
    (document,) = admin.execute("select document from ward_internal.issuers").fetchone()
    return document if isinstance(document, dict) else json.loads(document)


@pytest.mark.parametrize("warm", [False, True])
def test_issuer_that_is_removed(wards: Wards, warm: bool) -> None:
    with wards.attacker(None) as connection:
        token = wards.token()
        if warm:
            with connection.transaction():
                connection.execute("select ward.login(%s)", [token])
        wards.admin.execute("select ward.remove_issuer(%s)", [issuer_of(wards.admin)["issuer"]])
        with refused("WK002"):
            connection.execute("select ward.login(%s)", [token])


def test_session_of_a_removed_issuer_ends(wards: Wards) -> None:
    with wards.attacker() as connection:
        assert connection.execute(COUNT).fetchone() == (2,)
        wards.admin.execute("select ward.remove_issuer(%s)", [issuer_of(wards.admin)["issuer"]])
        with refused("WK002"):
            connection.execute(COUNT)
        with refused("WK001"):
            connection.execute(COUNT)


def test_key_that_is_retired(wards: Wards) -> None:
    document = issuer_of(wards.admin)
    other = {**document["keys"][0], "kid": "another"}
    with wards.attacker(None) as connection:
        token = wards.token()
        with connection.transaction():
            connection.execute("select ward.login(%s)", [token])
        wards.admin.execute("select ward.add_issuer(%s)", [Jsonb({**document, "keys": [other]})])
        with refused("WK002"):
            connection.execute("select ward.login(%s)", [token])
        wards.admin.execute("select ward.add_issuer(%s)", [Jsonb(document)])
        connection.execute("select ward.login(%s)", [token])


def test_tenant_that_is_suspended(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    token = wards.database.token(slug)
    with wards.database.tenant(slug) as connection, wards.database.tenant(slug, subject="lasting") as session:
        with connection.transaction():
            connection.execute("select ward.login(%s)", [token])
        wards.admin.execute("select ward.suspend_tenant(%s)", [slug])
        with refused("WK005"):
            connection.execute("select ward.login(%s)", [token])
        with refused("WK005"):
            session.execute(COUNT)
        with refused("WK001"):
            session.execute(COUNT)
        wards.admin.execute("select ward.resume_tenant(%s)", [slug])
        connection.execute("select ward.login(%s)", [token])


_SCANS = """
select pg_stat_get_xact_numscans(c.oid) + sum(pg_stat_get_xact_numscans(i.indexrelid))
from pg_class as c join pg_index as i on i.indrelid = c.oid
where c.oid = 'ward_internal.tenants'::regclass group by c.oid"""
_LOGIN = """
set session authorization tenant_{slug};
select ward.login('{token}');
reset session authorization;"""


def test_tenant_that_is_suspended_while_logins_do_not_ask_for_it(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    login = _LOGIN.format(slug=slug, token=wards.database.token(slug))
    with wards.database.admin() as connection:

        def asks() -> bool:
            cursor = connection.execute(f"{_SCANS}; {login} {_SCANS}")  # in one message: a short transaction
            return len({result.fetchone() for result in cursor.results() if result.description}) > 2

        while asks():  # it has to, now and then: others change something
            pass
        wards.admin.execute("update ward_internal.tenants set status = 'suspended' where slug = %s", [slug])
        with refused("WK005"):
            connection.execute(login)


def test_long_transaction_does_not_freeze_the_clock(wards: Wards) -> None:
    wards.admin.execute("select ward.add_issuer(%s)", [Jsonb({**issuer_of(wards.admin), "max_skew": 0})])
    with wards.attacker(None) as connection, connection.transaction(force_rollback=True):
        connection.execute("select ward.login(%s)", [wards.database.token("acme", lifetime=2)])
        assert connection.execute(COUNT).fetchone() == (2,)
        time.sleep(2.2)
        with refused("WK003"), connection.transaction():
            connection.execute(COUNT)
        with refused("WK003"), connection.transaction():
            connection.execute("insert into patients (id, name) values (20, 'late')")


def test_snapshots_are_not_handed_on(calm: Wards) -> None:
    """One of before a suspension would go on showing rows of then to a later login."""
    calm.refuses("select pg_export_snapshot()")


def test_query_begun_in_time_may_end_and_no_other_begins(wards: Wards) -> None:
    """The bound: a statement, as a long COPY is one. A cursor's next FETCH is another."""
    wards.admin.execute("select ward.add_issuer(%s)", [Jsonb({**issuer_of(wards.admin), "max_skew": 0})])
    with wards.attacker(None) as connection, connection.transaction(force_rollback=True):
        connection.execute("select ward.login(%s)", [wards.database.token("acme", lifetime=2)])
        connection.execute("declare begun cursor for select name from patients order by id")
        assert connection.execute("fetch 1 begun").fetchall() == [("Ann Alpha",)]
        slow = "select pg_sleep(1.2), name from patients order by id limit 2"
        assert [row[1] for row in connection.execute(slow)] == ["Ann Alpha", "Al Able"]
        with refused("WK003"), connection.transaction():
            connection.execute("fetch 1 begun")
        with refused("WK003"), connection.transaction():
            connection.execute("declare late cursor for select name from patients")
            connection.execute("fetch 1 late")
