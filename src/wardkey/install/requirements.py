"""What a PostgreSQL server of one's own needs for wardkey: checked through a connection, with what fixes it.

A check that depends on one that failed is left out: it would only repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from wardkey_pg import __version__

from .extension import prepare_extension

__all__ = ["Finding", "check", "check_all", "install"]

Connection = psycopg.Connection[Any]

EXTENSION = "extension wardkey"
_OLDEST = 150000
_OLDEST_CRYPTOGRAPHY = 43

# Runs in the server, on a standby too: what its Python is, and whether the keeper answers it.
_PROBE = """
do $probe$
import json, os, socket, sys
(keeper,) = plpy.execute("select current_setting('wardkey.keeper')")[0].values()
facts = {"python": "%d.%d.%d" % sys.version_info[:3]}
for name in ("cryptography", "wardkey_pg"):
    try:
        facts[name] = __import__(name).__version__
    except Exception:
        facts[name] = None
facts["uid"] = os.geteuid()
if keeper:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(2)
    try:
        link.connect(keeper)
        link.sendall(b'\\x00\\x00\\x00\\x0f{"op":"status"}')
        stream = link.makefile("rb")
        size = int.from_bytes(stream.read(4), "big")
        answer = json.loads(stream.read(size)) if size else {}
        facts["keeper"] = "answers" if answer.get("ok") else "does not know the server's OS user"
        facts["issuers"] = answer.get("issuers")
    except (BrokenPipeError, ConnectionResetError):
        facts["keeper"] = "does not know the server's OS user"
    except (OSError, ValueError) as error:
        facts["keeper"] = getattr(error, "strerror", None) or "does not answer"
    finally:
        link.close()
