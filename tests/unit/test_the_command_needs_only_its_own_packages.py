"""With `pip install wardkey[cli]` alone, which `make demo` does, every command and check can be looked up."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in %r):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import click
import wardkey.doctor
import wardkey.embedded
from wardkey.cli import cli

def look(group, names):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command.get_help(click.Context(command, info_name=name)), names
        if isinstance(command, click.Group):
            look(command, [*names, name])

look(cli, [])
assert sum(map(len, wardkey.doctor.checks().values())) > 100
"""


def test_no_package_of_another_extra_is_needed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: {re.split(r"[\[>=<]", each)[0] for each in extras[extra]} for extra in extras}
    own = names["cli"] | {"wardkey", "alembic", "sqlalchemy", "cryptography", "requests", "urllib3"}
    others = {
        "boto3",
        "django",
        "h11",
        "hvac",
        "pglast",
        "prometheus-client",
        "psycopg-pool",
        "pyrage",
        "redis",
    }
    assert others <= set().union(*names.values()) - own
    absent = tuple(each.replace("-", "_") for each in sorted(others))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (absent,)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
