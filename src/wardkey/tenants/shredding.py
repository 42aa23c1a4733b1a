"""The end of a tenant: its keys are destroyed for good, and a certificate says so.

Steps, in this order; whatever ends the run, the next one does all of them again, and none harms twice:

1. the database refuses every login of the tenant, and remembers what is to go (``begin_shredding``);
2. its login role may connect no more, and its connections end;
3. the keeper's ledger has the tenant: no key of it is released again, whatever backup is restored;
4. the KMS destroys its KEK, or schedules that;
5. the keeper signs the certificate;
6. the database drops the ward and its role, forgets the wrapped keys and keeps the certificate.

Step 4 wants an answer of the KMS. Where that is gone for good, the operator says so (``gone``): then whatever
can still be asked is, and the certificate says that the KEK may still be there, which nobody can rule out.

What stays: the tenant's row, whose slug is not given again, its events, and the certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_pg import __version__

from .. import kms
from ..errors import KeyInUse, ServerError, WardError
from ..keys.kek import Keks
from ..kms import KekVersion, KmsConfigurationError
from .certificate import Certificate, statement_text

__all__ = ["finished", "proceed", "shred", "what_goes"]

Connection = psycopg.Connection[Any]
Facts = dict[str, Any]

_ENDING = 10_000  # milliseconds that a connection is given to end
_DERIVED = "master"  # stands for the KEK of a key that was derived
_UNREPORTED = "destruction accepted, not reported any more"
_UNASKED = "unknown: the KMS could not be asked"


@dataclass(frozen=True, slots=True)
class _KmsAnswer:
    """What the KMS says of the tenant's KEK. ``unasked``: why it could not be asked."""

    versions: tuple[KekVersion, ...] = ()
    unasked: str | None = None


def what_goes(connection: Connection, slug: str, keks: Keks, *, gone: str | None = None) -> Facts:
    """Return what shredding would destroy, and the ``code`` that confirms it.

    ``tables`` with their rows, ``keys``, ``keks`` as the KMS reports them, what ``remains``; ``begun_at``
    when a run was interrupted. ``gone``: why the KMS need not answer. Changes nothing. Raises psycopg.Error
    (WK203), KeyRefused, KeeperUnavailable.
    """
    with connection.transaction():
        row = connection.execute("select ward_internal.shredding_facts(%s)", [slug]).fetchone()
    facts: Facts = row[0] if row else {}
    tenant = UUID(facts["tenant"])
    answer = _ask(keks, facts, gone)
    reported = [{"version": each.version, "state": each.state, **_times(each)} for each in answer.versions]
    return {
        **facts,
        "keks": reported,
        "remains": _remains(facts, answer, _schemes(connection, facts)),
        "begun_at": _begun_at(connection, tenant),
    }


def proceed(
    connection: Connection,
    keks: Keks,
    keeper: Path,
    slug: str,
    code: str | None,
    operator: str,
    say: Callable[[str], None] = lambda text: None,
    *,
    gone: str | None = None,
) -> Certificate | Facts:
    """Do ``what_goes`` without a code, ``shred`` with one; when all is done, return the certificate."""
    if (certificate := finished(connection, slug)) is not None:
        return certificate
    if code is None:
        return what_goes(connection, slug, keks, gone=gone)
    return shred(connection, keks, keeper, slug, code, operator, say, gone=gone)


def finished(connection: Connection, slug: str) -> Certificate | None:
    """Return the certificate of a tenant that was shredded, None of any other."""
    row = connection.execute(
        "select s.certificate from ward_internal.shreddings as s join ward_internal.tenants as t"
        " on t.id = s.tenant_id where t.slug = %s and s.finished_at is not null",
        [slug],
    ).fetchone()
    return Certificate.from_document(row[0]) if row else None


