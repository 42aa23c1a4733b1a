"""A backup: the database as pg_dump writes it, and what it cannot be opened without, sealed.

::

    wardkey.dump     pg_dump --format=custom: sealed columns are ciphertext, all others are not
    state.tar.age    manifest.json, roles.sql and the directories keeper/, orchestrator/, issuer/, publisher/
    manifest.json    when, of which versions, SHA-256 of the dump; the sealed one is believed

The state is read after the dump: it has every key that the dump needs, but those destroyed meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from wardkey_pg import __version__

from ..daemon.files import new_file, sync_directory
from ..daemon.programs import clean_environment, run
from ..daemon.sessions import connect
from ..embedded import Cluster, Home
from ..errors import ServerError
from ..install.software import Software
from .sealed import Entry, pack, recipients

__all__ = ["DUMP", "MANIFEST", "ROLES", "STATE", "Made", "back_up", "digest", "libpq_environment", "sources"]

DUMP, STATE, MANIFEST, ROLES = "wardkey.dump", "state.tar.age", "manifest.json", "roles.sql"
_DAY = 86400
_LIBPQ = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


@dataclass(frozen=True, slots=True)
class Made:
    """Where the backup is, and how large: bytes of the dump and of the sealed state."""

    directory: str
    made_at: str
    dump_bytes: int
    state_bytes: int
    state_files: int


def back_up(
    dsn: str,
    software: Software,
    state: Mapping[str, Path],
    directory: Path,
    to: Sequence[str],
    say: Callable[[str], None] = lambda text: None,
) -> Made:
    """Write a backup into ``directory``, which is made: whole, or not at all.

    ``state``: directories or files by their name in the archive. ``to``: age recipients. Raises ServerError,
    MissingSoftware, OSError.
    """
    sealed_to = recipients(to)
    if os.path.lexists(directory):
        raise ServerError(f"there is something already: {directory}", "name a directory that is not there")
    if not any(path.exists() for path in state.values()):
        raise ServerError("the keeper's directory is not here", "name it with --keeper-directory")
    draft = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    try:
        environment = libpq_environment(dsn)
        dump = [software.program("pg_dump"), "--format=custom", f"--file={draft / DUMP}"]
        run(dump, "pg_dump", environment=environment, timeout=_DAY)
        say("the database is dumped")
        roles = run([software.program("pg_dumpall"), "--globals-only"], "pg_dumpall", environment=environment)
        made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = {"wardkey": __version__, "postgresql": software.major, "made_at": made_at}
        manifest = json.dumps({**facts, "dump_sha256": digest(draft / DUMP)}, indent=2).encode()
        files = list(_files(state))
        entries: list[Entry] = [(MANIFEST, manifest), (ROLES, roles.encode()), *files]
        for name in (DUMP, MANIFEST):
            (draft / name).touch()
            (draft / name).chmod(0o600)
        (draft / MANIFEST).write_bytes(manifest)
        with new_file(draft / STATE) as stream:
            pack(entries, sealed_to, stream)
        say("the state of keeper and orchestrator is sealed")
        dump_bytes, state_bytes = ((draft / name).stat().st_size for name in (DUMP, STATE))
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_directory(directory.parent)
    _record(dsn, made_at, dump_bytes, state_bytes)
    return Made(str(directory), made_at, dump_bytes, state_bytes, len(files))


def _record(dsn: str, made_at: str, dump_bytes: int, state_bytes: int) -> None:
    """Remember that there is a backup of then: an alert is raised where the newest is old."""
    statement = "insert into ward_internal.backups (made_at, dump_bytes, state_bytes) values (%s, %s, %s)"
    with connect(dsn, "wardkey") as connection:
        connection.execute(statement, [made_at, dump_bytes, state_bytes])


def sources(
    home: Home, dsn: str | None, keeper: Path | None, orchestrator: Path | None
) -> tuple[Software, dict[str, Path]]:
    """Return the programs for a home's server, or the one at ``dsn``, and where its state is."""
    if dsn is None:
        names = ("keeper", "orchestrator", "issuer", "publisher", "pgpass", "config.json")
        return Cluster(home).software, {name: home.path / name for name in names}
    given = {"keeper": keeper, "orchestrator": orchestrator}
    return Software.newest(), {name: path for name, path in given.items() if path is not None}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def libpq_environment(dsn: str) -> dict[str, str]:
    """Return the environment by which programs connect: a password in it is in no list of processes."""
    given = conninfo_to_dict(dsn)
    return clean_environment(**{_LIBPQ[name]: str(value) for name, value in given.items() if name in _LIBPQ})


def _files(state: Mapping[str, Path]) -> Iterator[Entry]:
    for name, top in state.items():
        paths: Any = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in paths:
            if (
                not path.name.endswith(".lock")
                and os.path.lexists(path)
                and stat.S_ISREG(path.lstat().st_mode)
            ):
                yield (name if path == top else f"{name}/{path.relative_to(top)}"), path
