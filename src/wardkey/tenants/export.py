"""What a tenant takes along when it leaves: its rows in the clear, or sealed with its wrapped keys.

An export is a directory (0700) of files (0600)::

    manifest.json          whose it is, when and by whom; of each table its columns, rows and SHA-256; what
                           schema.sql lacks: code, and what only this database has
    TABLE.csv              RFC 4180, UTF-8, with a header; NULL is nothing at all, an empty text is ""
    schema.sql, load.sql   (in the clear) make the tables as they were declared elsewhere, and load them

In a sealed export the CSVs hold the leaves as they are stored, and the manifest what opens them: column ids,
how a row's id is made, and every version of the data key, wrapped, with its commitment.
``tests/vectors/decode.py`` opens a value, given the data key, which only the tenant's KEK unwraps.

It is made under another name beside its target and renamed when it is whole.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from wardkey_pg import __version__

from ..daemon.files import sync_directory
from ..errors import NotAllowed, TenantShredded, WrongTenant
from . import provisioning as tenants
from .declared import Declared, Table, finishing_sql, read_tables, schema_sql

__all__ = ["Source", "export_clear", "export_sealed"]

Connection = psycopg.Connection[Any]
Facts = dict[str, Any]

# Text forms that every server reads back to the same value; the other styles of interval lose its extremes.
_FORMS = """
set local datestyle = 'ISO, YMD'; set local intervalstyle = 'iso_8601'; set local timezone = 'UTC';
set local extra_float_digits = 1; set local bytea_output = 'hex'; set local client_encoding = 'UTF8'
"""
_LOAD = r"""-- Makes the tables in an empty database and loads them: psql -d DATABASE -f load.sql
-- (psql before 18 takes a line that is only \. for the end of a file, even inside quotes: load a table that
-- has such a value with COPY ... FROM, on the server.)
\set ON_ERROR_STOP on
-- \copy reads from where psql was started: on Linux that need not be here, for psql has this file open
\set here `f=$(readlink /proc/$PPID/fd/* 2>/dev/null | grep '/load\.sql$' | head -n 1); dirname "${f:-./f}"`
\cd :here
set client_min_messages = warning; set client_encoding = 'UTF8'; set datestyle = 'ISO, YMD';
set array_nulls = on;
begin;
\ir schema.sql
"""
_HIDDEN = """
select 1 from ward.policy as p join ward.classes as c on c.name = p.class
 where p.role = 'ADMIN' and p.access <> 'clear' and cardinality(c.columns) > 0"""
_ROW_ID = {"smallint": "int8", "integer": "int8", "bigint": "int8", "uuid": "uuid"}
_RULES = {
    "sealed value": "0x01 · class (1) · data key version (3, big-endian) · nonce (12) · AES-256-GCM · "
    "tag (16)",
    "class key": "HKDF-SHA256 of the data key; salt: tenant id (16); info: 'wardkey/1 class' · data key "
    "version (4, big-endian) · name of the class, whose number is in the value",
    "key": "HKDF-SHA256 of the class key; salt: tenant id (16); info: 'wardkey/1 column' · column id (16)",
    "additional data": "'wardkey/1' · tenant id · class and version as in the value (4) · column id, each "
    "behind its length (4) · row id",
    "row id": "of one key column its bytes (int8: 8, big-endian; uuid: 16; text: UTF-8); of several each "
    "behind its length (4), in the order of row_id",
    "plaintext": "the value's text form in UTF-8; of bytea its bytes",
    "wrapped": "the data key under the KEK; additional data: 'wardkey/1 dek' · tenant id · version, each "
    "behind its length (4). Of KEK 'master' a salt: the key is derived from a secret that stays in the cell",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where an export comes from and who makes it. ``admin``: a superuser's connection, autocommit."""

    admin: Connection
    slug: str
    operator: str
    done: Callable[[str, int], None] = lambda face, rows: None


