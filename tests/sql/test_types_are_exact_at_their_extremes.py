"""Every sealable type comes back bit by bit, whatever the session's formatting at write and at read time.

Each value is written through two faces, one sealed and one not, and compared by its stored bytes (``*=``),
which tell -0 from 0 and 1.0 from 1.00.
"""

from __future__ import annotations

import json

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sql.extremes import BIG, EXTREMES, TYPES, WITH_NULLS
from tests.support.database import Connection, Database

COLUMNS = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
MODELS = f"""
create type clinic."Mood" as enum ('sad', 'so, "so"', 'it''s', '', 'ünï');
create table clinic.plain (id bigint primary key, {COLUMNS});
create table clinic.every (like clinic.plain including all);
select ward.protect('clinic.plain');
select ward.protect('clinic.every', array[{", ".join(repr(name) for name in TYPES)}]);
"""
FORMATS = [
    {},
    {
        "datestyle": "SQL, DMY", "timezone": "Asia/Kathmandu", "intervalstyle": "sql_standard",
        "extra_float_digits": "-15", "bytea_output": "escape", "array_nulls": "off",
    },
    {
        "datestyle": "German", "timezone": "America/St_Johns", "intervalstyle": "postgres_verbose",
        "extra_float_digits": "0", "bytea_output": "hex", "array_nulls": "on", "xmloption": "document",
    },
    {
        "datestyle": "Postgres, MDY", "timezone": "<+13:30>-13:30", "intervalstyle": "iso_8601",
        "extra_float_digits": "3", "standard_conforming_strings": "off", "client_encoding": "UTF8",
    },
]  # fmt: skip
SETTINGS = sorted({name for formats in FORMATS for name in formats})


def use(connection: Connection, formats: dict[str, str]) -> None:
    for name in SETTINGS:
        connection.execute(f"reset {name}")
        if name in formats:
            connection.execute("select set_config(%s, %s, false)", [name, formats[name]])


def not_exact(
    connection: Connection, column: str, values: list[str], write: dict[str, str], reads: list[dict[str, str]]
) -> list[tuple[str, dict[str, str]]]:
    """Write the values twice, read them, and return those that differ, with the format they were read in."""
    kind = TYPES[column]
    connection.execute("savepoint before")
    use(connection, {**write, "array_nulls": "on"})  # NULL is to be written as such
    for face in ("plain", "every"):
        connection.execute(
            f"insert into {face} (id, {column}) select n, (v #>> '{{}}')::{kind}"
            " from json_array_elements(%s::json) with ordinality as u (v, n)",
            [json.dumps(values)],
        )
    wrong = []
    for read in reads:
        use(connection, read)
        rows = connection.execute(
            f"select id, row(e.{column})::record *= row(p.{column})::record"
            " from every e join plain p using (id) order by id"
        ).fetchall()
        assert len(rows) == len(values)
        wrong += [(values[number - 1][:80], read) for number, same in rows if not same]
    connection.execute("rollback to before")
    return wrong


@pytest.mark.parametrize("write", FORMATS, ids=lambda formats: formats.get("datestyle", "default"))
@pytest.mark.parametrize("column", TYPES)
def test_extremes(acme: Connection, column: str, write: dict[str, str]) -> None:
    values = EXTREMES[column] + WITH_NULLS.get(column, [])
    assert not not_exact(acme, column, values, write, FORMATS)


def test_values_are_sealed_at_all(shared: Database, acme: Connection) -> None:
    for column in TYPES:
        value = "sad" if column == "mood" else EXTREMES[column][0]
        acme.execute(f"insert into every (id, {column}) values (%s, %s)", [list(TYPES).index(column), value])
    acme.commit()
    with shared.admin() as admin:
        (kinds,) = admin.execute(
            "select array_agg(distinct format_type(atttypid, atttypmod)) from pg_attribute"
            " where attrelid = 'sealed_acme.every'::regclass and attnum > 0"
            " and attname <> all('{tenant_id,id}')"
        ).fetchone() or ([],)
    acme.execute("delete from every")
    acme.commit()
    assert kinds == ["bytea"]


def test_a_text_of_json_is_kept_to_the_letter(acme: Connection) -> None:
    text = '{"b": 1,  "a" :\t2 , "b":3}'
    acme.execute("insert into every (id, json) values (1, %s)", [text])
    assert acme.execute("select json::text from every").fetchone() == (text,)


def test_null_is_null_and_empty_is_empty(acme: Connection) -> None:
    acme.execute("insert into every (id, text, varchar, bytea) values (1, null, '', '')")
    row = acme.execute("select text is null, varchar = '', bytea = '', integer is null from every").fetchone()
    assert row == (True, True, True, True)


@pytest.mark.parametrize(
    ("column", "value"),
    [("varchar5", "123456"), ("char5", "123456"), ("numeric10_2", "100000000"), ("smallint", "32768"),
     ("mood", "glad"),
     ("inet", "1.2.3.4/33"), ("json", "{"), ("uuid", "x"), ("date", "2023-02-29")],
)  # fmt: skip
def test_limits_are_those_of_the_declared_type(acme: Connection, column: str, value: str) -> None:
    with pytest.raises(psycopg.DataError):
        acme.execute(f"insert into every (id, {column}) values (1, %s)", [value])


formats = st.sampled_from(FORMATS)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def quoted(element: str) -> str:
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


RANDOM = {
    "text": texts,
    "char5": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    "bpchar": texts,
    "numeric": st.decimals(allow_nan=False, allow_infinity=False).map(str),
    "real": st.floats(width=32).map(str),
    "double": st.floats().map(str),
    "timestamp": st.datetimes().map(str),
    "timestamptz": st.datetimes(timezones=st.timezones()).map(lambda value: value.isoformat()),
    "timetz": st.builds(
        "{:%H:%M:%S.%f}{}{:02}:{:02}:{:02}".format,
        st.times(), st.sampled_from("+-"), st.integers(0, 14), st.integers(0, 59), st.integers(0, 59),
    ),
    "interval": st.builds(
        "{} months {} days {} microseconds".format,
        st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-BIG, BIG - 1),
    ),
    "bytea": st.binary().map(lambda value: "\\x" + value.hex()),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    ).map(lambda value: json.dumps(value, indent=1)),
    "inet": st.ip_addresses().flatmap(
        lambda ip: st.integers(0, ip.max_prefixlen).map(lambda bits: f"{ip}/{bits}")
    ),
    "bigints": st.lists(st.integers(-BIG, BIG - 1)).map(lambda value: "{" + ",".join(map(str, value)) + "}"),
    "texts": st.lists(texts.map(quoted)).map(lambda value: "{" + ",".join(value) + "}"),
}  # fmt: skip


@pytest.mark.parametrize("column", RANDOM)
def test_any_value(shared: Database, column: str) -> None:
    with shared.tenant("acme", subject="tester") as connection:
        connection.autocommit = False

        @given(st.lists(RANDOM[column], min_size=1, max_size=8), formats, formats)
        @settings(max_examples=25)
        def exact(values: list[str], write: dict[str, str], read: dict[str, str]) -> None:
            assert not not_exact(connection, column, values, write, [read])

        exact()
        connection.rollback()
