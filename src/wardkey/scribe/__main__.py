"""Run the scribe: ``python -m wardkey.scribe --dsn DSN --keeper SOCKET``.

It stays in the foreground, says on stderr what an operator should know, and stops on SIGTERM or SIGINT.
Exit codes: 0 stopped · 1 cannot work, another scribe does · 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from wardkey.errors import WardError
from wardkey.keeper.hardening import become

from .slot import SLOT
from .supervisor import Scribe

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.run_as:
        _import_all()
        become(*options.run_as)
    scribe = Scribe(
        options.dsn,
        options.keeper.absolute(),
        slot=options.slot,
        report=_report,
        status=options.status and options.status.absolute(),
        disk=options.disk,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scribe.stop())
    _report(f"started, process {os.getpid()}")
    try:
        scribe.run()
    except WardError as error:
        _report(f"cannot work: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return 1
    _report("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("wardkey.scribe", description="Seal the audit log of a database.")
    parser.add_argument("--dsn", required=True, help="the database, as superuser")
    parser.add_argument("--keeper", type=Path, required=True, help="socket of the keeper, which signs")
    parser.add_argument("--slot", default=SLOT, help=f"replication slot (default {SLOT})")
    parser.add_argument("--status", type=Path, help="file to tell in how things are")
    parser.add_argument(
        "--disk", type=Path, help="directory on the disk of the WAL, to warn before it is full"
    )
    parser.add_argument(
        "--run-as", type=_user, metavar="UID:GID", help="started as root: become this user at once"
    )
    return parser


def _user(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not gid.isdecimal():
        raise argparse.ArgumentTypeError("must be UID:GID, two numbers")
    return int(uid), int(gid)


def _import_all() -> None:
    """Import what is imported late, while this user can still read the packages."""
    import encodings.idna  # noqa: F401

    import psycopg

    psycopg.adapters  # noqa: B018


def _report(text: str) -> None:
    print(
        f"{datetime.now(UTC).isoformat(timespec='milliseconds')} scribe: {text}", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
