"""Who is asking: the verified claims of the current transaction, kept where SQL cannot write.

Invariants:

* A context ends with its transaction, whatever the client, the pooler or a savepoint does, and also where a
  message or a DO block holds several transactions: the server calls ``end_transaction``. What a statement has
  for its hot paths goes with it: the server calls ``end_statement``. A later one asks for the context again.
* A context made by ``login_session`` lasts until the token expires or ``logout``; every further transaction
  looks tenant and issuer up again. So does a transaction that lasts longer than a second, query by query:
  always as they are committed now, not as the transaction's snapshot has them. Within a second of a look-up
  a login does without one, if the server counted no change of anything meanwhile: a trigger on both tables
  makes it count theirs.
* The tenant of the token is the tenant of ``session_user``. A transaction has one tenant and one subject,
  also after a logout: a cursor that one opened is not fetched by another.
* An attempt to log in ends the context there was, also when it fails.
* A value under a key that is newer than the context has the registry looked at again, once per key.
* Past the token's expiry no query begins, neither a client's own nor one of a DO block or function. A query
  that the client sent itself and that began in time may end: a long COPY does not fail in its middle.
* Released keys serve the tokens of the issuer, as it was registered then, that the keeper released them to.
* A subject whose logins the keeper has ended is refused at the next transaction, and in one that lasts longer
  than a second.
* No context without a journal: logins, refusals, releases of keys, reads and which faces a transaction
  queries are written into it as they happen, and stay when it is rolled back.
"""

from __future__ import annotations

import os
import time

from wardkey_core import journal
from wardkey_core.ciphers import blake2b, sha256
from wardkey_core.errors import (
    AuditUnavailable,
    BudgetExhausted,
    ClassHidden,
    CommitmentMismatch,
    ContextError,
    ContextStale,
    InvalidToken,
    KeeperUnavailable,
    KeyDestroyed,
    KeyRefused,
    KeysChanged,
    NoContext,
    OpenFailed,
    TenantNotActive,
    TokenExpired,
    WardError,
    WrongTenant,
)
from wardkey_core.identity import bytes_of, text_of
from wardkey_core.plain_json import loads
from wardkey_core.records import Record
from wardkey_core.tokens import Claims, Issuer, string_claims, unverified_issuer, verify

from .counts import Counts
from .ended import EndedLogins
from .keeper import KeeperClient
from .keyring import Grant, Keyring, MasksUnread, TenantKeys, WrappedKey
from .reads import Reads
from .registry import KEYS, Registry
from .statements import fingerprint

