"""One ward's rows put back out of a dump, while all others go on.

Only the leaves are written, and only rows that are not as the dump has them: the audit log stays and gets an
entry for each row that goes or comes, and the event ``restored``. Nothing comes back that the ward could not
open, no reference is left open, and no sequence goes back: a row's id is in the log, and never given again.

It is one transaction. Readers see the ward as it was until the end, writers wait.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..errors import MissingSoftware, RestoreRefused, UnknownTenant

__all__ = ["restore"]

Connection = psycopg.Connection[Any]

_COPY: Final = re.compile(rb"COPY (.+) \((.+)\) FROM stdin;\n")
_SETVAL: Final = re.compile(rb"SELECT pg_catalog\.setval\('(.+)', (-?\d+), true\);\n")
_BOUND: Final = re.compile(rb"ATTACH PARTITION (.+) FOR VALUES IN \('([0-9a-f-]{36})'\);")
_ENCODING: Final = re.compile(rb"SET client_encoding = '(\w+)';\n")
_NAME: Final = re.compile(r'"(?:[^"]|"")+"|[^", ]+')
_MADE: Final = re.compile(r"^; Archive created at (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """``columns``: name → whether it has to have a value. ``name`` is quoted, with its schema."""

    face: str
    name: str
    key: tuple[str, ...]
    columns: Mapping[str, bool]


def restore(
    connection: Connection, slug: str, dump: Path, operator: str, bindir: Path | None
) -> dict[str, Any]:
    """Put the ward back as ``dump`` has it; return what changed, by face.

    ``connection``: a superuser's, without a transaction. ``dump``: of pg_dump in a format that pg_restore
    reads, of the ward's schemas or the whole database. ``bindir``: where the server's pg_restore is.
    Raises RestoreRefused, UnknownTenant, MissingSoftware, psycopg.Error.
    """
    archive = _Archive(dump, bindir)
    with connection.transaction():
        for setting in ("lock_timeout = '10s'", "session_replication_role = replica"):
            connection.execute(f"set local {setting}")  # replica: the dump's order is not that of references
        tenant = _lock(connection, slug)
        leaves = _leaves(connection, tenant["schema_name"])
        named = _chosen(archive, tenant, leaves)
        owned = archive.names_owner(tenant["leaf_schema"], named, tenant["id"])
        staged, positions = _stage(connection, archive, tenant, leaves, named)
        if not owned and not any(_has_rows(connection, stage) for stage, _ in staged.values()):
            raise RestoreRefused("the dump has no row and does not say whose it is", "dump the schema too")
        _refuse_missing(connection, leaves, staged)
        tables = {
            leaf.face: _fill(connection, leaf, *staged[leaf.name]) for leaf in leaves if leaf.name in staged
        }
        _check_references(connection, tenant["leaf_schema"])
        _check_keys(connection, tenant["id"], slug)
        _advance(connection, tenant["schema_name"], positions)
        detail = {"made": archive.made, "operator": operator, "tables": tables}
        connection.execute(
            "select ward_internal.log_event(%s, 'restored', %s)", [tenant["id"], Jsonb(detail)]
        )
    return {"slug": slug, "made": archive.made, "tables": tables}


class _Archive:
    """A dump as pg_restore shows it. Raises RestoreRefused for what it does not read."""

    def __init__(self, dump: Path, bindir: Path | None) -> None:
        own = bindir / "pg_restore" if bindir else None
        program = str(own) if own and own.exists() else shutil.which("pg_restore")
        if program is None:
            raise MissingSoftware("pg_restore is not installed", "apt-get install postgresql-client")
        self._program, self._dump = program, str(dump)
        listing = subprocess.run(
            [program, "--list", self._dump],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        if listing.returncode != 0:
            raise RestoreRefused(
                "pg_restore does not read that dump",
                "give one made by: pg_dump --format=custom --schema=tenant_SLUG --schema=sealed_SLUG",
            )
        self.lines = [line for line in listing.stdout.splitlines() if line and not line.startswith(";")]
        made = _MADE.search(listing.stdout)
        self.made = made[1] if made else None

    def names_owner(self, schema: str, lines: list[str], tenant: UUID) -> bool:
        """Refuse a dump whose leaves were another tenant's of the same slug; return whether it says whose."""
        leaves = {line.split(f" TABLE DATA {schema} ")[1] for line in lines if " TABLE DATA " in line}
        attached = [
            line for line in self.lines if any(f" TABLE ATTACH {schema} {leaf}" in line for leaf in leaves)
        ]
        with self.script(attached) as script:
            owners = {match[2].decode() for line in script if (match := _BOUND.search(line))}
        if owners - {str(tenant)}:
            raise _of_another()
        if not leaves:
            raise RestoreRefused(
                f"the dump does not have {schema}", f"what it has says: pg_restore --list {self._dump}"
            )
        return bool(owners)

    @contextmanager
    def script(self, lines: list[str]) -> Iterator[Iterator[bytes]]:
        """Yield the SQL of these lines of the list."""
        if not lines:
            yield iter(())
            return
        with tempfile.NamedTemporaryFile("w", errors="surrogateescape", suffix=".list") as chosen:
            chosen.write("".join(f"{line}\n" for line in lines))
            chosen.flush()
            command = [self._program, "--file=-", f"--use-list={chosen.name}", self._dump]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                try:
                    yield iter(_pipe(process))
                finally:
                    _pipe(process).close()
            if process.returncode != 0:
                raise RestoreRefused("pg_restore failed: the dump is damaged", "take another dump")


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdout)


