"""Where a rule of lint names an SQLSTATE, its bad example fails with it on a server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database
from wardkey.lint import RULES

MODELS = """
create table clinic.codes (code text primary key);
select ward.share('clinic.codes');
create function clinic.stamp() returns trigger language plpgsql as 'begin return new; end';
"""
_VISITS = "create table clinic.visits (id bigint primary key, room text);"
_EXAMPLE = re.compile(r"^## (?:Bad|Good)\n\n```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REFUSED = {
    rule.id: re.findall(r"\b(?:WK\d{3}|[0-9A-Z]{5})\b", rule.message.partition("(")[2])
    for rule in RULES.values()
    if re.search(r"\((?:WK\d|\d)", rule.message)
}
# Refused without an SQLSTATE in the message: ward.protect's own reasons, and COPY of a view.
REFUSED |= {"WL121": ["WK205"], "WL513": ["42809"]}


@pytest.fixture
def admin(shared: Database) -> Iterator[Connection]:
    with shared.admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


def statements(example: str) -> list[str]:
    example = example.replace("patients", "people")  # of which the template has a table
    made = "create table clinic.visits" in example or "clinic.visits" not in example
    parts = [part.strip() for part in example.split(";") if part.strip()]
    return parts if made else [_VISITS, *parts]


@pytest.mark.parametrize("rule", sorted(REFUSED.keys() - {"WL406"}))
def test_bad_examples_fail_as_the_rule_says(admin: Connection, rule: str) -> None:
    bad, good = _EXAMPLE.findall(RULES[rule].page)
    with pytest.raises(psycopg.Error) as refused:
        admin.execute("set local search_path = tenant_acme, ward")
        for statement in statements(bad):
            admin.execute(statement)
    assert refused.value.sqlstate in REFUSED[rule]
    admin.rollback()
    for statement in statements(good):
        if not statement.startswith(("copy", "insert")):  # which need a context
            admin.execute(statement)


def test_an_index_is_built_concurrently_leaf_by_leaf(shared: Database) -> None:
    """WL406. What is there on every leaf is attached, not built."""
    bad, good = _EXAMPLE.findall(RULES["WL406"].page)
    with shared.admin() as admin:
        try:
            *before, last = statements(bad)
            for statement in before:
                admin.execute(statement)
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                admin.execute(last)
            concurrent = statements(good)[-1]
            for slug in ("acme", "globex"):
                admin.execute(concurrent.replace("acme", slug))
            indexes = "select count(*) from pg_index where indrelid = 'sealed_acme.visits'::regclass"
            (count,) = admin.execute(indexes).fetchone() or (None,)
            admin.execute("create index on clinic.visits (tenant_id, room)")
            assert admin.execute(indexes).fetchone() == (count,)
        finally:
            admin.execute("select ward.unprotect('clinic.visits')")
            admin.execute("drop table clinic.visits")


def test_rules_that_name_an_sqlstate_are_found() -> None:
    assert len(REFUSED) >= 9
