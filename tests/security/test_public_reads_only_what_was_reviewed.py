"""What PUBLIC may call and read of pg_catalog was reviewed for each major version: it tells of nobody else.

``public/N.txt`` is what version N adds to N - 1: a line per function, or ``relation: columns``. A name that a
new version of PostgreSQL adds fails here until somebody has read its documentation and either put it there or
closed it in ``sql/functions/tenancy/hardening.sql``. Left out: functions labelled immutable, which read no
state, and those that no query can call or belong to a type (arguments of type internal, triggers, input and
output).
"""

from __future__ import annotations

from pathlib import Path

import psycopg

from .conftest import Wards

_LISTS = Path(__file__).parent / "public"
_FUNCTIONS = """
  select p.oid::regprocedure::text from pg_proc as p
  where p.pronamespace = 'pg_catalog'::regnamespace and p.provolatile <> 'i'
    and not 'internal'::regtype = any (p.proargtypes)
    and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
    and not exists (
      select from pg_type as t where p.oid in (t.typinput, t.typoutput, t.typreceive, t.typsend)
    )
    and exists (
      select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl where acl.grantee = 0
    )"""
_COLUMNS = """
  select format('%s.%s', c.oid::regclass, a.attname)
  from pg_attribute as a join pg_class as c on c.oid = a.attrelid
  where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v')
    and a.attnum > 0 and not a.attisdropped
    and exists (
      select from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)) || coalesce(a.attacl, '{}'))
      where grantee = 0
    )"""


def _open(admin: psycopg.Connection) -> set[str]:
    rows = admin.execute(f"{_FUNCTIONS} union all {_COLUMNS}").fetchall()
    return {name for (name,) in rows}


def _reviewed(major: int) -> set[str]:
    names = set()
    for version in range(15, major + 1):
        for line in (_LISTS / f"{version}.txt").read_text().splitlines():
            relation, colon, columns = line.partition(": ")
            names |= {f"{relation}.{column}" for column in columns.split()} if colon else {line}
    return names


def test_nothing_is_open_that_nobody_reviewed(calm: Wards) -> None:
    reviewed = _reviewed(calm.admin.info.server_version // 10_000)
    assert sorted(_open(calm.admin) - reviewed) == []


def test_nothing_is_reviewed_that_is_taken_away(calm: Wards) -> None:
    """The lists stay true: what hardening.sql closes is not in them."""
    reviewed = _reviewed(calm.admin.info.server_version // 10_000)
    hidden = calm.admin.execute(
        "select f::text from ward_internal.hidden_functions() as f"
        " union all select format('%s.%s', relation, column_name) from ward_internal.hidden_columns()"
        " union all select format('%s.%s', r, attname) from ward_internal.hidden_relations() as r"
        " join pg_attribute on attrelid = r and attnum > 0"
    ).fetchall()
    assert sorted(reviewed & {name for (name,) in hidden}) == []


def test_a_function_that_a_new_version_would_bring_is_found(wards: Wards) -> None:
    before = _open(wards.admin)
    wards.admin.execute("grant execute on function pg_ls_waldir() to public")
    wards.admin.execute("grant select (relpages) on pg_class to public")
    assert _open(wards.admin) - before == {"pg_ls_waldir()", "pg_class.relpages"}