def _of_another() -> RestoreRefused:
    return RestoreRefused(
        "the dump is of another tenant that had this slug: its values would not open", "nothing was restored"
    )


def _lock(connection: Connection, slug: str) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cursor:
        query = "select *, ward_internal.leaf_schema(schema_name) from ward_internal.tenant_of(%s)"
        row = cursor.execute(query, [slug]).fetchone()
    if row is None:
        raise UnknownTenant("no tenant has that slug", "list them: wardkey tenant list")
    connection.execute("lock table ward_internal.models in share mode")
    return row


def _leaves(connection: Connection, schema: str) -> list[_Leaf]:
    """Return the leaves of the ward, locked against writers."""
    query = """
        select m.face, ward_internal.leaf_name(m.id, %(schema)s),
          array(select k.attname from pg_index as i
            cross join unnest(i.indkey::int2[]) with ordinality as n (number, place)
            join pg_attribute as k on k.attrelid = i.indrelid and k.attnum = n.number
            where i.indrelid = m.shape and i.indisprimary order by n.place),
          (select jsonb_object_agg(a.attname, coalesce(d.attnotnull, a.attnotnull) and not a.atthasdef
              and a.attidentity = '')
            from pg_attribute as a
            left join pg_attribute as d on d.attrelid = m.shape and d.attname = a.attname
            where a.attrelid = to_regclass(ward_internal.leaf_name(m.id, %(schema)s)) and a.attnum > 0
              and not a.attisdropped and a.attgenerated = '')
        from ward_internal.models as m order by m.relation"""
    leaves = [
        _Leaf(face, name, tuple(key), columns or {})
        for face, name, key, columns in connection.execute(query, {"schema": schema}).fetchall()
    ]
    for leaf in leaves:
        if not leaf.columns:
            raise RestoreRefused(
                f"the ward lacks {leaf.name}", "make it, empty: select ward.repair_tenant('SLUG')"
            )
        connection.execute(f"lock table {leaf.name} in share row exclusive mode")
    return leaves


def _chosen(archive: _Archive, tenant: Mapping[str, Any], leaves: list[_Leaf]) -> list[str]:
    """Return the lines of the dump's list that are the ward's rows and sequences, and not its log."""
    chosen = []
    rows = f" TABLE DATA {tenant['leaf_schema']} "
    for line in archive.lines:
        if f" SEQUENCE SET {tenant['schema_name']} " in line:
            chosen.append(line)
        elif rows in line:
            table = line.split(rows, 1)[1].rpartition(" ")[0]
            if any(table == leaf.face for leaf in leaves):
                chosen.append(line)
            else:
                raise RestoreRefused(
                    f"the dump has {table}, which is the leaf of no model table now",
                    "protect the table again, under its former name; or restore the dump elsewhere",
                )
    return chosen


