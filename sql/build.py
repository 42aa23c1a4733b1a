"""Build the extension's scripts: ``sql/dist/wardkey--VERSION.sql`` and one update script per delta.

Stateful objects (``tables/``) are made once and change by the deltas in ``updates/A--B.sql``; replaceable
ones (``functions/``) are written once and run again by every update. ``privileges.sql`` comes last.
``@VERSION@`` becomes the version, which is written in ``plpython/wardkey_pg/__init__.py``, ``@CONDITIONS@``
the SQLSTATEs of ``plpython/wardkey_core/administration.py``. Standard library
only: it runs before anything is installed.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

_SQL = Path(__file__).resolve().parent
# functions that others name in views, defaults or SQL-standard bodies come first
_FUNCTIONS = (
    "tenancy/errors",
    "tenancy/locks",
    "tenancy/context",
    "sealing/sealing",
    "models/columns",
    "access/classes",
    "audit/log",
    "audit/scribe",
    "models/names",
    "audit/writes",
    "models/schemas",
    "models/dependents",
    "search/operators",
    "search/tokens",
    "search/finding",
    "models/faces",
    "models/protect",
    "models/faults",
    "models/changes",
    "models/unprotect",
    "keys/regions",
    "keys/keys",
    "access/baa",
    "access/rules",
    "access/measures",
    "access/policy",
    "search/searches",
    "search/uniques",
    "access/break_glass",
    "access/budgets",
    "access/cache",
    "tenancy/tenants",
    "keys/rotation",
    "sealing/resealing",
    "keys/shredding",
    "tenancy/issuers",
    "audit/retention",
    "audit/questions",
    "access/incidents",
    "audit/compare",
    "audit/export",
    "models/upsert",
    "tenancy/counters",
    "models/reflection",
    "tenancy/events",
    "tenancy/metrics",
    "tenancy/hardening",
)


def _module(name: str) -> str:
    """Return the text of a module that goes with these files."""
    for path in (_SQL.parent / "plpython" / name, _SQL.parent.parent / name):
        if path.is_file():
            return path.read_text()
    raise SystemExit(f"build.py: {name} is not beside sql/")


def version() -> str:
    """Return the version of the module that stands beside these files."""
    return str(re.findall(r'__version__ = "([^"]+)"', _module("wardkey_pg/__init__.py"))[0])


def _conditions() -> str:
    """Return the SQLSTATEs of what SQL raises, by name."""
    classes = re.findall(
        r'^class (\w+)\(AdministrationError\):.*?sqlstate = "(\w+)"',
        _module("wardkey_core/administration.py"),
        re.M | re.S,
    )
    return json.dumps({re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): code for name, code in classes})


def _read(path: Path) -> str:
    return f"-- {path.relative_to(_SQL)}\n\n{path.read_text().strip()}\n\n"


def _header(statement: str) -> str:
    # The server runs a script under the search_path of the user who installs it; operators in it are to be
    # PostgreSQL's own.
    echo = f'\\echo Use "{statement}" to load this file. \\quit'
    return f"{echo}\nset local search_path = pg_catalog, pg_temp;\n\n"


def _replaceable() -> str:
    functions = "".join(_read(_SQL / "functions" / f"{name}.sql") for name in _FUNCTIONS)
    return functions.replace("@CONDITIONS@", _conditions()) + _read(_SQL / "privileges.sql")


def update(delta: str, *, is_last: bool = True) -> str:
    """Return the update script with this delta of the tables; the last re-runs all replaceable objects."""
    return _header("alter extension wardkey update") + delta + (_replaceable() if is_last else "")


def build(target: Path) -> list[Path]:
    """Write all scripts into ``target`` and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    functions = _SQL / "functions"
    missing = {
        path.relative_to(functions).with_suffix("").as_posix() for path in functions.rglob("*.sql")
    } ^ set(_FUNCTIONS)
    if missing:
        raise SystemExit(f"build.py: functions/ and its order disagree about: {', '.join(sorted(missing))}")
    new = version()
    tables = "".join(_read(path) for path in sorted((_SQL / "tables").glob("*.sql")))
    scripts = {f"wardkey--{new}.sql": _header("create extension wardkey") + tables + _replaceable()}
    for delta in sorted((_SQL / "updates").glob("*.sql")):
        scripts[f"wardkey--{delta.name}"] = update(_read(delta), is_last=delta.stem.endswith(f"--{new}"))
    for name, text in scripts.items():
        (target / name).write_text(text.replace("@VERSION@", new))
    (target / "manifest.json").write_text(
        json.dumps(manifest((target / f"wardkey--{new}.sql").read_text()), indent=1)
    )
    return [target / name for name in scripts]


