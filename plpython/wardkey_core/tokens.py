"""Signed tokens: who is asking, verified. Pure: a token, an issuer and the time in, claims out.

A token is a JWT in the compact JWS serialisation (RFC 7515, 7519), and nothing else: three parts of
canonical base64url, at most 8 KiB, no member twice. Its ``kid`` picks one of the issuer's registered keys by
an exact look-up, and the key, not the token, says the algorithm. Keys, certificates and URLs inside the
header are refused, and so is any ``crit``. Required claims: iss, aud, exp, nbf, iat, jti, and the three that
name subject, tenant and role.

Every refusal is an InvalidToken or TokenExpired with a constant text: nothing of the token is ever in it.
What is not checked here: whether the tenant exists, is active, or is the one of the database role.
"""

from __future__ import annotations

from .errors import InvalidToken, TokenExpired
from .jwk import VerifyingKey, b64url_decode
from .plain_json import loads
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeGuard

__all__ = ["MAX_TOKEN_LENGTH", "ROLES", "Claims", "Issuer", "string_claims", "unverified_issuer", "verify"]

MAX_TOKEN_LENGTH = 8192
MAX_TEXT_LENGTH = 255
MAX_CLAIM_LENGTH = 1024
MAX_SKEW = 60
MAX_LIFETIME = 86400
ROLES = ("SUPER_ADMIN", "ADMIN", "EVALUATOR", "ANALYST", "VIEWER")

_HEX = frozenset("0123456789abcdef-")
_REGISTERED = frozenset(("iss", "aud", "exp", "nbf", "iat", "jti"))
_FORBIDDEN_HEADERS = frozenset(("b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"))
_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))
_DOCUMENT = frozenset(("issuer", "audience", "claims", "max_lifetime", "max_skew", "keys"))
_CLAIM_NAMES: Mapping[str, str] = {"tenant_id": "tenant_id", "role": "role", "subject": "sub"}
_LATEST = 2.0**53


class Claims(Record):
    """What a verified token says. Times are Unix seconds.

    ``expires_at`` is when the token stops being accepted: its exp plus the clock skew its issuer is allowed.
    ``purpose``, the one claim that may be left out, is what the audit log says it was for.
    """

    issuer: str
    subject: str
    tenant_id: str
    role: str
    expires_at: float
    issued_at: float
    token_id: str
    purpose: str | None = None


class Issuer(Record):
    """A token issuer the operator trusts, with its keys by ``kid``. Durations are seconds."""

    issuer: str
    audience: str
    keys: Mapping[str, VerifyingKey]
    claim_tenant: str = _CLAIM_NAMES["tenant_id"]
    claim_role: str = _CLAIM_NAMES["role"]
    claim_subject: str = _CLAIM_NAMES["subject"]
    max_lifetime: float = 900
    max_skew: float = 60

    @classmethod
    def from_document(cls, document: object) -> Issuer:
        """Read an issuer document, the form in which database and keeper keep issuers::

            {"issuer": "https://id.example", "audience": "wardkey", "keys": [JWK with kid and alg, ...],
             "claims": {"tenant_id": "tenant_id", "role": "role", "subject": "sub"},
             "max_lifetime": 900, "max_skew": 60}

        ``claims``, ``max_lifetime`` and ``max_skew`` may be left out. Raises ValueError that says what is
        wrong, where, and how to fix it.
        """
        if not isinstance(document, dict):
            raise ValueError("issuer document: must be a JSON object")
        _refuse_unknown(document, _DOCUMENT, "issuer document")
        for name in ("issuer", "audience"):
            if not _is_text(document.get(name)):
                raise ValueError(f"{name}: must be a text of 1 to {MAX_TEXT_LENGTH} printable characters")
        names = _claim_names(document.get("claims", {}))
        return cls(
            issuer=document["issuer"],
            audience=document["audience"],
            keys=_keys(document.get("keys")),
            claim_tenant=names["tenant_id"],
            claim_role=names["role"],
            claim_subject=names["subject"],
            max_lifetime=_seconds(document, "max_lifetime", 900, 1, MAX_LIFETIME),
            max_skew=_seconds(document, "max_skew", 60, 0, MAX_SKEW),
        )


def unverified_issuer(token: str) -> str:
    """Return the ``iss`` a token claims, unverified: good only to choose the Issuer to verify against."""
    _, payload, _, _ = _split(token)
    return _issuer_claim(_object(payload, "payload"))


def string_claims(token: str) -> dict[str, str]:
    """Return the claims of a verified token that are printable strings of at most 1,024 characters.

    Not the registered ones, which are about the token itself, save ``sub``. At most 8 KiB, as the token is.
    """
    _, payload, _, _ = _split(token)
    return {
        name: value
        for name, value in _object(payload, "payload").items()
        if name not in _REGISTERED
        and isinstance(value, str)
        and 0 < len(value) <= MAX_CLAIM_LENGTH
        and value.isprintable()
    }


