"""Signed tokens: who is asking, verified. Pure: a token, an issuer and the time in, claims out.

A token is a JWT in the compact JWS serialisation (RFC 7515, 7519), and nothing else: three parts of
canonical base64url, at most 8 KiB, no member twice. Its ``kid`` picks one of the issuer's registered keys by
an exact look-up, and the key, not the token, says the algorithm. Keys, certificates and URLs inside the
header are refused, and so is any ``crit``. Required claims: iss, aud, exp, nbf, iat, jti, and the three that
name subject, tenant and role; the issuer's document may say that others stand for them (``Issuer``).

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
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeGuard

    ClaimName = str | tuple[str, ...]  # of a claim, or of members from the outermost to the claim

__all__ = [
    "MAX_TOKEN_LENGTH",
    "ROLES",
    "Claims",
    "Issuer",
    "UnknownKey",
    "string_claims",
    "unverified_issuer",
    "verify",
]

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
_MAPS = ("claims", "roles", "tenants", "require", "other_audiences")
_DOCUMENT = frozenset(("issuer", "audience", "max_lifetime", "max_skew", "keys", *_MAPS))
_CLAIM_NAMES: Mapping[str, ClaimName] = {
    "tenant_id": "tenant_id",
    "role": "role",
    "subject": "sub",
    "token_id": "jti",
    "not_before": "nbf",
}
_MAY_BE = {"token_id": ("jti",), "not_before": ("nbf", "iat")}  # registered claims that a name may be
_NOTHING: Mapping[str, str] = {}
_MOST = {"roles": 256, "tenants": 10_000, "require": 16, "other_audiences": 16}
_LATEST = 2.0**53


class UnknownKey(InvalidToken):
    """The token names a key that its issuer is not known to have; it may be a new one."""


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
    """A token issuer the operator trusts, with its keys by ``kid``. Durations are seconds.

    ``roles``: ours by those of its tokens. ``tenants``: ids by what its tokens call them. None where they
    have our roles and the ids. ``require``: a word that a claim must have, by claim.
    """

    issuer: str
    audience: str
    keys: Mapping[str, VerifyingKey]
    claim_tenant: ClaimName = _CLAIM_NAMES["tenant_id"]
    claim_role: ClaimName = _CLAIM_NAMES["role"]
    claim_subject: ClaimName = _CLAIM_NAMES["subject"]
    max_lifetime: float = 900
    max_skew: float = 60
    claim_token_id: ClaimName = _CLAIM_NAMES["token_id"]
    claim_not_before: ClaimName = _CLAIM_NAMES["not_before"]
    roles: Mapping[str, str] | None = None
    tenants: Mapping[str, str] | None = None
    require: Mapping[str, str] = _NOTHING
    other_audiences: Sequence[str] = ()

    @classmethod
    def from_document(cls, document: object) -> Issuer:
        """Read an issuer document, the form in which database and keeper keep issuers::

            {"issuer": "https://id.example", "audience": "wardkey", "keys": [JWK with kid and alg, ...],
             "claims": {"tenant_id": "tenant_id", "role": "role", "subject": "sub", "token_id": "jti",
                        "not_before": "nbf"},
             "max_lifetime": 900, "max_skew": 60}

        ``claims``, ``max_lifetime`` and ``max_skew`` may be left out, and so may::

             "roles": {"clinician": "EVALUATOR"},  the role claim has such names, not ours
             "tenants": {"acme": uuid},            the tenant claim has such a name, not the uuid
             "require": {"typ": "Bearer"},         words that claims must have
             "other_audiences": ["account"]        that a token may have beside ``audience``

        A claim's name may be a list: ``["realm_access", "roles"]`` is member roles of claim realm_access.
        With ``roles`` the role claim is a name, or a list with exactly one of the names among others. With
        ``tenants`` the tenant claim is a name, a list of one, or an object with one member of that name.
        Raises ValueError that says what is wrong, where, and how to fix it.
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
            claim_token_id=names["token_id"],
            claim_not_before=names["not_before"],
            roles=_texts(document, "roles", ROLES.__contains__, "one of " + ", ".join(ROLES)),
            tenants=_texts(document, "tenants", _is_uuid, "the tenant's id, a canonical uuid"),
            require=_texts(document, "require", _is_word, "one word") or _NOTHING,
            other_audiences=_audiences(document.get("other_audiences", [])),
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
        raise UnknownKey("token is not valid: its issuer has no key of that kid")
    if header.get("alg") != key.alg:
        raise InvalidToken("token is not valid: its algorithm is not the one of its key")
    if not key.verifies(signature, signed):
        raise InvalidToken("token is not valid: the signature does not verify")
    return _claims(_object(payload_part, "payload"), issuer, now)


