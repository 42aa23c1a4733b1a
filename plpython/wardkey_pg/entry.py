"""What the bodies of the SQL functions call: one backend's session, behind a check of versions."""

from __future__ import annotations

import gc
import os
import time
from _operator import _compare_digest as compare_digest  # hmac's, without hmac

from wardkey_core.errors import (
    NoContext,
    OpenFailed,
    RoleMayNotWrite,
    VersionMismatch,
    WardError,
    WrongTenant,
)
from wardkey_core.identity import bytes_of
from wardkey_core.plain_json import dumps, loads
from wardkey_core.tokens import Issuer

from . import __version__
from ._host import PostgresHost, keep_refusal, statement_started, take_refusal
from .context import Session
from .keyring import WrappedKey
from .sealing import make_seal, make_unseal, open_slowly, sealers_slowly
from .statements import ignores_conflicts

__all__ = ["bind"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_MONTH = """
select ward_internal.make_audit_partition($1) as made,
       date_part('epoch', (date_trunc('month', clock_timestamp() at time zone 'UTC') + interval '1 month')
         at time zone 'UTC') as until"""
_LEASE = "select ward_internal.lease_audit_ids($1) as first"
_LEASED = 500
_NOBODY = "00000000-0000-0000-0000-000000000000"

_host = PostgresHost()
_session = Session(_host)
_resealing = False  # nobody's change of a row: the audit log's triggers ask
_ids = iter(range(0))  # of entries, leased by this backend and not given yet
_months: dict[str, float] = {}  # by tenant, until when its log is known to have a partition, in unix seconds
_statement, _ignoring = (0, 0), False  # which one wrote last, and whether it ignores conflicts
_mark = ""  # of the session's login, kept in a setting too: what resets the session ends its context


def bind(version: str, name: str) -> Callable[..., Any]:
    """Return the function behind the SQL function ``name`` of an extension of ``version``."""
    if version == __version__ or name == "take_refusal":
        return _FUNCTIONS[name]

    def refuse_version(*_: Any) -> None:
        raise VersionMismatch(f"extension wardkey is {version}, Python module wardkey_pg is {__version__}")

    return keep_refusal(refuse_version)


def _login(token: str | None) -> bool:
    _host.refuse_temporary_files()
    _session.login(token or "")  # NULL is a failed login, which ends the context there was
    return True


def _login_session(token: str | None) -> bool:
    global _mark
    _host.refuse_temporary_files()
    _session.login(token or "", lasting=True)
    _mark = os.urandom(16).hex()
    # no parallel plans: renewing asks the registry, which cannot be done in the middle of one
    _host.query(
        "select set_config('ward.session', $1, false),"
        " set_config('max_parallel_workers_per_gather', '0', false)",
        ["text"],
        [_mark],
    )
    return True


def _renew_session() -> bool:
    rows = _host.query("select coalesce(current_setting('ward.session', true), '') as mark")
    if compare_digest(str(rows[0]["mark"]).encode(), _mark.encode()):
        _session.renew()
    else:
        _session.logout()
    return True


def _renew_keys() -> bool:
    _session.renew_keys()
    return True


def _tell_backends() -> bool:
    _host.tell_backends()
    return True


def _logout() -> bool:
    _session.logout()
    return True


def _tenant_id() -> str | None:
    context = _session.current()
    return None if context is None else context.claims.tenant_id


def _claims() -> list[str]:
    """Return subject and role, nothing without a context."""
    context = _session.current()
    return [] if context is None else [context.claims.subject, context.claims.role]


def _tenant_unless(roles: list[str]) -> str:
    """Return the tenant whose rows a row rule for ``roles`` lets pass: the context's, or nobody's."""
    context = _session.current()
    return _NOBODY if context is None or context.claims.role in roles else context.claims.tenant_id


def _is_ruled(roles: list[str]) -> bool:
    role = _session.role_at_last
    return role is None or role in roles


def _claim(name: str) -> str | None:
    return _session.claim(name)


def _begin_write(tenant: str, deleted: str) -> bool:
    """Let the write to a row of ``tenant`` go ahead, or say why not.

    ``deleted``: the model of a row that goes, or empty. Return whether the client's statement says ON
    CONFLICT DO NOTHING.
    """
    global _statement, _ignoring
    context = _session.current(begun=True)
    if context is None:
        raise NoContext
    if context.claims.tenant_id != tenant:
        raise WrongTenant
    if not context.keys.may_write:
        raise RoleMayNotWrite
    if deleted and not context.keys.may_delete(bytes_of(deleted)):
        raise RoleMayNotWrite("the role of this token may not delete rows with columns of these classes")
    statement = (statement_started(), _host.statement_address())
    if statement != _statement:
        _statement, _ignoring = statement, ignores_conflicts(_host.client_statement())
    return _ignoring


def _check_rewrite(columns: bytes, emptied: bytes) -> bool:
    """Let an update change the key of a row, all of whose ``columns`` are sealed again, or empty some."""
    context = _session.current(begun=True)
    if context is None:
        raise NoContext
    if not context.keys.sees(columns):
        raise RoleMayNotWrite(
            "the role of this token may not change the key of a row of which it does not see all",
            "leave the primary key as it is, or use a token of a role that sees these columns in the clear",
        )
    if not context.keys.may_empty(emptied):
        raise RoleMayNotWrite("the role of this token may not write columns of this class")
    return True


def _require_context(model: str) -> bool:
    """Return True in a context; without one, False where the settings say that faces are empty then.

    The face of ``model`` asks: it is being queried.
    """
    if _session.current() is not None:
        if model not in _session.queried:
            _session.note_query(model)
        return True
    if _host.in_parallel_plan() or _host.query("select ward.is_context_required() as it")[0]["it"]:
        raise NoContext
    return False


def _refused_with_token(error: WardError) -> None:
    """A password alone writes nothing: no entry of a query without a context."""
    if not isinstance(error, NoContext):
        _refused(error)


def _unseal_text(sealed: bytes, column: bytes, row: bytes) -> str | None:
    from .masks import NULL

    try:
        plaintext = open_slowly(_session, sealed, column, row)
        return None if plaintext == NULL else plaintext.decode()
    except UnicodeDecodeError:
        raise OpenFailed from None


def _report_event(operation: str, detail: str) -> bool:
    given = {name: value for name, value in loads(detail).items() if value is not None}
    if operation == "refusal":
        _session.report_often(operation, given, given)
    else:
        _session.report(operation, given)
    return True


def _report_to(tenants: list[str], operation: str, detail: str) -> bool:
    _session.report_to(tenants, operation, loads(detail))
    return True


def _check_issuer(document: str) -> bool:
    try:
        Issuer.from_document(loads(document))
    except ValueError as error:
        from wardkey_core.administration import Unsupported  # most backends never do

        # says what is wrong where; an issuer's document holds public keys only
        raise Unsupported(f"issuer document: {error}", "its members: \\df+ ward.add_issuer") from None
    return True


def _provision_key(tenant: str, version: int, kek: str | None, kek_version: str | None, region: str) -> str:
    made = _session.keeper().provision(tenant, version, kek, kek_version, region)
    return _json(version=version, kek=made[0], kek_version=made[1], wrapped=made[2], commitment=made[3])


def _derive_key(
    tenant: str,
    version: int,
    master: int,
    kek: str,
    kek_version: str,
    wrapped: bytes,
    commitment: bytes,
    region: str,
) -> str:
    secret = WrappedKey(master, "active", kek, kek_version, wrapped, commitment, region=region)
    salt, made = _session.keeper().derive(tenant, version, secret)
    return _json(kek="master", kek_version=str(master), wrapped=salt, commitment=made)


def _rewrap_key(
    tenant: str,
    version: int,
    kek: str,
    kek_version: str,
    wrapped: bytes,
    commitment: bytes,
    to_kek: str | None,
    to_kek_version: str | None,
    region: str,
) -> str:
    key = WrappedKey(version, "active", kek, kek_version, wrapped, commitment, region=region)
    made = _session.keeper().rewrap(tenant, key, to_kek, to_kek_version)
    return _json(kek=made[0], kek_version=made[1], wrapped=made[2])


def _ask_grant(
    action: str,
    grant: str | None,
    classes: list[str] | None,
    minutes: int | None,
    reason: str | None,
    emergency: bool,
) -> str:
    from hashlib import sha256  # most backends never do

    context = _session.current()
    if context is None:
        raise NoContext
    claims, digest = context.claims, None if reason is None else sha256(reason.encode()).hexdigest()
    members = {"id": grant, "classes": classes, "minutes": minutes, "reason": digest}
    answer = _session.keeper().grant(
        claims.tenant_id, action, context.token, **members, emergency=emergency or None
    )
    return dumps({**answer, "issuer": claims.issuer, "subject": claims.subject, "role": claims.role})


def _cached(name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        from . import cached  # most backends never do

        return getattr(cached, name)(_session, *args)

    return call


def _read_cached(token: str | None, reads: str | None) -> bool:
    from .cached import read_cached  # most backends never do

    _login(token)
    return read_cached(_session, reads or "")


def _reseal(*args: Any) -> str:
    from .resealing import reseal

    global _resealing
    _resealing = True
    try:
        return reseal(_host, _session, *args)
    finally:
        _resealing = False


def _make_tokens(values: list[bytes | None], searches: str) -> list[str | None]:
    from .searching import make_tokens  # only backends that write searched columns do

    return make_tokens(_session, values, searches)


def _find_query(searches: str, needles: list[str | None], former: str) -> list[str | None]:
    from .searching import find_query

    return find_query(_session, searches, needles, former)


def _is_found(text: str, kind: str, normaliser: str, needle: str) -> bool:
    from .searching import is_found

    return is_found(text, kind, normaliser, needle)


def _audit_lines(*args: Any) -> Iterator[str | None]:
    """Yield the lines of an export, and None at last where one was refused."""
    from .exporting import export  # most backends never do

    lines = export(_host, *args)
    step: Callable[[], str | None] = keep_refusal(lambda: next(lines, ""))
    while (line := step()) != "":
        yield line
        if line is None:
            return


def _begin_entry(tenant: str) -> bytes:
    """Return the id of an entry about a row of ``tenant``, and of the context; nothing while resealing."""
    global _ids
    if _resealing:
        return b""
    if time.time() >= _months.get(tenant, 0.0):
        _make_month(tenant)
    made = next(_ids, None)
    if made is None:
        (row,) = _host.query(_LEASE, ["bigint"], [_LEASED])
        _ids = iter(range(row["first"], row["first"] + _LEASED))
        made = next(_ids)
    return made.to_bytes(8, "big") + (_session.context_of(tenant) or b"")


def _make_month(tenant: str) -> None:
    """See to it that the tenant's log has a partition for now. One just made may go with its transaction."""
    (row,) = _host.query(_MONTH, ["uuid"], [tenant])
    if not row["made"]:
        _months[tenant] = row["until"]


def _json(**members: str | bytes | int) -> str:
    return dumps(
        {name: "\\x" + value.hex() if isinstance(value, bytes) else value for name, value in members.items()}
    )


_cold: dict[str, Callable[..., Any]] = {
    "login": _login,
    "login_session": _login_session,
    "renew_session": _renew_session,
    "logout": _logout,
    "tell_backends": _tell_backends,
    "tenant_id": _tenant_id,
    "claims": _claims,
    "tenant_unless": _tenant_unless,
    "is_ruled": _is_ruled,
    "begin_write": _begin_write,
    "check_rewrite": _check_rewrite,
    "unseal_text": _unseal_text,
    "report_event": _report_event,
    "report_to": _report_to,
    "check_issuer": _check_issuer,
    "provision_key": _provision_key,
    "derive_key": _derive_key,
    "rewrap_key": _rewrap_key,
    "renew_keys": _renew_keys,
    "ask_grant": _ask_grant,
    "cache_ticket": _cached("ticket"),
    "begin_fill": _cached("begin_fill"),
    "end_fill": _cached("end_fill"),
    "read_cached": _read_cached,
    "look_up_now": _host.look_up_now,
    "reseal": _reseal,
    "make_tokens": _make_tokens,
    "find_query": _find_query,
    "is_found": _is_found,
    "begin_entry": _begin_entry,
}
_refused = _session.report_refusal
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: keep_refusal(function, _refused) for name, function in _cold.items()
}
_FUNCTIONS["take_refusal"] = take_refusal
_FUNCTIONS["audit_lines"] = _audit_lines
_FUNCTIONS["claim"] = keep_refusal(_claim, _refused_with_token)
_FUNCTIONS["require_context"] = keep_refusal(_require_context, _refused_with_token)
# The hot ones stand before that and go through it only when there is something to say.
_FUNCTIONS["seal"] = make_seal(
    _session,
    keep_refusal(lambda columns, plaintexts: sealers_slowly(_session, columns, plaintexts), _refused),
)
_FUNCTIONS["unseal"] = make_unseal(
    _session, keep_refusal(lambda *args: open_slowly(_session, *args), _refused)
)

gc.freeze()
gc.enable()  # see __init__
