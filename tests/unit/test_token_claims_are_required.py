"""Every claim is there, of its type, and says what is needed; dates are checked against now (attack 34)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.errors import InvalidToken, TokenExpired
from wardkey_core.tokens import ROLES, Issuer, unverified_issuer, verify

from tests.support.tokens import DROP, ISSUER, NOW, TENANT, document, good, jwk

TRUSTED = Issuer.from_document(document(keys=[jwk("EdDSA")]))
T = int(NOW)


def refused(**changes: Any) -> None:
    with pytest.raises(InvalidToken):
        verify(good(**changes), TRUSTED, NOW)


def test_claims_come_out_as_they_were_signed() -> None:
    claims = verify(good(), TRUSTED, NOW)
    assert claims.issuer == ISSUER
    assert claims.subject == "dr.grey"
    assert claims.tenant_id == TENANT
    assert claims.role == "EVALUATOR"
    assert claims.token_id == "8d1f"
    assert claims.issued_at == T - 10
    assert claims.expires_at == T + 600 + TRUSTED.max_skew
    assert unverified_issuer(good()) == ISSUER


NAMES = ["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "tenant_id", "role"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", [DROP, None, "", 0, -1, True, False, [], {}, [[]], "\0", "x" * 256], ids=repr
)
def test_each_claim_is_required_and_has_its_type(name: str, value: object) -> None:
    if name == "nbf" and value == 0 and value is not False:
        return  # a date like any other: the epoch
    refused(**{name: value})


@pytest.mark.parametrize("name", ["sub", "jti", "iss"])
@pytest.mark.parametrize(
    "value", ["a\nb", "a\0b", "a\x7fb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "\ud800"], ids=repr
)
def test_texts_have_no_control_characters(name: str, value: str) -> None:
    refused(**{name: value})


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", ["x", "x" * 255, "Dr. Ängström", "a b", "auth0|5f7c", "日本"])
def test_any_printable_text_names_a_subject(name: str, value: str) -> None:
    assert value in verify(good(**{name: value}), TRUSTED, NOW)


@pytest.mark.parametrize(
    "audience",
    [
        "Wardkey",
        "wardkey ",
        "wardkey2",
        "https://wardkey",
        [],
        ["other"],
        ["wardkey", "other"],
        ["other", "wardkey"],
        ["wardkey", "wardkey"],
        [["wardkey"]],
        [None],
        {"wardkey": 1},
    ],
    ids=repr,
)
def test_audience_is_this_one_alone(audience: object) -> None:
    refused(aud=audience)


def test_audience_may_be_a_list_of_one() -> None:
    assert verify(good(aud=["wardkey"]), TRUSTED, NOW)


@pytest.mark.parametrize(
    "issuer", ["https://id.example", ISSUER + "/", ISSUER.upper(), "https://evil.example"]
)
def test_issuer_is_the_one_of_the_key(issuer: str) -> None:
    refused(iss=issuer)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [str(T), "soon", [T], 10**400, -T, 2**53, float("nan"), float("inf")], ids=repr
)
def test_dates_are_finite_numbers(name: str, value: object) -> None:
    refused(**{name: value})


def test_dates_may_have_fractions() -> None:
    assert verify(good(iat=T - 0.5, nbf=T - 0.5, exp=T + 10.25), TRUSTED, NOW).expires_at == T + 70.25


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_future_tokens_are_refused_beyond_the_skew(name: str) -> None:
    assert verify(good(**{name: T + 60}), TRUSTED, NOW)
    refused(**{name: T + 61})
    refused(**{name: T + 61, "exp": T + 62})


def test_expired_tokens_have_an_error_of_their_own() -> None:
    token = good(iat=T - 300, nbf=T - 300, exp=T)
    last = verify(token, TRUSTED, NOW + 59.9).expires_at
    assert last == T + 60
    for late in (0, 1, 1e6):
        with pytest.raises(TokenExpired):
            verify(token, TRUSTED, last + late)


def test_skew_is_the_issuers() -> None:
    strict = Issuer.from_document(document(max_skew=0))
    assert verify(good(iat=T, nbf=T, exp=T + 1), strict, NOW)
    with pytest.raises(TokenExpired):
        verify(good(iat=T - 10, exp=T), strict, NOW)
    for name in ("nbf", "iat"):
        with pytest.raises(InvalidToken):
            verify(good(**{name: T + 1}), strict, NOW)


def test_an_expired_token_with_another_fault_is_invalid() -> None:
    with pytest.raises(InvalidToken):
        verify(good(exp=T - 100, iat=T - 300, role="ROOT"), TRUSTED, NOW)


def test_lifetime_is_bounded() -> None:
    assert verify(good(iat=T, exp=T + 900), TRUSTED, NOW)
    refused(iat=T, exp=T + 901)
    refused(iat=T - 1, exp=T + 900)
    refused(exp=T + 10**9)
    longer = Issuer.from_document(document(max_lifetime=3600))
    assert verify(good(iat=T, exp=T + 3600), longer, NOW)
    with pytest.raises(InvalidToken):
        verify(good(iat=T, exp=T + 3601), longer, NOW)


@pytest.mark.parametrize(
    "changes", [{"exp": T - 10}, {"exp": T - 11}, {"nbf": T + 30, "exp": T + 30}], ids=str
)
def test_a_token_begins_before_it_ends(changes: dict[str, int]) -> None:
    refused(**changes)


@pytest.mark.parametrize(
    "tenant",
    [
        TENANT.upper(),
        f"{{{TENANT}}}",
        TENANT.replace("-", ""),
        f"urn:uuid:{TENANT}",
        f" {TENANT}",
        f"{TENANT}\n",
        TENANT[:-1],
        TENANT + "0",
        TENANT.replace("6", "\u0666"),
        TENANT.replace("6", "g"),
        [TENANT],
        "acme",
        "'; drop table patients; --",
    ],
    ids=repr,
)
def test_tenant_is_a_canonical_uuid(tenant: object) -> None:
    refused(tenant_id=tenant)


@pytest.mark.parametrize("role", ROLES)
def test_the_five_roles_are_taken(role: str) -> None:
    assert verify(good(role=role), TRUSTED, NOW).role == role


@pytest.mark.parametrize(
    "role", ["viewer", "ROOT", "ADMIN ", "ADMIN,VIEWER", ["ADMIN"], {"ADMIN": True}, "SUPERADMIN"]
)
def test_other_roles_are_refused(role: object) -> None:
    refused(role=role)


def test_claim_names_are_the_issuers() -> None:
    names = {
        "tenant_id": "https://wardkey.example/tenant",
        "role": "wk:role",
        "subject": "preferred_username",
    }
    issuer = Issuer.from_document(document(claims=names))
    mapped = {names["tenant_id"]: TENANT, names["role"]: "VIEWER", names["subject"]: "meredith"}
    claims = verify(good(tenant_id=DROP, role=DROP, **mapped), issuer, NOW)
    assert (claims.tenant_id, claims.role, claims.subject) == (TENANT, "VIEWER", "meredith")
    for name in names.values():
        with pytest.raises(InvalidToken):
            verify(good(**{**mapped, name: DROP}), issuer, NOW)
    other = "00000000-0000-4000-8000-000000000000"
    assert verify(good(**{**mapped, "tenant_id": other}), issuer, NOW).tenant_id == TENANT


@given(st.floats(min_value=0, max_value=4e9), st.integers(0, 2000), st.integers(-2000, 2000))
def test_a_token_is_accepted_only_inside_its_time(now: float, lifetime: int, age: int) -> None:
    begin = int(now) - age
    token = good(iat=begin, nbf=begin, exp=begin + lifetime)
    inside = begin <= now + 60 and now < begin + lifetime + 60
    if begin >= 0 and 0 < lifetime <= 900 and inside:
        assert verify(token, TRUSTED, now)
    else:
        with pytest.raises((InvalidToken, TokenExpired)):
            verify(token, TRUSTED, now)
