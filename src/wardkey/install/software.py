"""The PostgreSQL on this machine: programs, interpreter, and the extension's files in its share directory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..daemon.programs import run
from ..errors import MissingSoftware, ServerError
from . import resources

__all__ = ["OLDEST", "Software"]

OLDEST = 15
_APT = "on Debian and Ubuntu: make demo installs it; else: PostgreSQL with PL/Python"


@dataclass(frozen=True, slots=True)
class Software:
    """A PostgreSQL installation with PL/Python."""

    bindir: Path
    major: int
    sharedir: Path
    pkglibdir: Path

    @classmethod
    def newest(cls) -> Software:
        """Return the newest installation that will do. Raises MissingSoftware with the mending command."""
        installed = [software for bindir in _bindirs() if (software := cls.at(bindir))]
        usable = [software for software in installed if software.has_plpython]
        if usable:
            return max(usable, key=lambda software: software.major)
        if installed:
            major = max(software.major for software in installed)
            raise MissingSoftware(
                f"PostgreSQL {major} is here, PL/Python is not",
                f"apt-get install postgresql-plpython3-{major}",
            )
        raise MissingSoftware(f"PostgreSQL {OLDEST} or later is not installed", _APT)

    @classmethod
    def at(cls, bindir: Path) -> Software | None:
        """Return the installation with this directory of programs, None when it is none or too old."""
        if not all((bindir / name).exists() for name in ("postgres", "initdb", "pg_ctl", "pg_config")):
            return None
        facts = run([str(bindir / "pg_config")], "pg_config failed")
        values = dict(re.findall(r"^(\w+) = (.*)$", facts, re.MULTILINE))
        version = re.match(r"PostgreSQL (\d+)", values.get("VERSION", ""))
        if version is None or int(version[1]) < OLDEST:
            return None
        return cls(bindir, int(version[1]), Path(values["SHAREDIR"]), Path(values["PKGLIBDIR"]))

    @property
    def has_plpython(self) -> bool:
        return (self.pkglibdir / "plpython3.so").exists()

    @property
    def interpreter(self) -> Path:
        """The interpreter of the Python that PL/Python embeds; it installs packages for the server."""
        linked = run(["ldd", str(self.pkglibdir / "plpython3.so")], "cannot inspect plpython3.so")
        version = re.search(r"libpython(3\.\d+)", linked)
        candidate = Path(f"/usr/bin/python{version[1]}" if version else "/usr/bin/python3")
        if candidate.exists():  # no other will do: packages are compiled for one version
            return candidate
        raise MissingSoftware(
            "the interpreter that PL/Python embeds is not installed",
            f"apt-get install {candidate.name} python3-pip",
        )

    def program(self, name: str) -> str:
        return str(self.bindir / name)

    def install_extension(self) -> bool:
        """Put the extension's files where CREATE EXTENSION finds them; True when something was written."""
        directory = self.sharedir / "extension"
        wanted = resources.extension_files()
        stale = {name: data for name, data in wanted.items() if _content(directory / name) != data}
        if stale and not os.access(directory, os.W_OK):
            raise ServerError(
                f"the extension's files in {directory} are missing or of another version",
                f"sudo make install PG_CONFIG={self.bindir / 'pg_config'}",
            )
        for name, data in stale.items():
            draft = directory / f".{name}.new"
            draft.write_bytes(data)
            draft.chmod(0o644)
            draft.replace(directory / name)
        return bool(stale)


def _bindirs() -> Iterator[Path]:
    if given := os.environ.get("PG_CONFIG"):
        yield Path(run([given, "--bindir"], f"{given} failed").strip())
        return
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    yield from Path("/usr").glob("pgsql-*/bin")
    if program := shutil.which("pg_config"):
        yield Path(run([program, "--bindir"], "pg_config failed").strip())


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
