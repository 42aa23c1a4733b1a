"""What the doctor remembers from run to run: roles of power, and digests of the registry's rows.

It is a JSON file: by server and database, ``at`` (when), ``snapshot`` (the transactions of before), ``roles``
(name: attributes of power) and ``rows`` (key: digest, whose log, events that account for a change, name). The
first run fills it. Later ones add what the audit log accounts for; the rest is found again until
``wardkey doctor --accept``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..daemon.files import write_atomically
from ._check import Check, Problem, Server, read

__all__ = ["CHECKS", "remember"]

_WHICH = """
select format('%s/%s', system_identifier, current_database()),
  to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), pg_current_snapshot()::text
from pg_control_system()"""
_ROLES = """
select rolname::text, array_remove(array[
  case when rolsuper then 'superuser' end, case when rolbypassrls then 'bypassrls' end,
  case when rolreplication then 'replication' end, case when rolcreaterole then 'createrole' end], null)
from pg_roles where rolsuper or rolbypassrls or rolreplication or rolcreaterole"""
_ACCOUNTED = """
select exists (select from ward_internal.audit_log
  where tenant_id = %s and kind = 'e' and operation = any(%s)
    and not pg_visible_in_snapshot(transaction, %s::text::pg_snapshot))"""
_GO_SILENTLY = ("models/", "sealed_columns/", "shares/")  # with their table
_ACCEPT = "if it is meant to be so: wardkey doctor --accept"


def _known(server: Server) -> dict[str, Any]:
    """Return all that is remembered."""
    try:
        known: dict[str, Any] = json.loads(server.memory.read_text("utf-8")) if server.memory else {}
    except FileNotFoundError:
        return {}
    return known


def _here(server: Server) -> dict[str, Any] | None:
    """Return what is remembered of this database."""
    known: dict[str, Any] | None = _known(server).get(server.value(_WHICH))
    return known


def _rows(server: Server) -> dict[str, list[Any]]:
    return {key: facts for key, *facts in server.rows(read("memory"))}


def _new_powers(server: Server, known: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for role, powers in server.rows(_ROLES):
        if new := [power for power in powers if power not in known["roles"].get(role, ())]:
            yield role, new


def _unaccounted(
    server: Server, known: dict[str, Any], there: dict[str, list[Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield key, name and what became of each row whose change no event accounts for."""
    for key in sorted(there.keys() | known["rows"].keys()):
        before, after = known["rows"].get(key), there.get(key)
        if (before and before[0]) == (after and after[0]):
            continue
        if after is None and key.startswith(_GO_SILENTLY):
            continue
        _, log, events, name = after or before
        if not server.value(_ACCOUNTED, log, events, known["snapshot"]):
            yield key, name, "is new" if before is None else "is gone" if after is None else "was changed"


def _powers(server: Server) -> Iterator[Problem]:
    if (known := _here(server)) is None:
        return
    for role, new in _new_powers(server, known):
        fix = f'alter role "{role}" {" ".join(f"no{power}" for power in new)};'
        yield Problem(role, f"has {', '.join(new).upper()} since {known['at']}; {_ACCEPT}", fix)


def _registry(server: Server) -> Iterator[Problem]:
    if (known := _here(server)) is None:
        return
    for _, name, change in _unaccounted(server, known, _rows(server)):
        yield Problem(name, f"{change}, and no event since {known['at']} accounts for it", _ACCEPT)


def remember(server: Server, *, accept: bool = False) -> None:
    """Write down what there is; what nothing accounts for only with ``accept``, or at the first run."""
    if server.memory is None:
        return
    ((which, now, snapshot),) = server.rows(_WHICH)
    known, roles, rows = _known(server), dict(server.rows(_ROLES)), _rows(server)
    before = known.get(which)
    if before is not None and not accept:
        for role, new in _new_powers(server, before):
            roles[role] = [power for power in roles[role] if power not in new]
        for key, *_ in list(_unaccounted(server, before, dict(rows))):
            if key in before["rows"]:
                rows[key] = before["rows"][key]
            else:
                del rows[key]
    known[which] = {"at": now, "snapshot": snapshot, "roles": roles, "rows": rows}
    server.memory.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(server.memory, json.dumps(known, indent=1).encode())


CHECKS = (
    Check("powers-known", "no role has got a power that it had not at the last run", _powers, "warn"),
    Check("registry-accounted", "the audit log accounts for every change of the registry", _registry),
)
