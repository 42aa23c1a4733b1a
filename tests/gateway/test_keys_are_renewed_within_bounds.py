"""Keys follow the provider; no token, request or outage causes more fetches than the bounds allow."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from wardkey_core.errors import InvalidToken
from wardkey_core.tokens import UnknownKey

from tests.support import gateways, providers, tokens
from tests.support.gateways import Jwks, token
from wardkey.gateway import KeysUnavailable, Trust
from wardkey.gateway import trust as trust_module


class Clock:
    """Seconds that pass when the test says so: what is tested are minutes and a day."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def remote(url: str, **changes: Any) -> dict[str, Any]:
    return tokens.document(keys=tokens.DROP, jwks=url, **changes)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for a thread that fetches."""
    waiting = threading.Event()
    for _ in range(3000):
        if is_so():
            return
        waiting.wait(0.02)
    raise AssertionError("it does not come to be")


def passes(trust: Trust, text: str) -> bool:
    try:
        return trust.verify(text).tenant_id == tokens.TENANT
    except (InvalidToken, KeysUnavailable):
        return False


def test_a_new_key_is_known_with_its_first_token() -> None:
    provider, clock = Jwks(tokens.jwk("EdDSA")), Clock()
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock)
        assert passes(trust, token("EdDSA"))
        provider.body = json.dumps({"keys": [tokens.jwk("ES256")]}).encode()
        clock.now += trust_module.RETRY_SECONDS
        with pytest.raises(UnknownKey):
            trust.verify(token("ES256"))
        assert trust.verify_renewed(token("ES256")).role == "EVALUATOR"
        assert passes(trust, token("ES256")) and not passes(trust, token("EdDSA"))
        assert provider.fetches == 2


def test_unknown_keys_cause_one_fetch_in_a_while() -> None:
    provider, clock = Jwks(tokens.jwk("EdDSA")), Clock()
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock)
        clock.now += trust_module.RETRY_SECONDS
        for number in range(200):
            forged = tokens.sign(tokens.header(kid=f"kid {number}"), tokens.claims())
            with pytest.raises((InvalidToken, KeysUnavailable)):
                trust.verify_renewed(forged)
        for number in range(200):
            other = token(iss=f"https://other/{number}")
            with pytest.raises(InvalidToken):
                trust.verify_renewed(other)
        assert provider.fetches == 2
        assert passes(trust, token())


def test_a_slow_provider_holds_up_one_request() -> None:
    provider, clock = Jwks(tokens.jwk("EdDSA")), Clock()
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock)
        provider.gate.clear()
        clock.now += trust_module.RETRY_SECONDS
        results: list[object] = []

        def ask() -> None:
            try:
                results.append(trust.verify_renewed(token("ES256")))
            except (InvalidToken, KeysUnavailable) as error:
                results.append(error)

        first = threading.Thread(target=ask)
        first.start()
        until(lambda: provider.fetches == 2)
        with pytest.raises(KeysUnavailable):
            trust.verify_renewed(token("ES256"))
        assert passes(trust, token()) and not results
        provider.body = json.dumps({"keys": [tokens.jwk("EdDSA"), tokens.jwk("ES256")]}).encode()
        provider.gate.set()
        first.join()
        assert len(results) == 1 and not isinstance(results[0], Exception)


def test_keys_are_fetched_again_beside_the_requests() -> None:
    provider, clock = Jwks(tokens.jwk("EdDSA")), Clock()
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock)
        clock.now += trust_module.RENEW_SECONDS - 1
        assert passes(trust, token()) and provider.fetches == 1
        provider.gate.clear()
        clock.now += 1
        assert passes(trust, token())  # though nothing is answered yet
        provider.body = json.dumps({"keys": [tokens.jwk("ES256")]}).encode()
        provider.gate.set()
        until(lambda: not passes(trust, token()))
        assert provider.fetches == 2 and passes(trust, token("ES256"))


@pytest.mark.parametrize(
    "broken",
    [(500, b""), (200, b"<html>"), (200, b'{"keys": []}'), (200, b" " * 1_100_000), (302, b""), (204, b"")],
    ids=lambda broken: f"{broken[0]} {broken[1][:12]!r}",
)
def test_keys_outlive_a_provider_that_is_away_by_a_day(broken: tuple[int, bytes]) -> None:
    provider, clock, said = Jwks(tokens.jwk("EdDSA")), Clock(), list[str]()
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock, report=said.append)
        good, provider.status = provider.body, broken[0]
        provider.body = broken[1]
        clock.now += trust_module.STALE_SECONDS
        assert passes(trust, token())
        until(lambda: bool(said))
        assert passes(trust, token()) and "cannot be renewed" in said[0]
        clock.now += 1
        assert trust.has_keys() is False
        with pytest.raises(KeysUnavailable):
            trust.verify(token())
        provider.status, provider.body = 200, good
        clock.now += trust_module.RETRY_SECONDS
        until(lambda: passes(trust, token()))


def test_a_provider_that_is_away_at_the_start_is_asked_again() -> None:
    provider, clock, said = Jwks(tokens.jwk("EdDSA")), Clock(), list[str]()
    provider.status = 503
    with provider.served() as url:
        trust = Trust([remote(url)], clock=clock, report=said.append)
        with pytest.raises(KeysUnavailable):
            trust.verify_renewed(token())
        assert len(said) == 1 and not trust.has_keys() and provider.fetches == 1
        provider.status = 200
        clock.now += trust_module.RETRY_SECONDS
        until(lambda: passes(trust, token()))


def test_files_are_read_again_when_they_are_replaced(tmp_path: Path) -> None:
    jwks, clock, said = tmp_path / "jwks.json", Clock(), list[str]()

    def write(*keys: dict[str, Any]) -> None:
        new = tmp_path / "new"
        new.write_text(json.dumps({"keys": keys}))
        new.chmod(0o644)
        new.rename(jwks)
        clock.now += trust_module.LOOK_SECONDS

    write(tokens.jwk("EdDSA"))
    path = gateways.issuers(tmp_path / "issuers.json", remote(str(jwks)))
    trust = Trust(path, clock=clock, report=said.append)
    assert passes(trust, token("EdDSA"))
    write(tokens.jwk("ES256"))
    assert passes(trust, token("ES256")) and not passes(trust, token("EdDSA"))
    jwks.chmod(0o666)
    clock.now += trust_module.LOOK_SECONDS
    assert not passes(trust, token("ES256")) and "open to other users" in said[-1]
    write(tokens.jwk("EdDSA"))
    assert passes(trust, token("EdDSA"))
    jwks.unlink()
    clock.now += trust_module.LOOK_SECONDS
    assert not passes(trust, token("EdDSA"))
    path.write_text("{")
    clock.now += trust_module.LOOK_SECONDS
    write(tokens.jwk("EdDSA"))
    assert not passes(trust, token("EdDSA")) and "nobody passes" in said[-1]
    gateways.issuers(path, tokens.document(keys=[tokens.jwk("ES256")]))
    clock.now += trust_module.LOOK_SECONDS
    assert passes(trust, token("ES256")) and not passes(trust, token("EdDSA"))


def test_an_issuer_is_removed_with_what_was_known_of_its_tokens(tmp_path: Path) -> None:
    clock = Clock()
    path = gateways.issuers(tmp_path / "issuers.json")
    trust = Trust(path, clock=clock, report=lambda _: None)
    known = token()
    assert passes(trust, known)
    gateways.issuers(path, tokens.document(issuer="https://other"))
    clock.now += trust_module.LOOK_SECONDS
    with pytest.raises(InvalidToken):
        trust.verify(known)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jwks": "http://id.example/certs"}, "https://"),
        ({"jwks": "ftp://id.example/certs"}, "https://"),
        ({"jwks": "https://u:p@id.example/certs"}, "password"),
        ({"jwks": "jwks.json"}, "absolute"),
        ({"jwks": ["x"]}, "jwks"),
        ({"jwks": "/x", "keys": []}, "jwks"),
        ({"keys": tokens.DROP}, "keys"),
        ({"roles": {"x": "OWNER"}}, "roles.x"),
        ({"jwks": "/x", "keys": tokens.DROP, "max_skew": 61}, "max_skew"),
    ],
    ids=str,
)
def test_issuers_that_are_not_understood_are_refused_at_the_start(changes: dict[str, Any], said: str) -> None:
    document = tokens.document(keys=[tokens.jwk("EdDSA")])
    if "jwks" in changes and "keys" not in changes:
        changes = {**changes, "keys": tokens.DROP}
    with pytest.raises(ValueError, match=said):
        Trust([tokens.change(document, changes)])
    for nothing in ([], [document, document]):
        with pytest.raises(ValueError, match="each once"):
            Trust(nothing)


def test_a_redirect_leads_to_nowhere_unsafe() -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://id.example/certs")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    said: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        trust = Trust([remote(f"http://127.0.0.1:{server.server_port}/")], report=said.append)
        thread.join()
    assert not trust.has_keys() and "the URL must begin with https://" in said[0]


@pytest.mark.parametrize("name", ["keycloak", "entra"])
def test_a_providers_jwks_is_taken_as_it_is(name: str) -> None:
    provider, said = Jwks(), list[str]()
    provider.body = providers.keycloak_jwks() if name == "keycloak" else providers.entra_jwks()
    with provider.served() as url:
        document = providers.document(name, tokens.TENANT)
        del document["keys"]
        trust = Trust([{**document, "jwks": url}], report=said.append)
        now = time.time()
        claims = (
            providers.keycloak_claims(now, tokens.TENANT)
            if name == "keycloak"
            else providers.entra_claims(now)
        )
        assert trust.verify(providers.signed(claims)).role == "EVALUATOR" and not said
