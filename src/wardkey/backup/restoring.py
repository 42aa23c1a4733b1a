"""A home out of a backup: on a new machine for good, or beside the old one as a drill.

Nothing of an attempt that failed stays: the home is removed again, so it has to be a new one. What of it is
left when it was killed has a file ``restoring``: such a home does not start, and the next attempt removes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from wardkey_pg import __version__

from ..audit import readmitting
from ..daemon.files import locked, write_atomically
from ..daemon.programs import OsUser, piped, run
from ..embedded import Cluster, Home, database
from ..embedded.home import free_port, port_is_free
from ..errors import RestoreRefused, from_psycopg
from ..install import pythonpath
from ..install.software import Software
from ..keeper import ledger
from ..keys.kek import Keks
from ..tenants import provisioning as tenants
from ..tenants import shredding
from .kms_seal import KmsChoice, identity
from .making import BASE, DUMP, MANIFEST, ROLES, STATE, digest, libpq_environment
from .proving import Proof, prove
from .sealed import identities, open_stream, opened

__all__ = ["Opening", "Restored", "drill", "restore"]

_DAY = 86400
_TOPS = frozenset(
    ["keeper", "orchestrator", "issuer", "publisher", "invalidator", "pgpass", "config.json", ROLES, MANIFEST]
)
_NOT_IN_DRILLS = frozenset(["publisher", "invalidator"])  # Kafka and Redis are those of the living server
_ALONE = {"archive_mode": "off", "synchronous_standby_names": "''"}  # so are its archive and its standbys
# the role that initdb made, and commands of psql
_NOT_OURS = re.compile(r"^((CREATE|ALTER) ROLE postgres\b|\\).*\n", re.MULTILINE)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens a backup: a file of age, or a KMS. ``ledger``: of a keeper that went on after the backup."""

    key: Path | KmsChoice
    ledger: Path | None = None

    def identities(self, facts: dict[str, Any]) -> list[Any]:
        """Raises RestoreRefused, ServerError, OSError."""
        if isinstance(self.key, Path):
            return identities(self.key)
        return [identity(self.key, facts.get("kms"))]


@dataclass(frozen=True, slots=True)
class Restored:
    """A home that is restored and runs, or for a drill ran, and what opened in it.

    ``shredded``: tenants that were living in the backup, and were shredded again after the later ledger.
    """

    home: str
    id: str
    made_at: str
    method: str
    readmitted: int
    shredded: list[str]
    tenants: list[Proof]

    @property
    def ok(self) -> bool:
        return all(one.error is None for one in self.tenants)


def restore(home: Home, backup: Path, by: Opening, rows: int | None, say: Say) -> Restored:
    """Make ``home`` out of ``backup``, start it, and prove it. Raises RestoreRefused, WardError, OSError."""
    home.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(home.path.parent):  # one after the other: what is there may be another's, at work
        if home.restoring.exists():
            _remove(home)  # of a restore that was killed
        if home.exists or (home.path.exists() and any(home.path.iterdir())):
            raise RestoreRefused(f"there is something in {home.path}", "name a new --home")
        return _restore(Cluster(home, say=say, is_restoring=True), backup, by, rows, say, is_drill=False)


def drill(home: Home, backup: Path, by: Opening, rows: int | None, say: Say) -> Restored:
    """Restore into a home beside ``home`` as a trial, prove it, take it away again.

    Nothing goes to Kafka, Redis or a WAL archive. The server's packages of ``home``, if it has them, spare
    installing them.
    """
    trial = Home(home.path.with_name(f"{home.path.name}.drill"))
    trial.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(trial.path.parent):
        _remove(trial)  # of a drill that was killed
        try:
            if (home.python / pythonpath.STAMP).exists():
                trial.path.mkdir()
                shutil.copytree(home.python, trial.python, symlinks=True)
            cluster = Cluster(trial, settings=_ALONE, say=say, is_restoring=True)
            return _restore(cluster, backup, by, rows, say, is_drill=True)
        finally:
            _remove(trial)


