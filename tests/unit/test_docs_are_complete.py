"""The docs build without a warning, name what there is and nothing else, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from tests.support.extension_script import functions, scripts
from wardkey.cli import cli
from wardkey.doctor import checks
from wardkey.metrics import registry

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*PAGES, *ROOT.glob("*.md")]
CHECKS = {check.name for members in checks().values() for check in members}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wardkey_docs", ROOT / "tools/docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_build_strictly(tmp_path: Path) -> None:
    """Strictly: links and anchors inside docs lead somewhere, every page is in the navigation."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--quiet",
            "--strict",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "site/checks/owners/index.html").exists()


def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    assert "font: false" in (ROOT / "mkdocs.yml").read_text()


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for name in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / name).exists(), name


def test_every_check_has_a_page_and_every_page_a_check() -> None:
    assert {page.stem for page in PAGES if page.parent.name == "checks"} == CHECKS


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_page_of_a_check_says_why_and_what_to_do(name: str) -> None:
    why, fix = re.findall(r"^## .*\n\n((?:.+\n)+)", (ROOT / f"docs/checks/{name}.md").read_text(), re.M)
    assert len(why) > 60 and len(fix) > 12


def test_the_reference_has_every_function_and_view_of_ward(made: ModuleType) -> None:
    page = made.functions()
    (script,) = (text for name, text in scripts().items() if name.count("--") == 1)
    views = re.findall(r"create or replace view (ward\.\w+)", script)
    public = {one.name for one in functions().values() if one.name.startswith("ward.")}
    assert len(public) > 40 and len(views) > 4
    for name in public | set(views):
        assert f"\n### {name}\n" in page, name


def test_the_reference_has_every_command(made: ModuleType) -> None:
    page = made.commands()
    paths = [" ".join(path) for path, _ in made.walk(cli)]
    assert len(paths) > 60
    for path in paths:
        assert re.search(rf"^##+ wardkey {path}$", page, re.M), path


def test_the_reference_has_every_metric(made: ModuleType) -> None:
    page = made.metrics()
    assert len(registry.every()) > 25
    for metric in registry.every():
        assert f"| `{metric.name}{'_total' * (metric.kind == 'counter')}` | {metric.kind} |" in page


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_only_what_there_is(page: Path) -> None:
    text = re.sub(r"```python.*?```", "", page.read_text(), flags=re.S)
    known = {one.short for one in functions().values()} | _relations()
    for name in re.findall(r"\bward\.(\w+)\(", text):
        assert name in known, f"ward.{name}"
    for line in re.findall(r"(?:^|`|\$ )wardkey ([a-z-][^`\n#→]*)", text, re.M):
        words = line.split()
        command = _follow(words)
        options = {
            name
            for one in (command, cli)
            for parameter in one.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for option in re.findall(r"(?<!\S)--[a-z-]+", line):
            assert option in options | {"--help"} or isinstance(command, click.Group), line


def _relations() -> set[str]:
    return {name for text in scripts().values() for name in re.findall(r"(?:view|table) ward\.(\w+)", text)}


def _follow(words: list[str]) -> click.Command:
    """Return the command that these words call; what follows it are arguments."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group) or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        child = command.get_command(click.Context(command), word)
        assert child is not None, f"wardkey {' '.join(words)}"
        command = child
    return command
