"""The commands of docs/operations/incidents.md print what the page shows."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.audit.databases import START, Filled
from tests.cli.test_an_afternoon_is_as_the_page_says import _BLOCK, ROOT, plain
from tests.support.database import Database
from wardkey.access import budgets


def test_the_example_runs(database: Database, tmp_path: Path) -> None:
    token = database.token("acme", subject="dr.webb")
    (tmp_path / "token.txt").write_text(token)
    minute = (datetime.now(UTC) - START).total_seconds() / 60
    with database.admin() as admin:
        log = Filled(admin, "acme")
        digest = hashlib.sha256(token.encode()).hexdigest()
        detail = {"issuer": database.issuer.name, "token_id": "1", "token_sha256": digest}
        log.login("dr.webb", minute=minute, detail=detail)
        for row in ("1", "2", "1"):
            log.read("dr.webb", row, "name", minute)
    environment = {
        **os.environ,
        "WARDKEY_HOME": str(database.cluster.home.path),
        "WARDKEY_DSN": database.dsn(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    blocks = _BLOCK.findall((ROOT / "docs/operations/incidents.md").read_text())
    assert len(blocks) == 3
    for commands, shown in blocks:
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=tmp_path, env=environment, timeout=120, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        if shown:
            assert plain(done.stdout) == plain(shown)
    assert "dr.webb" in (tmp_path / "acts.txt").read_text() and (tmp_path / "report.html").exists()
    with database.admin() as admin:  # the keeper, which ended this subject's logins, is other tests' too
        budgets.lift(admin, database.cluster.home.keeper_socket, "acme", "dr.webb")