def _restore(
    cluster: Cluster, backup: Path, by: Opening, rows: int | None, say: Say, *, is_drill: bool
) -> Restored:
    home = cluster.home
    try:
        facts = _check(backup)
        opener = by.identities(facts)
        home.path.mkdir(parents=True, exist_ok=True)
        home.restoring.touch()
        tops = _TOPS - (_NOT_IN_DRILLS if is_drill else set())
        manifest, roles = _unpack(home, backup, opener, tops, facts["files"])
        software = _software(home, manifest)
        _configure(home, software, is_drill=is_drill)
        if by.ledger is not None:
            ledger.replay(home.keeper / ledger.LEDGER_FILE, by.ledger)
        with home.locked():
            if manifest["method"] == "base":
                _unpack_base(home, backup, opener)
            config, software = cluster.make()
            _own(home)
            if manifest["method"] == "dump":
                cluster.keeper.start()
                cluster.postgres.start(software, config)
                _load(cluster, software, backup / DUMP, roles)
        say("the database is restored")
        if manifest["method"] == "dump":
            with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
                admin.execute("select ward.repair_tenant(slug) from ward.tenants where status <> 'shredded'")
        cluster.start()
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            forked = list(readmitting.forked(admin, home.keeper_socket))
            for log in forked:
                readmitting.readmit(admin, home.keeper_socket, log, OsUser.current().name)
            _give_passwords(admin, home)
            shredded = [] if is_drill else _shred_again(admin, home, say)
        say("every tenant is tried")
        proofs = list(prove(cluster, rows))
        home.restoring.unlink()
    except psycopg.Error as error:
        _remove(home)
        raise from_psycopg(error) from None
    except BaseException:
        _remove(home)
        raise
    named = {name: manifest[name] for name in ("id", "made_at", "method")}
    return Restored(str(home.path), **named, readmitted=len(forked), shredded=shredded, tenants=proofs)


