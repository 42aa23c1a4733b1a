"""One text for each token: compact JWS, canonical base64url, no member twice (attack 33)."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.errors import InvalidToken, TokenExpired
from wardkey_core.jwk import b64url_decode
from wardkey_core.tokens import MAX_TOKEN_LENGTH, Issuer, unverified_issuer, verify

from tests.support.tokens import NOW, b64, claims, document, good, header, jwk, raw, sign, signature

TRUSTED = Issuer.from_document(document(keys=[jwk("EdDSA")]))
GOOD = good()
HEAD, BODY, LAST = GOOD.split(".")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def refused(token: object) -> None:
    with pytest.raises(InvalidToken):
        verify(token, TRUSTED, NOW)  # type: ignore[arg-type]


def test_the_one_form_verifies() -> None:
    assert verify(GOOD, TRUSTED, NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        HEAD,
        f"{HEAD}.{BODY}",
        f"{HEAD}.{BODY}.",
        f"{HEAD}..{LAST}",
        f".{BODY}.{LAST}",
        f"{GOOD}.",
        f"{GOOD}.{LAST}",
        f"{HEAD}.{BODY}.{LAST}.{LAST}.{LAST}",
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\n",
        f"Bearer {GOOD}",
        f"{HEAD}.\n{BODY}.{LAST}",
        f"{HEAD}=.{BODY}.{LAST}",
        f"{HEAD}.{BODY}.{LAST}==",
        f"{HEAD}.{BODY}.{LAST[:-1]}",
        f"{HEAD}.{BODY}.+{LAST[1:]}",
        f"{HEAD}.{BODY}./{LAST[1:]}",
        f"{HEAD}.{BODY}.\u0661{LAST[1:]}",
        f"\ufeff{GOOD}",
        f"{GOOD}\0",
        f"\ud800{GOOD}",
        json.dumps({"payload": BODY, "protected": HEAD, "signature": LAST}),
        json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": LAST}]}),
        f"{HEAD}.{LAST}.{LAST}.{BODY}.{LAST}",
        None,
        GOOD.encode(),
        1,
    ],
    ids=lambda token: repr(token)[:30],
)
def test_other_serialisations_are_refused(token: object) -> None:
    refused(token)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_stray_bits_are_refused(part: int) -> None:
    # One blank more or less in the payload moves the last character to a place with unused bits.
    for spaces in range(3):
        token = sign(raw(header()) + b" " * spaces, raw(claims()) + b" " * spaces)
        assert verify(token, TRUSTED, NOW)
        parts = token.split(".")
        last = parts[part][-1]
        neighbour = ALPHABET[ALPHABET.index(last) ^ 1]
        if len(parts[part]) % 4 == 0:
            continue
        parts[part] = parts[part][:-1] + neighbour
        refused(".".join(parts))
        with pytest.raises(ValueError):
            b64url_decode(parts[part])


@given(st.binary(min_size=1, max_size=60), st.data())
def test_base64url_has_one_text_for_each_value(value: bytes, data: st.DataObject) -> None:
    text = b64(value)
    assert b64url_decode(text) == value
    place = data.draw(st.integers(0, len(text) - 1))
    other = text[:place] + data.draw(st.sampled_from(ALPHABET + "=+/ \n.é")) + text[place + 1 :]
    try:
        decoded = b64url_decode(other)
    except ValueError:
        return
    assert (decoded == value) == (other == text)


@pytest.mark.parametrize(
    "head",
    [
        '{"alg":"none","alg":"EdDSA","typ":"JWT","kid":"key-EdDSA"}',
        '{"alg":"EdDSA","typ":"JWT","kid":"evil","kid":"key-EdDSA"}',
        '{"alg":"EdDSA","typ":"JWT","kid":"key-EdDSA","\\u006bid":"key-EdDSA"}',
        '{"alg":"EdDSA","typ":"JWT","kid":"key-EdDSA","x":{"a":1,"a":1}}',
        '{"alg":"EdDSA","kid":"key-EdDSA"} {}',
        '[{"alg":"EdDSA","kid":"key-EdDSA"}]',
        '"EdDSA"',
        "null",
        "",
        " ",
        '{"alg":"EdDSA","kid":"key-EdDSA",}',
        '\ufeff{"alg":"EdDSA","kid":"key-EdDSA"}',
        b'{"alg":"EdDSA","kid":"key-EdDSA","x":"\xff"}',
        '{"alg":"EdDSA","kid":"key-EdDSA"}'.encode("utf-16"),
        '{"alg":"EdDSA","kid":"key-EdDSA","x":"\n"}',
        '{"alg":"EdDSA","kid":"key-EdDSA","x":NaN}',
    ],
    ids=lambda token: repr(token)[:30],
)
def test_a_header_that_can_be_read_two_ways_is_refused(head: str | bytes) -> None:
    refused(sign(head, claims()) if head else f".{BODY}.{LAST}")


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "sub", "tenant_id", "role"])
def test_a_claim_twice_is_refused(name: str) -> None:
    body = json.dumps(claims())
    twice = f"{body[:-1]}, {json.dumps(name)}: {json.dumps(claims()[name])}}}"
    assert json.loads(twice) == claims()
    refused(sign(header(), twice))
    with pytest.raises(InvalidToken):
        unverified_issuer(sign(header(), twice))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_are_refused(constant: str) -> None:
    refused(sign(header(), json.dumps(claims()).replace(str(claims()["exp"]), constant)))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_an_error_like_any_other(opening: str) -> None:
    depth = 3500 // len(opening)
    body = json.dumps(claims())[:-1] + ', "x": ' + opening * depth + "}"
    refused(sign(header(), body))
    closing = {"[": "]", '{"a":': "}"}[opening]
    closed = json.dumps(claims())[:-1] + ', "x": ' + opening * 900 + "1" + closing * 900 + "}"
    with suppress(InvalidToken):  # too deep for this interpreter: refused, not crashed
        verify(sign(header(), closed), TRUSTED, NOW)


def test_a_huge_number_is_an_error_like_any_other() -> None:
    for digits in (20, 400, 4999):
        refused(sign(header(), json.dumps(claims()).replace(str(claims()["exp"]), "9" * digits)))


def test_length_is_capped_before_anything_is_parsed() -> None:
    def padded(length: int) -> str:
        body = raw(claims())
        while True:
            token = sign(header(), body)
            if len(token) >= length:
                return token
            body += b" " * max(1, (length - len(token)) * 3 // 4 - 2)

    longest = padded(MAX_TOKEN_LENGTH - 3)
    assert len(longest) <= MAX_TOKEN_LENGTH
    assert verify(longest, TRUSTED, NOW)
    refused(padded(MAX_TOKEN_LENGTH + 1))
    refused("A" * 50_000_000)


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_is_a_token_error(text: str) -> None:
    refused(text)
    with pytest.raises(InvalidToken):
        unverified_issuer(text)


@settings(max_examples=200)
@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET + ".=~ "))
def test_every_single_change_is_refused(place: int, character: str) -> None:
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    if changed != GOOD:
        refused(changed)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(claims())), _JSON, max_size=9), st.sampled_from(["head", "body"])
)
def test_signed_nonsense_is_a_token_error(members: dict[str, object], where: str) -> None:
    head, body = header(), claims()
    if where == "head":
        head |= {"kid": members.get("sub"), "typ": members.get("role"), "alg": members.get("jti", "EdDSA")}
    else:
        body |= members
    message = f"{b64(raw(head))}.{b64(raw(body))}"
    try:
        verify(f"{message}.{b64(signature('EdDSA', message.encode()))}", TRUSTED, NOW)
    except (InvalidToken, TokenExpired):
        return
    assert where == "body"
