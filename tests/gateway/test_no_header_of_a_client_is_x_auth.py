"""Whatever a client calls a header, the application behind the gateway does not take it for X-Auth-*."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import gateways, tokens
from wardkey.gateway import AsgiGateway, Trust, WsgiGateway
from wardkey.gateway.headers import INJECTED, Identity, is_dropped, kept_options

TRUST = Trust([tokens.document(keys=[tokens.jwk("EdDSA")])])
CGI = {"HTTP_" + name.upper().replace("-", "_") for name in INJECTED}


def servers_names(name: bytes) -> set[str]:
    """How servers and frameworks behind a proxy call a header, in the manner of CGI."""
    text = name.decode("latin-1")
    named = {text, text.strip(), text.strip(" \t\r\n\v\f\0\xa0"), re.sub(r"[^\w-]", "", text, flags=re.A)}
    named |= {re.sub(r"[^0-9A-Za-z]", "_", one) for one in named}  # PHP, Apache httpd
    named |= {re.sub(r"[^0-9A-Za-z_-]", "", one) for one in named}
    named |= {re.sub(r"[-_]+", "_", one) for one in named} | {one.strip("-_") for one in named}
    return {"HTTP_" + one.upper().replace("-", "_") for one in named}


_WORDS = b"x|X|-|_|auth|AUTH|Auth|tenant|Tenant|subject|role|request|id|ID|a"
_ODD = b" |\t|.|~|!|\0|\xa0|\xe2\x80\x90|:|--|\n"
PIECES = st.sampled_from([*_WORDS.split(b"|"), *_ODD.split(b"|")])
SPELT = st.builds(
    lambda name, cut, mark, ends: ends[0] + cut.join(re.split(rb"-", name)) + mark + ends[1],
    st.sampled_from([name.encode() for name in INJECTED] + [name.lower().encode() for name in INJECTED]),
    st.sampled_from([b"-", b"_", b".", b"--", b"-_", b" ", b"", b"\xad", b"~", b"'"]),
    st.sampled_from([b"", b" ", b"\t", b"_", b"-", b"\xa0", b"s", b"\0"]),
    st.tuples(*[st.sampled_from([b"", b" ", b"\t", b"_", b"-", b"\v"])] * 2),
)


@settings(max_examples=1500, deadline=None)
@given(SPELT | st.lists(PIECES, max_size=9).map(b"".join) | st.binary(max_size=20))
@example(b"X_Auth-Tenant")
@example(b"x-auth-request_id ")
@example(b"X.Auth.Role")
@example(b"x" + b"-" * 300 + b"auth-tenant")
def test_a_name_that_a_server_could_take_for_ours_is_dropped(name: bytes) -> None:
    if servers_names(name) & CGI:
        assert is_dropped(name)


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "X-Author", "X-Authorized-By", "X-Forwarded-For", "X-Request-Id", "Content_Type"),
        *(
            "Proxy-Authorization",
            "X-AuthTicket",
            "Ax-Auth-Tenant",
            "X-Authenticated",
            "Tenant",
            "x_request_id",
        ),
    ],
)
def test_other_headers_stay(name: str) -> None:
    assert not is_dropped(name.encode())


@pytest.mark.parametrize(
    "name", ["X-Auth", "x-auth-email", "X_AUTH_ANYTHING", "X-Auth-", "bad name", "Bäd", ""]
)
def test_all_of_x_auth_and_what_is_no_name_goes(name: str) -> None:
    assert is_dropped(name.encode("latin-1"))


async def nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def through(kind: str, path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that an application gets from the middleware."""
    got: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append(list(scope["headers"]))

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(AsgiGateway(app, TRUST, public=["/health"])(scope, nothing, send))
    return got[0]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/health", "/patients"])
@settings(max_examples=60, deadline=None)
@given(st.lists(SPELT, max_size=5))
def test_the_scope_has_what_was_verified_and_nothing_else(kind: str, path: str, names: list[bytes]) -> None:
    bearer = b"Bearer " + gateways.token().encode()
    forged = [(name, b"forged") for name in names]
    headers = through(kind, path, [*forged, (b"authorization", bearer), *forged, (b"accept", b"*/*")])
    ours = [(name, value) for name, value in headers if servers_names(name) & CGI]
    assert not any(value == b"forged" for _, value in ours)
    assert [name for name, _ in ours] == ([] if path == "/health" else [n.lower().encode() for n in INJECTED])
    assert (b"authorization", bearer) in headers and (b"accept", b"*/*") in headers


