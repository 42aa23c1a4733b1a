"""The keeper: who can reach it, what it trusts, and whether it is of this version."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wardkey_core import keeper_client as client
from wardkey_pg import __version__

from ..access import budgets, policy
from ..embedded import kms_choice
from ..errors import KeeperUnavailable, KeyRefused, ServerError, WardError
from ..identity import issuers
from ..kms import KmsConfigurationError, configured
from ._check import Check, Problem, Server

__all__ = ["CHECKS"]

_RESTART = "wardkey down; wardkey up"


def _socket(server: Server) -> Path | None:
    """Return the socket that backends use, None when it is not known or not on this host."""
    value = server.value("select max(value) from ward_internal.settings where name = 'keeper_socket'")
    return Path(value) if value and Path(value).exists() else None


def _status(server: Server) -> dict[str, Any] | None:
    path = _socket(server)
    try:
        return client.status(path) if path else None
    except (KeeperUnavailable, KeyRefused):
        return None


def _local(server: Server) -> bool:
    """Return whether the keeper that backends use is the one of this home."""
    return server.home is not None and _socket(server) == server.home.keeper_socket


def _answers(server: Server) -> Iterator[Problem]:
    path = _socket(server)
    if path is not None and _status(server) is None:
        yield Problem(str(path), "does not answer", _RESTART if _local(server) else "start the keeper")


def _version(server: Server) -> Iterator[Problem]:
    status = _status(server)
    if status is not None and status["version"] != __version__:
        yield Problem(
            "keeper",
            f"is of version {status['version']}, this is {__version__}",
            _RESTART if _local(server) else "restart the keeper with this version",
        )


def _socket_mode(server: Server) -> Iterator[Problem]:
    path = _socket(server)
    if path is not None and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o007:
        yield Problem(str(path), f"everybody may connect to it: mode {mode:04o}", f"chmod 660 {path}")


def _private(server: Server) -> Iterator[Problem]:
    if server.home is None or not _local(server):
        return
    for top in (server.home.keeper, server.home.orchestrator, server.home.issuer):
        for path in (top, *top.rglob("*")):  # nothing, where it is not ours to see, which is as it should be
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISLNK(status.st_mode):
                yield Problem(
                    str(path), "is a symbolic link: what it leads to others may change", f"rm {path}"
                )
            elif status.st_mode & 0o077 and not path.name.endswith("-ca.pem"):
                mode = stat.S_IMODE(status.st_mode)
                yield Problem(str(path), f"others may open it: mode {mode:04o}", f"chmod go= {path}")


def _kms_files(server: Server) -> Iterator[Problem]:
    if server.home is None or not _local(server):
        return
    lists = []
    for directory in (server.home.keeper, server.home.orchestrator):
        file = directory / configured.CONFIGURATION_FILE
        try:
            lists.append(configured.read(directory))
        except KmsConfigurationError as error:
            yield Problem(str(file), str(error), "wardkey kms use URI")
    if len(lists) == 2 and lists[0] != lists[1]:
        text = "the keeper's is not the orchestrator's, which wardkey kms show has"
        yield Problem(str(server.home.keeper / configured.CONFIGURATION_FILE), text, "wardkey kms use URI")


def _credentials(server: Server) -> Iterator[Problem]:
    """Say where the keeper's credential manages KEKs, because the orchestrator has none or the same."""
    if server.home is None or not _local(server):
        return
    keeper, orchestrator = kms_choice.sides(server.home)
    try:
        used = configured.read(orchestrator.directory)
    except KmsConfigurationError:
        return
    for entry in used.kms:
        if entry.is_left:
            continue
        tenant, uri = entry.tenant, entry.uri
        try:
            name = (kms_choice.credential_files(uri) or ("",))[0]
        except ServerError as error:
            yield Problem(uri, str(error), "install it, and restart the keeper")
            continue
        if not name:
            continue  # local:, which has no credentials
        own, other = (entry.directory(side.directory) / name for side in (keeper, orchestrator))
        slug = tenant and server.value("select slug from ward.tenants where id = %s", tenant)
        fix = f"wardkey kms use '{uri}'{f' --tenant {slug}' if slug else ''} --admin-credential FILE"
        if entry.admin is None:
            yield Problem(str(own.parent), "the orchestrator has no credential: the keeper manages KEKs", fix)
        elif own.exists() and other.exists() and own.read_bytes() == other.read_bytes():
            yield Problem(str(own), "is the orchestrator's credential too", fix)


