"""From an identity provider's JWKS (RFC 7517), a file or a URL, to an issuer document.

Providers publish more than wardkey takes: certificates, encryption keys, keys without ``alg``, of other
curves, malformed ones. What is not needed or not good is left out, and the caller is told; a private key is
refused.
"""

from __future__ import annotations

import ipaddress
import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from wardkey_core.jwk import ALGORITHMS, VerifyingKey
from wardkey_core.tokens import Issuer

__all__ = ["JwksError", "check_url", "document_from_jwks", "fetch", "read", "read_settings"]

MAX_LENGTH = 1024 * 1024
FETCH_SECONDS = 10

_PUBLIC = ("kty", "kid", "alg", "crv", "x", "y", "n", "e")
_IGNORED = frozenset(
    ("use", "key_ops", "x5c", "x5t", "x5t#S256", "x5u", "issuer", "cloud_instance_name", "ext")
)
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_ALG_OF = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("OKP", "Ed25519"): "EdDSA",
    ("RSA", None): "RS256",
}


class JwksError(ValueError):
    """The JWKS cannot be fetched or used; the message says why."""


def read(path: Path) -> bytes:
    """Return the content of a JWKS file. Raises JwksError, OSError."""
    with path.open("rb") as file:
        return _limited(file)


def read_settings(path: Path) -> dict[str, Any]:
    """Return what a file says of an issuer's tokens: members of its document. Raises JwksError, OSError."""
    try:
        settings = json.loads(read(path))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or settings.keys() & {"issuer", "audience", "keys"}:
        raise JwksError("the settings are not a JSON object, or name issuer, audience or keys")
    return settings


def fetch(url: str) -> bytes:
    """Return what is at ``url``: https, or http on this host. Raises JwksError."""
    check_url(url)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _CheckedRedirects(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(url, timeout=FETCH_SECONDS) as response:
            return _limited(response)
    except JwksError:
        raise
    except URLError as error:
        raise JwksError(f"cannot fetch {url}: {error.reason}") from None
    except (OSError, ValueError) as error:
        raise JwksError(f"cannot fetch {url}: {type(error).__name__}") from None


def document_from_jwks(
    jwks: bytes,
    *,
    issuer: str,
    audience: str,
    claims: Mapping[str, str] | None = None,
    max_lifetime: float = 900,
    settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the issuer document, and a line for each key that was left out or taken on an assumption.

    ``settings``: further members of the document. Raises JwksError.
    """
    try:
        content = json.loads(jwks)
    except (ValueError, RecursionError):
        content = None
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(keys, list):
        raise JwksError('the JWKS is not a JSON object with a list "keys"')
    notes: list[str] = []
    taken: dict[str, dict[str, Any]] = {}
    for index, jwk in enumerate(keys):
        place = f"keys[{index}]"
        key = _public_key(jwk, place, notes)
        if key is not None and taken.setdefault(key["kid"], key) is not key:
            notes.append(f"{_left_out(key, place)}: an earlier key has the same kid")
    if not taken:
        raise JwksError("the JWKS has no key that can verify tokens" + "".join(f"; {note}" for note in notes))
    document: dict[str, Any] = {
        **(settings or {}),
        "issuer": issuer,
        "audience": audience,
        "keys": list(taken.values()),
        "max_lifetime": max_lifetime,
    }
    named = document.get("claims", {})
    if claims and isinstance(named, dict):
        document["claims"] = {**named, **claims}
    try:
        Issuer.from_document(document)
    except ValueError as error:
        raise JwksError(str(error)) from None
    return document, notes


def _public_key(jwk: object, where: str, notes: list[str]) -> dict[str, Any] | None:
    if not isinstance(jwk, dict):
        notes.append(f"{where} left out: it is not a JSON object")
        return None
    if private := sorted(_PRIVATE & jwk.keys()):
        raise JwksError(
            f"{where} of the JWKS holds private key material ({', '.join(private)}); publish only public keys"
        )
    alg = jwk.get("alg")
    if alg is None and (alg := _ALG_OF.get((str(jwk.get("kty")), _text(jwk.get("crv"))))) == "RS256":
        notes.append(f"{where} names no alg; RS256 is assumed")
    operations = jwk.get("key_ops", ["verify"])
    key = {name: jwk[name] for name in _PUBLIC if name in jwk} | {"alg": alg, "use": "sig"}
    why = ""
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        why = "it is not for signatures"
    elif alg not in ALGORITHMS:
        why = "it has an algorithm that wardkey does not take"
    else:
        try:
            VerifyingKey.from_jwk(key, "")
        except ValueError as error:
            why = str(error).lstrip(":. ")
    if why:
        notes.append(f"{_left_out(jwk, where)}: {why}")
        return None
    if unknown := sorted(jwk.keys() - set(_PUBLIC) - _IGNORED):
        notes.append(f"{where}: unknown members left out: {', '.join(unknown)}")
    return key


def _left_out(jwk: Mapping[str, Any], where: str) -> str:
    kid = jwk.get("kid")
    return f"{where} left out, kid {kid[:255]!r}" if isinstance(kid, str) else f"{where} left out"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Raise JwksError unless a JWKS may come from ``url``."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise JwksError("the URL is malformed") from None
    if not host or parts.scheme not in ("https", "http"):
        raise JwksError("the URL must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise JwksError("the URL must not hold a password")
    if parts.scheme == "http" and not _is_loopback(host):
        raise JwksError(
            "the URL must begin with https://: who can change an answer on its way could sign tokens"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _limited(stream: Any) -> bytes:
    """Return what ``stream`` has. One that trickles is given up."""
    data, until = b"", time.monotonic() + FETCH_SECONDS
    while piece := stream.read1(65536):
        data += piece
        if len(data) > MAX_LENGTH:
            raise JwksError(f"the JWKS is longer than {MAX_LENGTH} bytes")
        if time.monotonic() > until:
            raise JwksError(f"the JWKS took longer than {FETCH_SECONDS} s")
    return data
