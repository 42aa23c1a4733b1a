"""The protocol of the keeper's socket: frames, the requests that clients make, and answers. Pure.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB. A connection
may carry several requests, each answered before the next is read. A *key* is ``"kek": "local:…",
"kek_version": "1", "wrapped": base64``; in mode ``derived`` these are the master's, and ``"master": n``, its
version, and ``"salt": base64`` come with them; ``"region": text`` unless it is ``default``::

    {"op": "release", "tenant": uuid, "version": 1, key, "commitment": base64, "token": jwt,
     "classes": ["clinical", …]}
        → {"ok": true, "classes": {"clinical": base64 of its key, …}, "masked": ["quasi", …],
           "budgets": [uuid of a model table, …]}; without budgets that is left out
    {"op": "cache", "tenant": uuid, "version": 1, key, "commitment": base64, "token": jwt}
        → {"ok": true, "key": base64}; of the token's role
    {"op": "provision", "tenant": uuid, "version": 1, "kek": "local:…", "kek_version": "1"}
        → {"ok": true, "version": 1, key, "commitment": base64}
    {"op": "derive", "tenant": uuid, "version": 1, "master": 1, key of the master}
        → {"ok": true, "salt": base64, "commitment": base64}
    {"op": "rewrap", "tenant": uuid, "version": 1, "commitment": base64, key,
     "to_kek": …, "to_kek_version": …}
        → {"ok": true, key}
    {"op": "reseal", "tenant": uuid, "to": 2, "keys": [{"version": 1, "commitment": base64, key}, …],
     "classes": {"clinical": 3, …}, "length": n} and n bytes
        → {"ok": true, "length": m} and m bytes; ``reseal`` says of what
    {"op": "kek", "tenant": uuid, "action": "create" or "rotate"}
        → {"ok": true, "kek": …, "kek_version": …}
    {"op": "kek", "tenant": uuid, "action": "disable", "leave" or "destroy", "kek": …, "kek_version": …}
    {"op": "kek", "tenant": uuid, "action": "destroy_all", "managed": ["own/0", "vault", …] or left out}
        → {"ok": true}
    {"op": "kek", "tenant": uuid, "action": "versions"}
        → {"ok": true, "versions": [{"version": "1", "state": "enabled", "created_at": Unix seconds or null,
           "destroyed_at": the same}, …]}
    {"op": "tombstone", "tenant": uuid, "name": slug, "version": 1}
    {"op": "shred", "tenant": uuid, "name": slug}
        → {"ok": true, "time": text}
    {"op": "certify", "tenant": uuid, "statement": text}
        → {"ok": true, "signature": base64, "public_key": base64}
    {"op": "report", "tenant": nil uuid, "digest": SHA-256 in hex}
        → {"ok": true, "signature": base64, "public_key": base64}
    {"op": "checkpoint", "tenant": uuid, "statement": text}
        → {"ok": true, "signature": base64, "public_key": base64}
    {"op": "checkpoint", "tenant": uuid}
        → {"ok": true, "public_key": base64, "number": n, "size": n, "digest": hex}
    {"op": "checkpoint", "tenant": uuid, "readmit": true}
        → {"ok": true}
    {"op": "grant", "tenant": uuid, "action": "request", "id": uuid, "token": jwt, "classes": [text, …],
     "minutes": n, "reason": SHA-256 in hex, "emergency": bool}
    {"op": "grant", "tenant": uuid, "action": "approve", "id": uuid, "token": jwt, "reason": SHA-256 in hex}
    {"op": "grant", "tenant": uuid, "action": "deny" or "end", "id": uuid, "token": jwt}
        → {"ok": true, "state": "requested", "started", "denied" or "ended", "started_at": Unix seconds,
           "until": Unix seconds}
    {"op": "grant", "tenant": uuid, "action": "allow" or "forbid", "token": jwt}
        → {"ok": true}
    {"op": "lease", "tenant": uuid, "model": uuid, "token": jwt, "row": base64, "settled": {"lease": hex,
     "used": n, "seen": [base64, …]}}; row and settled may be left out
        → {"ok": true, "lease": hex, "rows": n, "seconds": s, "left": s, "limit": n, "salt": base64,
           "known": bool, "alert": "near", "exhausted" or null}
    {"op": "settle", "tenant": uuid, "settled": as above}
        → {"ok": true}
    {"op": "usage", "tenant": uuid}
        → {"ok": true, "windows": [{"subject": text, "role": text, "model": uuid, "spent": n,
           "until": Unix seconds}, …]}
    {"op": "logins", "tenant": uuid, "action": "end", "token": jwt}
    {"op": "logins", "tenant": uuid, "action": "end" or "lift", "issuer": text, "subject": text}
        → {"ok": true}
    {"op": "logins", "tenant": uuid, "action": "list"}
        → {"ok": true, "subjects": [{"issuer": text, "subject": text, "since": Unix seconds}, …]}
    {"op": "status"}
        → {"ok": true, "version": text, "pid": n, "started_at": Unix seconds, "cached_keys": n,
           "kms_calls": n, "kms_calls_by_provider": {"local": n}, "releases": n, "refusals": n,
           "provider": "local", "providers": ["local"], "regions": ["default"], "ledger": n, "issuers": n,
           "public_key": base64 or null}
    anything refused
        → {"ok": false, "sqlstate": "WK103", "message": text, "hint": text or null}

``provision`` and ``kek`` have a region, too. Of ``provision``, version (1) and KEK (the tenant's current one,
made if missing) may be left out, of ``rewrap`` to_kek and to_kek_version (the same). The nil uuid stands for
the master secret of mode ``derived``; of ``checkpoint`` for the platform's log, of which there is one for
each database: "log": text.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64  # each backend reads this module: none that takes time

from wardkey_core.errors import KeeperUnavailable, KeyRefused, WardError
from wardkey_core.identity import bytes_of
from wardkey_core.plain_json import dumps, loads
from wardkey_core.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = [
    "DEFAULT_REGION",
    "ENDED_SUFFIX",
    "HEADER_LENGTH",
    "LEASE_SECONDS",
    "MAX_FIELDS",
    "MAX_FRAME",
    "MOST_LEASED",
    "REGION_FORM",
    "Leased",
    "answer_length",
    "budgets_in",
    "bytes_in",
    "cache",
    "certify",
    "checkpoint",
    "classes_in",
    "derive",
    "frame",
    "frame_length",
    "grant",
    "granted",
    "kek_in",
    "key_members",
    "lease",
    "leased_in",
    "logins",
    "manage_kek",
    "parse_answer",
    "parse_json",
    "provision",
    "refusal",
    "release",
    "report",
    "reseal",
    "rewrap",
    "settle",
    "settled",
    "status",
    "to_base64",
    "tombstone",
    "usage",
]

MAX_FRAME = 65_536
DEFAULT_REGION = "default"
"""Where nobody names a region."""
REGION_FORM = r"^[a-z0-9]+(-[a-z0-9]+)*\Z"  # and at most 63 characters, as ward_internal.check_region says
HEADER_LENGTH = 4
MAX_FIELDS = 512 * 2**20  # bytes behind the frame of a reseal
MOST_LEASED = 500  # rows of a lease
LEASE_SECONDS = 60.0  # that it lasts
ENDED_SUFFIX = ".ended"  # of the file beside the keeper's socket that names subjects whose logins were ended
_MAX_TEXT = 500  # characters of a refusal's message or hint
_NONSENSE = "the keeper gave an answer that is not one"


def frame(message: Mapping[str, Any]) -> bytes:
    """Return the bytes that carry ``message``. Raises Unsupported when they would be too many."""
    body = dumps(message, ascii_only=True).encode()
    if len(body) > MAX_FRAME:
        from .administration import Unsupported  # most backends never do

        raise Unsupported("the message is longer than a frame of the keeper's may be")
    return len(body).to_bytes(HEADER_LENGTH, "big") + body


def frame_length(header: bytes) -> int:
    """Return how long the request after ``header`` is. Raises Unsupported when none is that long."""
    length = int.from_bytes(header, "big")
    if not 0 < length <= MAX_FRAME:
        from .administration import Unsupported

        raise Unsupported(
            "the keeper got a frame that is empty or too long", "a frame holds 1 to 65536 bytes"
        )
    return length


def answer_length(header: bytes) -> int:
    """Return how long the answer after ``header`` is. Raises KeeperUnavailable when none is that long."""
    length = int.from_bytes(header, "big")
    if not 0 < length <= MAX_FRAME:
        raise KeeperUnavailable(_NONSENSE)
    return length


def key_members(
    version: int,
    kek: str,
    kek_version: str,
    wrapped: bytes,
    *,
    commitment: bytes | None = None,
    master: int | None = None,
    salt: bytes | None = None,
    region: str = DEFAULT_REGION,
) -> dict[str, Any]:
    """Return the members that are a key. ``master``, ``salt``: of a derived one."""
    return _given(
        version=version,
        kek=kek,
        kek_version=kek_version,
        wrapped=to_base64(wrapped),
        commitment=None if commitment is None else to_base64(commitment),
        master=master,
        salt=None if salt is None else to_base64(salt),
        region=_named(region),
    )


def release(tenant: str, key: Mapping[str, Any], token: str, classes: Iterable[str]) -> dict[str, Any]:
    return {"op": "release", "tenant": tenant, **key, "token": token, "classes": list(classes)}


def cache(tenant: str, key: Mapping[str, Any], token: str) -> dict[str, Any]:
    return {"op": "cache", "tenant": tenant, **key, "token": token}


def provision(
    tenant: str,
    version: int,
    kek: str | None = None,
    kek_version: str | None = None,
    region: str = DEFAULT_REGION,
) -> dict[str, Any]:
    members = {"version": version, "kek": kek, "kek_version": kek_version, "region": _named(region)}
    return _given(op="provision", tenant=tenant, **members)


def derive(tenant: str, version: int, master: Mapping[str, Any]) -> dict[str, Any]:
    return {"op": "derive", "tenant": tenant, **master, "version": version, "master": master["version"]}


def rewrap(
    tenant: str, key: Mapping[str, Any], to_kek: str | None = None, to_kek_version: str | None = None
) -> dict[str, Any]:
    return _given(op="rewrap", tenant=tenant, **key, to_kek=to_kek, to_kek_version=to_kek_version)


def reseal(
    tenant: str,
    to: int,
    keys: Iterable[Mapping[str, Any]],
    classes: Mapping[str, int],
    length: int,
    searches: Mapping[str, Iterable[Sequence[str]]] | None = None,
) -> dict[str, Any]:
    """``classes``: numbers by name, of all classes that a value may be of.

    ``searches``: kind, normaliser and step of each, by column id; tokens are asked for then, not values.
    """
    request = {"op": "reseal", "tenant": tenant, "to": to, "keys": list(keys), "classes": dict(classes)}
    asked = {column: [list(each) for each in its] for column, its in (searches or {}).items()}
    return {**request, "length": length, "searches": asked}


def manage_kek(tenant: str, action: str, region: str = DEFAULT_REGION, **members: Any) -> dict[str, Any]:
    return _given(op="kek", tenant=tenant, action=action, region=_named(region), **members)


def tombstone(tenant: str, name: str, version: int | None = None) -> dict[str, Any]:
    """Of one version, else of the whole tenant."""
    if version is None:
        return {"op": "shred", "tenant": tenant, "name": name}
    return {"op": "tombstone", "tenant": tenant, "name": name, "version": version}


def certify(tenant: str, statement: str) -> dict[str, Any]:
    return {"op": "certify", "tenant": tenant, "statement": statement}


def report(tenant: str, digest: str) -> dict[str, Any]:
    """``tenant``: the nil uuid, for a report may be about several."""
    return {"op": "report", "tenant": tenant, "digest": digest}


def checkpoint(
    tenant: str, log: str | None = None, *, statement: str | None = None, readmit: bool = False
) -> dict[str, Any]:
    return _given(
        op="checkpoint", tenant=tenant, log=log or None, statement=statement, readmit=readmit or None
    )


def grant(tenant: str, action: str, token: str, **members: Any) -> dict[str, Any]:
    """A step of break-glass: the keeper's module ``grants`` says what becomes of it."""
    return _given(op="grant", tenant=tenant, action=action, token=token, **members)


