"""Build the extension's scripts: ``sql/dist/wardkey--VERSION.sql`` and one update script per delta.

Stateful objects (``tables/``) are made once and change by the deltas in ``updates/A--B.sql``; replaceable
ones (``functions/``) are written once and run again by every update. ``privileges.sql`` comes last.
``@VERSION@`` becomes the version, which is written in ``plpython/wardkey_pg/__init__.py``. Standard library
only: it runs before anything is installed.
"""

import re
import sys
from pathlib import Path

_SQL = Path(__file__).resolve().parent
# functions that others name in views, defaults or SQL-standard bodies come first
_FUNCTIONS = (
    "errors",
    "context",
    "sealing",
    "model_columns",
    "audit",
    "audit_writes",
    "model_names",
    "faces",
    "models",
    "unprotect",
    "keys",
    "tenants",
    "rotation",
    "resealing",
    "shredding",
    "issuers",
    "audit_retention",
    "audit_questions",
    "audit_export",
    "upsert",
    "counters",
    "events",
    "hardening",
)


def version() -> str:
    """Return the version of the module that stands beside these files."""
    for module in (_SQL.parent / "plpython/wardkey_pg", _SQL.parent.parent / "wardkey_pg"):
        if (module / "__init__.py").is_file():
            return str(re.findall(r'__version__ = "([^"]+)"', (module / "__init__.py").read_text())[0])
    raise SystemExit("build.py: wardkey_pg is not beside sql/")


def _read(path: Path) -> str:
    return f"-- {path.relative_to(_SQL)}\n\n{path.read_text().strip()}\n\n"


def _header(statement: str) -> str:
    # The server runs a script under the path of whoever installs it; operators in it are to be
    # PostgreSQL's own.
    echo = f'\\echo Use "{statement}" to load this file. \\quit'
    return f"{echo}\nset local search_path = pg_catalog, pg_temp;\n\n"


def _replaceable() -> str:
    functions = "".join(_read(_SQL / "functions" / f"{name}.sql") for name in _FUNCTIONS)
    return functions + _read(_SQL / "privileges.sql")


def update(delta: str, *, is_last: bool = True) -> str:
    """Return the update script with this delta of the tables; the last re-runs all replaceable objects."""
    return _header("alter extension wardkey update") + delta + (_replaceable() if is_last else "")


def build(target: Path) -> list[Path]:
    """Write all scripts into ``target`` and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    missing = {path.stem for path in (_SQL / "functions").glob("*.sql")} ^ set(_FUNCTIONS)
    if missing:
        raise SystemExit(f"build.py: functions/ and its order disagree about: {', '.join(sorted(missing))}")
    new = version()
    tables = "".join(_read(path) for path in sorted((_SQL / "tables").glob("*.sql")))
    scripts = {f"wardkey--{new}.sql": _header("create extension wardkey") + tables + _replaceable()}
    for delta in sorted((_SQL / "updates").glob("*.sql")):
        scripts[f"wardkey--{delta.name}"] = update(_read(delta), is_last=delta.stem.endswith(f"--{new}"))
    for name, text in scripts.items():
        (target / name).write_text(text.replace("@VERSION@", new))
    return [target / name for name in scripts]


if __name__ == "__main__":
    for script in build(Path(sys.argv[1]) if len(sys.argv) > 1 else _SQL / "dist"):
        print(script)
