"""What a PostgreSQL server of one's own needs for wardkey: checked through a connection, with what mends it.

A check that depends on one that failed is left out: it would only repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from wardkey_pg import __version__

from .server.database import prepare_extension

__all__ = ["Finding", "check", "install"]

Connection = psycopg.Connection[Any]

_OLDEST = 150000
_OLDEST_CRYPTOGRAPHY = 43

# Runs in the server: what its Python is, and whether it can reach the keeper.
_PROBE = """
create function pg_temp.wardkey_probe(keeper text) returns text language plpython3u as $probe$
import json, socket, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3]}
for name in ("cryptography", "wardkey_pg"):
    try:
        found[name] = __import__(name).__version__
    except Exception:
        found[name] = None
if keeper:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(2)
    try:
        link.connect(keeper)
        found["keeper"] = "answers"
    except OSError as error:
        found["keeper"] = error.strerror or "does not answer"
    finally:
        link.close()
return json.dumps(found)
$probe$
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: what was found, and the command that mends it where ``ok`` is False."""

    requirement: str
    ok: bool
    found: str
    mend: str | None = None


def check(connection: Connection) -> list[Finding]:
    """Check the server and this database; changes nothing."""
    findings = list(_server(connection))
    if all(finding.ok for finding in findings):
        findings += _database(connection)
    return findings


def install(connection: Connection, keeper_socket: str | None = None) -> list[Finding]:
    """Create or update the extension if the server can have it, then check everything; commits."""
    if all(finding.ok for finding in _server(connection)):
        prepare_extension(connection)
        if keeper_socket:
            connection.execute("select ward.set('keeper_socket', %s)", [keeper_socket])
        connection.commit()
    return check(connection)


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


def _database(connection: Connection) -> Iterator[Finding]:
    (installed,) = _row(connection, "select max(extversion) from pg_extension where extname = 'wardkey'")
    yield Finding(
        "extension wardkey", installed == __version__, installed or "not created", "wardkey install --dsn …"
    )
    if installed is None:
        return
    (socket,) = _row(connection, "select max(value) from ward_internal.settings where name = 'keeper_socket'")
    facts = _probe(connection, socket)
    yield from _python(facts)
    yield from _keeper(facts, socket)
    (issuers,) = _row(connection, "select count(*) from ward.issuers")
    yield Finding("an issuer of tokens", issuers > 0, f"{issuers}", "wardkey issuer add --issuer … --dsn …")


def _python(facts: dict[str, str | None]) -> Iterator[Finding]:
    mend = (
        "on the server: make install-python PG_CONFIG=…, put its directory into PYTHONPATH of the server's"
        " environment (/etc/postgresql/VERSION/main/environment), restart it"
    )
    cryptography, module = facts["cryptography"], facts["wardkey_pg"]
    recent = cryptography is not None and int(cryptography.split(".")[0]) >= _OLDEST_CRYPTOGRAPHY
    yield Finding(
        f"cryptography {_OLDEST_CRYPTOGRAPHY} or later in the server's Python {facts['python']}",
        recent,
        cryptography or "not importable",
        mend,
    )
    yield Finding(
        f"wardkey_pg {__version__} in the server's Python",
        module == __version__,
        module or "not importable",
        mend,
    )


def _keeper(facts: dict[str, str | None], socket: str | None) -> Iterator[Finding]:
    start = "python -m wardkey.keeper --directory DIR --socket PATH --allow-uid UID-OF-THE-SERVER"
    yield Finding(
        "keeper socket", socket is not None, socket or "not set", "wardkey install --keeper-socket PATH"
    )
    if socket is not None:
        answer = facts["keeper"] or ""
        yield Finding("keeper within the server's reach", answer == "answers", answer, start)


def _probe(connection: Connection, socket: str | None) -> dict[str, str | None]:
    import json

    with connection.transaction(force_rollback=True):
        connection.execute(_PROBE)
        facts: dict[str, str | None] = json.loads(
            _row(connection, "select pg_temp.wardkey_probe(%s)", socket)[0]
        )
    return facts


def _row(connection: Connection, query: str, *values: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query, values).fetchone()
    if row is None:
        raise psycopg.DataError("the server answered with no row")
    return row
