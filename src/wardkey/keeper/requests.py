"""What the keeper can be asked, and how a frame's JSON becomes it. Pure; ``protocol`` shows the JSON.

Whatever is not exactly a request is Unsupported, and nothing of it is in the error.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from wardkey_core.envelope import MASTER, SALT_LENGTH
from wardkey_core.errors import Unsupported
from wardkey_core.wire import parse_json

from wardkey.kms import KekRef

__all__ = [
    "MASTER_TENANT",
    "MAX_FIELDS",
    "Certify",
    "Checkpoint",
    "Derive",
    "Kek",
    "Provision",
    "Release",
    "Request",
    "Reseal",
    "Rewrap",
    "Status",
    "Tombstone",
    "WrappedKey",
    "parse_request",
    "tenant_of",
]

MASTER_TENANT = UUID(bytes=MASTER)
PLATFORM = UUID(int=0)  # whose log has what is of no tenant
MAX_FIELDS = 512 * 1024 * 1024  # bytes of one reseal
_MAX_NAME = 1024
_ACTIONS = ("create", "rotate", "disable", "leave", "destroy", "destroy_all", "versions")
_OF_VERSIONS = ("disable", "leave", "destroy")
_COMMITMENT_LENGTH = 32


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A version of a tenant's DEK as the database keeps it.

    With ``master``, what is wrapped is that version of the master secret; the DEK derives from it and
    ``salt``.
    """

    tenant: UUID
    version: int
    kek: KekRef
    wrapped: bytes = field(repr=False)
    master: int | None = None
    salt: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """Asks for a DEK. ``token`` is empty when none was sent."""

    key: WrappedKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Provision:
    """Asks for a new DEK, wrapped under ``kek``, else under the tenant's current KEK, made if missing."""

    tenant: UUID
    version: int = 1
    kek: KekRef | None = None


@dataclass(frozen=True, slots=True)
class Derive:
    """Asks for a salt, and so a DEK that derives from ``master``."""

    tenant: UUID
    version: int
    master: WrappedKey


@dataclass(frozen=True, slots=True)
class Rewrap:
    """Asks for a DEK to be wrapped under ``to``, else under the tenant's current KEK."""

    key: WrappedKey
    commitment: bytes = field(repr=False)
    to: KekRef | None = None


@dataclass(frozen=True, slots=True)
class Reseal:
    """Asks for fields, ``length`` bytes behind the frame, to be sealed under version ``to``.

    ``keys``: each with its commitment; that of ``to`` is among them.
    """

    tenant: UUID
    to: int
    keys: tuple[tuple[WrappedKey, bytes], ...]
    length: int


@dataclass(frozen=True, slots=True)
class Kek:
    """Asks for something to be done with a tenant's KEK.

    ``kek``: to disable, leave and destroy a version. ``managed``: the KMSes that destroy_all leaves to who
    asks, ``own``, ``own/1`` … for the tenant's own, others by their scheme.
    """

    tenant: UUID
    action: str
    kek: KekRef | None = None
    managed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Asks for a tenant's key of ``version``, or without it the tenant, to be refused for ever."""

    tenant: UUID
    name: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Certify:
    """Asks for the keeper's signature on what is said of a shredded tenant."""

    tenant: UUID
    statement: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Asks for the signature of a checkpoint; without ``statement``, for the key and what was signed last.

    ``log`` tells the platform's logs of several databases apart. ``readmit``: the database was restored, the
    next checkpoint may be any.
    """

    tenant: UUID
    statement: str | None = None
    log: str = ""
    readmit: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Asks how the keeper does."""


Request = Release | Provision | Derive | Rewrap | Reseal | Kek | Tombstone | Certify | Checkpoint | Status


def tenant_of(request: Request) -> UUID | None:
    """Return whose key, KEK or log is asked for."""
    match request:
        case Release(key) | Rewrap(key):
            return key.tenant
        case Status():
            return None
    return request.tenant


_KEY = frozenset(("version", "kek", "kek_version", "wrapped"))
_DERIVED = frozenset(("master", "salt"))
_MEMBERS: Mapping[str, frozenset[str]] = {
    "release": frozenset(("tenant", "token")) | _KEY | _DERIVED,
    "provision": frozenset(("tenant", "version", "kek", "kek_version")),
    "derive": frozenset(("tenant", "master")) | _KEY,
    "rewrap": frozenset(("tenant", "commitment", "to_kek", "to_kek_version")) | _KEY,
    "reseal": frozenset(("tenant", "to", "keys", "length")),
    "kek": frozenset(("tenant", "action", "kek", "kek_version", "managed")),
    "tombstone": frozenset(("tenant", "name", "version")),
    "shred": frozenset(("tenant", "name")),
    "certify": frozenset(("tenant", "statement")),
    "checkpoint": frozenset(("tenant", "statement", "log", "readmit")),
    "status": frozenset(),
}
_OF_KEYS = frozenset(("commitment",)) | _KEY | _DERIVED


