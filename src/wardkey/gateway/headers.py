"""Headers: which are dropped, what a verified token puts in their place, how a request is refused.

Whatever stands behind the gateway, no header of a client is X-Auth-* to it. A CGI or WSGI server makes ``-``
and ``_`` the same, some make every odd character so or leave it out, some trim names. So names are compared
by their letters and digits, and a name that RFC 9110 does not allow is dropped whatever it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from random import getrandbits
from urllib.parse import quote

from wardkey_core.errors import InvalidToken, TokenExpired
from wardkey_core.tokens import MAX_TOKEN_LENGTH, Claims, UnknownKey

from .trust import KeysUnavailable

__all__ = [
    "IDENTITY",
    "INJECTED",
    "Identity",
    "Refusal",
    "bearer",
    "identify",
    "is_dropped",
    "kept_options",
    "new_request_id",
    "split",
]

IDENTITY = "wardkey.identity"
"""Key of the Identity in an ASGI scope and a WSGI environ; None on a public path."""
INJECTED = ("X-Auth-Tenant", "X-Auth-Subject", "X-Auth-Role", "X-Auth-Request-Id")
_INJECTED = tuple(name.lower().encode() for name in INJECTED)

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_ODD = re.compile(rb"[^0-9a-z]+")
_LETTERS = tuple(_ODD.sub(b"", name) for name in _INJECTED)
_TOKEN = b"-._~+/=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # RFC 6750, 2.1
_MOST_NAMES, _LONGEST_NAME = 4096, 128  # of names whose kind is remembered
_PLAIN = "!#$&'()*+-./:;<=>?@[]^_`{|}~"  # stays in a subject: printable ASCII but space " % , and \


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who asks: claims of a verified token, and the token for ``ward.login``.

    ``expires_at`` is in Unix seconds. ``request_id`` is new for each request, 32 hexadecimal digits.
    """

    tenant_id: str
    subject: str
    role: str
    expires_at: float
    request_id: str
    token: str = field(compare=False)

    def __repr__(self) -> str:
        return f"<Identity of {self.tenant_id}>"

    def headers(self) -> list[tuple[str, str]]:
        """Return what is injected: ASCII, one header of each of INJECTED, a subject percent-encoded."""
        values = (value.decode("ascii") for _, value in self.raw_headers())
        return list(zip(INJECTED, values, strict=True))

    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the same as ASGI has headers, names in lower case."""
        request = _INJECTED[3], self.request_id.encode()
        return (*_of_claims(self.tenant_id, self.subject, self.role), request)


class Refusal(Exception):
    """A request that does not pass. ``reason``: for the log, a constant; ``error``: that of RFC 6750."""

    def __init__(self, status: int, error: str, reason: str, description: str = "") -> None:
        super().__init__(reason)
        self.status, self.error, self.reason, self.description = status, error, reason, description

    def response(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body: constants, nothing of the request."""
        body = json.dumps({"error": self.error or "unauthorized"}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return self.status, [*headers, ("Retry-After", "1")], body
        return self.status, [*headers, ("WWW-Authenticate", self.challenge())], body

    def challenge(self) -> str:
        """Return the value of WWW-Authenticate."""
        error = f', error="{self.error}"' if self.error else ""
        described = f', error_description="{self.description}"' if self.description else ""
        return f'Bearer realm="wardkey"{error}{described}'


def split(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """Return what of a client's headers is passed on, and the values of Authorization, which is, too."""
    kept: list[tuple[bytes, bytes]] = []
    credentials: list[bytes] = []
    for header in headers:
        kind = _KINDS.get(header[0]) or _kind(header[0])
        if kind == _KEPT:
            kept.append(header)
        elif kind == _CREDENTIALS:
            kept.append(header)
            credentials.append(header[1])
        elif kind == _OPTIONS:
            kept.append((header[0], kept_options(header[1])))
    return kept, credentials


def is_dropped(name: bytes) -> bool:
    """Tell whether a client's header of this name is dropped."""
    return (_KINDS.get(name) or _kind(name)) == _DROPPED


_KEPT, _DROPPED, _CREDENTIALS, _OPTIONS = range(1, 5)
_KINDS: dict[bytes, int] = {}  # of names that were seen: it saves most of what a request costs here
_NAMED = {b"authorization": _CREDENTIALS, b"connection": _OPTIONS}


def _kind(name: bytes) -> int:
    lower = name.lower()
    words = _ODD.sub(b"-", lower).strip(b"-")
    if (
        not _NAME.fullmatch(name)
        or words == b"x-auth"
        or words.startswith(b"x-auth-")
        or words.replace(b"-", b"").startswith(_LETTERS)
    ):
        kind = _DROPPED
    else:
        kind = _NAMED.get(lower, _KEPT)
    if len(_KINDS) >= _MOST_NAMES:
        _KINDS.clear()
    if len(name) <= _LONGEST_NAME:
        _KINDS[name] = kind
    return kind


def kept_options(connection: bytes) -> bytes:
    """Return a Connection header without options that would have a proxy drop what is injected."""
    if b"auth" not in connection.lower():
        return connection
    options = [option.strip(b" \t") for option in connection.split(b",")]
    kept = (one for one in options if one.lower() != b"authorization" and not is_dropped(one))
    return b", ".join(kept)


def new_request_id() -> str:
    """Return 32 hexadecimal digits that no other request has. They are no secret."""
    return f"{getrandbits(128):032x}"


def bearer(values: Sequence[bytes]) -> str:
    """Return the token of a request's Authorization headers. Raises Refusal."""
    if len(values) > 1:
        raise Refusal(400, "invalid_request", "more than one Authorization header")
    scheme, _, token = (values[0] if values else b"").strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        raise Refusal(401, "", "no token")
    token = token.lstrip(b" ")
    if not 0 < len(token) <= MAX_TOKEN_LENGTH + 64 or token.translate(None, _TOKEN):
        raise Refusal(400, "invalid_request", "the Authorization header is malformed or too long")
    return token.decode("ascii")


def identify(verify: Callable[[str], Claims], token: str) -> Identity:
    """Return whose token it is. Raises Refusal, UnknownKey."""
    try:
        claims = verify(token)
    except UnknownKey:
        raise
    except TokenExpired as error:
        refusal = Refusal(401, "invalid_token", error.message, error.message)
    except InvalidToken as error:
        refusal = Refusal(401, "invalid_token", error.message)
    except KeysUnavailable as error:
        refusal = Refusal(503, "temporarily_unavailable", str(error))
    else:
        expires, request = claims.expires_at, new_request_id()
        return Identity(claims.tenant_id, claims.subject, claims.role, expires, request, token)
    raise refusal


@lru_cache(4096)
def _of_claims(tenant_id: str, subject: str, role: str) -> tuple[tuple[bytes, bytes], ...]:
    values = (tenant_id, quote(subject, safe=_PLAIN), role)
    return tuple((name, value.encode("ascii")) for name, value in zip(_INJECTED, values, strict=False))
