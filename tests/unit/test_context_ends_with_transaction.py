"""A context is of its transaction; a session's is looked at again in each; a failed login ends it."""

from __future__ import annotations

import pytest
from wardkey_core.errors import (
    ContextError,
    InvalidToken,
    NoContext,
    TenantNotActive,
    TokenExpired,
    WrongTenant,
)

from tests.support.backend import GLOBEX, Backend
from tests.support.tokens import sign


def subject(backend: Backend) -> str | None:
    context = backend.session.current()
    return None if context is None else context.claims.subject


def test_there_is_none_at_first(backend: Backend) -> None:
    assert subject(backend) is None
    assert not backend.session.openers and not backend.session.sealers


def test_it_lasts_for_its_transaction(backend: Backend) -> None:
    backend.session.login(backend.token())
    for _ in range(3):
        backend.statement()
        assert subject(backend) == "dr.grey"


def test_it_ends_with_its_transaction(backend: Backend) -> None:
    backend.session.login(backend.token())
    openers = backend.session.reading().openers
    assert backend.session.openers is openers
    backend._ended()  # the transaction: the statement goes on, as a DO block does
    assert backend.session.openers is not openers  # the hot path looks here
    assert subject(backend) is None
    assert not backend.session.openers and not backend.session.sealers


def test_it_ends_also_where_the_next_transaction_is_of_the_same_statement(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.session.reading()
    backend._ended()
    with pytest.raises(NoContext):
        backend.session.reading()


def test_a_sessions_goes_on_in_the_next_transaction(backend: Backend) -> None:
    backend.session.login(backend.token(), lasting=True)
    for _ in range(3):
        backend.begin()
        assert subject(backend) == "dr.grey"
        assert not backend.session.openers  # what is opened next asks first


def test_a_sessions_ends_at_logout(backend: Backend) -> None:
    backend.session.login(backend.token(), lasting=True)
    backend.session.logout()
    assert subject(backend) is None
    backend.begin()
    assert subject(backend) is None


def test_a_sessions_ends_when_the_tenant_is_suspended(backend: Backend) -> None:
    backend.session.login(backend.token(), lasting=True)
    backend.tenants["6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab"]["status"] = "suspended"
    backend.begin()
    with pytest.raises(TenantNotActive):
        backend.session.current()
    assert subject(backend) is None
    backend.begin()
    assert subject(backend) is None


def test_a_transactions_does_not_become_a_sessions(backend: Backend) -> None:
    backend.session.login(backend.token(), lasting=True)
    backend.begin()
    backend.session.login(backend.token(sub="nurse.b"))
    assert subject(backend) == "nurse.b"
    backend.begin()
    assert subject(backend) is None


def test_renewing_what_does_not_last_ends_it(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.session.renew()
    assert subject(backend) is None


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("nonsense", InvalidToken),
        ("", InvalidToken),
        (sign({"alg": "none"}, {}), InvalidToken),
        ("other tenant", WrongTenant),
        ("expired", TokenExpired),
        ("unknown issuer", InvalidToken),
    ],
)
def test_a_failed_login_ends_the_context(
    backend: Backend, token: str, error: type[ContextError], lasting: bool
) -> None:
    token = {
        "other tenant": backend.token(GLOBEX),
        "expired": backend.token(exp=int(backend.clock.now) - 100, iat=int(backend.clock.now) - 200, nbf=0),
        "unknown issuer": backend.token(iss="https://other.example"),
    }.get(token, token)
    backend.session.login(backend.token(), lasting=True)
    with pytest.raises(error):
        backend.session.login(token, lasting=lasting)
    assert subject(backend) is None
    backend.begin()
    assert subject(backend) is None


def test_the_token_is_not_shown(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    assert token not in repr(backend.session.current())
