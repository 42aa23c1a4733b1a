"""Run the scribe: ``python -m wardkey.scribe --dsn DSN --keeper SOCKET``."""

from __future__ import annotations

import argparse
from pathlib import Path

from wardkey.daemon.service import Report, Service, Stop
from wardkey.daemon.sessions import import_all

from .slot import SLOT
from .supervisor import Scribe

__all__ = ["SERVICE"]

_MEMORY = 384 << 20  # bytes: of a row that somebody put in by hand libpq wants all of it


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    Scribe(
        options.dsn,
        options.keeper.absolute(),
        slot=options.slot,
        report=report,
        stop=stop,
        status=options.status and options.status.absolute(),
        disk=options.disk,
        memory=_MEMORY,
    ).run()


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dsn", required=True, help="the database, as ward_scribe or superuser")
    parser.add_argument("--keeper", type=Path, required=True, help="socket of the keeper, which signs")
    parser.add_argument("--slot", default=SLOT, help=f"replication slot (default {SLOT})")
    parser.add_argument("--status", type=Path, help="file to tell in how things are")
    parser.add_argument(
        "--disk", type=Path, help="directory on the disk of the WAL, to warn before it is full"
    )


SERVICE = Service("scribe", "Seal the audit log of a database.", _add_options, lambda *_: import_all(), _work)

if __name__ == "__main__":
    SERVICE.run()
