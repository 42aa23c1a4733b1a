"""pgspot finds nothing in what ``create extension`` runs."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest
from pgspot.state import Counter, State  # type: ignore[import-untyped]
from pgspot.visitors import visit_sql  # type: ignore[import-untyped]

from tests.support.extension_script import full_script

# pgspot cannot analyse Python; what stands in those bodies is held by test_sql_keeps_the_house_rules.
_LANGUAGES = ["plpython3u"]


def _readable(script: str) -> str:
    """Quote SQL-standard bodies (``return …``): pgspot 0.9 takes every body for a quoted one and fails."""
    return re.sub(
        r"(set search_path = pg_catalog, pg_temp)\nreturn (.*?);\n(?=comment|\n|create)",
        lambda match: f"{match[1]} as $body$ select {match[2]} $body$;\n",
        script,
        flags=re.S,
    )


def _spot(script: str) -> Counter:
    options: dict[str, Any] = {"append": False, "summary_only": False, "plpgsql": True, "explain": None}
    lists: dict[str, Any] = {"proc_without_search_path": [], "ignore": [], "sql_fn": [], "files": []}
    counter = Counter(argparse.Namespace(ignore_lang=_LANGUAGES, **options, **lists))
    visit_sql(State(counter), script, toplevel=True)
    return counter


def test_script_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    script = _readable(full_script())
    assert "\nreturn (" not in script and "$body$ select" in script
    counter = _spot(script)
    assert counter.is_clean(), capsys.readouterr().out


@pytest.mark.parametrize(
    ("pinned", "weaker"),
    [
        ("set local search_path = pg_catalog, pg_temp;", ""),
        ("security definer set search_path = pg_catalog, pg_temp", "security definer"),
        (
            "security definer set search_path = pg_catalog, pg_temp",
            "security definer set search_path = public",
        ),
        ("security invoker set search_path = pg_catalog, pg_temp", "security invoker"),
    ],
)
def test_it_would_find_something(pinned: str, weaker: str) -> None:
    script = _readable(full_script())
    assert pinned in script
    assert not _spot(script.replace(pinned, weaker, 1)).is_clean()
