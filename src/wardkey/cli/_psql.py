"""Start psql in place of this process. Its connection and token go through the environment, not arguments."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

from psycopg.pq import Conninfo

from ..errors import MissingSoftware

__all__ = ["run_psql"]


def run_psql(
    dsn: str,
    arguments: tuple[str, ...],
    *,
    bindir: str | None = None,
    token: str | None = None,
    prompt: str = "",
) -> NoReturn:
    """Never returns. ``token``: log in with it before the first prompt."""
    own = f"{bindir}/psql" if bindir else None
    program = own if own and Path(own).exists() else shutil.which("psql")
    if program is None:
        raise MissingSoftware("psql is not installed", "apt-get install postgresql-client")
    environment = {**os.environ, **_connection(dsn)}
    if token is not None:
        environment |= {"WARDKEY_TOKEN": token, "WARDKEY_PROMPT": prompt}
        environment["PSQLRC"] = str(Path(__file__).with_name("tenant.psqlrc"))
        user_file = Path(os.environ.get("PSQLRC") or Path.home() / ".psqlrc")
        if user_file.exists():
            environment["WARDKEY_PSQLRC"] = str(user_file)
    os.execve(program, [program, *arguments], environment)  # noqa: S606


def _connection(dsn: str) -> dict[str, str]:
    """Return the libpq environment variables that say what ``dsn`` says."""
    given = [option for option in Conninfo.parse(dsn.encode()) if option.val is not None]
    return {option.envvar.decode(): option.val.decode() for option in given if option.envvar and option.val}
