"""What the client reads of a token: whose it is, unverified. The database verifies it."""

from __future__ import annotations

from base64 import urlsafe_b64decode

from wardkey_core.plain_json import loads

from ..errors import InvalidToken

__all__ = ["Secret", "tenant_of"]

_MAX_LENGTH = 8192  # as the database has it
_CLAIMS = ("tenant", "tenant_id")


def tenant_of(token: str) -> str:
    """Return whose ``token`` claims to be: its claim ``tenant`` (a slug), or else ``tenant_id`` (a uuid).

    Unverified: good only to choose the login role, for the database refuses what is another tenant's. Raises
    InvalidToken for what is no token.
    """
    tenant = _claimed(Secret(token))
    del token
    if tenant is None:
        raise InvalidToken("token is not valid: it names no tenant")
    return tenant


class Secret:
    """A token that no ``repr`` shows."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return "<token>"


def _claimed(secret: Secret) -> str | None:
    try:
        _, payload, _ = secret.token.split(".")
        if len(secret.token) > _MAX_LENGTH:
            return None
        claims = loads(urlsafe_b64decode(payload + "==").decode())
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    names = [claims[name] for name in _CLAIMS if name in claims] if isinstance(claims, dict) else []
    return names[0] if names and isinstance(names[0], str) else None
