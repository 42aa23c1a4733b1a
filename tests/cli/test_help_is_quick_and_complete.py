"""``wardkey --help`` loads nothing heavy, and what it says of each command is what the command says."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from wardkey.cli import COMMANDS, cli

NAMES = [(name, text) for section in COMMANDS.values() for name, (_, text) in section.items()]


_HEAVY = {
    "alembic", "asyncio", "cryptography", "hashlib", "jinja2", "msgspec", "psutil", "psycopg", "rich",
    "sqlalchemy", "ssl", "subprocess", "wardkey.embedded",
}  # fmt: skip


def _imported(*arguments: str) -> set[str]:
    """Return which heavy modules a command has imported when it is done."""
    script = (
        "import sys; from wardkey.cli import main; main(sys.argv[1:]);"
        f"print('imported', *{_HEAVY!r} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option):
    assert _imported(option) == set()


def test_a_question_to_the_database_imports_what_it_needs(cluster):
    """Each of these takes a command 5 to 200 ms."""
    assert _imported("--home", str(cluster.home.path), "tenant", "list") <= {
        "asyncio", "msgspec", "psutil", "psycopg", "ssl", "subprocess", "wardkey.embedded",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "text"), NAMES)
def test_list_of_commands_tells_the_truth(name, text):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(200).rstrip(".") == text.rstrip(".")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    done = subprocess.run(
        [sys.executable, "-m", "wardkey", "completion", shell], capture_output=True, text=True, check=True
    )
    assert "_WARDKEY_COMPLETE" in done.stdout


def test_completion_offers_commands():
    words = {"COMP_WORDS": "wardkey ten", "COMP_CWORD": "1", "_WARDKEY_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['wardkey']; from wardkey.cli import main; main()"],
        env=words,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "plain,tenant" in done.stdout


def _groups(group, path=()):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield (*path, name)
            yield from _groups(command, (*path, name))


@pytest.mark.parametrize("path", [(), *_groups(cli)], ids=" ".join)
def test_no_line_of_help_is_cut_short(path):
    done = subprocess.run(
        [sys.executable, "-m", "wardkey", *path, "--help"], capture_output=True, text=True, check=True
    )
    assert not [line for line in done.stdout.splitlines() if line.endswith("...") and "Usage:" not in line]
