"""A home out of a backup: on a new machine for good, or beside the old one as a drill.

Nothing of an attempt that failed stays: the home is removed again, so it has to be a new one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from ..audit import readmitting
from ..daemon.files import write_atomically
from ..daemon.programs import OsUser, run
from ..embedded import Cluster, Home, database
from ..errors import RestoreRefused, from_psycopg
from ..install import pythonpath
from ..install.software import Software
from ..tenants import provisioning as tenants
from .making import DUMP, MANIFEST, ROLES, STATE, digest, libpq_environment
from .proving import Proof, prove
from .sealed import identities, opened

__all__ = ["Restored", "drill", "restore"]

_DAY = 86400
# the role that initdb made, and commands of psql
_NOT_OURS = re.compile(r"^((CREATE|ALTER) ROLE postgres\b|\\).*\n", re.MULTILINE)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """A home that is restored and runs, or for a drill ran, and what opened in it."""

    home: str
    made_at: str
    readmitted: int
    tenants: list[Proof]

    @property
    def ok(self) -> bool:
        return all(one.error is None for one in self.tenants)


def restore(home: Home, backup: Path, identity: Path, rows: int | None, say: Say) -> Restored:
    """Make ``home`` out of ``backup``, start it, and prove it. Raises RestoreRefused, WardError, OSError."""
    return _restore(home, backup, identity, rows, say, is_drill=False)


def drill(home: Home, backup: Path, identity: Path, rows: int | None, say: Say) -> Restored:
    """Restore into a home beside ``home`` as a trial, prove it, take it away again; nothing goes to Kafka.

    The server's packages of ``home``, if it has them, spare installing them.
    """
    trial = Home(home.path.with_name(f"{home.path.name}.drill"))
    _remove(trial)  # of a drill that was killed
    try:
        if (home.python / pythonpath.STAMP).exists():
            trial.path.mkdir(parents=True)
            shutil.copytree(home.python, trial.python, symlinks=True)
        return _restore(trial, backup, identity, rows, say, is_drill=True)
    finally:
        _remove(trial)


def _restore(
    home: Home, backup: Path, identity: Path, rows: int | None, say: Say, *, is_drill: bool
) -> Restored:
    if home.exists or (not is_drill and home.path.exists() and any(home.path.iterdir())):
        raise RestoreRefused(f"there is something in {home.path}", "name a new --home")
    cluster = Cluster(home, say=say)
    by = identities(identity)
    try:
        manifest, roles = _unpack(home, backup, by, without=("publisher",) if is_drill else ())
        software = _software(manifest)
        if config := home.config():
            home.remember(replace(config, bindir=str(software.bindir)))
        with home.locked():
            config, software = cluster.make()
            _own(home)
            cluster.keeper.start()
            cluster.postgres.start(software, config)
            _load(cluster, software, backup / DUMP, roles)
            say("the dump is restored")
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            admin.execute("select ward.repair_tenant(slug) from ward.tenants where status <> 'shredded'")
        cluster.start()
        with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
            forked = list(readmitting.forked(admin, home.keeper_socket))
            for log in forked:
                readmitting.readmit(admin, home.keeper_socket, log, OsUser.current().name)
            _give_passwords(admin, home)
        say("every tenant is tried")
        proofs = list(prove(cluster, rows))
    except psycopg.Error as error:
        _remove(home)
        raise from_psycopg(error) from None
    except BaseException:
        _remove(home)
        raise
    return Restored(str(home.path), manifest["made_at"], len(forked), proofs)


def _unpack(home: Home, backup: Path, by: list[Any], without: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Write the state into the home; return the manifest and the roles."""
    files: dict[str, bytes] = {}
    tops = {"keeper", "orchestrator", "issuer", "publisher", "pgpass", "config.json"} - set(without)
    home.path.mkdir(parents=True, exist_ok=True)
    with (backup / STATE).open("rb") as stream, opened(stream, by) as entries:
        for name, content in entries:
            if name in (MANIFEST, ROLES):
                files[name] = content
                if name == MANIFEST and json.loads(content)["dump_sha256"] != digest(backup / DUMP):
                    raise RestoreRefused(
                        "the dump is not the one that the state was saved with", "use both as they were made"
                    )
            elif name.split("/")[0] in tops:
                path = home.path / name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(path, content)
    if files.keys() != {MANIFEST, ROLES}:
        raise RestoreRefused("the state has no manifest", "give a directory that wardkey backup made")
    return json.loads(files[MANIFEST]), files[ROLES].decode()


def _software(manifest: dict[str, Any]) -> Software:
    software = Software.newest()
    if software.major < manifest["postgresql"]:
        raise RestoreRefused(
            f"the dump is of PostgreSQL {manifest['postgresql']}, here is {software.major}",
            f"install PostgreSQL {manifest['postgresql']} or later with PL/Python",
        )
    return software


def _own(home: Home) -> None:
    """Give each directory and its files to whom they belong."""
    operator = OsUser.current()
    owners = {home.keeper: home.keeper_user(), home.publisher: home.publisher_user()}
    for top in (home.keeper, home.publisher, home.orchestrator, home.issuer):
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