def shred(
    connection: Connection,
    keks: Keks,
    keeper: Path,
    slug: str,
    code: str,
    operator: str,
    say: Callable[[str], None] = lambda text: None,
    *,
    gone: str | None = None,
) -> Certificate:
    """Destroy the tenant's keys and ward and return the certificate; the one there is, if it was done before.

    ``connection``: a superuser's, autocommit. ``keeper``: its socket. ``code``: of ``what_goes``. ``say`` is
    told each step that is done. ``gone``: why the KMS will never answer again, for the certificate. Raises
    psycopg.Error (WK211 not the code), KeyRefused, KeeperUnavailable, KeyInUse, ServerError.
    """
    if (certificate := finished(connection, slug)) is not None:
        return certificate
    _check_keeper(connection, keeper)
    row = connection.execute("select ward_internal.begin_shredding(%s, %s)", [slug, code]).fetchone()
    facts: Facts = row[0] if row else {}
    tenant = UUID(facts["tenant"])
    say(f"{slug}: every login is refused")
    _end_connections(connection, facts["login_role"])
    say(f"{slug}: its connections have ended")
    tables = _count(connection, facts)
    refused = client.ask(keeper, wire.tombstone(str(tenant), slug))
    say(f"{slug}: the keeper releases its keys no more")
    answer = _destroy(keks, facts, gone)
    if answer.unasked is None:
        say(f"{slug}: the KMS has destroyed its KEK, or will")
    else:
        say(f"{slug}: its KEK may still exist: {answer.unasked}")
    statement = {
        "what": "certificate of destruction",
        "format": 1,
        "wardkey": __version__,
        "tenant": {"id": str(tenant), "slug": slug, "name": facts["name"], "created_at": facts["created_at"]},
        "ward": {"schema": facts["schema"], "login_role": facts["login_role"], "tables": tables},
        "key_mode": facts["mode"],
        "data_keys": facts["keys"],
        "keks": _keks(facts, answer),
        "remains": _remains(facts, answer, _schemes(connection, facts)),
        "begun_at": _begun_at(connection, tenant),
        **({"kms_gone": {"reason": gone, "answer": answer.unasked}} if answer.unasked else {}),
        "keys_refused_since": refused["time"],
        "certified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "operator": operator,
    }
    certificate = _certify(keeper, tenant, statement)
    say(f"{slug}: the keeper has signed the certificate")
    with connection.transaction():
        connection.execute("set local lock_timeout = '30s'")
        row = connection.execute(
            "select ward_internal.finish_shredding(%s, %s)", [slug, Jsonb(certificate.document())]
        ).fetchone()
    say(f"{slug}: its ward is gone")
    return Certificate.from_document(row[0]) if row else certificate


def _ask(keks: Keks, facts: dict[str, Any], gone: str | None) -> _KmsAnswer:
    """Return what the KMS says of the tenant's KEK; ``gone``: it need not answer."""
    try:
        return _KmsAnswer(tuple(keks.versions(UUID(facts["tenant"]), facts["region"])))
    except WardError as error:
        if gone is None:
            raise
        return _KmsAnswer(unasked=error.message)


def _destroy(keks: Keks, facts: dict[str, Any], gone: str | None) -> _KmsAnswer:
    """Have the KEK destroyed wherever it may be, and return what is said of it then."""
    try:
        keks.destroy_all(UUID(facts["tenant"]))
    except WardError as error:
        if gone is None:
            raise
        return replace(_ask(keks, facts, gone), unasked=error.message)
    return _ask(keks, facts, gone)


def _check_keeper(connection: Connection, keeper: Path) -> None:
    """A tombstone with another keeper than the one the database asks would be worth nothing."""
    row = connection.execute(
        "select value from ward_internal.settings where name = 'keeper_socket'"
    ).fetchone()
    if row is None or not Path(row[0]).exists() or not keeper.exists() or not keeper.samefile(row[0]):
        raise ServerError(
            f"the keeper of this database is not the one at {keeper}",
            "run this on the database's host, with the --home whose keeper it asks",
        )


