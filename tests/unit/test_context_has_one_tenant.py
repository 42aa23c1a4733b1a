"""The tenant of a context is session_user's, and a transaction has one, and one subject."""

from __future__ import annotations

import pytest
from wardkey_core.errors import WrongTenant

from tests.support.backend import ACME, GLOBEX, Backend


def test_another_roles_token_is_refused(backend: Backend) -> None:
    with pytest.raises(WrongTenant):
        backend.session.login(backend.token(GLOBEX))
    assert backend.session.current() is None


def test_a_tenant_that_is_not_there_is_refused_alike(backend: Backend) -> None:
    messages = []
    for tenant in (GLOBEX, "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(WrongTenant) as caught:
            backend.session.login(backend.token(tenant))
        messages.append((caught.value.message, caught.value.hint))
    assert messages[0] == messages[1]


def test_a_second_tenant_in_one_transaction_is_refused(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.user = "tenant_globex"  # as set session authorization would
    with pytest.raises(WrongTenant, match="already has"):
        backend.session.login(backend.token(GLOBEX))
    assert backend.session.current() is None


def test_the_next_transaction_may_have_another(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.begin()
    backend.user = "tenant_globex"
    backend.session.login(backend.token(GLOBEX))
    context = backend.session.current()
    assert context is not None and context.claims.tenant_id == GLOBEX


def test_a_known_token_is_still_compared_with_the_role(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.begin()
    backend.user = "tenant_globex"
    with pytest.raises(WrongTenant):
        backend.session.login(token)


@pytest.mark.parametrize("logout", [False, True])
def test_a_second_subject_in_one_transaction_is_refused(backend: Backend, logout: bool) -> None:
    backend.session.login(backend.token())
    if logout:
        backend.session.logout()
    with pytest.raises(WrongTenant, match="already has"):
        backend.session.login(backend.token(sub="nurse.b"))
    assert backend.session.current() is None
    backend.begin()
    backend.session.login(backend.token(sub="nurse.b"))


def test_the_subject_may_come_with_another_token(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.session.login(backend.token(role="VIEWER"))
    context = backend.session.current()
    assert context is not None and (context.keys.may_write, context.claims.tenant_id) == (False, ACME)


@pytest.mark.parametrize("role", ["SUPER_ADMIN", "ADMIN", "EVALUATOR", "ANALYST", "VIEWER"])
def test_roles_write_what_the_policy_says_and_super_admin_nothing(backend: Backend, role: str) -> None:
    backend.session.login(backend.token(role=role))
    context = backend.session.current()
    assert context is not None and context.keys.may_write == (role not in ("VIEWER", "SUPER_ADMIN"))
