"""The log as a table, for spreadsheets and tools: CSV (RFC 4180), Parquet. Only the export can be verified.

A row per entry, with who did it written out where the entry only names a login. ``position`` is empty where
no checkpoint covers the entry yet. Sealed values stay sealed. In CSV a text that a spreadsheet would take for
a formula begins with an apostrophe: a tenant chooses its application's name.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
from wardkey_core.log.exporter import Period, export, find_extent, pieces
from wardkey_core.log.source import Row, Sealed, entry_of

from ..errors import NotAllowed
from .source import open_log
from .which import snapshot

__all__ = ["NAMES", "records", "write", "write_csv", "write_parquet"]

_WHO = ("subject", "role", "purpose", "database_role", "address", "application")
NAMES = (
    "position", "id", "at", "kind", "operation", *_WHO, "table", "row", "columns", "old", "new", "detail",
    "transaction", "statement", "context",
)  # fmt: skip
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_CHUNK = 10_000

Record = dict[str, Any]


def write(
    connection: psycopg.Connection[Any], tenant: UUID, slug: str, period: Period, form: str, stream: BinaryIO
) -> dict[str, int]:
    """Write a log as ``jsonl``, ``csv`` or ``parquet``, of one moment; return how much it holds.

    ``connection``: in autocommit. Raises DamagedLog, NotAllowed, psycopg.Error, OSError.
    """
    with snapshot(connection):
        if form == "jsonl":
            return export(open_log(connection, tenant), slug, period, stream)
        write_as = {"csv": write_csv, "parquet": write_parquet}[form]
        return {"entries": write_as(records(connection, tenant, period), stream)}


def records(connection: psycopg.Connection[Any], tenant: UUID, period: Period) -> Iterator[Record]:
    """Yield the entries of the period, in the log's order. Raises DamagedLog, psycopg.Error.

    ``connection``: in a transaction, repeatable read. Memory: all logins of the tenant.
    """
    log = open_log(connection, tenant)
    begin, end = period.texts
    logins = _read_logins(connection, tenant)
    tables = dict(connection.execute("select id::text, face::text from ward_internal.models").fetchall())
    for piece in pieces(log, find_extent(log, period), period):
        sealed = isinstance(piece, Sealed)
        row: Row | None = piece.row if isinstance(piece, Sealed) else piece  # type: ignore[assignment]
        if not isinstance(row, tuple):
            continue  # a checkpoint, or nothing is there
        record = entry_of(row)
        if (begin and record["at"] < begin) or (end and record["at"] >= end):
            continue
        who = logins.get(record.get("context", ""))
        if who:
            record |= {name: text for name, text in zip(_WHO, who, strict=True) if name not in record}
        record["table"] = tables.get(record.get("table"), record.get("table"))
        record["position"] = piece.position if sealed else None  # type: ignore[union-attr]
        yield {name: record.get(name) for name in NAMES}


def write_csv(records: Iterator[Record], stream: BinaryIO) -> int:
    """Write UTF-8 with a header; return the number of entries."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(NAMES)
    count = 0
    for record in records:
        record["columns"] = None if record["columns"] is None else ", ".join(record["columns"])
        writer.writerow([_harmless(value) for value in record.values()])
        count += 1
    text.detach()
    return count


def write_parquet(records: Iterator[Record], stream: BinaryIO) -> int:
    """Write a Parquet file; return the number of entries. Raises NotAllowed without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise NotAllowed(
            "Parquet needs the package pyarrow, which is not installed", "pip install 'wardkey[parquet]'"
        ) from None
    moment = pa.timestamp("us", tz="UTC")
    types = {"position": pa.int64(), "id": pa.int64(), "at": moment, "statement": moment}
    types |= {"columns": pa.list_(pa.string())}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in NAMES])
    count = 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        chunk: list[Record] = []
        for record in records:
            record["id"] = int(record["id"])
            record["at"] = datetime.fromisoformat(record["at"])
            if record["statement"] is not None:
                record["statement"] = _EPOCH + timedelta(microseconds=record["statement"])
            chunk.append(record)
            count += 1
            if len(chunk) == _CHUNK:
                writer.write_table(pa.Table.from_pylist(chunk, schema))
                chunk.clear()
        writer.write_table(pa.Table.from_pylist(chunk, schema))
    return count


def _read_logins(connection: psycopg.Connection[Any], tenant: UUID) -> dict[str, tuple[str | None, ...]]:
    known: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}  # few people log in often
    query = f"""
        select distinct on (context) encode(context, 'hex'), {", ".join(_WHO)} from ward_internal.audit_log
         where tenant_id = %s and kind = 'e' and operation = 'login' and context is not null
         order by context, id"""  # noqa: S608
    with connection.cursor("wardkey_logins") as cursor:
        cursor.itersize = _CHUNK
        return {
            row[0]: known.setdefault(tuple(row[1:]), tuple(row[1:]))
            for row in cursor.execute(query, [tenant])
        }


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
