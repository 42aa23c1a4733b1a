"""Help and output of the commands read well on a terminal of 80 columns; colour is for terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator

import click
import pytest
from rich.cells import cell_len

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.cli import cli

LONG = "the_longest_slug_that_a_tenant_may_have_by_i"
_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
# Statements, commands and DSNs are not broken, so that they can be copied.
_WHOLE = re.compile(r"^ *(fix: |wardkey |DSN |To keep its data first: )")


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


_DEMO = ("demo", "--tenants", "2", "--patients-per-tenant", "20")


@pytest.fixture(scope="module")
def demo() -> list[bytes]:
    """What the demo showed on the terminal, when it made the server."""
    return []


@pytest.fixture(scope="module")
def wardkey(cluster, demo: list[bytes]) -> Iterator[Wardkey]:
    directory = make_directory(cluster.home.python)
    wardkey = Wardkey(directory / "home")
    try:
        demo.append(on_a_terminal(wardkey, *_DEMO))
        wardkey("tenant", "create", LONG, "--name", "Hospital of the Very Long Name of Massachusetts")
        yield wardkey
    finally:
        throw_away(directory)


def on_a_terminal(wardkey: Wardkey, *words: str, **environment: str) -> bytes:
    """Return what the command shows on a terminal of 80 columns, facts and errors."""
    master, slave = pty.openpty()
    settings = wardkey.environment(COLUMNS="80", TERM="xterm-256color", **environment)
    command = wardkey.command(*words)
    with subprocess.Popen(command, env=settings, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave):
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(master)
    return shown.replace(b"\r\n", b"\n")


def too_long(shown: bytes) -> list[str]:
    lines = _ESCAPE.sub(b"", shown).decode().splitlines()
    last = [line.rpartition("\r")[2] for line in lines]  # of a display that is drawn again and again
    return [line for line in last if cell_len(line) > 80 and not _WHOLE.match(line)]


def test_help_fits(wardkey: Wardkey) -> None:
    for path in commands():
        context = click.Context(cli, info_name="wardkey", terminal_width=80)
        command: click.Command = cli
        for name in path:
            assert isinstance(command, click.Group)
            command = command.get_command(context, name) or command
            context = click.Context(command, context, info_name=name, terminal_width=80)
        assert not [line for line in command.get_help(context).splitlines() if len(line) > 80], path


MAIN = (
    "status",
    "tenant list",
    "tenant bound boston_general connections",
    "tenant shred boston_general",
    "keys list",
    "keys status boston_general --count",
    "kms show",
    "kms check",
    "issuer list",
    "table list",
    "doctor",
    "doctor --verbose",
    "scribe status",
    "keeper status",
    "kafka show",
    "install --check",
    "migrate",
    "audit holds",
    "audit activity --tenant boston_general",
    "audit anomalies --tenant boston_general",
    "audit compare --tenant boston_general",
    "audit did tester --tenant boston_general",
    "audit key --tenant boston_general",
    "audit prune --all --dry-run",
    "audit refused --tenant boston_general",
    "audit verify --live --tenant boston_general",
    "audit who-read patients 1 --tenant boston_general",
)


@pytest.mark.parametrize("words", MAIN)
def test_output_fits(wardkey: Wardkey, words: str) -> None:
    shown = on_a_terminal(wardkey, *words.split())
    assert shown and not too_long(shown)


def test_the_demo_fits(wardkey: Wardkey, demo: list[bytes]) -> None:
    assert b"19 of 19 held" in demo[0] and not too_long(demo[0])
    piped = wardkey(*_DEMO).stdout
    assert "19 of 19 held" in piped and "\x1b" not in piped and not too_long(piped.encode())


def test_colour_is_for_terminals_that_want_it(wardkey: Wardkey) -> None:
    colour = re.compile(rb"\x1b\[[0-9;]*3[0-7]m")
    for words in (("doctor", "--verbose"), ("audit", "activity", "--tenant", "boston_general")):
        assert colour.search(on_a_terminal(wardkey, *words)), words
        assert not colour.search(on_a_terminal(wardkey, *words, NO_COLOR="1")), words
        assert "\x1b" not in wardkey.try_out(*words).stdout


@pytest.mark.parametrize("words", [words for words in MAIN if words != "migrate"])
def test_every_fact_is_there_as_json(wardkey: Wardkey, words: str) -> None:
    done = wardkey.try_out("--json", *words.split())
    assert isinstance(json.loads(done.stdout or done.stderr), dict | list)
