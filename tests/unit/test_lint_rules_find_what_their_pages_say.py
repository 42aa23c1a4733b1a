"""Each rule finds the bad example of its page, alone, and nothing in the good one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wardkey.lint import FAMILIES, RULES, Rule, lint_texts

PAGES = Path(__file__).parents[2] / "docs/rules"
_EXAMPLE = re.compile(r"^## (Bad|Good)\n\n```(sql|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rules_found(language: str, text: str) -> set[str]:
    report = lint_texts({"example.py" if language == "python" else "example.sql": text})
    assert report.notes == ()
    return {finding.rule.id for finding in report.findings}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: f"{rule.id}-{rule.name}")
def test_the_examples_of_the_page_are_true(rule: Rule) -> None:
    (bad, good) = _EXAMPLE.findall(rule.page)
    assert (bad[0], good[0]) == ("Bad", "Good")
    assert rules_found(*bad[1:]) == {rule.id}
    assert rules_found(*good[1:]) == set()


def test_every_rule_has_a_page_and_every_page_a_rule() -> None:
    assert {path.stem for path in PAGES.glob("WL*.md")} == set(RULES)
    assert len({rule.name for rule in RULES.values()}) == len(RULES) >= 40


def test_ids_tell_the_family() -> None:
    for number, members in enumerate(FAMILIES.values()):
        assert members
        assert {rule.id[2] for rule in members} == {str(number)}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_page_says_why_in_lines_of_120_columns(rule: Rule) -> None:
    why = rule.page.partition("\nFix: ")[2].partition("\n\n")[2].partition("\n## Bad")[0]
    assert len(why) > 50
    assert max(map(len, rule.page.splitlines())) <= 120
