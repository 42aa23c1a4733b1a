"""Columns and keys of every type, those of extensions among them: a face answers as the declared table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database, clone
from wardkey.embedded import Cluster

# type: two values as a tenant writes them, and a comparison with the first that only the type's own operator answers
COLUMNS = {
    "smallint": ("1", "2", "v < 2"),
    "bigint": ("1", "9223372036854775807", "v = 1.0"),
    "numeric(6,2)": ("1.5", "2.25", "v = 1.50"),
    "real": ("1.5", "'NaN'", "v = 1.5"),
    "double precision": ("1e10", "-0.0", "v = 10000000000"),
    "money": ("'1.50'", "'2'", "v = '1.5'"),
    "text": ("'a'", "'B'", "v = 'a'"),
    "varchar(3)": ("'abc'", "'B'", "v = 'abc'"),
    "char(3)": ("'a'", "'b'", "v = 'a  '"),
    '"char"': ("'a'", "'b'", "v = 'a'"),
    "name": ("'a'", "'b'", "v = 'a'"),
    "bytea": (r"'\x00ff'", "''", r"v = '\x00FF'"),
    "boolean": ("true", "false", "v"),
    "date": ("'2024-02-29'", "'infinity'", "v = '2024-02-29'"),
    "time": ("'12:00'", "'24:00'", "v = '12:00:00'"),
    "timetz": ("'12:00+00'", "'12:00-05'", "v = '12:00+00'"),
    "timestamp": ("'2024-01-01 00:00'", "'-infinity'", "v = '2024-01-01'"),
    "timestamptz": ("'2024-01-01 00:00+00'", "'infinity'", "v = '2024-01-01 01:00+01'"),
    "interval": ("'1 day'", "'1 mon'", "v = '24:00:00'"),
    "uuid": ("'a0eebc999c0b4ef8bb6d6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'",
             "v = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
    "json": ("""'{"a": 1}'""", "'null'", "v ->> 'a' = '1'"),
    "jsonb": ("""'{"a": 1}'""", "'null'", """v @> '{"a": 1.0}'"""),
    "jsonpath": ("'$.a'", "'$.b'", "v::text = '$.\"a\"'"),
    "xml": ("'<a/>'", "'<b/>'", "v::text = '<a/>'"),
    "inet": ("'10.0.0.1'", "'::1'", "v << '10.0.0.0/8'"),
    "cidr": ("'10.0.0.0/8'", "'::/0'", "v >> '10.1.0.0'"),
    "macaddr": ("'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'", "v = '08002b:010203'"),
    "macaddr8": ("'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03:04:06'", "v = '08002b:0102030405'"),
    "bit(3)": ("B'101'", "B'000'", "v = B'101'"),
    "varbit": ("B'101'", "B''", "v = B'101'"),
    "point": ("'(1,2)'", "'(3,4)'", "v ~= '(1,2)'"),
    "line": ("'{1,2,3}'", "'{1,2,4}'", "v = '{1,2,3}'"),
    "lseg": ("'((0,0),(1,1))'", "'((0,0),(2,2))'", "v = '((0,0),(1,1))'"),
    "box": ("'(1,1),(0,0)'", "'(2,2),(0,0)'", "v ~= '(1,1),(0,0)'"),
    "path": ("'[(0,0),(1,1)]'", "'((0,0),(1,1),(2,0))'", "isopen(v)"),
    "polygon": ("'((0,0),(1,1),(2,0))'", "'((0,0),(1,1),(3,0))'", "v ~= '((0,0),(1,1),(2,0))'"),
    "circle": ("'<(0,0),1>'", "'<(0,0),2>'", "v ~= '<(0,0),1>'"),
    "tsvector": ("'a b'", "'c'", "v @@ 'a & b'::tsquery"),
    "tsquery": ("'a & b'", "'c'", "v = 'a&b'"),
    "int4range": ("'[1,3)'", "'empty'", "v @> 2"),
    "tstzrange": ("'[2024-01-01 00:00+00,)'", "'empty'", "v @> '2025-01-01'::timestamptz"),
    "int8multirange": ("'{[1,3),[5,7)}'", "'{}'", "v @> 5::bigint"),
    "oid": ("1", "2", "v = 1"),
    "pg_lsn": ("'0/1'", "'0/2'", "v = '0/1'"),
    "xid8": ("'1'", "'2'", "v = '1'"),
    "regtype": ("'integer'", "'text'", "v = 'int'::regtype"),
    "integer[]": ("'{1,2}'", "'{}'", "v @> '{2}'"),
    "text[]": ("'{a,NULL}'", "'{}'", "'a' = any (v)"),
    "citext": ("'Ada'", "'Bo'", "v = 'ADA'"),
    "citext[]": ("'{Ada}'", "'{}'", "'ADA' = any (v)"),
    "hstore": ("'a=>1'", "''", "v -> 'a' = '1' and v ? 'a'"),
    "ltree": ("'a.b'", "'c'", "v <@ 'a'"),
    "cube": ("'(1,2)'", "'(3)'", "v = '(1,2)'"),
    "seg": ("'1 .. 2'", "'3'", "v && '2'"),
    "isbn": ("'0-306-40615-2'", "'0-19-852663-6'", "v = '0306406152'"),
    "isn_elsewhere.wide": ("'Ada'", "'Bo'", "v = 'ADA'"),  # a domain over citext, in a schema of its own
    "clinic.mood": ("'good'", "'bad'", "v > 'bad'::clinic.mood"),
    "clinic.short": ("'a'", "'b'", "v = 'a'::clinic.short"),
    "clinic.place": ("row('A', 1)", "row('B', 2)", "(v).street = 'a'"),
    "clinic.span": ("'[1,2]'", "'empty'", "v @> 1.5::float8"),
    'text collate "C"': ("'a'", "'B'", "v > 'B'"),
    "text collate clinic.any_case": ("'Ada'", "'Bo'", "v = 'ADA'"),
}  # fmt: skip
NO_KEYS = {  # without an order of their own
    "json", "jsonpath", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle",
}  # fmt: skip
PREPARATION = """
create extension citext; create extension ltree; create extension cube; create extension seg;
create extension isn;
create schema kept; create extension hstore schema kept;
create schema isn_elsewhere; create domain isn_elsewhere.wide as citext;
create type clinic.mood as enum ('bad', 'good');
create domain clinic.short as text check (length(value) < 4);
create type clinic.place as (street citext, number int);
create type clinic.span as range (subtype = float8);
create collation clinic.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
set search_path = clinic, public, kept, pg_temp;
"""


def name(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in kind)


@pytest.fixture(scope="module")
def typed(cluster: Cluster, template: str) -> Iterator[Database]:
    """A table with a column of each type, and for each type one with such a key, declared and protected."""
    columns = ", ".join(f"v_{name(kind)} {kind}" for kind in COLUMNS)
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(PREPARATION)
            for prefix in ("declared", "face"):
                admin.execute(f"create table {prefix}_all (id int primary key, s text, {columns})")
                for kind in COLUMNS.keys() - NO_KEYS:
                    table = f"{prefix}_{name(kind)}"
                    admin.execute(f"create table {table} (v {kind}, n int, note text, primary key (v, n))")
            admin.execute("select ward.protect('face_all', '{s}')")
            for kind in COLUMNS.keys() - NO_KEYS:
                admin.execute(f"select ward.protect('face_{name(kind)}')")
        yield database


def outcomes(connection: Connection, statements: list[str]) -> list[object]:
    """Run statements in a transaction that is rolled back; the rows of each, or how many, or its SQLSTATE."""
    results: list[object] = []
    connection.autocommit = False
    for statement in statements:
        try:
            with connection.transaction():
                cursor = connection.execute(statement)
                results.append(cursor.fetchall() if cursor.description else cursor.rowcount)
        except psycopg.Error as error:
            results.append(error.sqlstate)
    connection.rollback()
    return results


def check(typed: Database, statements: list[str], table: str) -> list[object]:
    with typed.admin() as admin, typed.tenant("acme", subject="tester") as ward:
        admin.execute("set search_path = clinic, public, kept, isn_elsewhere")
        declared = outcomes(admin, [text.replace("TABLE", f"declared_{table}") for text in statements])
        assert outcomes(ward, [text.replace("TABLE", f"face_{table}") for text in statements]) == declared
    return declared


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns(typed: Database, kind: str) -> None:
    one, two, condition = COLUMNS[kind]
    faults = check(typed, [
        re.sub(r"\bv\b", f"v_{name(kind)}", text) for text in (
            f"insert into TABLE (id, s, v) values (1, 'a', {one}), (2, 'b', {two}), (3, 'c', null)",
            f"select id from TABLE where {condition}",
            "select id, v::text, s from TABLE order by id",
            f"update TABLE set v = {two} where s = 'a'",
            "update TABLE set s = 'x' where id = 2 returning v::text",
            "select id, v::text from TABLE order by id",
            "delete from TABLE",
        )
    ], "all")  # fmt: skip
    assert faults[0] == 3 and faults[1] and faults[3] == 1 and faults[-1] == 3


@pytest.mark.parametrize("kind", sorted(COLUMNS.keys() - NO_KEYS))
def test_keys(typed: Database, kind: str) -> None:
    one, two, condition = COLUMNS[kind]
    faults = check(typed, [
        f"insert into TABLE values ({one}, 1, 'a'), ({two}, 1, 'b'), ({one}, 2, 'c')",
        f"insert into TABLE values ({one}, 1, 'again')",
        f"update TABLE set note = 'x' where {condition} and n = 1",
        "update TABLE set note = note || '!'",
        f"update TABLE set v = {two} where n = 2",
        "select v::text, n, note from TABLE order by v, n",
        "delete from TABLE where n = 2",
        "delete from TABLE",
    ], name(kind))  # fmt: skip
    assert faults[0] == 3 and faults[1] == "23505" and faults[3] == 3 and faults[-1] == 2
