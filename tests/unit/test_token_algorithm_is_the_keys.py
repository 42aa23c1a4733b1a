"""The registered key says the algorithm; the token's header can only agree (attack 31)."""

from __future__ import annotations

import json

import pytest
from wardkey_core.errors import InvalidToken
from wardkey_core.tokens import Issuer, verify

from tests.support.tokens import (
    ALGORITHMS,
    NOW,
    b64,
    claims,
    document,
    good,
    header,
    hs256,
    jwk,
    pem,
    private_key,
    raw,
    sign,
    signature,
)

EVERY_KEY = Issuer.from_document(document())


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_each_algorithm_verifies(alg: str) -> None:
    assert verify(good(alg), EVERY_KEY, NOW).subject == "dr.grey"


@pytest.mark.parametrize(
    "alg", ["none", "None", "nOnE", "NONE", "", None, 0, ["EdDSA"], {"EdDSA": 1}, "eddsa"]
)
def test_no_algorithm_is_no_signature(alg: object) -> None:
    head = b64(raw(header(alg=alg)))
    body = b64(raw(claims()))
    for last in ("", b64(b"\0"), b64(signature("EdDSA", f"{head}.{body}".encode()))):
        with pytest.raises(InvalidToken):
            verify(f"{head}.{body}.{last}", EVERY_KEY, NOW)


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("form", ["pem", "stripped pem", "jwk", "raw"])
def test_the_public_key_is_not_a_secret(alg: str, form: str) -> None:
    secret = {
        "pem": pem(alg),
        "stripped pem": pem(alg).strip(),
        "jwk": json.dumps(jwk(alg)).encode(),
        "raw": b"".join(raw(jwk(alg).get(name, "")) for name in ("x", "y", "n", "e")),
    }[form]
    for name in ("HS256", alg):
        message = f"{b64(raw(header(alg, alg=name)))}.{b64(raw(claims()))}"
        with pytest.raises(InvalidToken):
            verify(f"{message}.{b64(hs256(secret, message.encode()))}", EVERY_KEY, NOW)


@pytest.mark.parametrize("of_key", ALGORITHMS)
@pytest.mark.parametrize("named", [*ALGORITHMS, "ES512", "RS1", "RS512", "HS256", "Ed25519"])
def test_header_must_name_the_keys_algorithm(of_key: str, named: str) -> None:
    head = header(of_key, alg=named)
    if of_key == named:
        assert verify(sign(head, claims(), of_key), EVERY_KEY, NOW)
        return
    with pytest.raises(InvalidToken):
        verify(sign(head, claims(), of_key), EVERY_KEY, NOW)


def test_one_rsa_key_does_not_serve_two_paddings() -> None:
    only_rs256 = Issuer.from_document(document(keys=[jwk("RS256", kid="rsa")]))
    assert verify(sign(header("RS256", kid="rsa"), claims(), "RS256"), only_rs256, NOW)
    head = header("RS256", alg="PS256", kid="rsa")
    message = f"{b64(raw(head))}.{b64(raw(claims()))}"
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    pss = private_key("RS256").sign(
        message.encode(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
    )
    with pytest.raises(InvalidToken):
        verify(f"{message}.{b64(pss)}", only_rs256, NOW)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_another_keys_signature_does_not_verify(alg: str) -> None:
    for other in ALGORITHMS:
        if other != alg:
            with pytest.raises(InvalidToken):
                verify(sign(header(alg), claims(), other), EVERY_KEY, NOW)


@pytest.mark.parametrize("alg", ["ES256", "ES384"])
def test_ecdsa_signature_is_raw_and_of_exact_length(alg: str) -> None:
    token = good(alg)
    message, _, last = token.rpartition(".")
    width = 32 if alg == "ES256" else 48
    import base64

    exact = base64.urlsafe_b64decode(last + "=" * (-len(last) % 4))
    assert len(exact) == 2 * width
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    r, s = int.from_bytes(exact[:width], "big"), int.from_bytes(exact[width:], "big")
    wrong = {
        "DER": encode_dss_signature(r, s),
        "a zero byte in front of each": b"\0" + exact[:width] + b"\0" + exact[width:],
        "a zero byte in front of s": exact[:width] + b"\0" + exact[width:],
        "one more byte": exact + b"\0",
        "one byte less": exact[:-1],
        "all zero": bytes(2 * width),
        "r zero": bytes(width) + exact[width:],
        "swapped": exact[width:] + exact[:width],
    }
    for name, changed in wrong.items():
        with pytest.raises(InvalidToken):
            verify(f"{message}.{b64(changed)}", EVERY_KEY, NOW)
            pytest.fail(name)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_part_is_signed(alg: str) -> None:
    head, body, last = good(alg).split(".")
    for changed in (
        f"{b64(raw(header(alg, extra=1)))}.{body}.{last}",
        f"{head}.{b64(raw(claims(sub='dr.house')))}.{last}",
        f"{head}.{body}.{b64(bytes(64))}",
    ):
        with pytest.raises(InvalidToken):
            verify(changed, EVERY_KEY, NOW)
