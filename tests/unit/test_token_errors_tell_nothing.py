"""A refusal says why, in constant words: nothing of the token is in its text, its cause or its context."""

from __future__ import annotations

import json
import traceback

import pytest
from wardkey_core.errors import InvalidToken, TokenExpired, WardError
from wardkey_core.tokens import Issuer, unverified_issuer, verify

from tests.support.tokens import DROP, NOW, b64, claims, document, good, header, jwk, sign

TRUSTED = Issuer.from_document(document(keys=[jwk("EdDSA")]))
MARK = "Zebra77"
BAD = {
    "form": f"{MARK}.{MARK}",
    "base64": f"{MARK}*.{MARK}.{MARK}",
    "header": sign(MARK, claims()),
    "nested": sign(f'{{"{MARK}":1,"{MARK}":2}}', claims()),
    "payload": sign(header(), json.dumps(claims(sub=MARK)) + MARK),
    "number": sign(header(), f'{{"{MARK}":NaN}}'),
    "kid": sign(header(kid=MARK), claims()),
    "alg": sign(header(alg=MARK), claims()),
    "typ": sign(header(typ=MARK), claims()),
    "crit": sign(header(crit=[MARK]), claims()),
    "signature": ".".join([*good(sub=MARK).split(".")[:2], b64(MARK.encode() * 9)]),
    "iss": good(iss=MARK),
    "aud": good(aud=MARK),
    "exp": good(exp=MARK),
    "future": good(nbf=NOW + 100, jti=MARK),
    "lifetime": good(exp=NOW + 1e6, jti=MARK),
    "tenant": good(tenant_id=MARK),
    "role": good(role=MARK),
    "sub": good(sub=DROP, jti=MARK),
    "expired": good(sub=MARK, iat=NOW - 500, nbf=NOW - 500, exp=NOW - 400),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals_carry_nothing_of_the_token(name: str) -> None:
    with pytest.raises((InvalidToken, TokenExpired)) as caught:
        verify(BAD[name], TRUSTED, NOW)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    source_line = shown.count("verify(BAD[name], TRUSTED, NOW)")
    assert source_line and MARK not in shown
    assert all(part not in shown for part in BAD[name].split(".") if len(part) > 12)


def test_reasons_differ() -> None:
    def reason(name: str) -> str:
        with pytest.raises(WardError) as caught:
            verify(BAD[name], TRUSTED, NOW)
        return caught.value.message

    assert (
        len({reason(name) for name in ("form", "kid", "alg", "signature", "aud", "tenant", "expired")}) == 7
    )


def test_choosing_the_issuer_tells_nothing_either() -> None:
    for name in ("form", "base64", "payload", "number"):
        with pytest.raises(InvalidToken) as caught:
            unverified_issuer(BAD[name])
        assert caught.value.__context__ is None
        assert MARK not in "".join(traceback.format_exception(caught.value))
