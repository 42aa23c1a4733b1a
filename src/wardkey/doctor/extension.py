"""The extension itself: its functions, tables and grants are those of the scripts it was built from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

from ..install import resources
from ._check import Check, Problem, Server, read
from ._describe import Parts, compare, describe

__all__ = ["CHECKS"]

_ATTRIBUTES = (
    "language",
    "volatility",
    "strict",
    "parallel",
    "definer",
    "leakproof",
    "settings",
    "arguments",
    "defaults",
)
_COPIES = """
select oid::bigint, quote_ident({0}name) from pg_{1}
where {0}namespace = pg_my_temp_schema() and {0}name like 'ward%.%'"""
_RESOLVED = """
select name, case when name ~ '\\(' then to_regprocedure(name)::text else to_regclass(name)::text end
from unnest(%s::text[]) as name"""
_NAME = re.compile(r"\b(ward(?:_internal)?)\.(\w+)")
_COPY = re.compile(r'(?:pg_temp(?:_\d+)?\.)?"(ward\w*)\.(\w+)"')  # the name of a copy; see _copy


def _query(name: str) -> str:
    """Return a query of extension.sql."""
    _, *parts = re.split(r"^-- (\w+):.*$", read("extension"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))[name]


@cache
def _manifest() -> Mapping[str, Any]:
    return resources.manifest()


def _oids(server: Server, function: str, names: Iterable[str]) -> dict[str, int]:
    """Return the oids of what is there under these names; ``function``: to_regclass or a similar one."""
    query = sql.SQL("select name, {}(name)::oid::bigint from unnest(%s::text[]) as name")
    rows = server.rows(query.format(sql.Identifier(function)), list(names))
    return {name: oid for name, oid in rows if oid is not None}


def _functions(server: Server) -> Iterator[Problem]:
    wanted = _manifest()["functions"]
    known = {oid: name for name, oid in _oids(server, "to_regprocedure", wanted).items()}
    for name in wanted:  # in the order in which they can be made
        if name not in known.values():
            yield Problem(name, "is missing", f"{wanted[name]['statement']};")
    for oid, signature, *facts, body, plain, _ in server.rows(_query("functions")):
        if oid not in known:
            continue  # others-alone
        one = wanted[known[oid]]
        actual = dict(zip(_ATTRIBUTES, facts, strict=True))
        changed = [key for key in _ATTRIBUTES if _plain(actual[key]) != _plain(one[key])]
        if one["body"] is not None and hashlib.sha256(body.encode()).hexdigest() != one["body"]:
            changed.append("body")
        if changed or not plain:
            text = f"its {', '.join(changed) or 'kind'} is not what wardkey installs"
            yield Problem(signature, text, f"{one['statement']};")


def _plain(value: Any) -> Any:
    """Return settings as PostgreSQL keeps them, whose case and quotes may differ."""
    return (
        [str(item).lower().replace("'", "").replace('"', "") for item in value]
        if isinstance(value, list)
        else value
    )


def _owners(server: Server) -> Iterator[Problem]:
    superusers = {name for (name,) in server.rows("select rolname from pg_roles where rolsuper")}
    maker = server.value("select pg_get_userbyid(extowner) from pg_extension where extname = 'wardkey'")
    owners = _manifest()["owners"]
    wanted = {oid: owners[name] for name, oid in _oids(server, "to_regprocedure", owners).items()}
    there = [("function", oid, name, owner) for oid, name, *_, owner in server.rows(_query("functions"))]
    there += [(kind, oid, name, owner) for oid, name, owner, kind in server.rows(_query("relations"))]
    there += [("schema", 0, name, owner) for name, owner in server.rows(_query("schemas"))]
    for kind, oid, name, owner in there:
        proper = owner == wanted[oid] if kind == "function" and oid in wanted else owner in superusers
        if not proper:
            fix = f"alter {kind} {name} owner to {wanted.get(oid, maker)};"
            yield Problem(f"{kind} {name}", f"belongs to {owner}", fix)


def _grants(server: Server) -> Iterator[Problem]:
    grants = _manifest()["grants"]
    columns = {name for kind, name, *_ in grants if kind == "table" and name.endswith(")")}
    names = {name for kind, name, *_ in grants if kind not in ("schema", "parameter")} - columns
    resolved = dict(server.rows(_RESOLVED, list(names)))
    wanted = {(kind, resolved.get(name) or name, *rest) for kind, name, *rest in grants}
    actual = {tuple(row) for row in server.rows(_query("grants"))}
    for kind, name, role, privilege in sorted(actual - wanted):
        yield Problem(f"{kind} {name}", f"{role} has {privilege}", _revoke(kind, name, role, privilege))
    for kind, name, role, privilege in sorted(wanted - actual):
        # PostgreSQL's own objects are not among those found
        test = f"select has_{kind}_privilege(%s, %s, %s)"
        if name.startswith("ward") or not server.value(test, role, name, privilege):
            what = "" if kind == "table" else f"{kind} "
            yield Problem(
                f"{kind} {name}", f"{role} lacks {privilege}", f"grant {privilege} on {what}{name} to {role};"
            )


def _revoke(kind: str, name: str, role: str, privilege: str) -> str:
    what = privilege.removesuffix(" WITH GRANT OPTION")
    if match := re.fullmatch(r"(.*) \((.*)\)", name) if kind == "table" else None:
        name, what = match[1], f"{what} ({match[2]})"
    return f"revoke {what} on {'' if kind == 'table' else f'{kind} '}{name} from {role};"


def _relations(server: Server) -> Iterator[Problem]:
    """Make a temporary copy of each table, sequence and view, and compare."""
    there = {name: (oid, kind) for oid, name, _, kind in server.rows(_query("relations"))}
    views: dict[str, str] = {}
    triggers: dict[str, str] = {}
    for statement in _manifest()["relations"]:
        if match := re.match(r"create or replace view (\S+)", statement):
            views[match[1]] = statement
        elif match := re.search(r"^create or replace trigger .*? on (\S+)", statement):
            triggers[match[1]] = statement
        elif match := re.match(r"alter table (\S+) enable always trigger", statement):
            triggers[match[1]] += f"; {statement}"
    yield from _make_copies(server, _manifest()["relations"])
    copies = dict(server.rows(_COPIES.format("rel", "class")))
    made = describe(server, copies, lambda oid, text: _COPY.sub(r"\1.\2", text))
    expected = {_COPY.sub(r"\1.\2", copies[oid]): _own(parts) for oid, parts in made.items()}
    actual = describe(server, [oid for oid, _ in there.values()])
    for name in expected.keys() | views.keys():
        if name in there and name in expected:
            parts = _own(actual[there[name][0]])
            for of_triggers, otherwise in ((False, views.get(name)), (True, triggers.get(name))):
                both = _some(expected[name], of_triggers), _some(parts, of_triggers)
                yield from compare(name, *both, otherwise=otherwise)
        elif name in views:
            yield Problem(name, "is missing", f"{views[name]}; alter extension wardkey add view {name};")
        elif name not in there:
            yield Problem(name, "is missing", "restore the database from a backup")
    for name in there.keys() - expected.keys() - views.keys():
        kind = there[name][1]
        yield Problem(name, f"is an additional {kind}", f"drop {kind} {name};")


def _make_copies(server: Server, statements: list[str]) -> Iterator[Problem]:
    """Make copies of relations, all at once; one after the other where one of them cannot be made."""
    try:
        with server.connection.transaction():
            server.connection.execute("; ".join(map(_copy, statements)))
    except psycopg.ProgrammingError as error:  # what it is made of is missing
        if len(statements) == 1:
            yield Problem(statements[0].partition("\n")[0], f"cannot be made: {error.diag.message_primary}")
            return
        for statement in statements:
            yield from _make_copies(server, [statement])


def _own(parts: Parts) -> Parts:
    """Leave out what _owners and _grants compare."""
    return {key: part for key, part in parts.items() if key[0] not in ("owner", "privilege")}


def _some(parts: Parts, of_triggers: bool) -> Parts:
    kinds = ("trigger", "function of trigger")
    return {key: part for key, part in parts.items() if (key[0] in kinds) is of_triggers}


def _sql_functions(server: Server) -> Iterator[Problem]:
    wanted = {name: one["statement"] for name, one in _manifest()["functions"].items() if one["body"] is None}
    there = _oids(server, "to_regprocedure", wanted)
    for statement in wanted.values():
        server.connection.execute(_copy(statement))
    definition = "select oid::bigint, pg_get_functiondef(oid) from pg_proc where oid = any(%s)"
    copies = [oid for oid, _ in server.rows(_COPIES.format("pro", "proc"))]
    expected = {
        # within, PostgreSQL qualifies parameters with the mere name
        re.sub(r'"ward\w*\.(\w+)"\.', r"\1.", re.sub(r'pg_temp\w*\."(ward\w*\.\w+)"', r"\1", text))
        for _, text in server.rows(definition, copies)
    }
    by_oid = {oid: name for name, oid in there.items()}
    for oid, text in server.rows(definition, list(by_oid)):
        if text not in expected:
            name = by_oid[oid]
            yield Problem(name, "is not what wardkey installs", f"{wanted[name]};")


def _event_triggers(server: Server) -> Iterator[Problem]:
    maker = server.value("select pg_get_userbyid(extowner) from pg_extension where extname = 'wardkey'")
    actual = {name: facts for name, *facts in server.rows(_query("event_triggers"))}
    for name, (event, tags, function) in _manifest()["event_triggers"].items():
        this = f"event trigger {name}"
        when = f" when tag in ({', '.join(map(repr, tags))})" if tags else ""
        made = (
            f"create {this} on {event}{when} execute function {function}(); alter {this} enable always;"
            f" alter extension wardkey add {this};"
        )
        if name not in actual:
            yield Problem(this, "is missing", made)
            continue
        *facts, is_always, owned, extension = actual[name]
        if facts != [event, tags, function]:
            leave = f"alter extension {extension} drop {this}; " if extension else ""
            yield Problem(this, "was changed", f"{leave}drop {this}; {made}")
        elif not is_always:
            yield Problem(this, "is not always enabled", f"alter {this} enable always;")
        elif not owned:
            yield Problem(this, "does not belong to a superuser", f"alter {this} owner to {maker};")


def _other_event_triggers(server: Server) -> Iterator[Problem]:
    for name, *_, extension in server.rows(_query("event_triggers")):
        if extension is None and name not in _manifest()["event_triggers"]:
            yield Problem(f"event trigger {name}", "is nobody's we know", f"drop event trigger {name};")


def _others(server: Server) -> Iterator[Problem]:
    known = set(_oids(server, "to_regprocedure", _manifest()["functions"]).values())
    there = {signature: oid for oid, signature, *_ in server.rows(_query("functions"))}
    for text, kind, identity in server.rows(_query("others")):
        fix = f"drop {kind} {identity};"
        if there.get(text.removeprefix("function ")) in known:
            fix = f"alter extension wardkey add function {identity};"
        yield Problem(text, "is none of wardkey's", fix)


def _copy(statement: str) -> str:
    """Return the statement that makes a temporary copy, which is called "ward_internal.tenants"."""
    is_on = re.match(r"create (or replace trigger|(unique )?index) ", statement)
    head, on, tail = statement.partition(" on ") if is_on else ("", "", statement)
    tail = re.sub(r"^create or replace (view|function)", r"create \1", tail)
    return head + on + _NAME.sub(r'pg_temp."\1.\2"', tail, count=1)


CHECKS = (
    Check(
        "functions-unchanged", "the functions of the extension are those that wardkey installs", _functions
    ),
    Check(
        "sql-functions-unchanged", "so are those that PostgreSQL keeps as trees", _sql_functions, primary=True
    ),
    Check(
        "registry-unchanged", "so are tables, views and sequences of the registry", _relations, primary=True
    ),
    Check(
        "event-triggers", "DDL on model tables and grants fire our event triggers, always", _event_triggers
    ),
    Check("event-triggers-alone", "no other event trigger takes part in DDL", _other_event_triggers, "warn"),
    Check("others-alone", "nothing else lies in the schemas of wardkey and of wards", _others),
    Check("extension-owners", "nobody but a superuser or ward_owner owns them", _owners),
    Check("extension-grants", "privileges on them are those that wardkey grants", _grants),
)