def parse_request(body: bytes) -> Request:
    """Return the request that ``body`` carries. Raises Unsupported."""
    message: Any = None
    try:
        message = parse_json(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Unsupported("the keeper got a frame that is not one JSON object")
    op = message.pop("op", None)
    members = _MEMBERS.get(op) if isinstance(op, str) else None
    if members is None:
        raise Unsupported(
            "the keeper does not know this operation", "database and keeper must be of one version"
        )
    if not message.keys() <= members:
        raise Unsupported("the keeper does not know a member of this request")
    if op == "status":
        return Status()
    return _parse(op, message, _tenant(message))


def _parse(op: str, message: Mapping[str, Any], tenant: UUID) -> Request:
    match op:
        case "release":
            return Release(_key(message, tenant), _token(message))
        case "provision":
            version = _version(message) if "version" in message else 1
            return Provision(tenant, version, _optional_kek(message))
        case "derive":
            master = _version(message, "master")
            wrapped = WrappedKey(MASTER_TENANT, master, _kek(message), _base64(message, "wrapped"))
            return Derive(tenant, _version(message), wrapped)
        case "rewrap":
            return Rewrap(_key(message, tenant), _commitment(message), _optional_kek(message, "to_kek"))
        case "reseal":
            return _reseal(message, tenant)
        case "kek":
            return _kek_action(message, tenant)
        case "certify":
            return Certify(tenant, _text(message, "statement"))
        case "checkpoint":
            return _checkpoint(message, tenant)
    version_or_none = _version(message) if "version" in message else None
    return Tombstone(tenant, _name(message, "name"), version_or_none)


def _key(message: Mapping[str, Any], tenant: UUID) -> WrappedKey:
    master, salt = None, b""
    if "master" in message or "salt" in message:
        master, salt = _version(message, "master"), _base64(message, "salt")
        if len(salt) != SALT_LENGTH:
            raise Unsupported(f"salt must be {SALT_LENGTH} bytes")
    return WrappedKey(
        tenant, _version(message), _kek(message), _base64(message, "wrapped"), master=master, salt=salt
    )


def _reseal(message: Mapping[str, Any], tenant: UUID) -> Reseal:
    entries, length = message.get("keys"), message.get("length")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and entry.keys() <= _OF_KEYS for entry in entries
    ):
        raise Unsupported("keys must be a list of the tenant's keys")
    keys = tuple((_key(entry, tenant), _commitment(entry)) for entry in entries)
    to, versions = _version(message, "to"), {key.version for key, _ in keys}
    if len(versions) != len(keys) or to not in versions:
        raise Unsupported("keys must hold each version once, and the one to seal under")
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= MAX_FIELDS:
        raise Unsupported(f"length must be an integer from 0 to {MAX_FIELDS}")
    return Reseal(tenant, to, keys, length)


def _kek_action(message: Mapping[str, Any], tenant: UUID) -> Kek:
    action, kek = message.get("action"), _optional_kek(message)
    if action not in _ACTIONS:
        raise Unsupported(f"action must be one of {', '.join(_ACTIONS)}")
    if (kek is not None) != (action in _OF_VERSIONS):
        raise Unsupported(f"{', '.join(_OF_VERSIONS)} name a KEK and its version, other actions do not")
    managed = message.get("managed", [])
    if not isinstance(managed, list) or not all(isinstance(name, str) for name in managed):
        raise Unsupported("managed must be a list of names")
    if managed and action != "destroy_all":
        raise Unsupported("only destroy_all leaves out what is managed otherwise")
    return Kek(tenant, action, kek, frozenset(managed))


def _checkpoint(message: Mapping[str, Any], tenant: UUID) -> Checkpoint:
    log = _name(message, "log") if "log" in message else ""
    if bool(log) != (tenant == PLATFORM):
        raise Unsupported("the platform's log is told apart by a name, a tenant's log has none")
    if message.get("readmit", True) is not True or ("readmit" in message and "statement" in message):
        raise Unsupported("readmit stands alone, and is true")
    statement = _text(message, "statement") if "statement" in message else None
    return Checkpoint(tenant, statement, log, "readmit" in message)


def _kek(message: Mapping[str, Any], name: str = "kek") -> KekRef:
    return KekRef(_name(message, name), _name(message, f"{name}_version"))


def _optional_kek(message: Mapping[str, Any], name: str = "kek") -> KekRef | None:
    return _kek(message, name) if name in message or f"{name}_version" in message else None


def _tenant(message: Mapping[str, Any]) -> UUID:
    value, tenant = message.get("tenant"), None
    try:
        tenant = UUID(value) if isinstance(value, str) else None
    except ValueError:
        tenant = None
    if tenant is None or str(tenant) != value:
        raise Unsupported("tenant must be a uuid in its canonical form")
    return tenant


def _version(message: Mapping[str, Any], name: str = "version") -> int:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise Unsupported(f"{name} must be an integer from 1 to 2147483647")
    return value


def _name(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise Unsupported(f"{name} must be a text of 1 to {_MAX_NAME} printable characters")
    return value


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        raise Unsupported(f"{name} must be a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        value = ""
    if not value:
        raise Unsupported(f"{name} must be a text")
    return value


def _token(message: Mapping[str, Any]) -> str:
    value = message.get("token", "")
    if not isinstance(value, str):
        raise Unsupported("token must be a text")
    return value


def _commitment(message: Mapping[str, Any]) -> bytes:
    value = _base64(message, "commitment")
    if len(value) != _COMMITMENT_LENGTH:
        raise Unsupported(f"commitment must be {_COMMITMENT_LENGTH} bytes")
    return value


def _base64(message: Mapping[str, Any], name: str) -> bytes:
    value, data = message.get(name), b""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data:
        raise Unsupported(f"{name} must be base64")
    return data