def _end_connections(connection: Connection, role: str) -> None:
    if connection.execute("select from pg_roles where rolname = %s", [role]).fetchone() is None:
        return
    connection.execute(sql.SQL("alter role {} nologin").format(sql.Identifier(role)))
    prepared = "select gid from pg_prepared_xacts where owner = %s and database = current_database()"
    for (gid,) in connection.execute(prepared, [role]).fetchall():
        connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
    ending = (
        "select pg_terminate_backend(pid, %s) from pg_stat_activity"
        " where usename = %s and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    if not all(ended for (ended,) in connection.execute(ending, [_ENDING, role]).fetchall()):
        raise KeyInUse(f"a connection of {role} does not end", "end it, then run this again")


def _count(connection: Connection, facts: Facts) -> list[Facts]:
    """Count again: until its connections ended, the tenant may have written."""
    query = "select leaf_schema from ward.tenants where id = %s"
    ((leaves,),) = connection.execute(query, [facts["tenant"]]).fetchall()
    counted = []
    for table in facts["tables"]:
        leaf = sql.Identifier(leaves, table["table"])
        row = connection.execute(sql.SQL("select count(*) from {}").format(leaf)).fetchone()
        counted.append({"table": table["table"], "rows": row[0] if row else 0})
    return counted


def _keks(facts: Facts, answer: _KmsAnswer) -> list[Facts]:
    """Return every KEK version with what the KMS says of it. Raises ServerError when one is still usable."""
    used = sorted({(key["kek"], key["kek_version"]) for key in facts["keys"] if key["kek"] != _DERIVED})
    # Of a tenant on its way from one KMS to another it cannot be told which of the two reports a version.
    certain = len({kek.partition(":")[0] for kek, _ in used}) == 1
    reported = {version.version: version for version in answer.versions}
    unreported = _UNREPORTED if answer.unasked is None else _UNASKED
    states = []
    for kek, version in used:
        report = reported.pop(version, None) if certain else None
        state = report.state if report else unreported
        states.append({"kek": kek, "version": version, "state": state, **_times(report)})
    name = used[0][0] if certain else None
    states += [
        {"kek": name, "version": report.version, "state": report.state, **_times(report)}
        for report in reported.values()
    ]
    if usable := [
        report.version for report in answer.versions if report.state not in ("destroyed", "scheduled")
    ]:
        raise ServerError(
            f"the KMS still has the tenant's KEK, version {', '.join(usable)}",
            "see wardkey kms check, then run this again",
        )
    return states


def _times(report: KekVersion | None) -> Facts:
    times = {"created_at": report.created_at, "destroyed_at": report.destroyed_at} if report else {}
    return {name: _moment(seconds) for name, seconds in times.items() if seconds is not None}


def _schemes(connection: Connection, facts: Facts) -> set[str]:
    """Return the schemes of the KMSes that the tenant's KEK is or was in: backups may be of those times."""
    query = "select kek from ward_internal.kek_versions where tenant_id = %s and left_at is not null"
    former = [row[0] for row in connection.execute(query, [facts["tenant"]]).fetchall()]
    return {kek.partition(":")[0] for kek in (*former, *(key["kek"] for key in facts["keys"]))}


def _remains(facts: Facts, answer: _KmsAnswer, schemes: set[str]) -> list[str]:
    """Say what is not yet, or not by this, beyond reach."""
    remains = [
        f"KEK version {version.version} is scheduled for destruction"
        + (f" at {_moment(version.destroyed_at)}" if version.destroyed_at else "")
        + ": until then an administrator of the KMS can bring it back"
        for version in answer.versions
        if version.state == "scheduled"
    ]
    if answer.unasked is not None:
        remains.append(
            "the KMS could not be asked: the KEK may still exist there, and who can use it opens every "
            "backup of the database that was made before"
        )
    if facts["mode"] == "derived":
        remains.append(
            "the data keys were derived from the cell's master secret, which other tenants still need: "
            "who has it and a backup can derive them, until its version is destroyed too"
        )
    for scheme in sorted(schemes - {_DERIVED}):
        if storage := _copies(scheme):
            remains.append(
                f"copies of {storage} made before have the KEK: until they are deleted, who restores one "
                "beside a backup of the database opens it"
            )
    return remains


def _copies(scheme: str) -> str | None:
    try:
        return kms.provider_of(f"{scheme}:").copies
    except KmsConfigurationError:  # it was used once, and its package is not here any more
        return f"what the KMS {scheme}: keeps"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _begun_at(connection: Connection, tenant: UUID) -> str | None:
    query = "select begun_at from ward_internal.shreddings where tenant_id = %s"
    row = connection.execute(query, [tenant]).fetchone()
    return row[0].astimezone(UTC).isoformat(timespec="seconds") if row else None


def _certify(keeper: Path, tenant: UUID, statement: Facts) -> Certificate:
    request = wire.certify(str(tenant), statement_text(statement))
    answer = client.ask(keeper, request)
    certificate = Certificate.from_document({**answer, "statement": statement})
    certificate.verify()
    return certificate