__all__ = ["Context", "Session"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any, Protocol

    from .budgets import Guard
    from .cached import Recording
    from .guards import Guards
    from .keyring import Key, Sealer
    from .reads import Column, Opener
    from .tally import Tally

    # mark of the registry's changes, until when, tenant, issuer, and what the registry said of them
    _Known = tuple[tuple[int, int] | None, float, str, str, Mapping[str, Any]]
    _Origin = tuple[bytes, bytes, Mapping[str, str | None]]  # tenant, login and texts of an event

    class Host(Protocol):
        """What a session needs of PostgreSQL."""

        def query(
            self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()
        ) -> list[Mapping[str, Any]]: ...
        def query_now(
            self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()
        ) -> list[Mapping[str, Any]]: ...
        def has_old_snapshot(self) -> bool: ...
        def changes(self) -> tuple[int, int] | None: ...
        def at_end(self, ended: Callable[[], None]) -> None: ...
        def at_exit(self, exiting: Callable[[], None]) -> None: ...
        def at_statement_end(self, ended: Callable[[], None]) -> None: ...
        def watch_statement(self) -> bool: ...
        def is_nested(self) -> bool: ...
        def is_definer(self) -> bool: ...
        def check_interrupts(self) -> None: ...
        def client(self) -> Mapping[str, str | None]: ...
        def application(self) -> str: ...
        def purpose(self) -> str | None: ...
        def journal(self, message: bytes) -> None: ...
        def journal_later(self, message: bytes) -> None: ...
        def in_recovery(self) -> bool: ...
        def statement_start(self) -> int: ...
        def statement_time(self) -> float: ...
        def client_statement(self) -> bytes: ...
        def in_parallel_plan(self) -> bool: ...


_NEVER = -(2**63)  # no statement starts then: the earliest timestamp is -infinity's neighbour in 4714 BC
_LOOKED_UP_FOR = 1.0  # seconds for which tenant and issuer are taken to be as they were
_KEY_TTL = 300.0
_MOST_TOKENS = 256
_SLOT_FOR = 10.0  # seconds for which a slot that was found is taken to be there
_MOST_SECONDS = 86_400.0
_NOTHING_KNOWN: _Known = None, float("-inf"), "", "", {}
_LONGEST_ROW = 1_000  # bytes of a row id in a report of tampering: anybody may call unseal with any
_MOST_TAMPERED = 20  # rows a minute that are named one by one, of a column


class Context(Record):
    """Verified claims, the tenant's keys, and the token, which the keeper wants to see itself.

    ``login``: 16 random bytes by which the audit log's entries name it. ``generation``: that of the issuer's
    document under which the token was verified.
    """

    claims: Claims
    keys: TenantKeys
    token: str
    login: bytes
    generation: int

    def __repr__(self) -> str:
        return f"<Context of {self.claims.tenant_id}>"


class Session:
    """A backend's context. ``openers``, of the current statement, and ``sealers`` are for the hot paths.

    ``queried``: the models whose faces this transaction is known to query.
    """

    __slots__ = (
        "_claimed",
        "_context",
        "_ended",
        "_guards",
        "_host",
        "_is_current",
        "_issuers",
        "_keyring",
        "_known",
        "_lasting",
        "_logins",
        "_looked_up",
        "_reads",
        "_recording",
        "_registry",
        "_settings",
        "_slot_found",
        "_stamp",
        "_tally",
        "_untold",
        "_verified",
        "_wants_masks",
        "_who",
        "counts",
        "openers",
        "queried",
        "sealers",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._registry = Registry(host)
        self._keyring = Keyring()
        self._known = _NOTHING_KNOWN
        self._issuers: dict[str, tuple[int, Issuer]] = {}
        self._verified: dict[bytes, tuple[int, Claims]] = {}
        self._logins: dict[tuple[bytes, str | None, str | None], bytes] = {}
        self._slot_found = float("-inf")
        self._settings: dict[str, str] = {}
        self._context: Context | None = None
        self._claimed: dict[str, str] | None = None  # of the context's token, once somebody asked
        self._who: tuple[str, str] | None = None
        self._wants_masks = False  # of roles that the registry's policy gives none
        self._guards: Guards | None = None
        self._ended = EndedLogins()
        self._reads: Reads | None = None
        self._recording: Recording | None = None  # of what a client is about to cache
        self._stamp = _NEVER  # start of the statement that what is in _reads is of
        self.openers: dict[tuple[bytes, bytes], Opener] = {}
        self.sealers: dict[bytes, Sequence[Sealer]] = {}
        self.queried: set[str] = set()
        self.logout()
        self._tally: Tally | None = None  # once there is something to count
        self._untold: list[bytes] = []  # messages that a statement must not be seen to write
        self.counts = Counts(host.journal_later)
        host.at_end(self.end_transaction)
        host.at_statement_end(self.end_watched)
        host.at_exit(self.end_backend)

    def login(self, token: str, *, lasting: bool = False) -> None:
        """Make ``token``'s claims the context: of this transaction, or of the session if ``lasting``.

        Raises InvalidToken, TokenExpired, WrongTenant, TenantNotActive, LoginsEnded, AuditUnavailable.
        """
        self.logout()
        began = time.monotonic()
        digest, claims, generation = self._verify(token)
        if self._who not in (None, (claims.tenant_id, claims.subject)):
            raise WrongTenant("this transaction already has the context of another tenant or subject")
        state = self._known_state(claims, generation) or self._state(claims)
        if state["generation"] != generation:  # the issuer changed since this token was looked at
            self._verified.pop(digest, None)
            digest, claims, generation = self._verify(token)
            if state["generation"] != generation:
                raise InvalidToken("token is not valid: its issuer is being changed")
        keys = self._keys(claims, state)
        self._ended.check(self._settings.get("keeper_socket"), claims)
        self._check_journal()
        login = self._login(token, digest, claims, keys.grant)
        if keys.grant is not None:
            claims = claims._replace(expires_at=min(claims.expires_at, keys.grant.until))
        self._begin(Context(claims, keys, token, login, generation), lasting)
        self._who = claims.tenant_id, claims.subject
        if self._guards is not None:
            self._guards.settle_idle(claims)
        self.counts.login(claims.tenant_id, began, time.monotonic())

    def logout(self) -> None:
        self._context = self._claimed = None
        self._lasting = self._is_current = False
        self._forget_statement()

    def end_transaction(self) -> None:
        """End the context with its transaction; one that lasts is looked up again in the next."""
        self._recording = None
        if self._who is not None:
            self._who = None
            self.counts.transactions += 1
            if (now := time.monotonic()) >= self.counts.due:
                self.counts.say(now)
        if self._lasting:
            self._is_current = False
            self._forget_statement()
        elif self._context is not None:
            self.logout()
        if self._tally is not None and time.monotonic() >= self._tally.due:
            self._tally.write(time.monotonic())
        self._tell()

    def end_watched(self) -> None:
        """The client's message is done, and no EXPLAIN counts any more what is written."""
        self.end_statement()
        self._tell()

    def end_statement(self) -> None:
        self._stamp = _NEVER
        self.openers = {}

    def current(self, *, begun: bool = False) -> Context | None:
        """Return the context of this transaction. Raises TokenExpired, and as ``login`` if it has ended.

        ``begun``: what asks may be in the middle of a query that began in time.
        """
        context = self._context
        if context is None:
            return None
        if not self._is_current:
            self._host.query("select ward.renew_session()")  # reads the registry, which the tenant may not
        elif time.monotonic() - self._looked_up > _LOOKED_UP_FOR:
            self._look_up_again(begun=begun)
        context = self._context
        if (
            context is not None
            and time.time() >= context.claims.expires_at
            and not (
                (begun or self._host.is_definer())
                and self._host.statement_time() < context.claims.expires_at
                and not self._host.is_nested()
            )
        ):
            raise TokenExpired
        return context

    @property
    def role_at_last(self) -> str | None:
        """The role of the context there is or was at last, looked up or not: for estimates."""
        return None if self._context is None else self._context.claims.role

    def claim(self, name: str) -> str | None:
        """Return a string claim of the context's token. Raises NoContext, and as ``current`` does.

        The payload is read again when it is first asked for: most logins are for nobody who does.
        """
        context = self.current()
        if context is None:
            raise NoContext
        if self._claimed is None:
            self._claimed = string_claims(context.token)
        return self._claimed.get(name)

    def _look_up_again(self, *, begun: bool) -> None:
        if not self._host.in_parallel_plan():
            self._host.query("select ward.renew_keys()")
        elif not begun and time.monotonic() - self._looked_up > self._number("key_ttl", _KEY_TTL):
            raise ContextStale

    def _watch(self) -> None:
        """Have a DO block that fetches on and on ask for the context again."""
        if self._host.is_nested():
            self.end_statement()
            raise ValueError

    def renew(self) -> None:
        """Take a lasting context over into this transaction, or raise as ``login`` does and end it."""
        context, lasting = self._context, self._lasting
        self.logout()
        if context is not None and lasting:
            self.login(context.token, lasting=True)

    def context_of(self, tenant: str) -> bytes | None:
        """Return what the audit log's entries call the context of this transaction, if it is the tenant's."""
        context = self._context
        if context is None or not self._is_current or context.claims.tenant_id != tenant:
            return None
        return context.login

    def opening(self, sealed: bytes, column: bytes) -> Key:
        """Return what opens ``sealed``. Raises NoContext, OpenFailed, ClassHidden or a keeper's error."""
        context = self._context
        if context is None:
            raise NoContext
        if len(column) != 16:
            raise OpenFailed
        keys = self.look_again() if context.keys.lacks(sealed) else context.keys
        try:
            return keys.opening(sealed, column, self.release)
        except MasksUnread:  # the keeper masks what the registry's policy shows
            self._wants_masks = True
            return self.look_again().opening(sealed, column, self.release)

    def reading(self) -> Reads:
        """Return what the current statement has read. Raises NoContext, and as ``current`` does."""
        statement = self._host.statement_start()
        reads = self._reads
        if reads is None or self._stamp != statement:
            context = self.current(begun=True)
            if context is None:
                raise NoContext
            reads = context.keys.reads
            if reads is None or reads.context != context.login:
                tenant = bytes_of(context.claims.tenant_id)
                columns = context.keys.columns
                reads = Reads(self._host, tenant, context.login, columns, self._watch, self._guard_of)
                context.keys.reads = reads
            reads.recording = self._recording
            reads.restart(statement, fingerprint(self._host.client_statement()))
            self._reads = reads
            self.openers = reads.openers if self._host.watch_statement() else {}
            self._stamp = statement
        return reads

    def record(self, recording: Recording | None) -> Recording | None:
        """Have ``recording`` hear of what the transaction opens from now on; return what did until now."""
        if self._reads is not None:
            self._reads.record()
            self._reads.recording = recording
        former, self._recording = self._recording, recording
        return former

    def cache_key(self) -> bytes:
        """Have the keeper release the key of what clients with this role cache, on the current token."""
        context = self.current()
        if context is None:
            raise NoContext
        keys = context.keys
        if keys.cache_key is None:
            active = keys.active
            keys.cache_key = self.keeper().cache_key(context.claims.tenant_id, active, context.token)
            self.report("key_released", {"version": active.version, "classes": [], "cache": keys.role})
        return keys.cache_key

    @property
    def host(self) -> Host:
        return self._host

    def note_query(self, model: str) -> None:
        """Journal that this transaction queries the face of ``model``, if that is journalled at all."""
        self.queried.add(model)
        identity, reads = bytes_of(model), self.reading()
        if self._context is not None and identity not in self._context.keys.quiet:
            reads.query(identity)

    def report(self, operation: str, detail: Mapping[str, Any]) -> None:
        """Journal an event, of the context of this transaction or of the session's user."""
        if not self._host.in_recovery():
            self._write_event(self._origin(), operation, detail)

    def report_to(self, tenants: Sequence[str], operation: str, detail: Mapping[str, Any]) -> None:
        """Journal for other tenants what the context did with what is theirs, once a transaction.

        Its subject is in the detail: a person of that name may be somebody else there.
        """
        context = self.current()
        if context is None:
            raise NoContext
        who = {"subject": context.claims.subject, "role": context.claims.role}
        texts = dict(self._host.client())
        for tenant in tenants:
            if (noted := f"{operation} {tenant}") not in self.queried:
                self.queried.add(noted)
                origin = bytes_of(tenant), journal.NO_CONTEXT, texts
                self._write_event(origin, operation, {**detail, **who})

    def report_to_platform(self, operation: str, detail: Mapping[str, Any]) -> None:
        """Journal what the context did for the platform's log alone, when the client's message is done.

        EXPLAIN (ANALYZE, WAL) counts what a statement itself writes, and would tell a honey row from others.
        """
        context = self._context
        who = {} if context is None else {"subject": context.claims.subject, "role": context.claims.role}
        texts = {**self._host.client(), **who, "database_role": None}  # which would name the tenant's log
        at = self._host.statement_start()
        message = journal.event(journal.NO_TENANT, journal.NO_CONTEXT, at, operation, texts, detail)
        self._untold.append(message)
        if not self._host.watch_statement():
            self._tell()

    def _tell(self) -> None:
        while self._untold:
            self._host.journal(self._untold.pop(0))

    def report_often(
        self, operation: str, detail: Mapping[str, Any], alike: Mapping[str, Any], most: int = 1
    ) -> None:
        """The same for what anybody can bring about: ``most`` a minute, and one event with a count.

        ``alike``: what the detail of those that are counted together has in common.
        """
        if self._host.in_recovery():
            return
        login = self._context.login if self._context and self._is_current else journal.NO_CONTEXT
        if self._tally is None:
            from .tally import Tally  # most backends never do

            self._tally = Tally()
        kind = (login, operation, repr(alike))
        if self._tally.counts(kind):
            return
        origin = self._origin()
        self._write_event(origin, operation, detail)
        self._tally.begin(
            kind, most, lambda count: self._write_event(origin, operation, {**alike, "count": count})
        )

    def end_backend(self) -> None:
        """Journal what was counted until now and give back what leases left over: the backend ends."""
        self._tell()
        if self._tally is not None:
            self._tally.write(float("inf"))
        self.counts.say(0.0)
        if self._guards is not None:
            self._guards.settle_all()

    def report_refusal(self, error: WardError) -> None:
        """Journal that somebody was refused; errors of other kinds are not."""
        told = ContextError | KeyRefused | KeyDestroyed | CommitmentMismatch | ClassHidden | BudgetExhausted
        if isinstance(error, told):
            detail = {"sqlstate": error.sqlstate, "reason": error.message}
            self.report_often("refusal", detail, detail)

    def report_tampering(self, column: bytes, row: bytes) -> None:
        """Journal that a value did not open: altered or moved, or something that never was one."""
        from wardkey_core.journal_reader import readable  # most backends never do

        known = self._context.keys.columns.get(column) if self._context else None
        place = {"model": text_of(known.model), "column": known.name} if known else {}
        alike = {"investigate": True, **place}
        detail = {**alike, "row": readable(known.form if known else "", row[:_LONGEST_ROW])}
        self.report_often("tampered", detail, alike, _MOST_TAMPERED)

    def _origin(self) -> _Origin:
        context = self._context if self._is_current else None
        if context is None:
            return journal.NO_TENANT, journal.NO_CONTEXT, dict(self._host.client())
        return bytes_of(context.claims.tenant_id), context.login, {}

    def _write_event(self, origin: _Origin, operation: str, detail: Mapping[str, Any]) -> None:
        tenant, login, texts = origin
        at = self._host.statement_start()
        self._host.journal(journal.event(tenant, login, at, operation, texts, detail))

    def _guard_of(self, column: Column) -> Guard | None:
        """Return what guards the rows of a column's table, None if nothing does. Raises KeysChanged."""
        context = self._context
        if context is None:
            raise NoContext
        keys = context.keys
        if column.model == journal.NO_MODEL and keys.budgets:
            raise KeysChanged("a column is newer than this transaction, and the tenant has budgets")
        if column.model not in keys.budgets and column.model not in keys.honey:
            return None
        if self._guards is None:
            from .guards import Guards  # most backends need none

            self._guards = Guards(self, self._ended)
        return self._guards.of(context, column)

    def look_again(self) -> TenantKeys:
        """Return the context's keys as the registry has them now. Raises KeysChanged where it cannot ask."""
        if self._host.in_parallel_plan():
            raise KeysChanged
        self._host.query("select ward.renew_keys()")  # reads the registry, which the tenant may not
        if self._context is None:
            raise NoContext
        return self._context.keys

    def renew_keys(self) -> None:
        """Look the current context's tenant and issuer up again, and give it the registry's keys beside its.

        Raises as ``login`` does, and ends the context then.
        """
        context = self._context
        if context is None or not self._is_current:
            return
        try:
            state = self._state(context.claims)
            self._ended.check(self._settings.get("keeper_socket"), context.claims)
            if state["generation"] != context.generation:
                self.login(context.token, lasting=self._lasting)
                return
        except WardError:
            self.logout()
            raise
        self._looked_up = time.monotonic()
        keys = context.keys
        if state["key_epoch"] != keys.epoch:
            keys = self._keys(context.claims, state, of_new_transaction=False)
            keys.follow(context.keys)
            self._begin(context._replace(keys=keys), self._lasting)
        if self._wants_masks and keys.masks is None:
            keys.masks = self._registry.masks()
        if self._host.has_old_snapshot():  # whose rows may be under keys that were retired since
            rows = self._host.query(KEYS, ["uuid"], [keys.tenant])
            keys.follow(TenantKeys(keys.tenant, 0, [WrappedKey(**row) for row in rows]))

    def release(self, key: WrappedKey, classes: Collection[str]) -> tuple[dict[str, bytes], Collection[str]]:
        """Have the keeper release class keys of the current tenant on the current token.

        Return them by name, and which of them are to be shown masked.
        """
        context = self._context
        if context is None:
            raise KeeperUnavailable("no token to show to the keeper")
        answer = self.keeper().release(context.claims.tenant_id, key, context.token, sorted(classes))
        keys, masked, context.keys.budgets, context.keys.search_keys[key.version] = answer
        self.report("key_released", {"version": key.version, "classes": sorted(keys)})
        return keys, masked

    def keeper(self, timeout: float | None = None, *, at_exit: bool = False) -> KeeperClient:
        """Return a client of the keeper. ``at_exit``: no query can be run any more, as a cancel needs."""
        path = self._settings.get("keeper_socket")
        if not path:
            self._load_settings()
            path = self._settings.get("keeper_socket")
        if not path:
            raise KeeperUnavailable(
                "the keeper's socket is not known", "select ward.set('keeper_socket', '/path/of/keeper.sock')"
            )
        look = (lambda: None) if at_exit else self._host.check_interrupts
        return KeeperClient(path, timeout or self._number("keeper_timeout", 30.0), look)

    def _verify(self, token: str) -> tuple[bytes, Claims, int]:
        digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        known = self._verified.get(digest)
        now = time.time()
        if known is not None:
            generation, claims = known
            if now >= claims.expires_at:
                del self._verified[digest]
                raise TokenExpired
            return digest, claims, generation
        generation, issuer = self._issuer(unverified_issuer(token))
        claims = verify(token, issuer, now)
        self._verified[digest] = (generation, claims)
        if len(self._verified) > _MOST_TOKENS:
            del self._verified[next(iter(self._verified))]
        return digest, claims, generation

    def _check_journal(self) -> None:
        """Raise AuditUnavailable where what is read could not be journalled, or nobody would take it out."""
        if self._host.in_recovery():
            raise AuditUnavailable
        slot = self._settings.get("audit_slot")
        if slot and time.monotonic() - self._slot_found > _SLOT_FOR:
            if not self._registry.has_slot(slot):
                raise AuditUnavailable("the audit journal's replication slot is missing or was invalidated")
            self._slot_found = time.monotonic()

    def _login(self, token: str, digest: bytes, claims: Claims, grant: Grant | None) -> bytes:
        """Return the id of the login with this token, which is journalled when it is new to this backend.

        Each transaction of a pooled connection logs in: the same token, purpose and application are the same.
        Under a break-glass grant it is another one: its purpose, which is that of all entries, names it.
        """
        under = None if grant is None else f"ETREAT {grant.id}"
        stated = self._host.purpose()
        known = (digest, under or stated, self._host.application())
        identity = self._logins.pop(known, None)
        if identity is None:
            identity = os.urandom(16)
            texts = {
                "subject": claims.subject,
                "role": claims.role,
                "purpose": under or claims.purpose or stated,
                **self._host.client(),
            }
            digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
            detail = {"issuer": claims.issuer, "token_id": claims.token_id, "token_sha256": digest.hex()}
            if grant is not None:
                detail |= {"break_glass": grant.id, "dicom": "110113"}
            elif stated and not claims.purpose:
                detail["purpose"] = "stated"
            at, tenant = self._host.statement_start(), bytes_of(claims.tenant_id)
            self._host.journal(journal.event(tenant, identity, at, "login", texts, detail))
        self._logins[known] = identity
        if len(self._logins) > _MOST_TOKENS:
            del self._logins[next(iter(self._logins))]
        return identity

    def _issuer(self, name: str) -> tuple[int, Issuer]:
        row = self._registry.issuer(name)
        if row is None:
            raise InvalidToken("token is not valid: its issuer is not registered")
        known = self._issuers.get(name)
        if known is None or known[0] != row["generation"]:
            made = Issuer.from_document(loads(row["document"]))
            known = self._issuers[name] = (row["generation"], made)
        return known

    def _known_state(self, claims: Claims, generation: int) -> Mapping[str, Any] | None:
        """Return what the registry said a moment ago, if nothing was changed there since."""
        changes, until, tenant, issuer, state = self._known
        if (
            time.monotonic() < until
            and (claims.tenant_id, claims.issuer, generation) == (tenant, issuer, state["generation"])
            and changes == self._host.changes()
        ):
            return state
        return None

    def _state(self, claims: Claims) -> Mapping[str, Any]:
        """Return what the registry says of tenant and issuer now. Raises WrongTenant, TenantNotActive."""
        changes, now = self._host.changes(), time.monotonic()
        self._known = _NOTHING_KNOWN
        state = self._registry.state(claims.tenant_id, claims.issuer)
        if state is None:
            raise WrongTenant
        if state["status"] != "active":
            self._keyring.forget(claims.tenant_id)
            raise TenantNotActive
        if changes is not None:
            self._known = changes, now + _LOOKED_UP_FOR, claims.tenant_id, claims.issuer, state
        return state

    def _keys(
        self, claims: Claims, state: Mapping[str, Any], *, of_new_transaction: bool = True
    ) -> TenantKeys:
        """Return the tenant's keys: those for this role and tokens of this issuer, as it is in ``state``.

        Under its subject's break-glass grant if there is one; a transaction that began without it goes on
        without it, because its login does not name it.
        """
        keys = self._keys_of(claims, state, None)
        grant = keys.grants.get((claims.issuer, claims.subject)) if keys.grants else None
        if grant is None or time.time() >= grant.until:
            return keys
        if not of_new_transaction and (self._context is None or self._context.keys.grant != grant):
            return keys
        return self._keys_of(claims, state, grant)

    def _keys_of(self, claims: Claims, state: Mapping[str, Any], grant: Grant | None) -> TenantKeys:
        tenant, issuer, epoch = claims.tenant_id, (claims.issuer, state["generation"]), state["key_epoch"]
        role = claims.role if grant is None else f"{claims.role} {grant.id}"
        keys = self._keyring.get(tenant, role, issuer, epoch, self._number("key_ttl", _KEY_TTL))
        is_for_others = keys is not None and keys.is_inherited and self._context is None
        if keys is None or is_for_others or (self._wants_masks and keys.masks is None):
            self._load_settings()
            keys = self._registry.tenant_keys(role, claims, state, grant, wants_masks=self._wants_masks)
            self._keyring.put(keys)
        return keys

    def _begin(self, context: Context, lasting: bool) -> None:
        self._context = context
        self._lasting = lasting
        self._is_current = True
        self._looked_up = time.monotonic()
        self._forget_statement()
        self.sealers = context.keys.sealers

    def _forget_statement(self) -> None:
        self._reads = None
        self.end_statement()
        self.sealers = {}
        self.queried.clear()

    def _load_settings(self) -> None:
        self._settings = self._registry.settings()

    def _number(self, name: str, default: float) -> float:
        try:
            number = float(self._settings[name])
        except (KeyError, ValueError):
            return default
        return number if 0 <= number <= _MOST_SECONDS else default
