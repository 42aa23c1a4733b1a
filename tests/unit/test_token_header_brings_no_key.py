"""A token cannot bring its own key, or point at one; kid is an exact look-up (attack 32)."""

from __future__ import annotations

import pytest
from wardkey_core.errors import InvalidToken
from wardkey_core.tokens import Issuer, verify

from tests.support.tokens import DROP, NOW, b64, claims, document, good, header, jwk, pem, sign

TRUSTED = Issuer.from_document(document(keys=[jwk("EdDSA")]))
SIGNED_BY_STRANGER = "ES256"


def test_a_plain_header_verifies() -> None:
    assert verify(good(), TRUSTED, NOW)


@pytest.mark.parametrize(
    "members",
    [
        {"jwk": jwk(SIGNED_BY_STRANGER)},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": [b64(pem(SIGNED_BY_STRANGER))]},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": None},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
        {"jwk": None},
    ],
    ids=lambda members: str(members)[:30],
)
@pytest.mark.parametrize("signer", ["EdDSA", SIGNED_BY_STRANGER])
def test_members_that_choose_a_key_or_an_extension_are_refused(
    members: dict[str, object], signer: str
) -> None:
    head = header("EdDSA", **members)
    with pytest.raises(InvalidToken):
        verify(sign(head, claims(), signer), TRUSTED, NOW)
    with pytest.raises(InvalidToken):
        verify(sign({**head, "alg": signer, "kid": f"key-{signer}"}, claims(), signer), TRUSTED, NOW)


@pytest.mark.parametrize(
    "members", [{"x5t": "abc"}, {"x5t#S256": "abc"}, {"typ": DROP}, {"typ": "at+jwt"}], ids=str
)
def test_members_that_choose_nothing_are_ignored(members: dict[str, object]) -> None:
    assert verify(sign(header(**members), claims()), TRUSTED, NOW)


@pytest.mark.parametrize(
    "kid",
    [
        DROP,
        None,
        "",
        0,
        True,
        ["key-EdDSA"],
        {"key-EdDSA": 1},
        "KEY-EdDSA",
        "key-EdDSA ",
        "key-EdDSA\0",
        "../../dev/null",
        "/proc/self/environ",
        "x' union select 'key-EdDSA",
        "key-ES256",
        "__class__",
    ],
    ids=repr,
)
def test_kid_is_an_exact_look_up(kid: object) -> None:
    with pytest.raises(InvalidToken):
        verify(sign(header(kid=kid), claims()), TRUSTED, NOW)


@pytest.mark.parametrize("typ", ["JOSE", "JWE", "secevent+jwt", "logout+jwt", "", None, 1, ["JWT"]], ids=repr)
def test_other_kinds_of_tokens_are_refused(typ: object) -> None:
    with pytest.raises(InvalidToken):
        verify(sign(header(typ=typ), claims()), TRUSTED, NOW)
