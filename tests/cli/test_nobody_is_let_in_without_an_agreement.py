"""Business associate agreements: recorded once, required where asked for, warned about before they end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.doctor import Problem, Server, checks
from wardkey.embedded import Cluster

SIGNED = b"%PDF-1.7 signed"


@pytest.fixture(scope="module")
def shared(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        yield database


@pytest.fixture
def admin(shared: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose changes do not last."""
    with shared.admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


def add(
    connection: psycopg.Connection[Any],
    first: int,
    last: int | None,
    document: bytes = SIGNED,
    **facts: Any,
) -> Any:
    """Record an agreement with acme that begins and ends so many days from today on."""
    values = {
        "covered_entity": "Acme Clinics",
        "business_associate": "Platform",
        "document": "baa.pdf",
        "sha256": hashlib.sha256(document).digest(),
        "begins": today() + timedelta(first),
        "ends": None if last is None else today() + timedelta(last),
        **facts,
    }
    named = ", ".join(f"p_{name} => %({name})s" for name in values)
    row = connection.execute(f"select ward.add_baa('acme', {named})", values).fetchone()
    assert row
    return row[0]


def today() -> date:
    return datetime.now(UTC).date()


def look(connection: psycopg.Connection[Any], name: str) -> list[Problem]:
    (check,) = [check for check in checks()["access"] if check.name == name]
    return list(check.run("access", Server(connection)).problems)


@pytest.mark.parametrize(
    ("begins", "ends", "state"),
    [
        (0, 0, "in force"),
        (-9, None, "in force"),
        (1, 9, "to come"),
        (-9, -1, "ended"),
    ],
)
def test_an_agreement_is_in_force_on_its_days(
    admin: psycopg.Connection[Any], begins: int, ends: int | None, state: str
) -> None:
    identity = add(admin, begins, ends)
    assert admin.execute("select state from ward.baas where id = %s", [identity]).fetchone() == (state,)
    admin.execute("select ward.set('require_baa', 'on'), ward.suspend_tenant('acme')")
    if state == "in force":
        admin.execute("select ward.resume_tenant('acme')")
        return
    with pytest.raises(psycopg.Error) as refused:
        admin.execute("select ward.resume_tenant('acme')")
    assert refused.value.sqlstate == "WK230"


def test_nobody_new_is_let_in_where_it_is_required(
    shared: Database, cluster: Cluster, tmp_path: Path
) -> None:
    wardkey = Wardkey(cluster.home.path)
    to = ("--dsn", shared.dsn())
    document = tmp_path / "baa.pdf"
    document.write_bytes(SIGNED)
    slug = f"agreed_{shared.name}"
    with shared.admin() as connection:
        connection.execute("select ward.set('require_baa', 'on')")
        try:
            (made,) = wardkey.json("tenant", "create", slug, *to)
            assert made["status"] == "suspended"
            refused = wardkey("tenant", "resume", slug, *to, code=1).stderr
            assert "WK230" in refused and "wardkey baa add" in refused
            parties = ("--covered-entity", "Agreed", "--business-associate", "Platform")
            added = ("baa", "add", slug, "--document", str(document), *parties, "--begins", str(today()))
            baa = wardkey.json(*added, "--subcontractor", "Cloud", *to)
            assert baa["document_sha256"] == hashlib.sha256(SIGNED).hexdigest()
            assert (baa["document"], baa["subcontractors"], baa["ends"]) == ("baa.pdf", ["Cloud"], None)
            wardkey("tenant", "resume", slug, *to)
            assert "WK231" in wardkey(*added, *to, code=1).stderr  # recorded already
            wardkey("baa", "end", baa["id"], "--reason", "they left", *to)
            assert wardkey.json("baa", "show", baa["id"], *to)["ends"] == str(today())
            assert [row["id"] for row in wardkey.json("baa", "list", "--tenant", slug, *to)] == [baa["id"]]
            told = wardkey("tenant", "create", f"{slug}_too", *to).stderr
            assert f"wardkey baa add {slug}_too" in told
            wardkey("tenant", "drop", slug, "--yes", slug, *to)
            assert wardkey.json("baa", "show", baa["id"], *to)["slug"] == slug  # kept for six years
        finally:
            connection.execute("select ward.set('require_baa', 'off')")


@pytest.mark.parametrize(
    ("facts", "sqlstate"),
    [
        ({"ends": date(1999, 1, 1)}, "WK231"),
        ({"sha256": b"short"}, "WK231"),
        ({"begins": None}, "WK231"),
        ({"notice_days": -1}, "WK231"),
        ({"covered_entity": " "}, "WK212"),
        ({"subcontractors": ["a", "\u202eb"]}, "WK212"),
    ],
)
def test_what_is_no_agreement_is_refused(
    admin: psycopg.Connection[Any], facts: dict[str, Any], sqlstate: str
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        add(admin, 0, 9, **facts)
    assert refused.value.sqlstate == sqlstate and (refused.value.diag.message_hint or "")
    admin.rollback()
    assert admin.execute("select count(*) from ward.baas where slug = 'acme'").fetchone() == (0,)


@pytest.mark.parametrize(("on", "sqlstate"), [(-10, "WK231"), (10, "WK231"), (None, "WK231"), (5, None)])
def test_an_agreement_ends_on_one_of_its_days(
    admin: psycopg.Connection[Any], on: int | None, sqlstate: str | None
) -> None:
    values = (add(admin, -9, 9), None if on is None else today() + timedelta(on))
    if sqlstate is None:
        admin.execute("select ward.end_baa(%s, %s, 'they left')", values)
        assert admin.execute("select days_left from ward.baas where id = %s", values[:1]).fetchone() == (on,)
        return
    with pytest.raises(psycopg.Error) as refused:
        admin.execute("select ward.end_baa(%s, %s, 'they left')", values)
    assert refused.value.sqlstate == sqlstate


def test_both_are_entries_of_the_tenants_log(admin: psycopg.Connection[Any]) -> None:
    identity = add(admin, -9, 9)
    admin.execute("select ward.end_baa(%s, %s, 'they left')", [identity, today()])
    kinds = admin.execute("select kind from ward.events where slug = 'acme' order by id").fetchall()
    assert kinds[-2:] == [("baa recorded",), ("baa ended",)]


@pytest.mark.parametrize(
    ("ends", "said"),
    [(5, "within a week"), (29, "within a month"), (89, "89 days"), (90, None), (None, None)],
)
def test_the_doctor_warns_before_one_ends(
    admin: psycopg.Connection[Any], ends: int | None, said: str | None
) -> None:
    add(admin, -9, ends)
    problems = look(admin, "baa-lasts")
    assert [problem.object for problem in problems] == (["acme"] if said else [])
    assert all(said in problem.detail for problem in problems if said)
    if said and ends is not None:
        add(admin, ends + 1, None, b"the next one")
        assert not look(admin, "baa-lasts")


def test_the_doctor_names_who_is_let_in_without_one(admin: psycopg.Connection[Any]) -> None:
    assert not look(admin, "baa-in-force")
    admin.execute("select ward.set('require_baa', 'on')")
    assert {problem.object for problem in look(admin, "baa-in-force")} == {"acme", "globex"}
    add(admin, -9, 9)
    assert {problem.object for problem in look(admin, "baa-in-force")} == {"globex"}


def test_tenants_see_none_of_it(shared: Database) -> None:
    with shared.tenant("acme", subject="root", role="ADMIN") as connection:
        for query in ("select * from ward.baas", "select ward.end_baa(null, null, 'x')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query)
