"""Whatever is added to, taken from or changed in objects of wardkey is found, with what fixes it.

Changes are made from the catalog: of each kind to every object it can be made to, all in one transaction. The
doctor has to name each of these objects, and its fixes leave nothing to be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database, clone
from wardkey.doctor import Problem, Server, checks
from wardkey.embedded import Cluster

THEMES = ("access", "extension", "wards", "models", "roles", "privileges")

OURS, *_PARTS = re.split(
    r"(?m)^-- (.+):$", (Path(__file__).parents[1] / "support/changes.sql").read_text("utf-8")
)
CHANGES = {
    kind: query.strip().removesuffix(";") for kind, query in zip(_PARTS[::2], _PARTS[1::2], strict=True)
}
BY_HAND = {"table dropped", "constraint dropped"}
"""Where not every fix is a statement, or none runs: without the key of models no DDL does."""


@pytest.fixture(scope="module")
def ill(cluster: Cluster, template: str) -> Iterator[tuple[Database, str]]:
    with clone(cluster, template) as database:
        gone = database.new_tenant()
        with database.admin() as connection:
            connection.execute(
                "select ward.drop_tenant(%s, %s)", [gone, gone]
            )  # its log goes to ward_archive
            connection.execute("select ward.add_row_rule('clinic.patients', '{VIEWER}', 'id = 1')")
            connection.execute("select ward.add_search('clinic.patients', 'name', '{exact, words}')")
            connection.execute(
                "create function clinic.wk() returns trigger language plpgsql as 'begin return null; end'"
            )
            connection.execute(
                "create function clinic.wke() returns event_trigger language plpgsql as 'begin end'"
            )
        yield database, f"tenant_{database.new_tenant()}"
        with database.admin() as connection:
            connection.execute("drop role if exists wk_other")


@pytest.fixture(scope="module")
def backend(ill: tuple[Database, str]) -> Iterator[psycopg.Connection]:
    with ill[0].admin(autocommit=False) as connection:
        yield connection


@pytest.fixture
def connection(backend: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """In a transaction of the test's own; in one backend, whose caches are filled once."""
    backend.execute("create role wk_other")
    yield backend
    backend.rollback()


def look(connection: psycopg.Connection, *themes: str) -> list[Problem]:
    server = Server(connection)
    return [
        problem
        for theme in themes or THEMES
        for check in checks()[theme]
        if check.name != "other-databases-closed"  # whose outcome other tests change
        for problem in check.run(theme, server).problems
    ]


def change(connection: psycopg.Connection, query: str) -> list[tuple[str, str]]:
    """Make every change that PostgreSQL lets a superuser make."""
    connection.execute("set local search_path = pg_catalog")
    ours = connection.execute("select evtname from pg_event_trigger").fetchall()
    for (trigger,) in ours:  # who may do what follows may do this
        connection.execute(f"alter event trigger {trigger} disable")
    made = []
    for name, statement in connection.execute(query).fetchall():
        try:
            with connection.transaction():
                connection.execute(statement)
            made.append((name, statement))
        except psycopg.Error:
            continue
    if "event" not in query:
        for (trigger,) in ours:
            connection.execute(f"alter event trigger {trigger} enable always")
    return made


def fix(connection: psycopg.Connection, problems: list[Problem]) -> None:
    """Run the fixes: ten of them with our event triggers, which cost more than all the rest of the test."""
    for number, problem in enumerate(problems):
        if number == 10:
            for trigger in ("ward_follow_grants", "ward_follow_names"):
                connection.execute(f"alter event trigger {trigger} disable")
        try:
            with connection.transaction():
                connection.execute(problem.fix or "")
        except psycopg.Error:
            continue  # an earlier one fixed this too


def is_named(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text) is not None


def named(query: str, ward: str) -> str:
    return query.replace("@ward", ward).replace("@leaves", ward.replace("tenant_", "sealed_"))


@pytest.mark.parametrize("kind", CHANGES)
def test_change_is_found_and_mended(
    kind: str, ill: tuple[Database, str], connection: psycopg.Connection
) -> None:
    made = change(connection, named(OURS + CHANGES[kind], ill[1]))
    assert made
    problems = look(connection)
    text = "\n".join(f"{p.object} {p.detail} {p.fix}" for p in problems)
    missed = [(name, statement) for name, statement in made if not is_named(name, text)]
    assert not missed
    if kind in BY_HAND:
        return
    for _ in range(3):  # one fix may have to wait for another
        fix(connection, problems)
        if not (problems := look(connection)):
            break
    assert not problems


@pytest.mark.parametrize(
    "change_function",
    [
        "replace(pg_get_functiondef(oid), prosrc, prosrc || E'\\n')",
        "format('alter extension wardkey drop function %s; drop function %1$s', name)",
    ],
)
def test_every_function_is_known(
    change_function: str, ill: tuple[Database, str], connection: psycopg.Connection
) -> None:
    query = f"select name, {change_function} from fn where nspname <> '{ill[1]}' and prosrc <> ''"
    made = change(connection, named(OURS, ill[1]) + query)
    assert len(made) > 100
    problems = look(connection, "extension")
    there = {problem.object.replace(" ", "") for problem in problems}
    assert len(there) >= len(made)
    for _ in range(5):  # functions first, then what they are needed for
        fix(connection, problems)
        if not (problems := look(connection, "extension")):
            break
    assert not problems


@pytest.mark.parametrize(
    "attribute",
    [
        "security definer",
        "immutable",
        "strict",
        "leakproof",
        "parallel safe",
        "set search_path = public",
        "set work_mem = '1GB'",
        "reset all",
        "support generate_series_int4_support",
    ],
)
def test_attributes_of_functions_are_known(
    attribute: str, ill: tuple[Database, str], connection: psycopg.Connection
) -> None:
    names = ("ward_internal.fail(text,text,text)", "ward_internal.tenant_of(text)")
    for name in names:
        connection.execute(f"alter function {name} {attribute}")
    problems = look(connection, "extension")
    assert {problem.object for problem in problems} == set(names)
    fix(connection, problems)
    assert not look(connection, "extension")


def test_nothing_is_found_in_an_untouched_database(connection: psycopg.Connection) -> None:
    assert look(connection) == []
