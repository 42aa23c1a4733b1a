"""``wardkey access policy`` and ``class``: both copies, where they differ, and who sees what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database
from wardkey.keeper.policy import POLICY_FILE


@pytest.fixture
def wardkey(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wardkey]:
    monkeypatch.setenv("WARDKEY_DSN", database.dsn())
    yield Wardkey(database.cluster.home.path)
    (database.cluster.home.keeper / POLICY_FILE).unlink(missing_ok=True)


def test_what_is_set_is_shown_and_differences_are_found(wardkey: Wardkey, database: Database) -> None:
    wardkey("access", "policy", "set", "ANALYST", "note", "mask")
    cell = next(
        row
        for row in wardkey.json("access", "policy", "show")
        if (row["role"], row["class"]) == ("ANALYST", "note")
    )
    assert (cell["access"], cell["writes"], cell["keeper"]) == ("mask", False, "mask")
    assert wardkey.json("access", "policy", "diff") == []
    with database.admin() as admin:
        admin.execute("select ward.set_policy('VIEWER', 'financial', 'clear')")
    (differing,) = wardkey.json("access", "policy", "diff", code=1)
    assert (differing["role"], differing["class"], differing["keeper"]) == ("VIEWER", "financial", "none")


@pytest.mark.parametrize(
    "arguments",
    [
        ("ANALYST", "heart", "clear"),
        ("NURSE", "note", "clear"),
        ("SUPER_ADMIN", "note", "clear"),
        ("ANALYST", "note", "none", "--write"),
    ],
)
def test_what_is_no_cell_changes_neither(
    wardkey: Wardkey, database: Database, arguments: tuple[str, ...]
) -> None:
    assert "hint" in wardkey("access", "policy", "set", *arguments, code=1).stderr
    assert not (database.cluster.home.keeper / POLICY_FILE).exists()
    assert wardkey.json("access", "policy", "diff") == []


def test_the_matrix_says_who_decided_what(wardkey: Wardkey, database: Database, tmp_path: Path) -> None:
    with database.admin() as superuser:
        superuser.execute("select ward.add_row_rule('clinic.patients', '{VIEWER}', 'id < 100', 'few')")
    with database.tenant("acme", role="ADMIN", subject="dr.<grey>") as admin:
        admin.execute("select ward.narrow_policy('VIEWER', 'quasi', 'mask')")
    facts = json.loads(wardkey("access", "policy", "export", "acme").stdout)
    cell = next(row for row in facts["cells"] if (row["role"], row["class"]) == ("VIEWER", "quasi"))
    assert (cell["access"], cell["platform_access"], cell["decided_by"]) == ("mask", "clear", "dr.<grey>")
    assert {
        "table": "patients",
        "column": "ssn",
        "class": "clinical",
        "type": "text",
        "mask": "null",
    } in facts["columns"]
    (rule,) = facts["row_rules"]
    assert (rule["roles"], rule["name"]) == (["VIEWER"], "few")
    wardkey("access", "policy", "export", "acme", "--html", str(tmp_path / "matrix.html"))
    page = (tmp_path / "matrix.html").read_text()
    assert "164.514(d)(2)" in page and "dr.&lt;grey&gt;" in page and "<script" not in page


def test_classes_are_added_assigned_and_masked(wardkey: Wardkey, database: Database) -> None:
    wardkey("access", "class", "add", "genes", "genetic markers", "--mask", "null")
    wardkey("access", "class", "assign", "clinic.patients", "birth_date", "quasi")
    wardkey("access", "class", "mask", "clinic.patients", "birth_date", "year")
    assert (
        "WK233" in wardkey("access", "class", "mask", "clinic.patients", "birth_date", "zip3", code=1).stderr
    )
    classes = {str(row["name"]): row for row in wardkey.json("access", "class", "list")}
    assert classes["quasi"]["columns"] == ["patients.birth_date"] and classes["genes"]["mask"] == "null"