def export_clear(
    source: Source, connect: Callable[[str], Connection], token: Callable[[], str], target: Path
) -> list[Facts]:
    """Write the tenant's rows in the clear, as they are at one moment, into the new directory ``target``.

    ``connect`` connects as the tenant's login role, autocommit. ``token`` returns a token of an ADMIN of
    the tenant, asked for again before each table. Returns what the manifest says of each table.
    Raises NotAllowed for another role, ContextError, SealError, psycopg.Error, OSError.
    """
    tenant = _tenant(source)
    with connect(tenant["login_role"]) as ward, _made_whole(target) as directory:
        ward.execute("begin isolation level repeatable read, read only")
        subject = _log_in(ward, token, tenant["id"])
        ward.execute(_FORMS)
        declared = _declared(source.admin, tenant["schema_name"])
        _record(source, tenant, "export begun", subject, {"sealed": False})
        written = []
        for number, table in enumerate(declared.tables):
            face = sql.Identifier(tenant["schema_name"], table.face)
            # waits for locks without a token, which might expire meanwhile
            ward.execute(sql.SQL("select from {} limit 0").format(face))
            _log_in(ward, token, tenant["id"])
            columns = [column.name for column in table.written]
            written.append(_write_table(ward, face, table, columns, _new_name(directory, table, number)))
            source.done(table.face, written[-1]["rows"])
        _write(directory / "schema.sql", schema_sql(declared))
        _write(directory / "load.sql", _load_sql(declared.tables, written))
        about = {"sealed": False, "tables": written, "left_out": declared.left_out}
        _finish(source, tenant, subject, directory, about)
    return written


def export_sealed(source: Source, target: Path) -> list[Facts]:
    """Write the tenant's leaves as they are stored, with its wrapped keys, into the new directory ``target``.

    Needs no token and opens nothing. Returns what the manifest says of each table.
    Raises psycopg.Error, OSError.
    """
    admin = source.admin
    tenant = _tenant(source)
    with _made_whole(target) as directory:
        _record(source, tenant, "export begun", source.operator, {"sealed": True})
        with admin.transaction():
            admin.execute("set transaction isolation level repeatable read, read only")
            admin.execute(_FORMS)
            tables = read_tables(admin, tenant["schema_name"]).tables
            ((leaves,),) = admin.execute(
                "select leaf_schema from ward.tenants where id = %s", [tenant["id"]]
            ).fetchall()
            written = []
            for number, table in enumerate(tables):
                leaf = sql.Identifier(leaves, table.face)
                columns = [column.name for column in table.columns]
                facts = _write_table(admin, leaf, table, columns, _new_name(directory, table, number))
                written.append({**facts, "row_id": _row_id(table)})
                source.done(table.face, facts["rows"])
            keys = _keys(admin, tenant["id"])
            classes = dict(admin.execute("select number, name from ward_internal.known_classes").fetchall())
        about = {"sealed": True, "rules": _RULES, "classes": classes, "keys": keys, "tables": written}
        _finish(source, tenant, source.operator, directory, about)
    return written


def _tenant(source: Source) -> Facts:
    tenant = tenants.find(source.admin, source.slug)
    if tenant["status"] in ("shredding", "shredded"):
        raise TenantShredded(f"tenant {source.slug} was shredded", "nothing of it is left to export")
    return tenant


def _log_in(ward: Connection, token: Callable[[], str], tenant: UUID) -> str:
    """Begin, or continue, the context of the export; return the token's subject."""
    ward.execute("select ward.login(%s)", [token()])
    row = ward.execute("select ward.tenant_id(), ward.role(), ward.subject()").fetchone()
    if row is None or row[0] != tenant:
        raise WrongTenant
    if row[1] != "ADMIN":
        raise NotAllowed(f"a token of role {row[1]} may not export a ward", "ask for a token of role ADMIN")
    if ward.execute(_HIDDEN).fetchone():
        raise NotAllowed(
            "the tenant's policy hides columns from ADMIN: they would be missing in the export",
            "select ward.restore_policy('ADMIN'), or wardkey access policy set",
        )
    return str(row[2])


