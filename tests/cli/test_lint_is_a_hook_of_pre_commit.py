"""pre-commit installs lint from a repository of ours and stops a commit that it finds fault with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "src", "plpython", "sql", "migrations", "docs"]
HOOKS = ".pre-commit-hooks.yaml"


def test_a_commit_is_stopped_and_let_through(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "wardkey", tmp_path / "application"
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{f"GIT_{who}_{what}": "t@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    environment.pop("GIT_DIR", None)

    def run(*command: str, cwd: Path = theirs, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    ours.mkdir()
    for name in (*SOURCES, HOOKS):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, ours / name)
    theirs.mkdir()
    for directory in (ours, theirs):
        run("git", "init", "-q", cwd=directory)
    run("git", "add", "-A", cwd=ours)
    run("git", "commit", "-q", "-m", "wardkey", cwd=ours)
    revision = run("git", "rev-parse", "HEAD", cwd=ours).strip()
    hook = {"repo": f"file://{ours}", "rev": revision, "hooks": [{"id": "wardkey-lint"}]}
    (theirs / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [hook]}))
    run("pre-commit", "install")

    (theirs / "notes.txt").write_text("listen a;")
    (theirs / "bad.sql").write_text("grant select on t to public;\n")
    run("git", "add", "-A")
    said = run("git", "commit", "-q", "-m", "open to all", code=1)
    assert "bad.sql:1: error WL115 grant-to-public" in said and "notes.txt" not in said
    (theirs / "bad.sql").write_text("grant select on t to clerk;\n")
    run("git", "add", "-A")
    run("git", "commit", "-q", "-m", "for the clerk")
