"""What the client reads of a token: whose it is, unverified. The database verifies it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import NamedTuple

from wardkey_core.plain_json import dumps, loads

from ..errors import InvalidToken

__all__ = ["Caller", "Secret", "caller_of", "tenant_of"]

_MAX_LENGTH = 8192  # as the database has it
_CLAIMS = ("tenant", "tenant_id")
_OF_ONE_TOKEN = ("exp", "iat", "nbf", "jti", "auth_time")  # what each token of a person has its own of
_MAX_KNOWN = 4096


class Caller(NamedTuple):
    """Who a token claims is asking. ``who``: equal for tokens with the same claims but for id and times."""

    tenant: str
    who: bytes


# by the hashes of tokens: if two have the same one, the database refuses the other
_known: dict[int, Caller] = {}


def tenant_of(token: str) -> str:
    """Return whose ``token`` claims to be: its claim ``tenant`` (a slug), or else ``tenant_id`` (a uuid).

    Unverified: good only to choose the login role, for the database refuses what is another tenant's. Raises
    InvalidToken for what is no token.
    """
    return caller_of(Secret(token)).tenant


def caller_of(secret: Secret) -> Caller:
    """Return who ``secret`` claims is asking, unverified. Raises InvalidToken."""
    mark = hash(str(secret.token))
    caller = _known.get(mark)
    if caller is None:
        caller = _claimed(secret)
        if caller is None:
            raise InvalidToken("token is not valid: it names no tenant")
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[mark] = caller
    return caller


class Secret:
    """A token that no ``repr`` shows."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token

    def __repr__(self) -> str:
        return "<token>"


def _claimed(secret: Secret) -> Caller | None:
    try:
        _, payload, _ = secret.token.split(".")
        if len(secret.token) > _MAX_LENGTH:
            return None
        claims = loads(urlsafe_b64decode(payload + "==").decode())
        tenant = next((claims[name] for name in _CLAIMS if name in claims), None)
        lasting = {name: claims[name] for name in sorted(claims) if name not in _OF_ONE_TOKEN}
        who = sha256(dumps(lasting).encode()).digest()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    return Caller(tenant, who) if isinstance(tenant, str) else None
