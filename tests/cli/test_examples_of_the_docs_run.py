"""The files of docs/examples run as the pages say, and say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.database import Database

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def _psql(dsn: str, name: str, *words: str) -> str:
    command = ["psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-At", dsn, *words, "-f", EXAMPLES / name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_model_is_declared_and_used(database: Database) -> None:
    said = _psql(database.dsn(), "protect.sql")
    assert said.splitlines()[-2:] == ["lab.orders|orders|{reason}", "lab.results|results|{comment,value}"]
    login = f"select ward.login_session('{database.token('acme')}')"
    said = _psql(database.dsn("tenant_acme"), "ward.sql", "-c", login)
    assert "A-17|chest pain|1.2|mg/dL" in said.splitlines() and said.splitlines()[-1] == "1"
    with database.tenant("globex", subject="other") as other:
        assert other.execute("select count(*) from orders").fetchone() == (0,)


def test_the_client_reads_what_it_wrote(database: Database) -> None:
    _psql(database.dsn(), "protect.sql")
    environment = {"WARDKEY_WARD_DSN": database.dsn("tenant_acme"), "WARDKEY_TOKEN": database.token("acme")}
    command = [sys.executable, EXAMPLES / "client.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inserted, refused, reason = done.stdout.splitlines()
    assert (inserted, reason) == ("inserted ('cough',)", "cough") and refused.startswith("WK002 ")


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"protect.sql", "ward.sql", "client.py"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_example_is_told_of(path: Path) -> None:
    assert f"examples/{path.name}" in (EXAMPLES.parent / "howto.md").read_text()