def verify(token: str, issuer: Issuer, now: float) -> Claims:
    """Verify ``token`` against ``issuer`` at the time ``now`` (Unix seconds, of the wall clock).

    Raises TokenExpired when nothing else is wrong with it than its age, InvalidToken for everything else.
    """
    header_part, payload_part, signature, signed = _split(token)
    header = _object(header_part, "header")
    if not _FORBIDDEN_HEADERS.isdisjoint(header):
        raise InvalidToken("token is not valid: its header has a member that wardkey refuses")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise InvalidToken("token is not valid: its type is not JWT")
    kid = header.get("kid")
    key = issuer.keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise InvalidToken("token is not valid: its issuer has no key of that kid")
    if header.get("alg") != key.alg:
        raise InvalidToken("token is not valid: its algorithm is not the one of its key")
    if not key.verifies(signature, signed):
        raise InvalidToken("token is not valid: the signature does not verify")
    return _claims(_object(payload_part, "payload"), issuer, now)


def _claims(payload: dict[str, Any], issuer: Issuer, now: float) -> Claims:
    if _issuer_claim(payload) != issuer.issuer:
        raise InvalidToken("token is not valid: claim iss is not this issuer")
    if payload.get("aud") not in (issuer.audience, [issuer.audience]):
        raise InvalidToken("token is not valid: claim aud is missing or not this audience alone")
    expires, issued, not_before = (_date(payload.get(name)) for name in ("exp", "iat", "nbf"))
    if expires is None or issued is None or not_before is None:
        raise InvalidToken("token is not valid: exp, iat and nbf must be numeric dates")
    if issued > now + issuer.max_skew or not_before > now + issuer.max_skew:
        raise InvalidToken("token is not valid yet")
    if expires <= issued or expires <= not_before:
        raise InvalidToken("token is not valid: it expires before it begins")
    if expires - issued > issuer.max_lifetime:
        raise InvalidToken("token is not valid: it lives longer than its issuer may let it")
    token_id, subject = payload.get("jti"), payload.get(issuer.claim_subject)
    if not _is_text(token_id):
        raise InvalidToken("token is not valid: claim jti is missing or malformed")
    if not _is_text(subject):
        raise InvalidToken("token is not valid: the subject claim is missing or malformed")
    tenant, role = payload.get(issuer.claim_tenant), payload.get(issuer.claim_role)
    if not isinstance(tenant, str) or not _is_uuid(tenant):
        raise InvalidToken("token is not valid: the tenant claim is missing or not a canonical uuid")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidToken("token is not valid: the role claim is missing or not one of the roles")
    purpose = payload.get("purpose")
    if purpose is not None and not _is_text(purpose):
        raise InvalidToken("token is not valid: the purpose claim is malformed")
    if now >= expires + issuer.max_skew:
        raise TokenExpired
    return Claims(issuer.issuer, subject, tenant, role, expires + issuer.max_skew, issued, token_id, purpose)


def _split(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Return header, payload and signature, decoded, and the bytes that are signed."""
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_LENGTH:
        raise InvalidToken("token is not valid: it is empty or too long")
    parts = token.split(".", 3)
    decoded: list[bytes] = []
    try:
        decoded.extend(map(b64url_decode, parts))
    except ValueError:
        decoded.clear()
    if len(decoded) != 3:
        raise InvalidToken("token is not valid: it is not a compact JWS")
    return decoded[0], decoded[1], decoded[2], token[: token.rindex(".")].encode("ascii")


def _object(part: bytes, what: str) -> dict[str, Any]:
    value: object = None
    try:
        value = loads(part.decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidToken(f"token is not valid: its {what} is not one JSON object with members once each")
    return value


def _issuer_claim(payload: dict[str, Any]) -> str:
    issuer = payload.get("iss")
    if not _is_text(issuer):
        raise InvalidToken("token is not valid: claim iss is missing or malformed")
    return issuer


def _date(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LATEST:
        return None
    return float(value)


def _is_uuid(text: str) -> bool:
    return [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12] and _HEX.issuperset(text)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH and value.isprintable()


def _refuse_unknown(members: Mapping[str, object], known: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in members.keys() - known)
    if unknown:
        raise ValueError(
            f"{where}: unknown members {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def _claim_names(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("claims: must be a JSON object of claim names")
    _refuse_unknown(value, frozenset(_CLAIM_NAMES), "claims")
    names = {**_CLAIM_NAMES, **value}
    for member, name in names.items():
        if not _is_text(name):
            raise ValueError(
                f"claims.{member}: must be a claim name of 1 to {MAX_TEXT_LENGTH} printable characters"
            )
        if name in _REGISTERED:
            raise ValueError(f"claims.{member}: {name} has a meaning of its own; choose another claim")
    if len(set(names.values())) != len(names):
        raise ValueError("claims: tenant_id, role and subject must be three different claims")
    return names


def _seconds(document: Mapping[str, object], name: str, default: int, least: int, most: int) -> float:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name}: must be a number of seconds from {least} to {most}")
    return value


def _keys(value: object) -> Mapping[str, VerifyingKey]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= 64:
        raise ValueError("keys: must be a list of 1 to 64 public JWKs")
    keys: dict[str, VerifyingKey] = {}
    for index, jwk in enumerate(value):
        key = VerifyingKey.from_jwk(jwk, f"keys[{index}]")
        if key.kid in keys:
            raise ValueError(f"keys[{index}].kid: an earlier key has the same kid; give each its own")
        keys[key.kid] = key
    return keys