def _check(backup: Path) -> dict[str, Any]:
    """Return what the manifest says, if the files are as it has them. Raises RestoreRefused."""
    try:
        facts: dict[str, Any] = json.loads((backup / MANIFEST).read_bytes())
        if _version(facts["wardkey"]) > _version(__version__):
            raise RestoreRefused(
                f"the backup is of wardkey {facts['wardkey']}, here is {__version__}",
                f"pip install 'wardkey>={facts['wardkey']}'",
            )
        for name in (DUMP if facts["method"] == "dump" else BASE, STATE):
            if digest(backup / name) != facts["files"][name]:
                raise RestoreRefused(
                    f"{backup / name} was changed or cut off since it was made", "use another copy of it"
                )
    except FileNotFoundError as error:
        raise RestoreRefused(
            f"there is no {error.filename}", "give a whole directory that wardkey backup made"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RestoreRefused(
            f"{backup / MANIFEST} is no manifest", "give a directory that wardkey backup made"
        ) from None
    return facts


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _unpack(
    home: Home, backup: Path, by: Sequence[Any], tops: frozenset[str], checked: dict[str, str]
) -> tuple[dict[str, Any], str]:
    """Write the state into the home; return the manifest and the roles. ``checked``: digests of the files."""
    files: dict[str, bytes] = {}
    with (backup / STATE).open("rb") as stream, opened(stream, by) as entries:
        for name, content in entries:
            if name in (MANIFEST, ROLES):
                files[name] = content
            elif name.split("/")[0] in tops:
                path = home.path / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(path, content)
    if files.keys() != {MANIFEST, ROLES}:
        raise RestoreRefused("the state has no manifest", "give a directory that wardkey backup made")
    manifest: dict[str, Any] = json.loads(files[MANIFEST])
    for name, sha256 in manifest["files"].items():
        if checked.get(name) != sha256:
            raise RestoreRefused(
                f"{name} is not the one that the state was saved with", "use both as they were made"
            )
    return manifest, files[ROLES].decode()


def _unpack_base(home: Home, backup: Path, by: Sequence[Any]) -> None:
    """Write the data directory, which is there when all of it is."""
    home.make_directories()
    draft, user = home.path / "postgres.new", home.server_user()
    draft.mkdir(mode=0o700)
    os.chown(draft, user.uid, user.gid)
    take = ["tar", "--extract", "--no-same-owner", f"--directory={draft}"]
    with (backup / BASE).open("rb") as stream, piped(take, "tar", user=user, is_read=False) as pipe:
        open_stream(stream, pipe, by)
    draft.rename(home.data)


def _software(home: Home, manifest: dict[str, Any]) -> Software:
    """Return the programs: for a base backup of the same major version, for a dump of that or a later one."""
    major, config = manifest["postgresql"], home.config()
    software = (config and Software.at(Path(config.bindir))) or Software.newest()
    if software.major < major or (manifest["method"] == "base" and software.major != major):
        later = "" if manifest["method"] == "base" else " or later"
        raise RestoreRefused(
            f"the backup is of PostgreSQL {major}, here is {software.major}",
            f"install PostgreSQL {major}{later} with PL/Python",
        )
    return software


def _configure(home: Home, software: Software, *, is_drill: bool) -> None:
    if config := home.config():
        metrics = None if is_drill else config.metrics_port
        if metrics is not None and not port_is_free(metrics):
            metrics = free_port()
        home.remember(replace(config, bindir=str(software.bindir), metrics_port=metrics))


def _shred_again(admin: psycopg.Connection[Any], home: Home, say: Say) -> list[str]:
    """Shred the tenants that the ledger has and the database does not know as shredded."""
    ended = ledger.tombstones(home.keeper / ledger.LEDGER_FILE)
    query = "select id, slug from ward.tenants where status <> 'shredded' order by slug"
    slugs = [slug for tenant, slug in admin.execute(query).fetchall() if (tenant, None) in ended]
    keks, operator = Keks(home.orchestrator, home.keeper_socket), OsUser.current().name
    for slug in slugs:
        code = shredding.what_goes(admin, slug, keks)["code"]
        shredding.shred(admin, keks, home.keeper_socket, slug, code, operator, say)
    return slugs


def _own(home: Home) -> None:
    """Give each directory and its files to whom they belong."""
    operator = OsUser.current()
    owners = {home.keeper: home.keeper_user(), home.publisher: home.publisher_user()}
    owners |= {home.invalidator: home.invalidator_user()}
    for top in (*owners, home.orchestrator, home.issuer):
        user = owners.get(top, operator)
        for path in (top, *top.rglob("*")):
            os.chown(path, user.uid, user.gid)
            path.chmod(0o700 if path.is_dir() else 0o600)


def _load(cluster: Cluster, software: Software, dump: Path, roles: str) -> None:
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as admin:
        admin.execute(_NOT_OURS.sub("", roles).encode())
        admin.execute(
            sql.SQL("create database {} template template0 encoding 'UTF8'").format(
                sql.Identifier(database.NAME)
            )
        )
    command = [software.program("pg_restore"), "--exit-on-error", f"--dbname={database.NAME}", str(dump)]
    run(command, "pg_restore", environment=libpq_environment(cluster.dsn()), timeout=_DAY)


def _give_passwords(admin: psycopg.Connection[Any], home: Home) -> None:
    """Give the login roles that no password file here knows a new password: the backup had only verifiers."""
    known = home.pgpass.read_text() if home.pgpass.exists() else ""
    query = "select slug, login_role::text from ward.tenants where status <> 'shredded'"
    for slug, role in admin.execute(query).fetchall():
        if f":{role}:" not in known:
            tenants.set_password(admin, slug, tenants.passfile_keeper(home.pgpass))


def _remove(home: Home) -> None:
    Cluster(home).stop()
    shutil.rmtree(home.path, ignore_errors=True)
