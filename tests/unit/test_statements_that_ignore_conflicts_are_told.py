"""ON CONFLICT DO NOTHING is what the client said, at the place where it means that, or it is not."""

from __future__ import annotations

import pytest
from wardkey_pg.statements import ignores_conflicts

IGNORES = [
    "insert into patients (id) values (1) on conflict do nothing",
    'INSERT INTO "patients" ("id") VALUES ($1), ($2) ON CONFLICT DO NOTHING RETURNING "patients"."id"',
    "/* a */ insert into p select f(g(1)) from x where a = 'it''s' -- here\n on /**/ conflict\ndo nothing ;",
    r"insert into p values (E'\'', $$ ' $$, $x$ $$ " + r'" $x$, "a""b") on conflict do nothing',
    "insert into p values ('ä') on conflict do nothing returning id, (select 1)",
    "insert into p values ('on conflict do update') on conflict do nothing",
]
DOES_NOT = [
    "insert into p values (1)",
    "insert into p values ('on conflict do nothing')",
    "insert into p values (1) -- on conflict do nothing",
    "insert into p values (1) /* on conflict do nothing */",
    "insert into p values (/* /* on */ conflict */ 1) on conflict do nothing",  # nested: not read
    "insert into p values ($$on conflict do nothing$$)",
    'insert into p (on, conflict, "do", nothing) values (1) returning "on conflict do nothing"',
    "insert into p values (1) on conflict (id) do nothing",
    "insert into p values (1) on conflict do update set id = 2",
    "insert into p values (1) on conflict on constraint k do nothing",
    "with x as (insert into q values (1) on conflict do nothing) insert into p values (1)",
    "insert into p with x as (insert into q values (1) on conflict do nothing returning 1) select * from x",
    "insert into p values (1) on conflict do nothing; insert into p values (2)",
    "select 1; insert into p values (1) on conflict do nothing",
    "do $$ begin insert into p values (1) on conflict do nothing; end $$",
    "explain analyze insert into p values (1) on conflict do nothing",
    "prepare q as insert into p values (1) on conflict do nothing",
    "execute q('on conflict do nothing')",
    r"insert into p values ('\', ' on conflict do nothing --')",  # means two things, by a setting
    "insert into p values ('open) on conflict do nothing",
    "",
]


@pytest.mark.parametrize("statement", IGNORES)
def test_said_and_meant(statement: str) -> None:
    assert ignores_conflicts(statement.encode())


@pytest.mark.parametrize("statement", DOES_NOT)
def test_not_said_or_not_meant(statement: str) -> None:
    assert not ignores_conflicts(statement.encode())


def test_a_long_statement_takes_no_time_out_of_proportion() -> None:
    rows = ", ".join(["('it''s', E'\\\\', $1, \"x\")"] * 20_000)
    assert ignores_conflicts(f"insert into p values {rows} on conflict do nothing".encode())
    assert not ignores_conflicts(("insert into p values " + "(" * 100_000 + " conflict").encode())
