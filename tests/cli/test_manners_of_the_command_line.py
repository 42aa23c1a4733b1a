"""A group alone explains itself, --json stands anywhere, times say their zone, no name is broken."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import click
import psycopg
import pytest

from tests.support import cli as cli_support
from tests.support.cli import Wardkey
from wardkey.cli import cli

LONG = "the_longest_slug_that_a_tenant_may_have_by_its_rules"[:44]


def groups(group: click.Group = cli, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = [path]
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            paths += groups(command, (*path, name))
    return paths


@pytest.fixture(scope="module")
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


@pytest.fixture(scope="module")
def long_slug(wardkey):
    wardkey("tenant", "create", LONG, "--name", "Hospital of the Very Long Name of Massachusetts")
    yield LONG
    wardkey("tenant", "drop", LONG, "--yes", LONG)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return cli_support.run([sys.executable, "-m", "wardkey", *words], os.environ)


@pytest.mark.parametrize("path", groups(), ids=" ".join)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["alone", "json"])
def test_a_group_alone_prints_its_help(path, options):
    done = run(*path, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run(*path, "--help").stdout


@pytest.mark.parametrize("words", [("nothing",), ("keys", "nothing"), ("--nothing",), ("keys", "--nothing")])
def test_what_there_is_not_is_wrong_usage(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("option", [["--json"], ["--dsn", "host=/nowhere"], ["--home", "/nowhere"]])
def test_global_options_stand_anywhere(place, option):
    words = ["keys", "list"]
    words[place:place] = option
    done = run("--json", *words) if option != ["--json"] else run(*words)
    said = json.loads(done.stderr)
    assert done.returncode == 3
    assert ("/nowhere" in said["error"]) == (option[0] == "--dsn")


def test_what_follows_two_dashes_is_no_option():
    done = run("tenant", "suspend", "--nothing", "--", "--json")
    assert done.stderr.startswith("error: ")


def on_a_terminal(wardkey: Wardkey, *words: str, columns: int = 80) -> str:
    """Return what the command shows on a terminal of so many columns."""
    master, slave = pty.openpty()
    environment = wardkey.environment(COLUMNS=str(columns), TERM="xterm", NO_COLOR="1")
    with subprocess.Popen(wardkey.command(*words), env=environment, stdout=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(master)
    assert process.returncode in (0, 4)
    return shown.decode().replace("\r\n", "\n")


def test_no_name_is_broken(wardkey, cluster, long_slug):
    for words in (("tenant", "list"), ("keys", "list"), ("kms", "check"), ("keys", "status", long_slug)):
        for shown in (on_a_terminal(wardkey, *words), wardkey(*words).stdout):
            assert long_slug in shown, words
    assert "Hospital of the Very Long Name of Massachusetts" in on_a_terminal(wardkey, "tenant", "list")
    leaf = f"tenant_{long_slug}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"grant usage on schema {leaf} to public")
        try:
            shown = on_a_terminal(wardkey, "doctor")
        finally:
            connection.execute(f"revoke usage on schema {leaf} from public")
    assert leaf in shown


def test_prose_is_wrapped_between_words_on_a_narrow_terminal_only(wardkey, cluster, long_slug):
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        reason = "asked by the clinic's own officer, because of an incident on the first of March"
        connection.execute("select ward.hold_audit(%s, 'Doe v. Acme', %s)", [long_slug, reason])
    try:
        assert reason in wardkey("audit", "holds").stdout
        shown = on_a_terminal(wardkey, "audit", "holds")
        assert reason not in shown and all(word in shown.split() for word in reason.split())
    finally:
        wardkey("audit", "release", long_slug, "--matter", "Doe v. Acme", "--reason", "over")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_times_say_their_zone_and_are_of_it(wardkey, cluster, long_slug, zone):
    options = {"PGTZ": zone, "TZ": zone}
    with psycopg.connect(cluster.dsn()) as connection:
        connection.execute("set timezone = 'UTC'")
        query = "select created_at from ward.tenants where slug = %s"
        ((made,),) = connection.execute(query, [long_slug]).fetchall()
    (line,) = [line for line in wardkey("tenant", "list", **options).stdout.splitlines() if long_slug in line]
    assert line.endswith(f"{made:%Y-%m-%d %H:%M:%S} UTC")
    rows = json.loads(wardkey("--json", "tenant", "list", **options).stdout)
    assert {row["created_at"] for row in rows if row["slug"] == long_slug} == {made.isoformat()}
