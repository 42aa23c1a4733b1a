"""Fill a directory with the Python packages that a server of one's own needs; standard library only.

``python -m wardkey.embedded --pg-config PG_CONFIG DIRECTORY``, or ``make install-python``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..daemon.programs import run
from ..errors import ServerError
from . import pythonpath
from .software import Software


def main() -> int:
    parser = argparse.ArgumentParser("wardkey.install", description="Fill a directory for PL/Python.")
    parser.add_argument("--pg-config", default="pg_config", help="pg_config of the server")
    parser.add_argument("directory", type=Path, help="made when missing; give it to the server as PYTHONPATH")
    given = parser.parse_args()
    directory = given.directory.resolve()
    try:
        bindir = run([given.pg_config, "--bindir"], f"{given.pg_config} failed").strip()
        software = Software.at(Path(bindir)) or Software.newest()
        changed = pythonpath.fill(directory, software.interpreter)
    except ServerError as error:
        print(f"error: {error.message}\n hint: {error.hint}", file=sys.stderr)
        return 1
    print(f"{directory}: {'filled' if changed else 'up to date'}, for {software.interpreter}")
    environment = f"/etc/postgresql/{software.major}/main/environment"
    print(f"the server finds it through PYTHONPATH = '{directory}' in {environment} (Debian)")
    print("or in the environment it is started with; then restart it")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
