"""What does it cost to find people by sealed columns, opening included, beside indexes on plaintext?

Each side is one transaction in a pipeline: a login where there is one to make, and one query for keys. Exact
search has two rivals: a plain column of the same face, so with login and policies, and a plain table without
either. The others have the plain table: PostgreSQL uses no index for LIKE under row-level security. Trigrams
are those of pg_trgm. Writing compares a model table with three searches with one that has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date, timedelta
from itertools import count
from typing import Any

from _common import Connection, Figure, Server, Subject, Tenant, Timing, main, measure

ROWS = int(os.environ.get("WARDKEY_BENCH_ROWS", "1000000"))
ROUNDS = 301
DAYS = ROWS // 100  # so that a day has 100 people

_MODEL = """
create extension if not exists pg_trgm;
create table clinic.people (
  id bigint primary key, mrn text not null, name text not null, ssn text not null, born date not null,
  note text not null
);
create table plain.people (like clinic.people including all);
create index on plain.people (mrn);
create index on plain.people (name text_pattern_ops);
create index on plain.people (born);
create index on plain.people using gin (note gin_trgm_ops);
create index on clinic.people (mrn);
create table clinic.unsearched (like clinic.people including all);
select ward.protect('clinic.unsearched', seal => '{name, ssn, born, note}');
create table clinic.searched (like clinic.people including all);
select ward.protect('clinic.searched', seal => '{name, ssn, born, note}');
select ward.add_search('clinic.searched', 'name', '{prefix}');
select ward.add_search('clinic.searched', 'ssn', '{exact}', 'digits');
select ward.add_search('clinic.searched', 'born', '{range}');
select ward.protect('clinic.people', seal => '{name, ssn, born, note}');
select ward.add_search('clinic.people', 'name', '{prefix}');
select ward.add_search('clinic.people', 'ssn', '{exact}', 'digits');
select ward.add_search('clinic.people', 'born', '{range}');
select ward.add_search('clinic.people', 'note', '{substring}');
"""
_COLUMNS = "id, mrn, name, ssn, born, note"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def run(server: Server) -> list[Figure]:
    database = server.database("search")
    tenant = database.tenant()
    with database.admin() as admin, tenant.log_in() as ward:
        admin.execute(_MODEL)
        for start in range(1, ROWS + 1, 10_000):
            rows = [_person(number) for number in range(start, min(start + 10_000, ROWS + 1))]
            _copy(ward, "people", rows)
            _copy(admin, "plain.people", rows)
        admin.execute("vacuum analyze")
        index = "select sum(pg_relation_size(indexrelid)) from pg_index join pg_class on oid = indrelid"
        ((size,),) = admin.execute(
            f"{index} where relname ~ '^people' and pg_get_indexdef(indexrelid) like %s",
            ["%" + _stored(admin, "exact") + "%"],
        )
    with database.admin() as plain, tenant.connect() as other, tenant.connect() as ward:
        figures = _finding(plain, other, ward, tenant.token())
    return [
        *figures,
        *_writing(tenant),
        Figure("index of exact search, a row", float(size) / ROWS, "bytes", 40),
    ]


def _finding(plain: Connection, other: Connection, ward: Connection, token: str) -> list[Figure]:
    figures: list[Figure] = []
    for what, query, rival, needle, rows, bar in (
        (
            "exact, 1 row",
            "select find_people(ssn => %(n)s)",
            "select id from people where mrn = %(n)s",
            _ssn,
            1,
            1.5,
        ),
        (
            "… against a plain table, no login",
            "",
            "select id from plain.people where mrn = %(n)s",
            _ssn,
            1,
            None,
        ),
        (
            "prefix, 20 rows",
            "select find_people(name_starts => %(n)s)",
            "select id from plain.people where name like %(n)s || '%%'",
            lambda number: _name(number)[:5],
            20,
            3,
        ),
        (
            "substring, 10 rows",
            "select find_people(note_contains => %(n)s) limit 10",
            "select id from plain.people where note like '%%' || %(n)s || '%%' limit 10",
            lambda number: _note(number)[9:18],
            10,
            5,
        ),
        (
            "range, 100 rows",
            "select find_people(born_between => %(n)s)",
            "select id from plain.people"
            " where born >= lower(%(n)s::daterange) and born < upper(%(n)s::daterange)",
            lambda number: f"[{_born(number)},{_born(number)}]",
            100,
            3,
        ),
    ):
        query = query or "select find_people(ssn => %(n)s)"
        with_login = rival.startswith("select id from people")
        subjects = [
            _subject(
                "plain", ward if with_login else plain, rival, token if with_login else None, needle, rows
            ),
            _subject("ward", ward, query, token, needle, rows),
        ]
        timings = measure(subjects, ROUNDS, warmup=20)
        figures += _compared(what, timings["ward"], timings["plain"], bar)
    return figures


def _compared(what: str, ward: Timing, plain: Timing, bar: float | None) -> list[Figure]:
    return [
        Figure(f"finding by {what}, in plain such queries", ward.wall / plain.wall, "×", bar),
        Figure("… as CPU time of the backend", ward.cpu / plain.cpu, "×"),
        Figure("… itself", ward.wall * 1e3, "ms"),
        Figure("… the plain one", plain.wall * 1e3, "ms"),
    ]


def _subject(
    name: str, connection: Connection, query: str, token: str | None, needle: Callable[[int], str], rows: int
) -> Subject:
    numbers = count(1, 7919)

    def page() -> None:
        with connection.pipeline():
            connection.execute("begin", prepare=True)
            if token is not None:
                connection.execute("select ward.login(%s)", [token], prepare=True)
            cursor = connection.execute(query, {"n": needle(next(numbers) % ROWS + 1)}, prepare=True)
            connection.execute("commit", prepare=True)
            if len(cursor.fetchall()) != rows:
                raise AssertionError(f"{name}: {rows} rows were to be found by {query}")

    return Subject(name, page, connection.info.backend_pid)


def _writing(tenant: Tenant) -> list[Figure]:
    with tenant.log_in() as connection:
        numbers = {table: count(1) for table in ("unsearched", "searched")}

        def insert(table: str) -> Callable[[], None]:
            query = f"insert into {table} ({_COLUMNS}) values (%s, %s, %s, %s, %s, %s)"

            def page() -> None:
                with connection.transaction():
                    for _ in range(20):
                        connection.execute(query, _person(next(numbers[table])), prepare=True)

            return page

        pid = connection.info.backend_pid
        timings = measure([Subject(table, insert(table), pid) for table in numbers], 101, warmup=5)
    searched, unsearched = timings["searched"], timings["unsearched"]
    return [
        Figure("INSERT with three searches, in such without", searched.wall / unsearched.wall, "×", 1.6),
        Figure("… as CPU time of the backend", searched.cpu / unsearched.cpu, "×"),
    ]


def _person(number: int) -> tuple[Any, ...]:
    return number, _ssn(number), _name(number), _ssn(number), _born(number), _note(number)


def _ssn(number: int) -> str:
    return f"{number:09d}"


def _name(number: int) -> str:
    """Twenty people have the same first five letters."""
    return f"{_word((number - 1) // 20, 5)} {_word(number * 7919, 6)}"


def _note(number: int) -> str:
    """Ten people have the same word in the middle."""
    return f"{_word(number * 31, 8)} {_word((number - 1) // 10 * 104_729, 9)} {_word(number * 17, 8)}"


def _born(number: int) -> date:
    return date(1900, 1, 1) + timedelta(number % DAYS)


def _word(number: int, length: int) -> str:
    number = number * 2_654_435_761 % 26**length  # letters look drawn at random, and are the same in each run
    letters: list[str] = []
    for _ in range(length):
        number, letter = divmod(number, 26)
        letters.append(_LETTERS[letter])
    return "".join(letters)


def _copy(connection: Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"copy {table} ({_COLUMNS}) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def _stored(admin: Connection, kind: str) -> str:
    query = """
        select stored from ward_internal.searches as s join ward_internal.models as m on m.id = s.model_id
        where m.face = 'people' and kind = %s"""
    row = admin.execute(query, [kind]).fetchone()
    assert row is not None
    return str(row[0])


if __name__ == "__main__":
    main("search", run)
