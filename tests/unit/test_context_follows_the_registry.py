"""Every login looks at tenant and issuer as they are now, however well the token is known."""

from __future__ import annotations

import pytest
from wardkey_core.errors import ContextStale, InvalidToken, TenantNotActive, WrongTenant
from wardkey_pg import registry

from tests.support.backend import ACME, GLOBEX, Backend
from tests.support.tokens import ISSUER, document, jwk


def test_a_known_token_costs_one_query(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.begin()
    backend.queries.clear()
    backend.session.login(token)
    assert backend.queries == [registry.STATE]


def test_it_costs_none_for_a_second_unless_something_was_changed(backend: Backend) -> None:
    token = backend.token()

    def queries() -> list[str]:
        backend.begin()
        backend.queries.clear()
        backend.session.login(token)
        return backend.queries

    backend.change = (1, 10)
    assert queries()[-1:] != []
    assert queries() == []
    backend.change = (2, 10)
    assert queries() == [registry.STATE]
    assert queries() == []
    backend.change = None  # not to be told
    assert queries() == queries() == [registry.STATE]
    backend.change = (2, 10)
    assert queries() == [registry.STATE]
    backend.clock.now += 1.01
    assert queries() == [registry.STATE]
    assert queries() == []
    backend.clock.now += 0.99
    backend.session.login(backend.token(jti="other"))
    assert queries() == []


def test_what_is_known_of_a_tenant_serves_no_other(backend: Backend) -> None:
    backend.change = (1, 10)
    backend.session.login(backend.token())
    backend.begin()
    with pytest.raises(WrongTenant):
        backend.session.login(backend.token(GLOBEX))


def test_a_refused_tenant_is_looked_up_again(backend: Backend) -> None:
    token = backend.token()
    backend.change = (1, 10)
    backend.session.login(token)
    backend.tenants[ACME]["status"] = "suspended"
    backend.change = (2, 10)
    for _ in range(2):
        backend.begin()
        with pytest.raises(TenantNotActive):
            backend.session.login(token)


def test_a_suspended_tenant_is_refused(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.tenants[ACME]["status"] = "suspended"
    backend.begin()
    with pytest.raises(TenantNotActive):
        backend.session.login(token)
    backend.tenants[ACME]["status"] = "active"
    backend.session.login(token)


def test_a_removed_issuers_token_is_refused_also_when_known(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    del backend.issuers[ISSUER]
    backend.begin()
    for _ in range(2):
        with pytest.raises(InvalidToken, match="not registered"):
            backend.session.login(token)


def test_a_replaced_key_counts_from_the_next_login_on(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.issuers[ISSUER] = (document(keys=[jwk("ES256")]), 2)  # the EdDSA key was retired
    backend.begin()
    with pytest.raises(InvalidToken):
        backend.session.login(token)
    assert backend.session.current() is None


def test_a_shorter_lifetime_counts_from_the_next_login_on(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.issuers[ISSUER] = (document(keys=[jwk("EdDSA")], max_lifetime=60), 2)
    backend.begin()
    with pytest.raises(InvalidToken):
        backend.session.login(token)


def test_an_issuer_that_keeps_its_key_goes_on(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    backend.issuers[ISSUER] = (document(keys=[jwk("EdDSA"), jwk("ES256")]), 2)
    backend.begin()
    backend.session.login(token)
    assert backend.session.current() is not None


def test_an_issuer_that_changes_all_the_time_is_not_believed(backend: Backend) -> None:
    def change() -> None:
        issuer, generation = backend.issuers[ISSUER]
        backend.issuers[ISSUER] = (issuer, generation + 1)

    backend.before_state = change
    backend.session.login(backend.token())  # changed once meanwhile, and looked at again
    backend.before_state = backend.issuers.clear
    with pytest.raises(InvalidToken):
        backend.session.login(backend.token(jti="other"))


def test_a_transaction_that_lasts_looks_again(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.queries.clear()
    backend.session.current()
    assert backend.queries == []
    backend.clock.now += 2
    backend.session.current()
    backend.session.current()
    assert backend.queries == ["select ward.renew_keys()", registry.STATE]


def test_a_suspension_ends_a_transaction_that_lasts(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.tenants[ACME]["status"] = "suspended"
    backend.clock.now += 2
    with pytest.raises(TenantNotActive):
        backend.session.current()
    assert backend.session.current() is None


@pytest.mark.parametrize("lasting", [False, True])
def test_a_removed_issuer_ends_a_transaction_that_lasts(backend: Backend, lasting: bool) -> None:
    backend.session.login(backend.token(), lasting=lasting)
    del backend.issuers[ISSUER]
    backend.clock.now += 2
    with pytest.raises(InvalidToken):
        backend.session.current()
    assert backend.session.current() is None


def test_a_parallel_plan_goes_by_what_was_looked_up_for_as_long_as_a_key_is_kept(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.parallel = True
    backend.clock.now += 299
    assert backend.session.current() is not None
    backend.clock.now += 2
    with pytest.raises(ContextStale):
        backend.session.current()
    backend.parallel = False
    assert backend.session.current() is not None


def test_known_tokens_are_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardkey_pg.context._MOST_TOKENS", 3)
    tokens = [backend.token(jti=str(number)) for number in range(6)]
    for token in tokens:
        backend.session.login(token)
    assert len(backend.session._verified) == 3
    backend.queries.clear()
    backend.session.login(tokens[-1])
    assert backend.queries == [registry.STATE]
    backend.session.login(tokens[0])
    assert registry.ISSUER in backend.queries


def test_tokens_are_not_kept_by_their_text(backend: Backend) -> None:
    token = backend.token()
    backend.session.login(token)
    assert all(isinstance(key, bytes) and len(key) == 32 for key in backend.session._verified)
