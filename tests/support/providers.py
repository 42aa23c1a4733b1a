"""Tokens and JWKS in the shapes in which Keycloak and Microsoft Entra ID issue them.

Members, types and order are those of Keycloak 26 (a user's access token with the default client scopes, an
audience mapper and a user attribute mapper) and of Entra ID's reference of access tokens v2.0. The keys are
of ``tokens``, RS256 as both use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import tokens
from wardkey.identity.jwks import document_from_jwks

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
KEYCLOAK = "https://keycloak.example/realms/clinics"
DIRECTORY = "72f988bf-86f1-41af-91ab-2d7cd011db47"
ENTRA = f"https://login.microsoftonline.com/{DIRECTORY}/v2.0"
API = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
_KID = "key-RS256"
_CERTIFICATE = {"x5c": ["MIICnTCCAYUCBgGT"], "x5t": "nGQ5Xr0bZ7dHkq4vV9uG"}


def keycloak_claims(now: float, tenant: str, **changes: Any) -> dict[str, Any]:
    at = int(now)
    return tokens.change(
        {
            "exp": at + 300,
            "iat": at,
            "auth_time": at - 5,
            "jti": "onrtac:9d1f7b0e-52ab-45ab-8fd3-5b8f2d8f0d57",
            "iss": KEYCLOAK,
            "aud": ["wardkey", "account"],
            "sub": "36fa0f91-f94d-4a0c-afed-6b7d952e47da",
            "typ": "Bearer",
            "azp": "portal",
            "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e",
            "acr": "1",
            "allowed-origins": ["https://portal.example"],
            "realm_access": {"roles": ["offline_access", "default-roles-clinics", "uma_authorization"]},
            "resource_access": {
                "wardkey": {"roles": ["clinician"]},
                "account": {"roles": ["manage-account", "manage-account-links", "view-profile"]},
            },
            "scope": "openid profile email",
            "email_verified": True,
            "name": "Meredith Grey",
            "preferred_username": "dr.grey",
            "given_name": "Meredith",
            "family_name": "Grey",
            "email": "grey@clinic.example",
            "tenant_id": tenant,
        },
        changes,
    )


def entra_claims(now: float, **changes: Any) -> dict[str, Any]:
    at = int(now)
    return tokens.change(
        {
            "aud": API,
            "iss": ENTRA,
            "iat": at - 300,
            "nbf": at - 300,
            "exp": at + 4200,
            "aio": "AXQAi/8IAAAAtAaZLo3ChMif6KOnttRB7eBq4/DccQzjcJGxPYy/C3jDaNGxXd6wNIIVGRghNRnwJ1lOcAnNZ==",
            "azp": "2d4d11a2-f814-46a7-890a-274a72a7309e",
            "azpacr": "0",
            "name": "Meredith Grey",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "preferred_username": "grey@clinic.example",
            "rh": "0.ARoAv4j5cvGGr0GRqy180BHbRwoXdG5WvkmEn-TmpgGoELDyAAA.",
            "roles": ["Ward.Clinician", "Reports.Read"],
            "scp": "User.Read access_as_user",
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": DIRECTORY,
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "ver": "2.0",
        },
        changes,
    )


def signed(claims: dict[str, Any]) -> str:
    return tokens.sign({"alg": "RS256", "typ": "JWT", "kid": _KID}, claims, "RS256")


def keycloak_jwks() -> bytes:
    """What ``…/protocol/openid-connect/certs`` answers: a key to encrypt, one to sign, certificates."""
    encrypts = {**tokens.jwk("RS256", kid="encrypts", alg="RSA-OAEP", use="enc"), **_CERTIFICATE}
    return json.dumps({"keys": [encrypts, {**tokens.jwk("RS256"), **_CERTIFICATE}]}).encode()


def entra_jwks() -> bytes:
    """What ``…/discovery/v2.0/keys`` answers: no alg, certificates, an issuer with a placeholder."""
    key = tokens.jwk("RS256", alg=tokens.DROP) | _CERTIFICATE
    key |= {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}
    key |= {"cloud_instance_name": "microsoftonline.com"}
    return json.dumps({"keys": [key]}).encode()


def settings(name: str, tenant: str) -> dict[str, Any]:
    """Return what docs/examples/NAME.json says, for a tenant with this id."""
    read: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    if "tenants" in read:
        read["tenants"] = {DIRECTORY: tenant}
    return read


def document(name: str, tenant: str, **changes: Any) -> dict[str, Any]:
    """Return the document that ``wardkey issuer add --settings docs/examples/NAME.json`` registers."""
    issuer, audience, jwks = {
        "keycloak": (KEYCLOAK, "wardkey", keycloak_jwks),
        "entra": (ENTRA, API, entra_jwks),
    }[name]
    said = tokens.change(settings(name, tenant), changes)
    lifetime = said.get("max_lifetime", 900)
    return document_from_jwks(jwks(), issuer=issuer, audience=audience, max_lifetime=lifetime, settings=said)[
        0
    ]
