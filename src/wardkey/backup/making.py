"""A backup: the database, and what it cannot be opened without, sealed.

::

    base.tar.age     what pg_basebackup sends, sealed: the whole cluster, with its WAL and password verifiers
    wardkey.dump     or, if asked for, pg_dump's custom format: sealed columns are ciphertext, others are not
    state.tar.age    manifest.json, roles.sql and the directories of keeper, orchestrator and others, sealed
    manifest.json    when, of what, SHA-256 of the files; of these members the sealed one's are believed

The order is what makes it consistent. First the database, then the state: keys are made in the KMS and in
the keeper before a row needs them, so a later state has every key that an earlier database needs. Those that
were destroyed in between it lacks: of a tenant that was shredded this is as it has to be, of a version of a
living tenant's key the backup is refused. Nothing is locked; writes and rotations go on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from psycopg.conninfo import conninfo_to_dict
from wardkey_pg import __version__

from ..daemon.files import new_file, sync_directory, write_atomically
from ..daemon.programs import clean_environment, piped, run
from ..daemon.sessions import connect
from ..embedded import Cluster, Home, database
from ..errors import ServerError
from ..install.software import Software
from ..keeper.ledger import LEDGER_FILE, tombstones
from .kms_seal import KmsChoice, recipient
from .sealed import Entry, pack, recipients, seal_stream

__all__ = [
    "BASE",
    "DUMP",
    "MANIFEST",
    "ROLES",
    "STATE",
    "Made",
    "Source",
    "back_up",
    "digest",
    "libpq_environment",
    "source",
]

BASE, DUMP, STATE = "base.tar.age", "wardkey.dump", "state.tar.age"
MANIFEST, ROLES = "manifest.json", "roles.sql"
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
class Source:
    """What is backed up: the database at ``dsn``, its programs, and files or directories by their name."""

    dsn: str
    software: Software
    state: Mapping[str, Path]

    @property
    def keeper(self) -> Path:
        return self.state.get("keeper", Path("/nonexistent"))


@dataclass(frozen=True, slots=True)
class Made:
    """Where the backup is, and how large: bytes of the database and of the sealed state.

    ``files``: in the state.
    """

    directory: str
    id: str
    made_at: str
    method: str
    tenants: int
    lsn: str
    database_bytes: int
    state_bytes: int
    files: int


def back_up(
    source: Source,
    directory: Path,
    to: Sequence[str],
    kms: KmsChoice | None = None,
    say: Callable[[str], None] = lambda text: None,
    *,
    dump: bool = False,
) -> Made:
    """Write a backup into ``directory``, which is made: whole, or not at all.

    ``to``: age recipients; ``kms``: may open it too. ``dump``: with pg_dump. Raises ServerError,
    MissingSoftware, OSError, psycopg.Error.
    """
    sealed_to, envelope = recipients(to), None
    if os.path.lexists(directory):
        raise ServerError(f"there is something already: {directory}", "name a directory that is not there")
    if not any(path.exists() for path in source.state.values()):
        raise ServerError("the keeper's directory is not here", "name it with --keeper-directory")
    if kms is not None:
        opener, envelope = recipient(kms)
        sealed_to.append(opener)
    with _draft(directory) as draft:
        destroyed = tombstones(source.keeper / LEDGER_FILE).keys()
        facts = _facts(source, "dump" if dump else "base")
        name = (_dump if dump else _base)(source, draft, sealed_to)
        say("the database is backed up")
        environment = libpq_environment(source.dsn)
        roles = run(
            [source.software.program("pg_dumpall"), "--globals-only"], "pg_dumpall", environment=environment
        )
        facts["files"] = {name: digest(draft / name)}
        files = list(_files(source.state))
        entries: list[Entry] = [(MANIFEST, json.dumps(facts).encode()), (ROLES, roles.encode()), *files]
        with new_file(draft / STATE) as stream:
            pack(entries, sealed_to, stream)
        _refuse_destroyed(tombstones(source.keeper / LEDGER_FILE).keys() - destroyed)
        say("the state of keeper and orchestrator is sealed")
        facts["files"] |= {STATE: digest(draft / STATE)}
        facts |= {"kms": envelope} if envelope else {}
        write_atomically(draft / MANIFEST, json.dumps(facts, indent=2).encode())
        sizes = [(draft / each).stat().st_size for each in (name, STATE)]
        draft.rename(directory)
    sync_directory(directory.parent)
    shown = {each: facts[each] for each in ("id", "made_at", "method", "tenants", "lsn")}
    made = Made(str(directory), **shown, database_bytes=sizes[0], state_bytes=sizes[1], files=len(files))
    _record(source.dsn, made)
    return made


@contextmanager
def _draft(directory: Path) -> Iterator[Path]:
    """Yield a directory, locked while it is written and gone at the end; those of killed runs go, too."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in directory.parent.glob(".*.wardkey.partial"):
        descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            pass  # of one that is at work
        finally:
            os.close(descriptor)
    draft = directory.with_name(f".{directory.name}.{os.urandom(4).hex()}.wardkey.partial")
    draft.mkdir(mode=0o700)
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield draft
    finally:
        os.close(descriptor)
        shutil.rmtree(draft, ignore_errors=True)


