"""Run the invalidator: ``python -m wardkey.cache --dsn DSN --config FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from wardkey.daemon.service import Report, Service, ServiceError, Stop
from wardkey.daemon.sessions import import_all

from . import config
from .invalidator import Invalidator

__all__ = ["SERVICE"]


def _prepare(options: argparse.Namespace, report: Report) -> None:
    import_all()


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    configuration = config.read(options.config.absolute())
    if configuration is None:
        raise ServiceError(f"there is no {options.config} (wardkey cache use redis://HOST:PORT)")
    status = options.status and options.status.absolute()
    Invalidator(options.dsn, configuration, report=report, stop=stop, status=status).run()


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dsn", required=True, help="the database, as ward_invalidator or superuser")
    parser.add_argument(
        "--config", type=Path, required=True, help="cache.json, as wardkey cache use writes it"
    )
    parser.add_argument("--status", type=Path, help="file to tell in how things are")


SERVICE = Service("invalidator", "Tell Redis which tables were written.", _add_options, _prepare, _work)

if __name__ == "__main__":
    SERVICE.run()
