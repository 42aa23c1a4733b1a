"""What a backend does for a client that caches: a ticket, what a fill has read, and reads out of the cache.

A *ticket* says where Redis is and holds the keys of one context: the cache key, which the keeper releases for
tenant and role, and what derives from the invalidator's secret and the tenant's id: the password of the
tenant's user of Redis (``redis``) and the key that authenticates marks (``marks``). ``scope`` tells contexts
apart that may see different rows: issuer, subject and string claims; with ``is_shared`` no row rule holds for
the role, so that an application may share what it says depends on the role alone.

A *fill* is a transaction in which a client reads what it is about to cache. Reads are told by model, columns
and rows, so that each later hit is journalled as if the rows had been opened again.

A client that leaves a hit out of the log could as well have kept the plaintext: the application is trusted
with what its tokens may read.
"""

from __future__ import annotations

import time

from wardkey_core import journal
from wardkey_core.administration import NotAllowed
from wardkey_core.ciphers import blake2b, hkdf
from wardkey_core.errors import NoContext
from wardkey_core.identity import bytes_of, text_of
from wardkey_core.plain_json import dumps, loads
from wardkey_core.tokens import string_claims

__all__ = ["Recording", "begin_fill", "end_fill", "read_cached", "ticket"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .context import Context, Session
    from .keyring import CachedRead, TenantKeys
    from .reads import _Model

_STATE = """
select url, generation::text as generation, secret from ward_internal.cache_state
 where generation is not null"""
_POLICY = "select ttl, phi from ward_internal.cache_policies where tenant_id = $1"
_RULED = "select 1 from ward_internal.row_rules where $1 = any (roles) limit 1"
_FACES = "select id::text as id, face::text as face from ward_internal.models"
_TTL = 300
_MOST_ROWS = 2_000  # of a fill that may be cached
_LONGEST_ROW = 1_000
_AT_ONCE = 100  # rows in a message
_MOST_KNOWN = 64  # reads that a backend has parsed, of a tenant and role
_LONGEST_KNOWN = 16_384  # characters
_MOST_HITS = 1_000_000  # that a ticket tells of
_TROUBLES = ("away", "altered", "stale")


class Recording:
    """What was opened from statement ``since`` on: rows by model and columns; ``is_whole`` if that is all."""

    def __init__(self, since: int) -> None:
        self.rows: dict[tuple[bytes, tuple[str, ...]], set[bytes]] = {}
        self.is_whole = True
        self._since = since
        self._count = 0

    def take(self, statement: int, models: Mapping[bytes, _Model]) -> None:
        """Add what a statement has opened."""
        if statement < self._since:
            return
        for place, model in models.items():
            if model.rows if model.by_row else model.columns:
                rows = self.rows.setdefault((place[:16], model.columns), set())
                rows |= model.rows
                self._count += len(model.rows)
                # those of a budget or with honey rows are told apart by a longer place
                self.is_whole = self.is_whole and len(place) == 16 and self._count <= _MOST_ROWS


def ticket(session: Session, hits: int | None) -> str:
    """Return a ticket for the context, as JSON; ``{"on": false}`` where nothing may be cached.

    ``hits``: how often its client says that it was served out of Redis, which metrics count.
    """
    context = _context(session)
    session.counts.hits += min(max(hits or 0, 0), _MOST_HITS)
    claims, keys, host = context.claims, context.keys, session.host
    state = host.query_now(_STATE)
    if not state or keys.grant is not None or host.in_recovery():
        return dumps({"on": False, "now": time.time()})
    tenant, secret = bytes_of(claims.tenant_id), state[0]["secret"]
    told = {name: text for name, text in string_claims(context.token).items() if name != "jti"}
    scope = dumps([claims.issuer, claims.subject, sorted(told.items())])
    return dumps(
        {
            "on": True,
            "now": time.time(),
            "until": claims.expires_at,
            "tenant": claims.tenant_id,
            "role": claims.role,
            "epoch": keys.epoch,
            "generation": state[0]["generation"],
            "url": state[0]["url"],
            "key": session.cache_key().hex(),
            "marks": hkdf(secret, tenant, b"wardkey/1 cache marks").hex(),
            "password": password(secret, tenant, keys.epoch),
            "scope": blake2b(scope.encode(), digest_size=16).hexdigest(),
            "is_shared": not host.query_now(_RULED, ["text"], [claims.role]),
            "ttl": _policy(session, context)[0],
            "models": {row["face"]: row["id"] for row in host.query_now(_FACES)},
        }
    )


def password(secret: bytes, tenant: bytes, epoch: int) -> str:
    """Return the password of a tenant's user of Redis; another one after each change of keys or rights."""
    return hkdf(secret, tenant, b"wardkey/1 cache redis" + epoch.to_bytes(8, "big")).hex()


def begin_fill(session: Session) -> bool:
    """Record what the transaction opens from now on."""
    _context(session)
    session.record(Recording(session.host.statement_start()))
    return True


def end_fill(session: Session, trouble: str | None) -> str:
    """Return what was read since ``begin_fill``, as JSON: epoch, models, reads, ``may_keep``."""
    context = _context(session)
    if trouble in _TROUBLES:
        detail = {"trouble": trouble}
        session.report_often("cache_trouble", detail, detail)
    recording, keys = session.record(None), context.keys
    models = [name for name in session.queried if len(name) == 36]  # not what else is noted there
    if recording is None:
        return dumps({"may_keep": False})
    reads = [
        [text_of(model), list(columns), sorted(row.hex() for row in rows)]
        for (model, columns), rows in recording.rows.items()
    ]
    columns = context.keys.columns.values()
    sealed = {column.model for column in columns if column.level == "off"}  # of which nothing is recorded
    may_keep = recording.is_whole and keys.grant is None
    if reads or not sealed.isdisjoint(map(bytes_of, models)):
        opened = {model for model, _ in recording.rows}
        is_known = opened <= {column.model for column in columns}
        may_keep = may_keep and is_known and not _guarded(context, opened)
        may_keep = may_keep and _policy(session, context)[1]
    return dumps({"may_keep": may_keep, "epoch": keys.epoch, "models": models, "reads": reads})


def read_cached(session: Session, told: str) -> bool:
    """Journal reads that ``end_fill`` has told, as of the context's statement. Raises NotAllowed."""
    context = _context(session)
    keys = context.keys
    if not _policy(session, context)[1] or keys.grant is not None:
        raise NotAllowed("nothing that was sealed is cached here", "see ward.set_cache_policy")
    reads = keys.cached_reads.get(told)
    if reads is None:
        reads = _parsed(keys, told)
        if len(told) <= _LONGEST_KNOWN:
            if len(keys.cached_reads) >= _MOST_KNOWN:
                keys.cached_reads.clear()
            keys.cached_reads[told] = reads
    if _guarded(context, {model for model, *_ in reads}):
        raise NotAllowed("rows of this table are counted, or watched, as they are opened", "read the table")
    at, write = session.host.statement_start(), session.host.journal_later
    tenant, login = bytes_of(context.claims.tenant_id), context.login
    for model, form, columns, rows in reads:
        write(journal.query(tenant, login, at, model))
        for start in range(0, len(rows) or 1, _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            write(journal.cached_read(tenant, login, at, model, form, columns, some))
    return True


def _parsed(keys: TenantKeys, told: str) -> list[CachedRead]:
    """Return the reads that ``told`` names, of which these keys know the columns. Raises NotAllowed."""
    reads = []
    try:
        for name, columns, texts in loads(told):
            model = bytes_of(name)
            known = {each.name: each for each in keys.columns.values() if each.model == model}
            column, rows = known[columns[0]], [bytes.fromhex(text) for text in texts]
            by_row = column.level == "row"
            if not known.keys() >= set(columns) or bool(rows) != by_row or len(rows) > _MOST_ROWS:
                raise ValueError
            if not all(0 < len(row) <= _LONGEST_ROW for row in rows):
                raise ValueError
            reads.append((model, column.form, columns, rows))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise NotAllowed("these are no reads", "give what ward.end_fill returned") from None
    return reads


def _guarded(context: Context, models: set[bytes]) -> bool:
    """Whether opening rows of one of these models is counted by a budget, or may be an alarm."""
    return not models.isdisjoint({*context.keys.budgets, *context.keys.honey})


def _context(session: Session) -> Context:
    context = session.current()
    if context is None:
        raise NoContext
    return context


def _policy(session: Session, context: Context) -> tuple[int, bool]:
    """Return for how many seconds the tenant's values are cached, and whether what was sealed is.

    It is kept as long as the keys: a change raises their epoch.
    """
    keys = context.keys
    if keys.cache_policy is None:
        rows = session.host.query_now(_POLICY, ["uuid"], [context.claims.tenant_id])
        keys.cache_policy = (rows[0]["ttl"], rows[0]["phi"]) if rows else (_TTL, False)
    return keys.cache_policy
