"""An issuer's document says what its tokens call tenants, roles and claims; nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.errors import InvalidToken
from wardkey_core.tokens import ROLES, Claims, Issuer, verify

from tests.support import providers
from tests.support.tokens import DROP, NOW, TENANT, document, good, jwk


def keycloak(changes: dict[str, Any] | None = None, /, **claims: Any) -> Claims:
    issuer = Issuer.from_document(providers.document("keycloak", TENANT, **(changes or {})))
    return verify(providers.signed(providers.keycloak_claims(NOW, TENANT, **claims)), issuer, NOW)


def entra(changes: dict[str, Any] | None = None, /, **claims: Any) -> Claims:
    issuer = Issuer.from_document(providers.document("entra", TENANT, **(changes or {})))
    return verify(providers.signed(providers.entra_claims(NOW, **claims)), issuer, NOW)


def test_a_token_of_keycloak_is_read_as_the_example_says() -> None:
    claims = keycloak()
    assert (claims.tenant_id, claims.role) == (TENANT, "EVALUATOR")
    assert claims.subject == "36fa0f91-f94d-4a0c-afed-6b7d952e47da"
    assert claims.token_id.startswith("onrtac:")
    assert keycloak(aud="wardkey").role == "EVALUATOR"


def test_keycloak_may_name_realm_roles_and_organizations() -> None:
    realm = {"claims": {"tenant_id": "organization", "role": ["realm_access", "roles"], "not_before": "iat"}}
    realm["tenants"] = {"acme": TENANT}
    roles = {"roles": ["default-roles-clinics", "front-desk"]}
    for organization in ({"acme": {"id": "42c3e46f-2477-44d7-a85b-d3b43f6b31fa"}}, ["acme"], "acme"):
        assert keycloak(realm, organization=organization, realm_access=roles).role == "VIEWER"
    for organization in ({"acme": {}, "globex": {}}, ["acme", "acme"], [], {}, "globex", None, 1, [["acme"]]):
        with pytest.raises(InvalidToken, match="tenant claim"):
            keycloak(realm, organization=organization, realm_access=roles)


def test_a_token_of_entra_is_read_as_the_example_says() -> None:
    claims = entra()
    assert (claims.tenant_id, claims.role) == (TENANT, "EVALUATOR")
    assert claims.subject == "690222be-ff1a-4d56-abd1-7e4f7d38e474"
    assert claims.token_id == "fqiBqXLPj0eQa82S-IYFAA"


@pytest.mark.parametrize(
    "claims",
    [
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"typ": DROP},
        {"aud": "account"},
        {"aud": ["account"]},
        {"aud": ["wardkey", "another-service"]},
        {"aud": ["wardkey", "wardkey"]},
        {"aud": ["wardkey", 1]},
        {"aud": {"wardkey": 1}},
        {"resource_access": {"account": {"roles": ["clinician"]}}},
        {"resource_access": {"wardkey": {"roles": ["clinician", "clinic-admin"]}}},
        {"resource_access": {"wardkey": {"roles": ["EVALUATOR"]}}},
        {"resource_access": {"wardkey": {"roles": {"clinician": 1}}}},
        {"resource_access": {"wardkey": {"roles": [["clinician"]]}}},
        {"resource_access": {"wardkey": ["roles"]}},
        {"resource_access": "wardkey"},
        {"resource_access": DROP, "role": "ADMIN", "wardkey": {"roles": ["clinician"]}},
        {"tenant_id": DROP},
        {"tenant_id": [TENANT]},
        {"exp": int(NOW) + 301},
        {"iat": int(NOW) + 3600, "nbf": 0},
        {"iss": "https://keycloak.example/realms/other"},
    ],
    ids=str,
)
def test_what_the_example_does_not_say_is_refused(claims: dict[str, Any]) -> None:
    assert keycloak()
    with pytest.raises(InvalidToken):
        keycloak(**claims)


@pytest.mark.parametrize(
    "claims",
    [
        {"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"},
        {"tid": TENANT},
        {"roles": DROP},
        {"roles": ["Reports.Read"]},
        {"roles": ["Ward.Admin", "Ward.FrontDesk"]},
        {"scp": DROP},
        {"scp": "access_as_user2"},
        {"scp": ["access_as_user"]},
        {"ver": "1.0"},
        {"uti": DROP, "jti": "8d1f"},
        {"oid": DROP},
        {"nbf": DROP},
        {"iss": "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"},
    ],
    ids=str,
)
def test_what_entra_sends_otherwise_is_refused(claims: dict[str, Any]) -> None:
    assert entra()
    with pytest.raises(InvalidToken):
        entra(**claims)


def test_two_names_of_one_role_are_one_role() -> None:
    both = {"roles": {"clinician": "EVALUATOR", "nurse": "EVALUATOR"}}
    assert keycloak(both, resource_access={"wardkey": {"roles": ["nurse", "clinician"]}}).role == "EVALUATOR"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"claims": {"role": []}}, "claims.role:"),
        ({"claims": {"role": ["a"] * 9}}, "claims.role:"),
        ({"claims": {"role": ["a", 1]}}, "claims.role:"),
        ({"claims": {"role": ["aud", "x"]}}, "claims.role: aud"),
        ({"claims": {"token_id": "exp"}}, "claims.token_id:"),
        ({"claims": {"token_id": "sub"}}, "claims: tenant_id"),
        ({"claims": {"subject": "jti"}}, "claims.subject:"),
        ({"claims": {"not_before": "auth_time"}}, "claims.not_before:"),
        ({"claims": {"not_before": "exp"}}, "claims.not_before:"),
        ({"roles": {}}, "roles:"),
        ({"roles": ["ADMIN"]}, "roles:"),
        ({"roles": None}, "roles:"),
        ({"roles": {"x": "OWNER"}}, "roles.x: must be one of SUPER_ADMIN"),
        ({"roles": {"x": ["ADMIN"]}}, "roles.x:"),
        ({"roles": {f"r{n}": "ADMIN" for n in range(257)}}, "roles:"),
        ({"tenants": {"acme": "acme"}}, "tenants.acme:"),
        ({"tenants": {"acme": TENANT.upper()}}, "tenants.acme:"),
        ({"tenants": {"": TENANT}}, "tenants:"),
        ({"require": {"typ": "a b"}}, "require.typ:"),
        ({"require": {"typ": ""}}, "require.typ:"),
        ({"require": {"aud": "x"}}, "require.aud:"),
        ({"other_audiences": "account"}, "other_audiences:"),
        ({"other_audiences": ["a"] * 17}, "other_audiences:"),
        ({"other_audiences": [1]}, "other_audiences:"),
    ],
    ids=str,
)
def test_faults_of_a_mapping_are_named_with_their_place(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match="^" + where):
        Issuer.from_document(document(**changes))


def test_roles_of_ours_count_for_nothing_where_others_are_named() -> None:
    issuer = Issuer.from_document(document(keys=[jwk("EdDSA")], roles={"VIEWER": "ADMIN"}))
    assert verify(good(role="VIEWER"), issuer, NOW).role == "ADMIN"
    for role in set(ROLES) - {"VIEWER"}:
        with pytest.raises(InvalidToken):
            verify(good(role=role), issuer, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["acme", "clinician", "roles", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(_JSON, _JSON)
def test_no_shape_of_a_claim_is_an_error_of_ours(access: Any, organization: Any) -> None:
    changes: dict[str, Any] = {
        "claims": {"tenant_id": "organization", "role": ["a", "b"], "not_before": "iat"}
    }
    changes["tenants"] = {"acme": TENANT}
    try:
        claims = keycloak(changes, a=access, organization=organization)
    except InvalidToken:
        return
    assert (claims.tenant_id, claims.role) == (TENANT, "EVALUATOR")