def _stage(
    connection: Connection, archive: _Archive, tenant: dict[str, Any], leaves: list[_Leaf], lines: list[str]
) -> tuple[dict[str, tuple[str, list[str]]], dict[str, int]]:
    """Load the dump's rows into temporary tables: leaf → (its table, columns); and how far sequences were."""
    staged: dict[str, tuple[str, list[str]]] = {}
    positions: dict[str, int] = {}
    known = {leaf.name: leaf for leaf in leaves}
    with archive.script(lines) as script:
        for line in script:
            if setval := _SETVAL.fullmatch(line):
                positions[setval[1].decode().replace("''", "'")] = int(setval[2])
            elif begins := _COPY.fullmatch(line):
                leaf = known.get(begins[1].decode())
                if leaf is None:
                    raise RestoreRefused(
                        "the dump names its tables in an unknown way", "make it with pg_dump"
                    )
                columns = [_unquoted(name) for name in _NAME.findall(begins[2].decode())]
                _check_columns(leaf, columns)
                stage = f"pg_temp.stage_{len(staged)}"
                connection.execute(f"create temp table stage_{len(staged)} (like {leaf.name}) on commit drop")
                for column in leaf.columns:
                    quoted = sql.Identifier(column).as_string(connection)
                    connection.execute(f"alter table {stage} alter {quoted} drop not null")
                listed = sql.SQL(", ").join(map(sql.Identifier, columns))
                copy = sql.SQL("copy {} ({}) from stdin").format(sql.SQL(stage), listed)
                with connection.cursor() as cursor, cursor.copy(copy) as into:
                    _pass(script, into)
                connection.execute(f"analyze {stage}")
                query = f"select from {stage} where tenant_id is distinct from %s limit 1"  # noqa: S608
                if connection.execute(query, [tenant["id"]]).fetchone() is not None:
                    raise _of_another()
                staged[leaf.name] = stage, columns
            elif line.startswith(b"INSERT INTO "):
                raise RestoreRefused("the dump has its rows as INSERT", "make it without --inserts")
            elif encoding := _ENCODING.fullmatch(line):
                connection.execute("select set_config('client_encoding', %s, true)", [encoding[1].decode()])
    return staged, positions


def _pass(script: Iterator[bytes], into: psycopg.Copy) -> None:
    for line in script:
        if line == b"\\.\n":
            return
        into.write(line)
    raise RestoreRefused("the dump ends within a table", "take another dump")


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _check_columns(leaf: _Leaf, columns: list[str]) -> None:
    """Refuse what the model has no place for, and what it could not do without."""
    if gone := [name for name in columns if name not in leaf.columns]:
        raise RestoreRefused(
            f"{leaf.face} has no column {', '.join(gone)} now, and the dump has one",
            "restore the dump elsewhere, or add the column again",
        )
    if lacking := [name for name, needed in leaf.columns.items() if needed and name not in columns]:
        raise RestoreRefused(
            f"{leaf.face} had no column {', '.join(lacking)} when the dump was made, and it must not be null",
            "restore the dump elsewhere, or let the column be null meanwhile",
        )


def _refuse_missing(connection: Connection, leaves: list[_Leaf], staged: Mapping[str, object]) -> None:
    for leaf in leaves:
        if leaf.name not in staged and _has_rows(connection, leaf.name):
            raise RestoreRefused(
                f"the dump does not have {leaf.face}, and the ward has rows in it",
                "empty it first, or take a dump that has it",
            )


def _has_rows(connection: Connection, table: str) -> bool:
    return connection.execute(f"select from {table} limit 1").fetchone() is not None


