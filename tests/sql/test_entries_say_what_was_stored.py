"""An entry about a write says which stored values changed and what they were, in one form, whatever they are.

It follows no setting of the session, holds what jsonb cannot hold, and is bounded: long values are digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.database import Connection, Database
from tests.support.sqlstate import refused

MODELS = """
create schema e;
create domain e.text_domain as text;
create domain e.json_domain as json;
create type e.pair as (a float8, b timestamptz);
create table e.facts (
  id int primary key, f float8, g float4, n numeric, j json, jd e.json_domain, jb jsonb, b bytea, i interval,
  ts timestamptz, d date, r tstzrange, c e.pair, fs float8[], ns int[], x xml, reg regclass, m money,
  ch "char",  t e.text_domain, "Order" text, "quoted ""one" text, js json[]
);
select ward.protect('e.facts');
create table e.scans (id int primary key, note text, scan bytea, ns numeric[]);
select ward.protect('e.scans', seal => '{scan}');
create table e.keys (a timestamptz, b float8, c bytea, primary key (a, b, c), v int);
select ward.protect('e.keys');
"""
ODD_SETTINGS = (
    "set extra_float_digits = -15; set bytea_output = escape; set intervalstyle = sql_standard;"
    " set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kolkata'; set quote_all_identifiers = on;"
    " set lc_monetary = 'C.UTF-8'; set xmloption = document"
)

Entry = tuple[str, str | None, Any, Any, Any]


@pytest.fixture
def entries(shared: Database) -> Iterator[Callable[[], list[Entry]]]:
    """Return the entries about writes since the last call: operation, columns, old, new, detail."""
    with shared.admin() as admin:
        last = [admin.execute("select max(id) from tenant_acme.audit_log").fetchone()]

        def since() -> list[Entry]:
            rows = admin.execute(
                "select operation, columns, old, new, detail, id from tenant_acme.audit_log"
                " where kind = 'w' and id > %s order by id",
                [last[0][0] or 0],  # type: ignore[index]
            ).fetchall()
            if rows:
                last[0] = (rows[-1][5],)
            return [
                (operation, columns, old, new, detail) for operation, columns, old, new, detail, _ in rows
            ]

        yield since


@pytest.fixture
def odd(inside: Callable[..., Connection]) -> Connection:
    connection = inside()
    connection.execute(ODD_SETTINGS)
    return connection


CHANGES = [
    ("f", "1.4999", "1.49990000001"),
    ("f", "'0'", "'-0'"),
    ("g", "1.4999", "1.49991"),
    ("n", "1.0", "1.00"),
    ("j", '\'{"k":1, "k":2}\'', "'{\"k\":2}'"),
    ("j", "'[1]'", "'[ 1]'"),
    ("jd", "'\"\\ud800\"'", "'[1e400000]'"),
    ("jb", "'1.0'", "'1.00'"),
    ("b", "'\\x01'", "'\\x02'"),
    ("i", "'1 mon'", "'30 days'"),
    ("ts", "'2026-01-01 00:00:00.000001Z'", "'2026-01-01 00:00:00.000002Z'"),
    (
        "r",
        "'[2026-01-01 00:00:00Z, 2026-01-01 00:00:00.000001Z)'",
        "'[2026-01-01 00:00:00Z, 2026-01-01 00:00:00.000002Z)'",
    ),
    ("c", "'(1.4999,2026-01-01Z)'", "'(1.49990000001,2026-01-01Z)'"),
    ("fs", "'{1.4999}'", "'{1.49990000001}'"),
    ("ns", "'{1,2}'", "'[2:3]={1,2}'"),
    ("ch", '(-56)::"char"', '(-57)::"char"'),
    ('"Order"', "'a'", "null"),
    ('"quoted ""one"', "null", "''"),
    ("js", "array['\"\\u0000\"'::json]", "array['\"\\u0001\"'::json]"),
]


@pytest.mark.parametrize(("column", "before", "after"), CHANGES)
def test_each_change_of_a_stored_value_names_its_column(
    odd: Connection, entries: Callable[[], list[Entry]], column: str, before: str, after: str
) -> None:
    odd.execute("delete from facts")
    odd.execute(f"insert into facts (id, {column}) values (1, {before})")
    entries()
    odd.execute(f"update facts set {column} = {after}")
    ((operation, columns, old, new, _),) = entries()
    name = column.strip('"').replace('""', '"')
    assert (operation, columns) == ("update", column)
    assert list(old) == list(new) == [name]
    odd.execute(f"update facts set {column} = {after}")
    assert entries() == []  # the row stays as it was


def test_images_are_the_same_whatever_the_session_says(
    inside: Callable[..., Connection], odd: Connection, entries: Callable[[], list[Entry]]
) -> None:
    columns = "f, g, b, i, ts, d, r, c, fs, reg, x"
    values = (
        "1.4999000000001, 0.1, '\\x00ff41', '1 day -1 hour', '2026-11-05 12:00Z', '2026-11-05'::date,"
        " '[2026-01-01 00:00Z,2026-01-02 00:00Z)', row(0.1, '2026-11-05 12:00Z'), '{0.1}',"
        " 'pg_class'::regclass, '<a/>'"
    )
    plain = inside()
    plain.execute("delete from facts")
    entries()
    for connection, number in ((plain, 1), (odd, 2)):
        connection.execute(f"insert into facts (id, {columns}) values ({number}, {values})")
    (_, _, _, one, _), (_, _, _, other, _) = entries()
    assert {**one, "id": 2} == other
    assert one["f"] == 1.4999000000001 and one["b"] == "\\x00ff41" and one["i"] == "1 day -01:00:00"
    assert one["ts"] == "2026-11-05T12:00:00+00:00" and one["reg"] == "pg_class" and one["x"] == "<a/>"
    assert one["c"] == '(0.1,"2026-11-05 12:00:00+00")'


def test_the_row_id_has_one_form(
    inside: Callable[..., Connection], odd: Connection, shared: Database, entries: Callable[[], list[Entry]]
) -> None:
    for connection in (inside(), odd):
        connection.execute("insert into keys values ('2026-01-01 00:00Z', 0.1, '\\x00ff', 1)")
        connection.execute("delete from keys")
    with shared.admin() as admin:
        rows = admin.execute(
            "select distinct row_id from tenant_acme.audit_log where model_id ="
            " (select id from ward_internal.models where face = 'keys')"
        ).fetchall()
    assert rows == [('["2026-01-01T00:00:00+00:00", 0.1, "\\\\x00ff"]',)]


@pytest.mark.parametrize("text", ['{"a":"x\\u0000y"}', '"\\ud800"', "[1e400000]", '{"a":1,"a":2}'])
def test_a_json_text_that_jsonb_cannot_hold_is_in_the_log_as_it_is(
    acme: Connection, shared: Database, text: str
) -> None:
    acme.execute("insert into facts (id, j) values (7, %s)", [text])
    acme.commit()
    with shared.admin() as admin:
        new = admin.execute(
            "select new from tenant_acme.audit_log where kind = 'w' order by id desc limit 1"
        ).fetchone()
    acme.execute("delete from facts where id = 7")
    acme.commit()
    assert new is not None and new[0]["j"] == text


def test_long_values_are_digests_and_the_others_stay(
    inside: Callable[..., Connection], entries: Callable[[], list[Entry]]
) -> None:
    acme = inside()
    long, longer = "\x01" * 200_000, "\x02" * 300_000
    acme.execute("insert into scans (id, note) values (1, %s)", [long])
    acme.execute("update scans set note = %s, ns = '{1}'", [longer])
    acme.execute("update scans set ns = '{2}'")
    acme.execute("update scans set scan = %s", [b"\x00" * 200_000])
    acme.execute("delete from scans")
    inserted, updated, other, sealed, deleted = entries()
    digests = [
        {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()} for text in (long, longer)
    ]
    assert inserted[3] == {"id": 1, "note": digests[0], "scan": None, "ns": None}
    assert inserted[4] == {"digests": ["note"]}
    assert updated[1:] == (
        "note,ns",
        {"note": digests[0], "ns": None},
        {"note": digests[1], "ns": [1]},
        {"digests": ["note"]},
    )
    assert other[1:] == ("ns", {"ns": [1]}, {"ns": [2]}, None)
    assert sealed[3]["scan"]["bytes"] > 200_000 and sealed[4] == {"digests": ["scan"]}
    assert deleted[4] == {"digests": ["note", "scan"]}
    assert all(len(json.dumps(entry)) < 10_000 for entry in (inserted, updated, other, sealed, deleted))


def test_few_stored_bytes_that_are_a_long_text_are_a_digest(
    inside: Callable[..., Connection], entries: Callable[[], list[Entry]]
) -> None:
    acme = inside()
    acme.execute("insert into scans (id, ns) values (2, array_fill(1e131071, array[20]))")
    ((*_, new, detail),) = entries()
    assert new["ns"]["bytes"] == 20 * 131_072 + 21 and detail == {"digests": ["ns"]}
    acme.execute("delete from scans")


def test_a_value_whose_text_postgresql_cannot_make_is_refused_by_name(
    inside: Callable[..., Connection], entries: Callable[[], list[Entry]]
) -> None:
    acme = inside()
    with refused("WK402") as caught:
        acme.execute("insert into scans (id, ns) values (3, array_fill(1e131071, array[9000]))")
    assert "1 GB" in (caught.value.diag.message_hint or "")
    assert entries() == []


def test_the_log_as_it_was_hides_a_change_and_is_stopped_by_one_value(
    shared: Database, inside: Callable[..., Connection], entries: Callable[[], list[Entry]]
) -> None:
    """The attacks, against a writer that compares texts under the session's settings."""
    with shared.admin(autocommit=False) as admin:
        body = admin.execute(
            "select pg_get_functiondef('tenant_acme.facts_log_acme()'::regprocedure)"
        ).fetchone()
        assert body is not None
        weak = body[0].replace(
            "record_image_ne(row(old.f), row(new.f))", "to_jsonb(old.f) <> to_jsonb(new.f)"
        )
        weak = weak.replace('record_image_ne(row(old."f"), row(new."f"))', "old.f::text <> new.f::text")
        weak = weak.replace(" SET extra_float_digits TO '1'\n", "").replace(
            " SET extra_float_digits TO 1\n", ""
        )
        admin.execute(weak)
        admin.commit()
        try:
            attacker = inside()
            attacker.execute("set extra_float_digits = -15")
            attacker.execute("insert into facts (id, f) values (50, 1.0)")
            entries()
            attacker.execute("update facts set f = 1.4999 where id = 50")
            assert entries() == []
        finally:
            admin.execute(body[0])
            admin.commit()
        attacker.execute("update facts set f = 1.3 where id = 50")
        assert len(entries()) == 1
        attacker.execute("delete from facts")