def _declared(admin: Connection, schema: str) -> Declared:
    with admin.transaction():
        return read_tables(admin, schema)


def _write_table(
    connection: Connection, relation: sql.Identifier, table: Table, columns: Sequence[str], path: Path
) -> Facts:
    # No "order by": a sort could leave plaintext in the server's temporary files.
    query = sql.SQL("copy (select {} from {}) to stdout (format csv, header)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), relation
    )
    digest, length = hashlib.sha256(), 0
    with _new_file(path) as file, connection.cursor() as cursor:
        with cursor.copy(query) as copy:
            for block in copy:
                file.write(block)
                digest.update(block)
                length += len(block)
        rows = cursor.rowcount
    described = [
        {"name": column.name, "type": column.type, "sealed": column.column_id}
        for column in table.columns
        if column.name in columns
    ]
    facts = {"table": table.face, "file": path.name, "rows": rows, "bytes": length}
    return {**facts, "sha256": digest.hexdigest(), "columns": described}


def _load_sql(tables: Sequence[Table], written: Sequence[Facts]) -> str:
    lines = [_LOAD]
    for facts in written:
        columns = ", ".join(_quoted(column["name"]) for column in facts["columns"])
        lines.append(
            f"\\copy {_quoted(facts['table'])} ({columns}) from '{facts['file']}' with (format csv, header)\n"
        )
    return f"{''.join(lines)}{finishing_sql(tables)}commit;\n"


def _row_id(table: Table) -> list[Facts]:
    parts = sorted((column.key_place, column) for column in table.columns if column.key_place is not None)
    return [{"column": column.name, "as": _ROW_ID.get(column.type, "text")} for _, column in parts]


def _keys(admin: Connection, tenant: UUID) -> list[Facts]:
    with admin.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select version, state, kek, kek_version, encode(wrapped, 'hex') as wrapped,"
            " encode(commitment, 'hex') as commitment, created_at"
            " from ward_internal.tenant_keys where tenant_id = %s order by version",
            [tenant],
        ).fetchall()


def _finish(source: Source, tenant: Facts, by: str, directory: Path, about: Facts) -> None:
    """Write the manifest, and record what was exported."""
    manifest = {
        "format": "wardkey export 1",
        "wardkey": __version__,
        "tenant": {name: tenant[name] for name in ("id", "slug", "name", "region")},
        "exported_at": datetime.now(UTC),
        "exported_by": by,
        **about,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, default=_plain)
    _write(directory / "manifest.json", f"{text}\n")
    rows = {facts["table"]: facts["rows"] for facts in about["tables"]}
    digest = hashlib.sha256(f"{text}\n".encode()).hexdigest()
    _record(
        source, tenant, "exported", by, {"sealed": about["sealed"], "rows": rows, "manifest_sha256": digest}
    )


def _record(source: Source, tenant: Facts, kind: str, by: str, detail: Facts) -> None:
    source.admin.execute(
        "select ward_internal.log_event(%s, %s, %s)",
        [tenant["id"], kind, Jsonb({**detail, "by": by, "operator": source.operator})],
    )


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


# Files


def _new_name(directory: Path, table: Table, number: int) -> Path:
    plain = re.fullmatch(r"[A-Za-z0-9_]+", table.face, re.ASCII)
    return directory / (f"{table.face}.csv" if plain else f"table-{number + 1}.csv")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)


def _write(path: Path, text: str) -> None:
    with _new_file(path) as file:
        file.write(text.encode())


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """Yield a private directory beside ``target`` that takes its name at the end of the block.

    It goes if the block fails; what a killed export to the same target left goes as well.
    Raises FileExistsError.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (resolve would follow a link at the target)
    _refuse_existing(target)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        with _locked(temporary) as descriptor:
            yield temporary
            os.fsync(descriptor)
            _refuse_existing(target)
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(target.parent)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "there is something already", str(target))


@contextmanager
def _locked(directory: Path) -> Iterator[int]:
    """Hold a directory that is being filled; yield its descriptor. Raises OSError when another holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)
