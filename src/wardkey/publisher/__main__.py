"""Run the publisher: ``python -m wardkey.publisher --dsn DSN --config FILE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from wardkey.daemon.service import Report, Service, ServiceError, Stop
from wardkey.daemon.sessions import import_all

from . import config
from .broker import import_client
from .supervisor import Publisher

__all__ = ["SERVICE"]


def _prepare(options: argparse.Namespace, report: Report) -> None:
    import_client()
    import_all()


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    configuration = config.read(options.config.absolute())
    if configuration is None:
        raise ServiceError(f"there is no {options.config} (wardkey kafka use HOST:PORT)")
    Publisher(
        options.dsn,
        configuration,
        report=report,
        stop=stop,
        status=options.status and options.status.absolute(),
    ).run()


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dsn", required=True, help="the database, as ward_publisher or superuser")
    parser.add_argument(
        "--config", type=Path, required=True, help="kafka.json, as wardkey kafka use writes it"
    )
    parser.add_argument("--status", type=Path, help="file to tell in how things are")


SERVICE = Service("publisher", "Bring the sealed audit log to Kafka.", _add_options, _prepare, _work)

if __name__ == "__main__":
    SERVICE.run()