def lease(
    tenant: str,
    model: str,
    token: str,
    settled: Mapping[str, Any] | None = None,
    row: bytes | None = None,
) -> dict[str, Any]:
    """``settled``: what became of the lease before; ``row``: digest of the one that is to be opened."""
    digest = None if row is None else to_base64(row)
    return _given(op="lease", tenant=tenant, model=model, token=token, settled=settled, row=digest)


def settled(lease: str, used: int, seen: Iterable[bytes]) -> dict[str, Any]:
    """Return what became of a lease: rows that were opened, and digests of distinct ones."""
    return {"lease": lease, "used": used, "seen": [to_base64(each) for each in seen]}


def settle(tenant: str, lease: Mapping[str, Any]) -> dict[str, Any]:
    return {"op": "settle", "tenant": tenant, "settled": lease}


def usage(tenant: str) -> dict[str, Any]:
    return {"op": "usage", "tenant": tenant}


def logins(tenant: str, action: str, **members: Any) -> dict[str, Any]:
    return _given(op="logins", tenant=tenant, action=action, **members)


def status() -> dict[str, Any]:
    return {"op": "status"}


def refusal(error: WardError) -> dict[str, Any]:
    """Return the answer that carries ``error``."""
    return {"ok": False, "sqlstate": error.sqlstate, "message": error.message, "hint": error.hint}