def _claims(payload: dict[str, Any], issuer: Issuer, now: float) -> Claims:
    if _issuer_claim(payload) != issuer.issuer:
        raise InvalidToken("token is not valid: claim iss is not this issuer")
    if not _is_for(payload.get("aud"), issuer):
        raise InvalidToken("token is not valid: claim aud is missing or not this audience alone")
    for name, word in issuer.require.items():
        value = payload.get(name)
        if not isinstance(value, str) or word not in value.split(" "):
            raise InvalidToken("token is not valid: a claim that its issuer's tokens must have is not there")
    not_before = _date(_at(payload, issuer.claim_not_before))
    expires, issued = _date(payload.get("exp")), _date(payload.get("iat"))
    if expires is None or issued is None or not_before is None:
        raise InvalidToken("token is not valid: exp, iat and nbf must be numeric dates")
    if issued > now + issuer.max_skew or not_before > now + issuer.max_skew:
        raise InvalidToken("token is not valid yet")
    if expires <= issued or expires <= not_before:
        raise InvalidToken("token is not valid: it expires before it begins")
    if expires - issued > issuer.max_lifetime:
        raise InvalidToken("token is not valid: it lives longer than its issuer may let it")
    token_id, subject = _at(payload, issuer.claim_token_id), _at(payload, issuer.claim_subject)
    if not _is_text(token_id):
        raise InvalidToken("token is not valid: claim jti is missing or malformed")
    if not _is_text(subject):
        raise InvalidToken("token is not valid: the subject claim is missing or malformed")
    tenant = _at(payload, issuer.claim_tenant)
    if issuer.tenants is not None:
        tenant = issuer.tenants.get(_sole(tenant))
        if tenant is None:
            raise InvalidToken("token is not valid: the tenant claim is missing or not one known tenant")
    if not isinstance(tenant, str) or not _is_uuid(tenant):
        raise InvalidToken("token is not valid: the tenant claim is missing or not a canonical uuid")
    role = _role(_at(payload, issuer.claim_role), issuer.roles)
    if role is None:
        raise InvalidToken("token is not valid: the role claim is missing or not exactly one of the roles")
    purpose = payload.get("purpose")
    if purpose is not None and not _is_text(purpose):
        raise InvalidToken("token is not valid: the purpose claim is malformed")
    if now >= expires + issuer.max_skew:
        raise TokenExpired
    return Claims(issuer.issuer, subject, tenant, role, expires + issuer.max_skew, issued, token_id, purpose)


def _at(payload: dict[str, Any], claim: ClaimName) -> Any:
    """Return the value of a claim, None where there is none."""
    if isinstance(claim, str):
        return payload.get(claim)
    value: Any = payload
    for name in claim:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_for(audience: object, issuer: Issuer) -> bool:
    if audience == issuer.audience:
        return True
    if not isinstance(audience, list) or audience.count(issuer.audience) != 1:
        return False
    return all(name == issuer.audience or name in issuer.other_audiences for name in audience)


def _sole(value: object) -> str:
    """Return the text that ``value`` is, or is a list or the members of; an empty one unless there is one."""
    if isinstance(value, (list, dict)) and len(value) == 1:
        value = next(iter(value))
    return value if isinstance(value, str) else ""


def _role(value: object, known: Mapping[str, str] | None) -> str | None:
    if known is None:
        return value if isinstance(value, str) and value in ROLES else None
    names = value if isinstance(value, list) else (value,)
    roles = {known[name] for name in names if isinstance(name, str) and name in known}
    return roles.pop() if len(roles) == 1 else None


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


def _claim_names(value: object) -> dict[str, ClaimName]:
    if not isinstance(value, dict):
        raise ValueError("claims: must be a JSON object of claim names")
    _refuse_unknown(value, frozenset(_CLAIM_NAMES), "claims")
    names: dict[str, ClaimName] = {}
    for member, name in {**_CLAIM_NAMES, **value}.items():
        path = tuple(name) if isinstance(name, list) else (name,)
        if not 0 < len(path) <= 8 or not all(map(_is_text, path)):
            raise ValueError(
                f"claims.{member}: must be a claim name of 1 to {MAX_TEXT_LENGTH} printable characters, "
                "or a list of 1 to 8"
            )
        if path[0] in _REGISTERED and (len(path) > 1 or path[0] not in _MAY_BE.get(member, ())):
            raise ValueError(f"claims.{member}: {path[0]} has a meaning of its own; choose another claim")
        names[member] = path if len(path) > 1 else path[0]
    if names["not_before"] not in _MAY_BE["not_before"]:
        raise ValueError("claims.not_before: must be nbf or iat")
    if len(set(names.values())) != len(names):
        raise ValueError("claims: tenant_id, role, subject and token_id must be different claims")
    return names


def _texts(
    document: Mapping[str, object], name: str, is_good: Callable[[str], bool], what: str
) -> Mapping[str, str] | None:
    """Return a member that is an object of texts; None where there is none."""
    value = document.get(name)
    if name not in document:
        return None
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST[name]:
        raise ValueError(f"{name}: must be a JSON object of 1 to {_MOST[name]} members")
    for member, text in value.items():
        if not _is_text(member):
            raise ValueError(f"{name}: a member's name has 1 to {MAX_TEXT_LENGTH} printable characters")
        if not _is_text(text) or not is_good(text):
            raise ValueError(f"{name}.{member}: must be {what}")
        if name == "require" and member in _REGISTERED:
            raise ValueError(f"{name}.{member}: {member} has a meaning of its own; choose another claim")
    return value


def _audiences(value: object) -> tuple[str, ...]:
    most = _MOST["other_audiences"]
    if not isinstance(value, list) or len(value) > most or not all(map(_is_text, value)):
        raise ValueError(f"other_audiences: must be a list of at most {most} texts")
    return tuple(value)


def _is_word(text: str) -> bool:
    return " " not in text


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