say = plpy.prepare("select set_config('wardkey.facts', $1, true)", ["text"])
plpy.execute(say, [json.dumps(facts)])
$probe$ language plpython3u
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: what was found, and the command that fixes it where ``ok`` is False."""

    requirement: str
    ok: bool
    detail: str
    fix: str | None = None


def check(connection: Connection) -> list[Finding]:
    """Check what wardkey cannot work without, in the server and this database; changes nothing."""
    findings = list(_server(connection))
    if all(finding.ok for finding in findings):
        findings += _database(connection)
    return findings


def check_all(connection: Connection) -> list[Finding]:
    """Check also what it should not work without: settings, and a journal of reads; changes nothing."""
    findings = [*check(connection), *_settings(connection)]
    if any(finding.ok for finding in findings if finding.requirement == EXTENSION):
        findings += _journal(connection)
    return findings


def install(connection: Connection, keeper_socket: str | None = None) -> list[Finding]:
    """Create or update the extension if the server can have it, then check everything; commits."""
    if all(finding.ok for finding in _server(connection)):
        prepare_extension(connection)
        if keeper_socket:
            connection.execute("select ward.set('keeper_socket', %s)", [keeper_socket])
        connection.commit()
    return check_all(connection)


def _server(connection: Connection) -> Iterator[Finding]:
    number, version, encoding, superuser, database = _row(
        connection,
        "select current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('server_encoding'), current_setting('is_superuser') = 'on', current_database()",
    )
    major = max(number, _OLDEST) // 10000
    yield Finding(
        "PostgreSQL 15 or later", number >= _OLDEST, version, "upgrade the server: pg_upgradecluster"
    )
    yield Finding(
        "encoding UTF8",
        encoding == "UTF8",
        f"{encoding} in database {database}",
        "createdb --template=template0 --encoding=UTF8 NAME, and use that",
    )
    yield Finding(
        "superuser", superuser, "yes" if superuser else "no", "connect as one: --dsn 'user=postgres …'"
    )
    available = dict(
        connection.execute(
            "select name, max(version) from pg_available_extension_versions"
            " where name = 'plpython3u' or (name = 'wardkey' and version = %s) group by name",
            [__version__],
        ).fetchall()
    )
    yield Finding(
        "PL/Python",
        "plpython3u" in available,
        available.get("plpython3u", "not available"),
        f"on the server: apt-get install postgresql-plpython3-{major}",
    )
    yield Finding(
        f"extension files, version {__version__}",
        "wardkey" in available,
        available.get("wardkey", "not available"),
        f"on the server: make install PG_CONFIG=/usr/lib/postgresql/{major}/bin/pg_config",
    )


def _settings(connection: Connection) -> Iterator[Finding]:
    """What only a restart changes."""
    version, cluster = _row(
        connection,
        "select current_setting('server_version_num')::int / 10000, coalesce(nullif(split_part("
        "current_setting('cluster_name'), '/', 2), ''), 'main')",
    )
    for name, least, wanted in (
        ("wal_level", None, "logical"),
        ("max_replication_slots", 1, "10"),
        ("max_wal_senders", 1, "10"),
        ("max_locks_per_transaction", 256, "256"),
    ):
        (value,) = _row(connection, "select current_setting(%s)", name)
        yield Finding(
            f"{name} = {wanted}" if least is None else f"{name} of {least} or more",
            value == wanted if least is None else int(value) >= least,
            value,
            f'psql -c "alter system set {name} = {wanted}", then restart the server:'
            f" pg_ctlcluster {version} {cluster} restart",
        )


def _database(connection: Connection) -> Iterator[Finding]:
    (installed,) = _row(connection, "select max(extversion) from pg_extension where extname = 'wardkey'")
    yield Finding(EXTENSION, installed == __version__, installed or "not created", "wardkey install --dsn …")
    if installed is None:
        return
    (socket,) = _row(connection, "select max(value) from ward_internal.settings where name = 'keeper_socket'")
    facts = _probe(connection, socket)
    yield from _python(facts)
    yield from _keeper(facts, socket)
    (issuers,) = _row(connection, "select count(*) from ward.issuers")
    add = "wardkey issuer add --issuer ISS --audience AUD --jwks FILE"
    yield Finding("an issuer of tokens", issuers > 0, f"{issuers}", f"{add} --only database --dsn …")
    if facts.get("keeper") == "answers":
        yield Finding(
            "an issuer that the keeper trusts",
            bool(facts["issuers"]),
            f"{facts['issuers'] or 0}",
            f"as the keeper's user or root: {add} --only keeper --keeper-directory DIR",
        )


def _journal(connection: Connection) -> Iterator[Finding]:
    """Where nothing is journalled, reads leave no entry."""
    slot, present, active = _row(
        connection,
        "select s.slot, r.slot_name is not null, r.active_pid is not null from (select max(value) as slot"
        " from ward_internal.settings where name = 'audit_slot') as s"
        " left join pg_replication_slots as r on r.slot_name = s.slot and r.database = current_database()",
    )
    state = "yes" if active else "no scribe has worked here" if slot is None else "nobody reads the slot"
    yield Finding(
        "reads are journalled",
        bool(active),
        state if slot is None or present else f"replication slot {slot} is missing",
        "wardkey service install scribe; systemctl start wardkey-scribe"
        " (or, as an OS user named by the keeper's --scribe-uid: wardkey scribe run --dsn …)",
    )


def _python(facts: dict[str, Any]) -> Iterator[Finding]:
    fix = (
        "on the server: make install-python PG_CONFIG=…, put its directory into PYTHONPATH of the server's"
        " environment (/etc/postgresql/VERSION/main/environment), restart it"
    )
    cryptography, module = facts["cryptography"], facts["wardkey_pg"]
    recent = cryptography is not None and int(cryptography.split(".")[0]) >= _OLDEST_CRYPTOGRAPHY
    yield Finding(
        f"cryptography {_OLDEST_CRYPTOGRAPHY} or later in the server's Python {facts['python']}",
        recent,
        cryptography or "not importable",
        fix,
    )
    yield Finding(
        f"wardkey_pg {__version__} in the server's Python",
        module == __version__,
        module or "not importable",
        fix,
    )


def _keeper(facts: dict[str, Any], socket: str | None) -> Iterator[Finding]:
    yield Finding(
        "keeper socket", socket is not None, socket or "not set", "wardkey install --keeper-socket PATH"
    )
    if socket is None:
        return
    answer, uid = facts["keeper"] or "", facts["uid"]
    start = f"python -m wardkey.keeper --directory DIR --socket {socket} --allow-uid {uid} --socket-group GID"
    fixes = {
        "Permission denied": f"put the server's OS user (uid {uid}) into the group that owns {socket} and may"
        " enter its directory, then restart the server: it learns its groups when it starts",
        "does not know the server's OS user": f"start the keeper with --allow-uid {uid}",
    }
    yield Finding(
        "keeper within the server's reach",
        answer == "answers",
        answer,
        fixes.get(answer, f"start the keeper: {start}"),
    )


def _probe(connection: Connection, socket: str | None) -> dict[str, Any]:
    import json

    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('wardkey.keeper', %s, true)", [socket or ""])
        connection.execute(_PROBE)
        facts: dict[str, Any] = json.loads(_row(connection, "select current_setting('wardkey.facts')")[0])
    return facts


def _row(connection: Connection, query: str, *values: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise psycopg.DataError("the server answered with no row")
    return row
