"""``wardkey access budget|honey``: both copies are changed, what was opened is shown, people are let in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database
from wardkey.access import budgets
from wardkey.doctor import Server, checks
from wardkey.keeper.budgets import BUDGETS_FILE

TABLE = "clinic.patients"


@pytest.fixture
def ward(database: Database) -> Iterator[Database]:
    with database.tenant("acme", role="ADMIN") as connection:
        connection.execute("insert into patients (id, name) select n, 'P' from generate_series(1, 20) as n")
    yield database
    (database.cluster.home.keeper / BUDGETS_FILE).unlink(missing_ok=True)


def test_a_budget_is_set_listed_used_and_dropped(ward: Database) -> None:
    wardkey = Wardkey(ward.cluster.home.path)
    budget = ("--dsn", ward.dsn(), "access", "budget")
    place = (TABLE, "--tenant", "acme", "--role", "VIEWER")
    made = wardkey(*budget, "set", *place, "16", "--distinct", "--window", "8h")
    assert "VIEWER opens 16 distinct rows of clinic.patients in 8:00:00" in made.stdout
    (row,) = wardkey.json(*budget, "list")
    assert row["database"] == row["keeper"] == "16 distinct in 8:00:00" and row["slug"] == "acme"
    with ward.tenant("acme", subject="dr.x", role="VIEWER") as viewer:
        viewer.execute("select name from patients where id <= 14")
        (used,) = wardkey.json(
            "--keeper", str(ward.cluster.home.keeper_socket), *budget, "usage", "--tenant", "acme"
        )
    assert (used["subject"], used["role"], used["table"], used["of"]) == ("dr.x", "VIEWER", TABLE, 16)
    assert used["opened"] >= 14
    with ward.admin() as admin:
        events = "select kind from ward.events where slug = 'acme' and kind like 'budget%' order by at"
        assert admin.execute(events).fetchall() == [("budget set",)]
    wardkey(*budget, "drop", *place)
    assert wardkey.json(*budget, "list") == []
    assert "list them" in wardkey(*budget, "drop", *place, code=1).stderr


@pytest.mark.parametrize("arguments", [("0",), ("5", "--window", "59s"), ("200000", "--distinct")])
def test_what_no_budget_can_be_changes_nothing(ward: Database, arguments: tuple[str, ...]) -> None:
    wardkey = Wardkey(ward.cluster.home.path)
    budget = ("--dsn", ward.dsn(), "access", "budget")
    place = (TABLE, "--tenant", "acme", "--role", "VIEWER")
    assert wardkey(*budget, "set", *place, *arguments, code=1).stderr
    assert wardkey(*budget, "set", *place, "5", "--window", "soon", code=2).stderr
    assert wardkey.json(*budget, "list") == []


def test_the_doctor_finds_where_the_copies_differ(ward: Database) -> None:
    (check,) = [one for theme in checks().values() for one in theme if one.name == "budgets-agree"]
    wardkey, home = Wardkey(ward.cluster.home.path), ward.cluster.home
    with ward.admin(autocommit=False) as admin:
        budgets.set_(admin, home.keeper, "acme", "VIEWER", TABLE, 16)
        assert check.run("keeper", Server(admin, home)).outcome == "ok"
        admin.execute("update ward_internal.budgets set row_limit = 1000")
        admin.commit()
        (problem,) = check.run("keeper", Server(admin, home)).problems
        assert problem.detail == "the database says 1,000 in 1 day, 0:00:00, the keeper 16 in 1 day, 0:00:00"
        assert problem.fix
        wardkey("--dsn", ward.dsn(), *problem.fix.split()[1:])
        assert check.run("keeper", Server(admin, home)).outcome == "ok"
        admin.execute("delete from ward_internal.budgets")
        admin.commit()
        (problem,) = check.run("keeper", Server(admin, home)).problems
        assert problem.fix
        wardkey("--dsn", ward.dsn(), *problem.fix.split()[1:])
        assert check.run("keeper", Server(admin, home)).outcome == "ok"


def test_honey_rows_and_ended_logins_are_listed_and_lifted(ward: Database) -> None:
    wardkey = Wardkey(ward.cluster.home.path)
    honey = ("--dsn", ward.dsn(), "--keeper", str(ward.cluster.home.keeper_socket), "access", "honey")
    wardkey(*honey, "add", TABLE, "7", "--tenant", "acme")
    (row,) = wardkey.json(*honey, "list")
    assert (row["slug"], row["table"], row["key"], row["ends_logins"]) == ("acme", TABLE, ["7"], True)
    with ward.tenant("acme", subject="nosy", role="VIEWER") as nosy:
        nosy.execute("select name from patients where id = 7")
    (ended,) = wardkey.json(*honey, "ended", "--tenant", "acme")
    assert ended["subject"] == "nosy"
    assert "may log in again" in wardkey(*honey, "lift", "nosy", "--tenant", "acme").stdout
    assert "nobody" in wardkey(*honey, "ended", "--tenant", "acme").stdout
    wardkey(*honey, "drop", TABLE, "7", "--tenant", "acme")
    assert "no such" in wardkey(*honey, "add", TABLE, "99", "--tenant", "acme", code=1).stderr
