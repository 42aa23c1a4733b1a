"""Past a token's expiry (and skew) no further statement sees anything; the one that is under way may end."""

from __future__ import annotations

import pytest
from wardkey_core.errors import TokenExpired

from tests.support.backend import Backend

SKEW = 60


@pytest.mark.parametrize("lasting", [False, True])
def test_no_statement_after_expiry(backend: Backend, lasting: bool) -> None:
    backend.session.login(backend.token(), lasting=lasting)
    backend.clock.now += 600 + SKEW - 1
    backend.statement()
    assert backend.session.current() is not None
    backend.clock.now += 2
    backend.statement()
    with pytest.raises(TokenExpired):
        backend.session.current()


def test_a_query_that_began_in_time_may_end(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.statement()
    backend.clock.now += 3600
    assert backend.session.current(begun=True) is not None
    backend.statement()
    with pytest.raises(TokenExpired):
        backend.session.current(begun=True)


def test_no_query_begins_in_a_statement_that_began_in_time(backend: Backend) -> None:
    """A DO block's, a function's, or that of a cursor."""
    backend.session.login(backend.token())
    backend.statement()
    backend.clock.now += 3600
    with pytest.raises(TokenExpired):
        backend.session.current()
    backend.nested = True
    with pytest.raises(TokenExpired):
        backend.session.current(begun=True)


@pytest.mark.parametrize("nested", [False, True])
def test_a_faces_trigger_may_end_the_clients_own_write(backend: Backend, nested: bool) -> None:
    backend.session.login(backend.token())
    backend.statement()
    backend.clock.now += 3600
    backend.definer, backend.nested = True, nested
    if nested:
        with pytest.raises(TokenExpired):
            backend.session.current()
    else:
        assert backend.session.current() is not None


def test_a_sessions_is_not_renewed_after_expiry(backend: Backend) -> None:
    backend.session.login(backend.token(), lasting=True)
    backend.clock.now += 600 + SKEW + 1
    backend.begin()
    with pytest.raises(TokenExpired):
        backend.session.current()
    assert backend.session.current() is None


def test_a_known_token_expires_too(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.clock.now += 600 + SKEW + 1
    backend.begin()
    for _ in range(2):  # known, then forgotten
        with pytest.raises(TokenExpired):
            backend.session.login(token)


def test_expired_is_not_forever(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.clock.now += 3600
    backend.begin()
    backend.session.login(backend.token())
    assert backend.session.current() is not None