# What a statement is made of; a dollar-quoted body is one piece, comments go.
_PIECE = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|;|[^;'$-]+|.", re.DOTALL)
_FUNCTION = re.compile(
    r"create or replace function ([\w.]+)\((.*?)\)\s*returns\s(.*?)\blanguage (\w+)\s(.*?)"
    r"(?:\bas \$(\w*)\$(.*)\$\6\$|\breturn\b.*)\s*",
    re.DOTALL,
)
_TABLE_COLUMNS = re.compile(r"\s*table\s*\((.*)\)\s*", re.DOTALL)
_SETTING = re.compile(r"\bset (\w+) (?:=|to) (.*?)(?=\s+set |\s*$)", re.DOTALL)
_GRANT = re.compile(
    r"grant (.+?) on\s+(?:(function|sequence|schema|table|parameter)\s+)?(.+)\s+to\s+([\w, ]+)", re.DOTALL
)
_EVENT_TRIGGER = re.compile(
    r"create event trigger (\w+) on (\w+)(?:\s+when tag in \((.*?)\))?\s+execute function ([\w.]+)\(\)",
    re.DOTALL,
)
_OWNER = re.compile(r"alter function (.+) owner to (\w+)\s*", re.DOTALL)
_ALTERED = re.compile(r"alter function (.+?\))\s+(set .+)", re.DOTALL)


def manifest(script: str) -> dict[str, Any]:
    """Return what the installed extension is to be; ``wardkey doctor`` compares the catalog with it.

    functions: by signature, with the SHA-256 of the body, None where PostgreSQL keeps no text of it.
    relations: the statements that make them. grants: kind and name of the object, role, privilege.
    owners: of the functions that are not their maker's. event_triggers: event, tags and function.
    """
    made: dict[str, Any] = {"functions": {}, "relations": [], "grants": [], "owners": {}}
    made["event_triggers"] = {
        name: [event, re.findall(r"'([^']+)'", tags), function]
        for name, event, tags, function in _EVENT_TRIGGER.findall(script)
    }
    for statement in _statements(script):
        if match := _FUNCTION.fullmatch(statement):
            name, arguments, returned, language, attributes, _, body = match.groups()
            names, types, defaults = _arguments(arguments)
            if columns := _TABLE_COLUMNS.fullmatch(returned):
                names += _arguments(columns[1])[0]
            made["functions"][f"{name}({', '.join(types)})"] = {
                "language": language,
                "volatility": (re.findall(r"\b(immutable|stable|volatile)\b", attributes) or ["volatile"])[0],
                "strict": re.search(r"\bstrict\b", attributes) is not None,
                "parallel": (re.findall(r"\bparallel (\w+)", attributes) or ["unsafe"])[0],
                "definer": "security definer" in attributes,
                "leakproof": re.search(r"\bleakproof\b", attributes) is not None,
                "settings": _settings(attributes),
                "arguments": names,
                "defaults": defaults,
                "body": body and hashlib.sha256(body.encode()).hexdigest(),
                "statement": statement,
            }
        elif statement.startswith("create or replace function"):
            raise SystemExit(f"build.py: not written as the manifest reads functions: {statement[:99]}")
        elif re.match(
            r"(create (or replace (view|trigger)|table|sequence|(unique )?index)|alter table)\b", statement
        ):
            made["relations"].append(statement)
        elif match := _GRANT.fullmatch(statement):
            privileges, kind, objects, roles = match.groups()
            made["grants"] += [
                [kind or "table", name + column, role, privilege.upper()]
                for name in _split(objects)
                for role in _split(roles)
                for privilege, *columns in map(str.split, _split(privileges))
                for column in ([f" ({column.strip('(,)')})" for column in columns] or [""])
            ]
        elif match := _ALTERED.fullmatch(statement):
            made["functions"][match[1]]["settings"] += _settings(match[2])
            made["functions"][match[1]]["statement"] += f"; {statement}"
        elif match := _OWNER.fullmatch(statement):
            made["owners"][match[1]] = match[2]
    return made


def _statements(script: str) -> list[str]:
    made, current = [], ""
    for piece in _PIECE.finditer(script[script.index("\n") :]):
        if piece[0] == ";":
            made.append(current.strip())
            current = ""
        elif not piece[0].startswith("--"):
            current += piece[0]
    return made


def _settings(text: str) -> list[str]:
    return [f"{key}={value.strip()}" for key, value in _SETTING.findall(text)]


def _arguments(text: str) -> tuple[list[str], list[str], int]:
    """Return the names of all arguments, the types of those that go in, and how many have a default."""
    names, types, defaults = [], [], 0
    for argument in _split(text):
        declared, *default = re.split(r"\s+default\s+", argument)
        words = declared.split()
        mode = words.pop(0) if words[0] in ("in", "out", "inout", "variadic") else "in"
        if len(words) > 1:
            names.append(words.pop(0))
        if mode != "out":
            types.append(" ".join(words))
        defaults += len(default)
    return names, types, defaults


def _split(text: str) -> list[str]:
    """Split at the commas outside parentheses."""
    parts = re.findall(r"(?:[^,()]|\((?:[^()]|\([^()]*\))*\))+", text)
    return [part.strip() for part in parts if part.strip()]


if __name__ == "__main__":
    for script in build(Path(sys.argv[1]) if len(sys.argv) > 1 else _SQL / "dist"):
        print(script)
