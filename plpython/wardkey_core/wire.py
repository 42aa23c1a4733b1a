"""What is said at the keeper's socket. Pure: bytes in, messages out; answers in, bytes out.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB. A connection
may carry several requests, each answered before the next is read. A *key* is ``"kek": "local:…",
"kek_version": "1", "wrapped": base64``; in mode ``derived`` these are the master's, and ``"master": n``, its
version, and ``"salt": base64`` come with them::

    {"op": "release", "tenant": uuid, "version": 1, key, "token": jwt}
        → {"ok": true, "dek": base64}
    {"op": "provision", "tenant": uuid, "version": 1, "kek": "local:…", "kek_version": "1"}
        → {"ok": true, "version": 1, key, "commitment": base64}
    {"op": "derive", "tenant": uuid, "version": 1, "master": 1, key of the master}
        → {"ok": true, "salt": base64, "commitment": base64}
    {"op": "rewrap", "tenant": uuid, "version": 1, "commitment": base64, key,
     "to_kek": …, "to_kek_version": …}
        → {"ok": true, key}
    {"op": "reseal", "tenant": uuid, "to": 2, "keys": [{"version": 1, "commitment": base64, key}, …],
     "length": n} and n bytes
        → {"ok": true, "length": m} and m bytes; ``reseal`` says of what
    {"op": "kek", "tenant": uuid, "action": "create" or "rotate"}
        → {"ok": true, "kek": …, "kek_version": …}
    {"op": "kek", "tenant": uuid, "action": "disable", "leave" or "destroy", "kek": …, "kek_version": …}
    {"op": "kek", "tenant": uuid, "action": "destroy_all", "managed": ["own", "vault", …] or left out}
        → {"ok": true}
    {"op": "kek", "tenant": uuid, "action": "versions"}
        → {"ok": true, "versions": [{"version": "1", "state": "enabled", "created_at": Unix seconds or null,
           "destroyed_at": the same}, …]}
    {"op": "tombstone", "tenant": uuid, "name": slug, "version": 1}
    {"op": "shred", "tenant": uuid, "name": slug}
        → {"ok": true, "time": text}
    {"op": "certify", "tenant": uuid, "statement": text}
        → {"ok": true, "signature": base64, "public_key": base64}
    {"op": "checkpoint", "tenant": uuid, "statement": text}
        → {"ok": true, "signature": base64, "public_key": base64}
    {"op": "checkpoint", "tenant": uuid}
        → {"ok": true, "public_key": base64, "number": n, "size": n, "digest": hex}
    {"op": "checkpoint", "tenant": uuid, "readmit": true}
        → {"ok": true}
    {"op": "status"}
        → {"ok": true, "version": text, "pid": n, "started_at": Unix seconds, "cached_keys": n,
           "kms_calls": n, "kms_calls_by_provider": {"local": n}, "releases": n, "refusals": n,
           "provider": "local", "providers": ["local"], "ledger": n, "issuers": n,
           "public_key": base64 or null}
    anything refused
        → {"ok": false, "sqlstate": "WK103", "message": text, "hint": text or null}

Of ``provision``, version (1) and KEK (the tenant's current one, made if missing) may be left out, of
``rewrap`` to_kek and to_kek_version (the same). The nil uuid stands for the master secret of mode
``derived``; of ``checkpoint`` for the platform's log, of which there is one for each database: "log": text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from wardkey_core.errors import Unsupported, WardError

__all__ = ["HEADER_LENGTH", "MAX_FRAME", "frame", "frame_length", "parse_json", "refusal", "to_base64"]

MAX_FRAME = 65_536
HEADER_LENGTH = 4


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


def to_base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members
