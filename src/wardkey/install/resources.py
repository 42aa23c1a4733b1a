"""Where the SQL scripts and migrations are: at the top of a checkout, or inside the installed package."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

__all__ = [
    "check_page",
    "extension_files",
    "manifest",
    "measure",
    "migrations",
    "rule_page",
    "runbooks",
    "sql",
]

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parent.parent


def sql() -> Path:
    """Return the directory of the extension's sources."""
    return _find("sql", "_sql")


def migrations() -> Path:
    """Return the directory of the Alembic migrations."""
    return _find("migrations", "_migrations")


def check_page(name: str) -> str:
    """Return the page of a check of the doctor."""
    return (_find("docs/checks", "_checks") / f"{name}.md").read_text("utf-8")


def rule_page(name: str) -> str:
    """Return the page of a rule of lint."""
    return (_find("docs/rules", "_rules") / f"{name}.md").read_text("utf-8")


def runbooks() -> dict[str, str]:
    """Return the runbook of each alert, by the name of its page."""
    pages = sorted(_find("docs/runbooks", "_runbooks").glob("*.md"))
    return {page.stem: page.read_text("utf-8") for page in pages if page.stem != "index"}


def measure(name: str) -> str:
    """Return the query of a measure over the reference clinic."""
    return (_find("docs/examples", "_measures") / f"{name}.sql").read_text("utf-8")


def extension_files() -> dict[str, bytes]:
    """Build the extension and return the files that belong into the server's share directory, by name."""
    build = runpy.run_path(str(sql() / "build.py"))["build"]
    with tempfile.TemporaryDirectory(prefix="wardkey-") as directory:
        scripts = {script.name: script.read_bytes() for script in build(Path(directory))}
    return {"wardkey.control": (sql() / "wardkey.control").read_bytes(), **scripts}


def manifest() -> dict[str, Any]:
    """Build the extension and return what it is to be, once installed: see ``manifest`` in build.py."""
    build = runpy.run_path(str(sql() / "build.py"))
    (script,) = (text for name, text in extension_files().items() if name.count("--") == 1)
    made: dict[str, Any] = build["manifest"](script.decode())
    return made


def _find(in_checkout: str, in_package: str) -> Path:
    packaged = _PACKAGE / in_package
    return packaged if packaged.is_dir() else _CHECKOUT / in_checkout
