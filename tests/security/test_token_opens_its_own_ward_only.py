"""ATTACKS 4, 35: a token through another tenant's login role, or a second tenant in one transaction."""

from __future__ import annotations

import pytest

from tests.support.sqlstate import refused

from .conftest import Wards


@pytest.mark.parametrize("function", ["login", "login_session"])
def test_token_of_another_tenant_is_refused(wards: Wards, function: str) -> None:
    with wards.attacker(None) as connection:
        with refused("WK004") as caught:
            connection.execute(f"select ward.{function}(%s)", [wards.token("globex")])
        assert str(wards.database.tenant_id("globex")) not in str(caught.value)
        assert connection.execute("select ward.tenant_id()").fetchone() == (None,)


def test_refused_tenant_leaves_no_context(wards: Wards) -> None:
    with wards.attacker(None) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [wards.token()])
        with refused("WK004"), connection.transaction():
            connection.execute("select ward.login(%s)", [wards.token("globex")])
        assert connection.execute("select ward.tenant_id()").fetchone() == (None,)


def test_one_transaction_has_one_tenant_even_for_a_superuser(wards: Wards) -> None:
    with wards.database.admin() as connection, connection.transaction():
        connection.execute("set session authorization tenant_acme")
        connection.execute("select ward.login(%s)", [wards.token()])
        connection.execute("set session authorization tenant_globex")
        with refused("WK004"):
            connection.execute("select ward.login(%s)", [wards.token("globex")])


def test_superuser_has_no_tenant(wards: Wards) -> None:
    with wards.database.admin() as connection, refused("WK004"):
        connection.execute("select ward.login(%s)", [wards.token()])


def test_another_subject_of_the_tenant_may_follow_in_the_next_transaction(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        for subject in ("first", "second"):
            with connection.transaction():
                connection.execute("select ward.login(%s)", [wards.token(subject=subject)])
                assert connection.execute("select ward.subject()").fetchone() == (subject,)


def test_the_attack_works_where_only_the_signature_is_looked_at(wards: Wards) -> None:
    """Without the tie between token and login role, a stolen token is enough from any connection."""
    wards.admin.execute("grant usage on schema tenant_globex to tenant_acme")
    wards.admin.execute("grant select on tenant_globex.patients to tenant_acme")
    with wards.attacker() as connection:
        assert connection.execute("select * from tenant_globex.patients").fetchall() == []
    wards.admin.execute("update ward_internal.tenants set login_role = 'nobody' where slug = 'acme'")
    wards.admin.execute("update ward_internal.tenants set login_role = 'tenant_acme' where slug = 'globex'")
    with wards.attacker(None) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [wards.token("globex")])
        assert len(connection.execute("select ssn from tenant_globex.patients").fetchall()) == 2
