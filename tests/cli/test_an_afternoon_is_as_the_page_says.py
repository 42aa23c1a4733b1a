"""The commands of docs/afternoon.md, one after another in a new home, print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from wardkey.embedded import Home

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


def plain(text: str) -> str:
    """Without what differs from day to day: times, numbers of entries, and the widths of both."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME", text)
    lines = (line.rstrip() for line in text.strip().splitlines() if "──" not in line)
    return re.sub(" {2,}", "  ", re.sub(r"^(TIME.*) \d+$", r"\1 N", "\n".join(lines), flags=re.M))


def test_the_session_with_psql(new_home: Callable[[], Home]) -> None:
    environment = {
        **os.environ,
        "WARDKEY_HOME": str(new_home().path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PSQLRC": os.devnull,
        "COLUMNS": "120",
    }
    blocks = _BLOCK.findall((ROOT / "docs/afternoon.md").read_text())
    assert len(blocks) > 5 and sum(1 for _, shown in blocks if shown) > 4
    for commands, shown in blocks:
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=ROOT, env=environment, timeout=120, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        if shown:
            assert plain(done.stdout) == plain(shown)