@pytest.mark.parametrize("path", ["/health", "/patients"])
@settings(max_examples=60, deadline=None)
@given(st.lists(SPELT, max_size=5))
def test_the_environ_has_what_was_verified_and_nothing_else(path: str, names: list[bytes]) -> None:
    got: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        got.append(dict(environ))
        return []

    forged = {f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}": "forged" for name in names}
    forged |= {f"HTTP_{name.decode('latin-1')}": "forged" for name in names}
    environ = {**forged, "PATH_INFO": path, "HTTP_AUTHORIZATION": f"Bearer {gateways.token()}"}
    WsgiGateway(app, TRUST, public=["/health"])(environ, lambda *_: pytest.fail("refused"))
    for key, value in got[0].items():
        if servers_names(key[5:].encode("latin-1")) & CGI and key.startswith("HTTP_"):
            assert value != "forged" and key in CGI and path != "/health"
    assert path == "/health" or got[0].keys() >= CGI


def test_a_real_server_passes_on_no_forged_header(tmp_path: Path) -> None:
    trust = Trust(gateways.issuers(tmp_path / "issuers.json"))
    lines = [
        *(
            b"X-Auth-Tenant: forged",
            b"x-auth-tenant: forged",
            b"X_AUTH_TENANT: forged",
            b"X-Auth_Tenant: forged",
        ),
        *(
            b"X-AUTH-ROLE: SUPER_ADMIN",
            b"x.auth.role: SUPER_ADMIN",
            b"X-Auth-Email: forged",
            b"X--Auth--Role: x",
        ),
    ]
    with gateways.serve(AsgiGateway(gateways.echo(), trust, public=["/health"])) as port:
        status, seen = gateways.ask(port, *lines, gateways.authorization(gateways.token()))
        assert status == 200
        ours = gateways.auth_headers(seen)
        assert ours.pop("xauthrequestid")[0].isalnum()
        assert ours == {
            "xauthtenant": [tokens.TENANT],
            "xauthsubject": ["dr.grey"],
            "xauthrole": ["EVALUATOR"],
        }
        status, seen = gateways.ask(port, *lines, path=b"/health")
        assert (status, gateways.auth_headers(seen)) == (200, {})
        for path in (b"/health/", b"//health", b"/health%2f", b"/HEALTH", b"/x/../health", b"/health;x"):
            assert gateways.ask(port, *lines, path=path)[0] == 401, path
        for line in (
            b"X-Auth-Tenant : forged",
            b"X-Auth-Tenant\t: forged",
            b"Accept: a\r\n X-Auth-Tenant: x",
        ):
            status, seen = gateways.ask(port, line, gateways.authorization(gateways.token()))
            assert status == 400 or gateways.auth_headers(seen)["xauthtenant"] == [tokens.TENANT]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=60))
@example("Dr. Ängström, 50 %")
@example("a\u2028b")
@example("a\r\nX-Auth-Role: ADMIN")
def test_what_is_injected_is_printable_ascii_and_means_one_subject(subject: str) -> None:
    identity = Identity(tokens.TENANT, subject, "ADMIN", 0.0, "0" * 32, "token")
    value = dict(identity.headers())["X-Auth-Subject"]
    assert re.fullmatch(r"[!-~]+", value) and "," not in value and unquote(value) == subject


def test_no_option_of_connection_has_a_proxy_drop_what_is_injected() -> None:
    for given_, kept in (
        (b"close", b"close"),
        (b"X-Auth-Tenant", b""),
        (b"keep-alive, x-auth-tenant , X_AUTH_ROLE, Authorization, Upgrade", b"keep-alive, Upgrade"),
    ):
        assert kept_options(given_) == kept
        assert dict(through("http", "/health", [(b"Connection", given_)]))[b"Connection"] == kept


def test_an_identity_is_shown_without_its_token() -> None:
    identity = Identity(tokens.TENANT, "dr.grey", "ADMIN", 0.0, "0" * 32, "secret")
    assert repr(identity) == f"<Identity of {tokens.TENANT}>"
