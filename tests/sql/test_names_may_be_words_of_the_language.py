"""A model table and its columns may have any name: also one that PL/pgSQL knows and SQL does not quote.

Faces are written by a PL/pgSQL function made for them, in which such a name may not pass for a statement.
"""

from __future__ import annotations

from tests.support.database import Connection, Database

# src/pl/plpgsql/src/pl_reserved_kwlist.h and pl_unreserved_kwlist.h of PostgreSQL 15 and later
PLPGSQL = """
all begin by case declare else end execute for foreach from if in into loop not null or strict then to
using when while absolute alias and array assert backward call chain close collate column column_name
commit constant constraint constraint_name continue current cursor datatype debug default detail
diagnostics do dump elseif elsif errcode error exception exit fetch first forward get hint import info
insert is last log merge message message_text move next no notice open option perform pg_context
pg_datatype_name pg_exception_context pg_exception_detail pg_exception_hint print_strict_params prior
query raise relative return returned_sqlstate reverse rollback row_count rowtype schema schema_name
scroll slice sqlstate stacked table table_name type use_column use_variable variable_conflict warning
"""
OWN = ["new", "old", "face", "found", "tg_op", "v_row", "v_kept", "v_sealed", "l", "f", "tenant", "@leaf@"]
WORDS = [*PLPGSQL.split(), *OWN]
UNQUOTED = ["begin", "by", "declare", "execute", "foreach", "if", "loop", "strict", "while", *OWN[:4]]


def names(words: list[str], form: str = '"{0}"') -> str:
    return ", ".join(form.format(word) for word in words)


def write_and_read(ward: Connection, table: str, words: list[str], more: str = "") -> None:
    """Insert, change, copy and delete rows through the face; ``more``: what INSERT is to return besides."""
    values = [f"of {word}" for word in words]
    marks, columns = names(words, "%s"), names(words)
    made = f'insert into "{table}" ({columns}) values ({marks}) returning {columns}{more}'
    assert (ward.execute(made, values).fetchone() or ())[: len(words)] == tuple(values)
    values = [f"new {value}" for value in values]
    ward.execute(f'update "{table}" set ' + names(words, '"{0}" = %s'), values)
    assert ward.execute(f'select {columns} from "{table}"').fetchone() == tuple(values)
    with ward.cursor() as cursor, cursor.copy(f'copy "{table}" ({columns}) from stdin') as copy:
        copy.write_row([f"copied {value}" for value in values])
    assert ward.execute(f'delete from "{table}" returning {columns}').rowcount == 2


def test_columns(database: Database) -> None:
    checked = names(WORDS, '"{0}" text check ("{0}" <> \'\')')
    keys, made = (
        names(UNQUOTED, '"{0}" text'),
        names(UNQUOTED, '"{0}" integer generated always as (7) stored'),
    )
    tables = {
        "sealed_words": (f"id bigserial primary key, {checked}", WORDS),
        "plain_words": (f"id bigserial primary key, x text, {checked}", ["x"]),
        "key_words": (f"{keys}, x text, primary key ({names(UNQUOTED)})", ["x"]),
        "made_words": (f"id bigserial primary key, x text, {made}", ["x"]),
    }
    with database.admin() as admin:
        for table, (declaration, sealed) in tables.items():
            admin.execute(f"create table clinic.{table} ({declaration})")
            admin.execute(f"select ward.protect('clinic.{table}', seal => %s)", [sealed])
    with database.tenant("acme", subject="me", role="ADMIN") as ward:
        write_and_read(ward, "sealed_words", WORDS)
        write_and_read(ward, "plain_words", [*WORDS, "x"])
        write_and_read(ward, "key_words", [*UNQUOTED, "x"])
        write_and_read(ward, "made_words", ["x"], f", {names(UNQUOTED)}")


def test_tables(database: Database) -> None:
    with database.admin() as admin:
        for word in UNQUOTED:
            admin.execute(f'create table clinic."{word}" (id bigserial primary key, s text)')
            admin.execute("select ward.protect(%s, seal => '{s}')", [f'clinic."{word}"'])
    with database.tenant("acme", subject="me", role="ADMIN") as ward:
        for word in UNQUOTED:
            write_and_read(ward, word, ["s"])
