"""One entry of the audit log. Its canonical bytes are what is hashed, stored nowhere else and never re-made.

Format 1 is a JSON object in canonical form (``canonical``), of these members; those without a value are left
out, there is no null::

    format         1
    tenant         its uuid, lower case
    id             of the entry: a bigint above 0 as decimal digits (numbers beyond 2^53 are not safe in JSON)
    at             when it happened: 2026-03-01T10:00:00.123456Z (UTC, always 6 decimals): sorts as text
    kind           write | read | event
    operation      insert, update, delete, read, login, refusal, …: lower-case letters and underscores
    context        which login: 16 bytes in hexadecimal
    subject, role, purpose, database_role, address, application     who, for what, from where: text
    transaction    xid8 as decimal digits
    statement      which of a login's statements: when it began, microseconds since 2000-01-01 UTC, an integer
    table, row     text; table is the model's uuid, which stays when a table is renamed
    columns        a list of names
    old, new       row images: JSON *text* in a string, so that nobody re-formats a number in it
    detail         what else an event says: JSON text in a string, for the same reason

The leaf hash is SHA-256(0x00 ‖ bytes), as in RFC 6962 §2.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .canonical import NotCanonical
from .canonical import encode as _canonical

__all__ = ["FORMAT", "TIME", "UUID", "decode", "encode", "match"]

FORMAT = 1

_TEXT = r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f])))*+"'
TIME = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){2}\.[0-9]{6}Z"
)
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_INTEGER = r"(?:0|[1-9][0-9]{0,14}|[1-8][0-9]{15})"  # exact in any JSON reader: below 2^53

_REQUIRED = {
    "format": str(FORMAT),
    "tenant": f'"(?P<tenant>{UUID})"',
    "id": r'"(?P<id>[1-9][0-9]{0,18})"',
    "at": f'"(?P<at>{TIME})"',
    "kind": '"(?:write|read|event)"',
    "operation": '"[a-z_]+"',
}
_OPTIONAL = {
    "context": '"[0-9a-f]{32}"',
    "transaction": '"[0-9]{1,20}"',
    "statement": _INTEGER,
    "columns": rf"\[(?:{_TEXT}(?:,{_TEXT})*+)?\]",
    **dict.fromkeys(
        ("subject", "role", "purpose", "database_role", "address", "application"), _TEXT
    ),
    **dict.fromkeys(("table", "row", "old", "new", "detail"), _TEXT),
}  # fmt: skip
_MEMBERS = _REQUIRED | _OPTIONAL


def _grammar() -> re.Pattern[str]:
    """All of the canonical form in one pattern: sorted members, no blanks, one way to escape.

    Three times as fast as to parse and write again, and a verifier does this for every entry.
    """
    parts = []
    for name in sorted(_MEMBERS):
        # "tenant" is required, so a comma in front of what follows it and behind what leads it is exact.
        member = f'"{name}":{_MEMBERS[name]}'
        member = f",{member}" if name > "tenant" else member if name == "tenant" else f"{member},"
        parts.append(member if name in _REQUIRED else f"(?:{member})?+")
    return re.compile(r"\{" + "".join(parts) + r"\}")


match = _grammar().fullmatch  # hot: the verifier takes the groups tenant, id and at from it


def encode(entry: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of an entry. Raises NotCanonical, which names a member that does not fit."""
    try:
        data = _canonical(dict(entry))
    except (TypeError, ValueError):
        raise NotCanonical("has a value that cannot be written as JSON in UTF-8") from None
    text = data.decode("utf-8")
    if match(text) is None:
        raise NotCanonical(_defect(text))
    return data


def decode(data: bytes) -> dict[str, Any]:
    """Return the members of an entry. Raises NotCanonical unless these are its canonical bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotCanonical("is not UTF-8") from None
    if match(text) is None:
        raise NotCanonical(_defect(text))
    entry: dict[str, Any] = json.loads(text)
    return entry


def _defect(text: str) -> str:
    """Say why ``text`` is not an entry, without a value of it."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(entry, dict):
        return "is not a JSON object"
    if type(entry.get("format")) is int and entry["format"] != FORMAT:
        return f"is of another format than {FORMAT}: a newer wardkey may read it"
    for name in _REQUIRED:
        if name not in entry:
            return f'has no member "{name}"'
    for name, value in entry.items():
        if name not in _MEMBERS:
            return f"has a member that format {FORMAT} does not know"
        try:
            fits = re.fullmatch(_MEMBERS[name], _canonical(value).decode("utf-8"))
        except ValueError:
            fits = None
        if fits is None:
            return f'has a member "{name}" that is not of the form that format {FORMAT} says'
    return "is not in canonical form (RFC 8785: members sorted and once each, no blanks)"
