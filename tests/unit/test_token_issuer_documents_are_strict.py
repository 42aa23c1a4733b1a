"""An issuer is registered only with public, strong keys for signatures, each with kid and alg (attack 33)."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from wardkey_core import jwk_algorithms
from wardkey_core.tokens import Issuer

from tests.support.tokens import ALGORITHMS, DROP, b64, document, jwk, roca_jwk


def says(where: str, value: object) -> None:
    with pytest.raises(ValueError, match="^" + where.replace("[", r"\[")):
        Issuer.from_document(value)


def test_a_good_document_is_taken() -> None:
    issuer = Issuer.from_document(json.loads(json.dumps(document())))
    assert set(issuer.keys) == {f"key-{alg}" for alg in ALGORITHMS}
    assert (issuer.max_lifetime, issuer.max_skew) == (900, 60)
    assert (issuer.claim_tenant, issuer.claim_role, issuer.claim_subject) == ("tenant_id", "role", "sub")


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_document_is_an_object(value: object) -> None:
    says("issuer document:", value)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"extra": 1}, "issuer document: unknown members extra"),
        ({"issuer": DROP}, "issuer:"),
        ({"issuer": ""}, "issuer:"),
        ({"issuer": "x\n"}, "issuer:"),
        ({"audience": DROP}, "audience:"),
        ({"audience": ["wardkey"]}, "audience:"),
        ({"max_lifetime": 0}, "max_lifetime:"),
        ({"max_lifetime": 86401}, "max_lifetime:"),
        ({"max_lifetime": True}, "max_lifetime:"),
        ({"max_lifetime": "900"}, "max_lifetime:"),
        ({"max_lifetime": float("nan")}, "max_lifetime:"),
        ({"max_skew": 61}, "max_skew:"),
        ({"max_skew": -1}, "max_skew:"),
        ({"claims": []}, "claims:"),
        ({"claims": {"tenant": "x"}}, "claims: unknown members tenant"),
        ({"claims": {"role": ""}}, "claims.role:"),
        ({"claims": {"role": 1}}, "claims.role:"),
        ({"claims": {"role": "sub"}}, "claims:"),
        ({"claims": {"tenant_id": "iss"}}, "claims.tenant_id:"),
        ({"claims": {"subject": "exp"}}, "claims.subject:"),
        ({"keys": DROP}, "keys:"),
        ({"keys": []}, "keys:"),
        ({"keys": {}}, "keys:"),
        ({"keys": [1]}, "keys[0]:"),
        ({"keys": [jwk("EdDSA"), jwk("ES256", kid="key-EdDSA")]}, "keys[1].kid:"),
        ({"keys": [jwk("EdDSA", kid=f"k{n}") for n in range(65)]}, "keys:"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_faults_are_named_with_their_place(changes: dict[str, Any], where: str) -> None:
    says(where, document(**changes))


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize(
    "changes",
    [
        {"kid": DROP},
        {"kid": ""},
        {"kid": 1},
        {"alg": DROP},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "RSA-OAEP"},
        {"alg": ["ES256"]},
        {"kty": DROP},
        {"kty": "oct"},
        {"crv": "secp256k1"},
        {"crv": "X25519"},
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": ["verify", "encrypt"]},
        {"key_ops": []},
        {"d": "AAAA"},
        {"k": "c2VjcmV0"},
        {"p": "AAAA"},
        {"x5c": ["MIIB"]},
        {"jku": "https://x"},
    ],
    ids=str,
)
def test_keys_for_anything_else_are_refused(alg: str, changes: dict[str, Any]) -> None:
    assert Issuer.from_document(document(keys=[jwk(alg, key_ops=["verify"])]))
    says("keys[0]", document(keys=[jwk(alg, **changes)]))


def test_private_members_are_not_repeated_in_the_error() -> None:
    with pytest.raises(ValueError, match="private key material") as caught:
        Issuer.from_document(document(keys=[jwk("EdDSA", d="c2VjcmV0LXNlY3JldA")]))
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_numbers_are_canonical_and_complete(alg: str) -> None:
    name = "n" if alg[1] == "S" and alg[0] in "RP" else "x"
    good = jwk(alg)[name]
    for value in (DROP, "", None, 1, good + "=", good + "\n", good[:-4], " " + good, good + "AAAA" * 400):
        says("keys[0]", document(keys=[jwk(alg, **{name: value})]))


@pytest.mark.parametrize("alg", ["ES256", "ES384"])
def test_points_lie_on_the_curve(alg: str) -> None:
    x, y = jwk(alg)["x"], jwk(alg)["y"]
    width = 32 if alg == "ES256" else 48
    for wrong in (
        {"x": y, "y": x},
        {"x": b64(bytes(width)), "y": b64(bytes(width))},
        {"y": b64(b"\xff" * width)},
    ):
        says("keys[0]", document(keys=[jwk(alg, **wrong)]))


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_rsa_has_2048_bits_at_least(alg: str) -> None:
    short = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    says("keys[0].n:", document(keys=[jwk(alg, n=b64(short.n.to_bytes(128, "big")))]))
    padded = b"\x00" * 128 + short.n.to_bytes(128, "big")
    says("keys[0].n:", document(keys=[jwk(alg, n=b64(padded))]))
    for exponent in (1, 2, 65536, 2**64 + 1):
        e = b64(exponent.to_bytes(9, "big").lstrip(b"\0"))
        says("keys[0].e:", document(keys=[jwk(alg, e=e)]))


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_rsa_keys_of_the_roca_kind_are_refused(alg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTACKS 62: CVE-2017-15361. That the generator here is the broken one shows where nobody looks."""
    says("keys[0].n: a key of the ROCA kind", document(keys=[roca_jwk(alg)]))
    monkeypatch.setattr(jwk_algorithms, "_is_roca", lambda n: False)
    assert Issuer.from_document(document(keys=[roca_jwk(alg)]))


def test_other_rsa_keys_are_not_taken_for_roca() -> None:
    draw = random.Random(1)
    assert not any(jwk_algorithms._is_roca(draw.getrandbits(2048) | 1) for _ in range(3000))