def _fill(connection: Connection, leaf: _Leaf, stage: str, columns: list[str]) -> dict[str, int]:
    """Make the leaf what the stage is: rows that differ go, rows that lack come."""

    def listed(names: list[str] | tuple[str, ...], of: str = "", between: str = ", ") -> sql.Composed:
        return sql.SQL(between).join(sql.SQL(of) + sql.Identifier(name) for name in names)

    same_key = sql.SQL(" and ").join(
        sql.SQL("l.{0} = s.{0}").format(sql.Identifier(name)) for name in leaf.key
    )
    parts = {
        "leaf": sql.SQL(leaf.name),
        "stage": sql.SQL(stage),
        "same_key": same_key,
        "old": listed(columns, "l."),
        "new": listed(columns, "s."),
        "columns": listed(columns),
    }
    gone = connection.execute(
        sql.SQL(
            "delete from {leaf} as l where not exists (select from {stage} as s"
            " where {same_key} and row({old})::text = row({new})::text)"
        ).format(**parts)
    ).rowcount
    come = connection.execute(
        sql.SQL(
            "insert into {leaf} ({columns}) overriding system value select {columns} from {stage} as s"
            " where not exists (select from {leaf} as l where {same_key})"
        ).format(**parts)
    ).rowcount
    ((rows,),) = connection.execute(sql.SQL("select count(*) from {leaf}").format(**parts)).fetchall()
    return {"rows": rows, "taken_away": gone, "put_back": come}


def _check_references(connection: Connection, schema: str) -> None:
    """Refuse a foreign key of the ward that points nowhere: its triggers did not look."""
    query = """
        select c.conrelid::regclass::text, c.confrelid::regclass::text, c.conname,
          array(select format('(c.%%1$I = p.%%2$I)', a.attname, b.attname)
            from unnest(c.conkey, c.confkey) as k (mine, other)
            join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.mine
            join pg_attribute as b on b.attrelid = c.confrelid and b.attnum = k.other),
          array(select format('c.%%I is not null', attname) from pg_attribute
            where attrelid = c.conrelid and attnum = any (c.conkey))
        from pg_constraint as c join pg_class as t on t.oid = c.conrelid
        where c.contype = 'f' and t.relnamespace = %s::regnamespace"""
    quoted = sql.Identifier(schema).as_string(connection)
    for child, parent, name, same, filled in connection.execute(query, [quoted]).fetchall():
        missing = (
            f"select from {child} as c where {' and '.join(filled)} and not exists"  # noqa: S608
            f" (select from {parent} as p where {' and '.join(same)}) limit 1"
        )
        if connection.execute(missing).fetchone() is not None:
            raise RestoreRefused(
                f"rows of the dump refer to rows that are not there: {name}",
                f"restore what {parent} lacks first",
            )


def _check_keys(connection: Connection, tenant: UUID, slug: str) -> None:
    """Refuse values whose key the tenant does not use any more."""
    query = """
        select distinct v.version, k.state from ward.key_rows(%s) as v
        left join ward_internal.tenant_keys as k on k.tenant_id = %s and k.version = v.version
        where k.state is null or k.state not in ('active', 'decrypt-only')"""
    keys = connection.execute(query, [slug, tenant]).fetchall()
    for version, state in keys:
        if state == "retired":
            raise RestoreRefused(
                f"values of the dump need version {version} of the key, which is retired",
                f"wardkey keys readmit {slug} --version {version} --reason …",
            )
        raise RestoreRefused(
            f"values of the dump need version {version} of the key, which is {state or 'unknown'}",
            "they cannot be opened any more; take a later dump",
        )


def _advance(connection: Connection, schema: str, positions: Mapping[str, int]) -> None:
    """Let each sequence go on behind whatever it gave, now or when the dump was made, and what came back."""
    query = """
        select format('%%I.%%I', %(schema)s::name, s.relname), q.seqincrement > 0,
          ward_internal.leaf_name(m.id, %(schema)s), quote_ident(c.column_name)
        from ward_internal.models as m cross join ward_internal.model_columns(m.id) as c
        join pg_class as s on s.oid = c.sequence join pg_sequence as q on q.seqrelid = s.oid"""
    for sequence, ascends, table, column in connection.execute(query, {"schema": schema}).fetchall():
        furthest = "max" if ascends else "min"
        ((last, used, given),) = connection.execute(
            f"select last_value, is_called, (select {furthest}({column}) from {table}) from {sequence}"  # noqa: S608
        ).fetchall()
        known = [value for value in (given, positions.get(sequence)) if value is not None]
        ahead = [value for value in known if not used or (value > last if ascends else value < last)]
        if ahead:
            connection.execute(
                "select setval(%s::regclass, %s)", [sequence, max(ahead) if ascends else min(ahead)]
            )
