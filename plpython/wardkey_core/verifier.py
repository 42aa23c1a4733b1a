"""Tokens verified against a list of issuers, for services that see the same token many times.

Keeper and gateway use it, backends do not: their issuers are rows of the registry.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from .errors import InvalidToken
from .plain_json import loads
from .tokens import Claims, Issuer, unverified_issuer, verify

__all__ = ["Verifier", "parse_issuers"]

_MOST_VERIFIED = 4096  # tokens known to be good


class Verifier:
    """Verifies tokens of ``issuers``. Threads may share it.

    A token that was verified is known by its hash for as long as it is valid; issuers that change need
    another Verifier.
    """

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self.issuers = {issuer.issuer: issuer for issuer in issuers}
        self._verified: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()  # since when, by hash

    def verify(self, token: str, now: float) -> Claims:
        """Return the token's claims. Raises InvalidToken, TokenExpired."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        since, known = self._verified.get(digest, (0.0, None))
        if known is not None and since <= now < known.expires_at:  # a clock set back asks again
            return known
        issuer = self.issuers.get(unverified_issuer(token))
        if issuer is None:
            raise InvalidToken("token is not valid: its issuer is not known here")
        claims = verify(token, issuer, now)
        self._verified[digest] = now, claims
        if len(self._verified) > _MOST_VERIFIED:
            self._verified.popitem(last=False)
        return claims


def parse_issuers(data: bytes) -> list[dict[str, Any]]:
    """Return the issuer documents of an issuers.json, ``{"issuers": [issuer document, …]}``.

    Only their names are checked. Raises ValueError.
    """
    try:
        content = loads(data.decode("utf-8"))
    except RecursionError:
        content = None
    documents = content.get("issuers") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise ValueError('must be {"issuers": [issuer document, …]}')
    names = [document.get("issuer") for document in documents]
    if None in names or len(set(map(str, names))) != len(names):
        raise ValueError("issuers: each must be an issuer document, of another issuer than the rest")
    return documents