def parse_answer(body: bytes) -> dict[str, Any]:
    """Return the answer that ``body`` carries. Raises KeeperUnavailable when it carries none."""
    try:
        answer = loads(body.decode())
    except (ValueError, RecursionError):
        answer = None
    if type(answer) is dict and "ok" in answer:
        return answer
    raise KeeperUnavailable(_NONSENSE)


def granted(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the members of an answer. Raises the error of a refusal."""
    if answer.pop("ok") is True:
        return answer
    from .administration import BY_SQLSTATE

    texts = (answer.get("message"), answer.get("hint"))
    message, hint = (text[:_MAX_TEXT] if isinstance(text, str) else None for text in texts)
    raise BY_SQLSTATE.get(str(answer.get("sqlstate")), KeyRefused)(message, hint)


def bytes_in(answer: Mapping[str, Any], name: str) -> bytes:
    """Return what is base64 in an answer. Raises KeeperUnavailable when it is none."""
    try:
        return a2b_base64(answer[name], strict_mode=True)
    except (KeyError, ValueError, TypeError):
        raise KeeperUnavailable(_NONSENSE) from None


def classes_in(answer: Mapping[str, Any]) -> tuple[dict[str, bytes], frozenset[str]]:
    """Return the class keys of a release by name, and which of them are to show masks only.

    Raises KeeperUnavailable when that is not what is in the answer.
    """
    keys, masked = answer.get("classes"), answer.get("masked")
    if type(keys) is not dict or type(masked) is not list or not all(type(name) is str for name in masked):
        raise KeeperUnavailable(_NONSENSE)
    return {name: bytes_in(keys, name) for name in keys}, frozenset(masked)


def budgets_in(answer: Mapping[str, Any]) -> frozenset[bytes]:
    """Return the model tables of which the role has a budget. Raises KeeperUnavailable."""
    models = answer.get("budgets", [])
    try:
        if type(models) is list:
            return frozenset(map(bytes_of, models))
    except (ValueError, AttributeError):
        pass
    raise KeeperUnavailable(_NONSENSE)


def search_keys_in(answer: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the search keys of a release, by class. Raises KeeperUnavailable."""
    keys = answer.get("search", {})
    if type(keys) is not dict:
        raise KeeperUnavailable(_NONSENSE)
    return {name: bytes_in(keys, name) for name in keys}


class Leased(Record):
    """An answer to a lease: as the keeper's module ``counters`` says. ``salt`` is empty, or 16 bytes."""

    lease: str
    rows: int
    seconds: float
    left: float
    limit: int
    salt: bytes
    is_known: bool
    alert: str | None


def leased_in(answer: Mapping[str, Any]) -> Leased:
    """Return the lease in an answer. Raises KeeperUnavailable when none is there, or it is too large."""
    lease, rows, limit, known = (answer.get(name) for name in ("lease", "rows", "limit", "known"))
    seconds, left, alert = (answer.get(name) for name in ("seconds", "left", "alert"))
    if not (
        type(lease) is str
        and type(rows) is type(limit) is int
        and 0 <= rows <= MOST_LEASED
        and type(known) is bool
        and isinstance(seconds, int | float)
        and isinstance(left, int | float)
        and 0 <= seconds <= LEASE_SECONDS
        and left >= 0
        and alert in (None, "near", "exhausted")
    ):
        raise KeeperUnavailable(_NONSENSE)
    salt = bytes_in(answer, "salt")
    if len(salt) not in (0, 16):
        raise KeeperUnavailable(_NONSENSE)
    return Leased(lease, rows, seconds, left, limit, salt, known, alert)


def kek_in(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and version of the KEK in an answer. Raises KeeperUnavailable when there is none."""
    kek, version = answer.get("kek"), answer.get("kek_version")
    if not isinstance(kek, str) or not isinstance(version, str):
        raise KeeperUnavailable(_NONSENSE)
    return kek, version


def parse_json(body: bytes) -> Any:
    """Parse JSON in which no object has a member twice, and no NaN. Raises ValueError."""
    try:
        return loads(body.decode("utf-8"))
    except RecursionError:
        pass
    raise ValueError("nested too deeply")


def to_base64(data: bytes | bytearray) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _named(region: str) -> str | None:
    return None if region == DEFAULT_REGION else region


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
