"""Run the publisher: ``python -m wardkey.publisher --dsn DSN --config FILE``.

It stays in the foreground, says on stderr what an operator should know, and stops on SIGTERM or SIGINT.
Exit codes: 0 stopped · 1 cannot work · 2 wrong usage.
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
from wardkey.keeper.hardening import become, harden

from . import config
from .broker import import_client
from .supervisor import Publisher

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        import_client()
        if options.run_as:
            _import_all()
            become(*options.run_as)
        harden()  # credentials of Kafka are in its memory
        configuration = config.read(options.config.absolute())
        if configuration is None:
            _report(f"cannot work: there is no {options.config} (wardkey kafka use HOST:PORT)")
            return 1
        publisher = Publisher(
            options.dsn, configuration, report=_report, status=options.status and options.status.absolute()
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: publisher.stop())
        _report(f"started, process {os.getpid()}")
        publisher.run()
    except WardError as error:
        _report(f"cannot work: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return 1
    _report("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("wardkey.publisher", description="Bring the sealed audit log to Kafka.")
    parser.add_argument("--dsn", required=True, help="the database, as superuser")
    parser.add_argument(
        "--config", type=Path, required=True, help="kafka.json, as wardkey kafka use writes it"
    )
    parser.add_argument("--status", type=Path, help="file to tell in how things are")
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
        f"{datetime.now(UTC).isoformat(timespec='milliseconds')} publisher: {text}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