def _facts(source: Source, method: str) -> dict[str, Any]:
    with connect(source.dsn, "wardkey", autocommit=True) as connection:
        row = connection.execute(
            "select current_database(), pg_current_wal_lsn()::text,"
            " (select count(*) from ward.tenants where status <> 'shredded')"
        ).fetchone()
    name, lsn, tenants = row or ("", "", 0)
    if method == "base" and name != database.NAME:
        raise ServerError(
            f"the database is called {name}: out of a base backup only {database.NAME} is restored",
            "back it up with --dump",
        )
    return {
        "id": str(uuid4()),
        "made_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "wardkey": __version__,
        "postgresql": source.software.major,
        "method": method,
        "lsn": lsn,
        "tenants": tenants,
    }


def _base(source: Source, draft: Path, to: Sequence[Any]) -> str:
    take = [source.software.program("pg_basebackup"), "--pgdata=-", "--format=tar", "--wal-method=fetch"]
    take += ["--checkpoint=fast", "--no-manifest"]
    slot = "select pg_create_physical_replication_slot(%s, true, true)"  # keeps the WAL until it is fetched
    environment, hint = (
        libpq_environment(source.dsn),
        "no right to replicate, or tablespaces: --dump",
    )
    with connect(source.dsn, "wardkey", autocommit=True) as held, new_file(draft / BASE) as stream:
        held.execute(slot, [f"wardkey_backup_{os.getpid()}"])
        with piped(take, "pg_basebackup", environment=environment, hint=hint, is_read=True) as base:
            seal_stream(base, stream, to)
    return BASE


def _dump(source: Source, draft: Path, to: Sequence[Any]) -> str:
    write_atomically(draft / DUMP, b"")  # pg_dump keeps the mode
    dump = [source.software.program("pg_dump"), "--format=custom", f"--file={draft / DUMP}"]
    run(dump, "pg_dump", environment=libpq_environment(source.dsn), timeout=_DAY)
    return DUMP


def _refuse_destroyed(since: set[tuple[Any, int | None]]) -> None:
    if any(version is not None for _, version in since):
        raise ServerError(
            "a version of a key was destroyed meanwhile: rows of the backup may need it",
            "run wardkey backup again",
        )


def _record(dsn: str, made: Made) -> None:
    """Remember that there is a backup of then: an alert is raised where the newest is old."""
    statement = (
        "insert into ward_internal.backups (id, made_at, database_bytes, state_bytes) values (%s, %s, %s, %s)"
    )
    with connect(dsn, "wardkey") as connection:
        connection.execute(statement, [made.id, made.made_at, made.database_bytes, made.state_bytes])


def source(home: Home, dsn: str | None, keeper: Path | None, orchestrator: Path | None) -> Source:
    """Return the embedded server of a home, or the one at ``dsn``, and where its state is."""
    names = ("keeper", "orchestrator", "issuer", "publisher", "invalidator", "pgpass", "config.json")
    if dsn is None:
        cluster = Cluster(home).require_running()
        return Source(cluster.dsn(), cluster.software, {name: home.path / name for name in names})
    given = {"keeper": keeper, "orchestrator": orchestrator}
    state = {name: path for name, path in given.items() if path is not None}
    if state:  # what `wardkey kafka use` and `wardkey cache use` wrote is in the home, with --dsn too
        state |= {name: home.path / name for name in ("publisher", "invalidator")}
    return Source(dsn, Software.newest(), state)


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