def _issuers(server: Server) -> Iterator[Problem]:
    """Compare the issuers of database and keeper, where the keeper's directory is this home's."""
    if server.home is None or not _local(server):
        return
    try:
        known = issuers.registered(server.connection, server.home.keeper)
    except (WardError, OSError):
        yield Problem(str(server.home.keeper), "the keeper's issuers cannot be read", "run this as root")
        return
    config = server.home.config()
    embedded = f"wardkey:embedded:{config.id}" if config else None
    for name, entry in known.items():
        if entry["database"] and entry["keeper"]:
            continue
        if entry["database"]:
            text = "the keeper does not trust it, or trusts other keys: its tokens log in and get no key"
            again = (
                f"wardkey issuer add --issuer {name} --audience {entry['document']['audience']} --jwks-url …"
            )
            yield Problem(f"issuer {name}", text, "wardkey up" if name == embedded else again)
        else:
            yield Problem(
                f"issuer {name}",
                "the keeper trusts it, this database does not",
                f"wardkey issuer remove {name}",
            )


def _policies(server: Server) -> Iterator[Problem]:
    """Compare the policies of database and keeper, where the keeper's directory is this home's."""
    if server.home is None or not _local(server):
        return
    try:
        differing = policy.differences(server.connection, server.home.keeper)
    except (WardError, OSError):
        yield Problem(str(server.home.keeper), "the keeper's policy cannot be read", "run this as root")
        return
    for row in differing:
        access, writes = row["access"], " --write" if row["writes"] else " --no-write"
        yield Problem(
            f"{row['role']} and class {row['class']}",
            f"the database says {access}{', writes' if row['writes'] else ''}, the keeper {row['keeper']}",
            f"wardkey access policy set {row['role']} {row['class']} {access}{writes}",
        )


def _budgets(server: Server) -> Iterator[Problem]:
    """Compare the budgets of database and keeper, where the keeper's directory is this home's."""
    if server.home is None or not _local(server):
        return
    try:
        differing = budgets.differences(server.connection, server.home.keeper)
    except (WardError, OSError):
        yield Problem(str(server.home.keeper), "the keeper's budgets cannot be read", "run this as root")
        return
    for row in differing:
        options = f"--tenant {row['slug']} --role {row['role']}"
        further = f"--window {row['window']}s{' --distinct' if row['distinct'] else ''}"
        yield Problem(
            f"{row['slug']}, {row['role']}, {row['table']}",
            f"the database says {row['database'] or 'no budget'}, the keeper {row['keeper'] or 'none'}",
            f"wardkey access budget set {row['table']} {row['rows']} {options} {further}"
            if row["database"]
            else f"wardkey access budget drop {row['table']} {options}",
        )


def _regions(server: Server) -> Iterator[Problem]:
    status = _status(server)
    if status is None:
        return
    query = "select region, string_agg(slug, ', ' order by slug) from ward.tenants group by region order by 1"
    for region, slugs in server.connection.execute(query).fetchall():
        if region not in status.get("regions", ()):
            yield Problem(
                slugs,
                f"of region {region}, which the keeper does not serve",
                "move them to that region's server, or have the keeper serve it: wardkey up --region",
            )


def _provider(server: Server) -> Iterator[Problem]:
    status = _status(server)
    if status is not None and str(status.get("provider", "")).startswith("local"):
        yield Problem(
            "keeper", "keeps the tenants' KEKs on this host (provider local)", "for production, use a KMS"
        )


CHECKS = (
    Check("keeper-answers", "the keeper answers", _answers),
    Check("keeper-version", "the keeper is of this version", _version),
    Check("keeper-socket", "only the server's OS user can reach the keeper", _socket_mode),
    Check(
        "keeper-private", "nobody else can open the directories of keeper, orchestrator and issuer", _private
    ),
    Check(
        "kms-files",
        "kms.json of keeper and orchestrator can be used, and only they can change it",
        _kms_files,
    ),
    Check(
        "kms-credentials", "the keeper's credential uses KEKs, another one manages them", _credentials, "info"
    ),
    Check("issuers-agree", "database and keeper trust the same issuers", _issuers),
    Check("policies-agree", "database and keeper have the same access policy", _policies),
    Check("budgets-agree", "database and keeper have the same budgets", _budgets),
    Check("keeper-regions", "the keeper serves the regions of all tenants", _regions),
    Check("keeper-provider", "KEKs lie in a KMS, not on the database's host", _provider, "info"),
)
