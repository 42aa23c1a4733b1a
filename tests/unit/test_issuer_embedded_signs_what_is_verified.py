"""The embedded issuer: one key per home, tokens that verify against its document, a key that nobody sees."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from wardkey_core.errors import TokenExpired
from wardkey_core.tokens import ROLES, Issuer, verify

from tests.support.tokens import TENANT
from wardkey.embedded.issuer import MAX_LIFETIME, EmbeddedIssuer
from wardkey.errors import ServerError


@pytest.fixture
def issuer(tmp_path: Path) -> EmbeddedIssuer:
    return EmbeddedIssuer.open(tmp_path / "issuer", "home-1")


def test_its_tokens_verify_against_its_document(issuer: EmbeddedIssuer) -> None:
    trusted = Issuer.from_document(json.loads(json.dumps(issuer.document())))
    for role in ROLES:
        token = issuer.sign_token(TENANT, "Dr. Ängström", role)
        claims = verify(token, trusted, time.time())
        assert (claims.tenant_id, claims.subject, claims.role) == (TENANT, "Dr. Ängström", role)
    assert claims.issuer == "wardkey:embedded:home-1"
    assert (
        len(
            {verify(issuer.sign_token(TENANT, "x", "ADMIN"), trusted, time.time()).token_id for _ in range(5)}
        )
        == 5
    )


def test_lifetime_is_what_was_asked_for(issuer: EmbeddedIssuer) -> None:
    trusted = Issuer.from_document(issuer.document())
    token, now = issuer.sign_token(TENANT, "x", "ADMIN", 30), time.time()
    assert verify(token, trusted, now + 29)
    with pytest.raises(TokenExpired):
        verify(token, trusted, now + 31 + trusted.max_skew)


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    first = EmbeddedIssuer.open(tmp_path / "issuer", "home-1")
    assert EmbeddedIssuer.open(tmp_path / "issuer", "home-1").document() == first.document()
    assert EmbeddedIssuer.open(tmp_path / "other", "home-1").kid != first.kid
    key = tmp_path / "issuer" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(OSError, match="chmod 600"):
        EmbeddedIssuer.open(tmp_path / "issuer", "home-1")


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "x"]
)
def test_a_damaged_key_is_said_so_and_kept(tmp_path: Path, content: str) -> None:
    key = tmp_path / "key.pem"
    key.write_text(content)
    key.chmod(0o600)
    with pytest.raises(ServerError):
        EmbeddedIssuer.open(tmp_path, "home-1")
    assert key.read_text() == content


@pytest.mark.parametrize(
    "arguments",
    [
        (TENANT, "", "ADMIN"),
        (TENANT, "a\nb", "ADMIN"),
        (TENANT, "x" * 256, "ADMIN"),
        (TENANT, "x", "ROOT"),
        (TENANT, "x", "ADMIN", MAX_LIFETIME + 1),
        (TENANT, "x", "ADMIN", 0),
        (TENANT, "x", "ADMIN", 60, ""),
        (TENANT, "x", "ADMIN", 60, "p" * 256),
        (TENANT, "x", "ADMIN", 60, "a\nb"),
        ("acme", "x", "ADMIN"),
    ],
    ids=str,
)
def test_tokens_that_would_not_verify_are_not_signed(
    issuer: EmbeddedIssuer, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError):
        issuer.sign_token(*arguments)  # type: ignore[arg-type]


def test_the_private_key_is_not_shown(issuer: EmbeddedIssuer, tmp_path: Path) -> None:
    assert "Ed25519PrivateKey" not in repr(issuer)
    assert "d" not in issuer.document()["keys"][0]
