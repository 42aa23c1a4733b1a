"""What is said at the keeper's socket. Pure: bytes in, requests out; answers in, bytes out.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB. A connection
may carry several requests, each answered before the next is read::

    {"op": "release", "tenant": uuid, "version": 1, "kek": "local:…", "kek_version": "1",
     "wrapped": base64, "token": jwt}
        → {"ok": true, "dek": base64}
    {"op": "provision", "tenant": uuid}
        → {"ok": true, "version": 1, "kek": "local:…", "kek_version": "1", "wrapped": base64,
           "commitment": base64}
    {"op": "status"}
        → {"ok": true, "version": text, "pid": n, "started_at": Unix seconds, "cached_keys": n,
           "kms_calls": n, "releases": n, "refusals": n, "provider": "local"}
    anything refused
        → {"ok": false, "sqlstate": "WK103", "message": text, "hint": text or null}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from wardkey_pg.errors import Unsupported, WardError

__all__ = [
    "HEADER_LENGTH",
    "MAX_FRAME",
    "Provision",
    "Release",
    "Request",
    "Status",
    "frame",
    "frame_length",
    "parse_json",
    "parse_request",
    "refusal",
    "to_base64",
]

MAX_FRAME = 65_536
HEADER_LENGTH = 4
_MAX_NAME = 1024


@dataclass(frozen=True, slots=True)
class Release:
    """Asks for the DEK of a tenant. ``token`` is empty when none was sent."""

    tenant: UUID
    version: int
    kek: str
    kek_version: str
    wrapped: bytes = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Provision:
    """Asks for a KEK, made if missing, and a new DEK wrapped under it."""

    tenant: UUID


@dataclass(frozen=True, slots=True)
class Status:
    """Asks how the keeper does."""


Request = Release | Provision | Status

_MEMBERS: Mapping[str, frozenset[str]] = {
    "release": frozenset(("op", "tenant", "version", "kek", "kek_version", "wrapped", "token")),
    "provision": frozenset(("op", "tenant")),
    "status": frozenset(("op",)),
}


def frame(message: Mapping[str, Any]) -> bytes:
    """Return the bytes that carry ``message``. Raises ValueError when they would be too many."""
    body = json.dumps(message, separators=(",", ":")).encode("utf-8")
    if len(body) > MAX_FRAME:
        raise ValueError("the message is longer than a frame may be")
    return len(body).to_bytes(HEADER_LENGTH, "big") + body


def frame_length(header: bytes) -> int:
    """Return how long the body after ``header`` is. Raises Unsupported when no frame is that long."""
    length = int.from_bytes(header, "big")
    if not 0 < length <= MAX_FRAME:
        raise Unsupported(
            "the keeper got a frame that is empty or too long", "a frame holds 1 to 65536 bytes"
        )
    return length


def refusal(error: WardError) -> dict[str, Any]:
    """Return the answer that carries ``error``."""
    return {"ok": False, "sqlstate": error.sqlstate, "message": error.message, "hint": error.hint}


def parse_json(body: bytes) -> Any:
    """Parse JSON in which no object has a member twice. Raises ValueError."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except RecursionError:
        pass
    raise ValueError("nested too deeply")


def parse_request(body: bytes) -> Request:
    """Return the request that ``body`` carries. Raises Unsupported, with nothing of the body in it."""
    message: Any = None
    try:
        message = parse_json(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Unsupported("the keeper got a frame that is not one JSON object")
    op = message.get("op")
    members = _MEMBERS.get(op) if isinstance(op, str) else None
    if members is None:
        raise Unsupported(
            "the keeper does not know this operation", "database and keeper must be of one version"
        )
    if not message.keys() <= members:
        raise Unsupported("the keeper does not know a member of this request")
    if op == "status":
        return Status()
    tenant = _tenant(message.get("tenant"))
    if op == "provision":
        return Provision(tenant)
    return Release(
        tenant=tenant,
        version=_version(message.get("version")),
        kek=_name(message, "kek"),
        kek_version=_name(message, "kek_version"),
        wrapped=from_base64(message, "wrapped"),
        token=_token(message.get("token", "")),
    )


def to_base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def from_base64(message: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a member. Raises Unsupported."""
    value, data = message.get(name), b""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data:
        raise Unsupported(f"{name} must be base64")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _tenant(value: object) -> UUID:
    tenant: UUID | None = None
    try:
        tenant = UUID(value) if isinstance(value, str) else None
    except ValueError:
        tenant = None
    if tenant is None or str(tenant) != value:
        raise Unsupported("tenant must be a uuid in its canonical form")
    return tenant


def _version(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise Unsupported("version must be an integer from 1 to 2147483647")
    return value


def _name(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise Unsupported(f"{name} must be a text of 1 to {_MAX_NAME} printable characters")
    return value


def _token(value: object) -> str:
    if not isinstance(value, str):
        raise Unsupported("token must be a text")
    return value
