"""From a provider's JWKS only what verifies tokens is taken, over a way nobody else can write on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from wardkey_core.tokens import Issuer

from tests.support.tokens import ALGORITHMS, DROP, jwk, roca_jwk
from wardkey.identity import jwks
from wardkey.identity.jwks import JwksError, document_from_jwks


def take(*keys: Any, **options: Any) -> tuple[dict[str, Any], list[str]]:
    content = json.dumps({"keys": keys}).encode()
    return document_from_jwks(content, issuer="https://id.example", audience="wardkey", **options)


def test_every_algorithm_is_taken() -> None:
    document, notes = take(*(jwk(alg) for alg in ALGORITHMS))
    assert notes == []
    assert set(Issuer.from_document(document).keys) == {f"key-{alg}" for alg in ALGORITHMS}


def test_claims_and_lifetime_are_carried() -> None:
    document, _ = take(jwk("ES256"), claims={"tenant_id": "https://x/tenant"}, max_lifetime=60)
    issuer = Issuer.from_document(document)
    assert (issuer.claim_tenant, issuer.claim_role, issuer.max_lifetime) == ("https://x/tenant", "role", 60)


@pytest.mark.parametrize(
    ("alg", "expected"), [("ES256", "ES256"), ("ES384", "ES384"), ("EdDSA", "EdDSA"), ("PS256", "RS256")]
)
def test_a_missing_algorithm_is_the_one_of_the_key(alg: str, expected: str) -> None:
    document, notes = take(jwk(alg, alg=DROP, use=DROP))
    assert document["keys"][0]["alg"] == expected
    assert bool(notes) == (expected == "RS256")


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"alg": "RSA-OAEP"},
        {"alg": "ES512"},
        {"kid": DROP},
        {"key_ops": ["encrypt"]},
        {"crv": "secp256k1", "alg": DROP},
    ],
    ids=str,
)
def test_keys_for_anything_else_are_left_out_and_named(changes: dict[str, Any]) -> None:
    document, notes = take(jwk("EdDSA"), jwk("ES256", **changes))
    assert [key["kid"] for key in document["keys"]] == ["key-EdDSA"]
    assert len(notes) == 1 and notes[0].startswith("keys[1] left out")
    with pytest.raises(JwksError, match="no key that can verify"):
        take(jwk("ES256", **changes))


ED448 = {"kty": "OKP", "crv": "Ed448", "kid": "goldilocks", "x": "A" * 76, "alg": "EdDSA"}


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (ED448, "goldilocks"),
        ({**ED448, "alg": None}, "goldilocks"),
        ({"kty": "EC", "crv": [], "kid": "list"}, "list"),
        (jwk("ES256", kid="short", x="AA"), "short"),
        (jwk("ES256", kid="off the curve", x=jwk("ES256")["y"], y=jwk("ES256")["x"]), "off the curve"),
        (jwk("ES256", kid="padded", x=jwk("ES256")["x"] + "="), "padded"),
        (jwk("RS256", kid="weak", n=jwk("RS256")["n"][:168]), "weak"),
        (jwk("RS256", kid="number", n=5), "number"),
        (jwk("ES256", kid="mismatch", alg="ES384"), "mismatch"),
        (jwk("ES256", kid=""), "''"),
        (jwk("ES256", kid="key-EdDSA"), "key-EdDSA"),
        (roca_jwk(), "infineon"),
        (1, "keys[1]"),
        (None, "keys[1]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "key",
)
def test_a_bad_key_is_left_out_by_name_and_the_others_are_taken(bad: Any, name: str) -> None:
    document, notes = take(jwk("EdDSA"), bad, jwk("ES384"))
    assert [key["kid"] for key in document["keys"]] == ["key-EdDSA", "key-ES384"]
    assert len(notes) == 1 and notes[0].startswith("keys[1] left out") and name in notes[0]


def test_certificates_are_left_out() -> None:
    document, notes = take(jwk("RS256", x5c=["MIIB"], x5t="abc", issuer="https://x", key_ops=["verify"]))
    assert document["keys"][0].keys() == {"kty", "kid", "alg", "n", "e", "use"}
    assert notes == []
    assert "unknown members left out: vendor" in take(jwk("RS256", vendor=1))[1][0]


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "k", "oth"])
def test_a_private_key_is_refused_and_not_repeated(member: str) -> None:
    with pytest.raises(JwksError, match="private") as caught:
        take(jwk("EdDSA"), jwk("ES256", **{member: "c2VjcmV0"}))
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1]}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_jwks_is_said_so(content: bytes) -> None:
    with pytest.raises(JwksError):
        document_from_jwks(content, issuer="https://id.example", audience="wardkey")


def test_a_weak_key_is_refused() -> None:
    with pytest.raises(JwksError, match="2048"):
        take(jwk("RS256", n=jwk("RS256")["n"][:168]))


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        place = {"/away": "http://id.example/jwks", "/file": "file:///etc/passwd", "/here": "/jwks"}
        if self.path in place:
            self.send_response(302)
            self.send_header("Location", place[self.path])
            self.end_headers()
        elif self.path == "/jwks":
            self._body(json.dumps({"keys": [jwk("EdDSA")]}).encode())
        elif self.path == "/huge":
            self._body(b" " * (jwks.MAX_LENGTH + 1))
        else:
            self.send_error(404)

    def _body(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # the client had enough
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_on_this_host_is_fetched(server: str) -> None:
    for path in ("/jwks", "/here"):
        document, _ = document_from_jwks(jwks.fetch(server + path), issuer="i", audience="a")
        assert document["keys"][0]["kid"] == "key-EdDSA"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/away", "must begin with https"),
        ("/file", "not allowed"),
        ("/huge", "longer than"),
        ("/nothing", "Not Found"),
    ],
)
def test_a_redirect_to_elsewhere_or_too_much_is_refused(server: str, path: str, why: str) -> None:
    with pytest.raises(JwksError, match=why):
        jwks.fetch(server + path)


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/jwks",
        "http://localhost.evil.example/jwks",
        "http://127.0.0.1.evil.example/",
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/jwks",
        "data:application/json,{}",
        "https://",
        "http://[::1",
        "https://user:secret@id.example/jwks",
        "/etc/passwd",
        "",
        "http://127.0.0.1:1/refused",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(JwksError) as caught:
        jwks.fetch(url)
    assert "secret" not in str(caught.value)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b" " * jwks.MAX_LENGTH)
    assert len(jwks.read(path)) == jwks.MAX_LENGTH
    path.write_bytes(b" " * (jwks.MAX_LENGTH + 1))
    with pytest.raises(JwksError):
        jwks.read(path)
