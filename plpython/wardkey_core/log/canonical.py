"""The one way to write a JSON value: RFC 8785 (JCS), of which strings, integers, lists and objects are used.

UTF-8; members sorted by name; no blanks; in strings ``\\"``, ``\\\\``, ``\\b \\t \\n \\f \\r`` and
``\\u00xx`` (lower case) for the other control characters are escaped and nothing else. Equal values give
equal bytes, so that bytes can be hashed, kept as a value (jsonb, say) and written again.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

__all__ = ["NotCanonical", "decode", "encode", "from_base64", "from_hex", "members", "to_base64"]


class NotCanonical(ValueError):
    """These bytes are not what they should be. The text never holds a value."""


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """Return the canonical bytes. Raises ValueError for text that is not Unicode (a lone surrogate)."""
    return _encoder.encode(value).encode("utf-8")


def decode(data: bytes) -> dict[str, Any]:
    """Return the object that these bytes are the canonical form of. Raises NotCanonical."""
    try:
        value = json.loads(data.decode("utf-8"))
        again = encode(value)
    except (ValueError, RecursionError):
        raise NotCanonical("is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise NotCanonical("is not a JSON object")
    if again != data:
        raise NotCanonical("is not in canonical form (RFC 8785: members sorted and once each, no blanks)")
    return value


def members(value: Any, required: dict[str, type], optional: dict[str, type] | None = None) -> dict[str, Any]:
    """Return ``value`` if it is an object with these members, of exactly these types. Raises NotCanonical."""
    if not isinstance(value, dict):
        raise NotCanonical("is not a JSON object")
    known = required | (optional or {})
    for name in required:
        if name not in value:
            raise NotCanonical(f'has no member "{name}"')
    for name, content in value.items():
        if name not in known:
            raise NotCanonical("has a member that this format does not know")
        # An exact type: True is an int to isinstance. No member may be negative.
        if type(content) is not known[name] or (type(content) is int and content < 0):
            raise NotCanonical(f'has a member "{name}" of another type than this format says')
    return value


def from_hex(text: Any, length: int = 32) -> bytes:
    """Return the bytes of lower-case hexadecimal. Raises NotCanonical."""
    try:
        data = bytes.fromhex(text)
    except (TypeError, ValueError):
        data = b""
    if len(data) != length or data.hex() != text:
        raise NotCanonical(f"holds something that is not {length} bytes in lower-case hexadecimal")
    return data


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def from_base64(text: Any, length: int) -> bytes:
    """Return the bytes of base64 (RFC 4648 §4, with padding). Raises NotCanonical."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        data = b""
    if len(data) != length or to_base64(data) != text:
        raise NotCanonical(f"holds something that is not {length} bytes in base64")
    return data
