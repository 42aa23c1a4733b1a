"""What the database hints at in SQL, the command line says as a command, and each such command is there."""

import re
from pathlib import Path

import click
import pytest

from wardkey.cli import cli
from wardkey.cli._hints import VIEWS, in_commands

_SQL = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "sql/functions").glob("**/*.sql"))


def _exists(command: str) -> bool:
    group: click.Command = cli
    for word in command.split()[1:]:
        if not isinstance(group, click.Group):
            return False
        member = group.get_command(click.Context(group), word)
        if member is None:
            return False
        group = member
    return True


def test_every_view_of_a_hint_has_a_command() -> None:
    named = set(re.findall(r"(?:see|them|again): select (?:\*|slug) from ward\.(\w+)", _SQL))
    assert named and named <= set(VIEWS)


@pytest.mark.parametrize("command", sorted(VIEWS.values()))
def test_every_command_is_there(command: str) -> None:
    assert _exists(command)


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("list them: select * from ward.tenants", "list them: wardkey tenant list"),
        ("list them: select slug from ward.tenants; of one that was dropped, give the id",
         "list them: wardkey tenant list; of one that was dropped, give the id"),
        ("protect that first: select ward.protect('clinic.x'), or share it: select ward.share('clinic.x')",
         "protect that first: wardkey table protect clinic.x, or share it: wardkey table share clinic.x"),
        ("to seal a further column: select ward.add_sealed_column(…)",
         "to seal a further column: wardkey table add-sealed-column"),
        ("declare identity columns before ward.protect",
         "declare identity columns before wardkey table protect"),
        ("restore the ward, or make what it lacks: select ward.repair_tenant(…)",
         "restore the ward, or make what it lacks: select ward.repair_tenant(…)"),
    ],
)  # fmt: skip
def test_statements_become_commands(hint: str, said: str) -> None:
    assert in_commands(hint) == said
    for command in re.findall(r"wardkey \w+ [\w-]+", said):
        assert _exists(command)
