"""Run the metrics service: ``python -m wardkey.metrics --dsn DSN --port PORT``."""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path

from wardkey.daemon.listening import BACKLOG
from wardkey.daemon.service import Report, Service, ServiceError, Stop, tell_ready, tend_watchdog
from wardkey.daemon.sessions import import_all

__all__ = ["PORT", "SERVICE"]

PORT = 9188


def _prepare(options: argparse.Namespace, report: Report) -> None:
    try:
        import h11  # noqa: F401
        import prometheus_client.openmetrics.exposition  # noqa: F401
    except ImportError as error:
        raise ServiceError(f"metrics need {error.name} (pip install 'wardkey[metrics]')") from None
    import_all()
    from . import registry, service  # noqa: F401

    registry.every()


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    from .collecting import Collector
    from .service import MetricsService

    collector = Collector(options.dsn, options.keeper and options.keeper.absolute())
    listening = socket.create_server((options.host, options.port), backlog=BACKLOG)
    listening.setblocking(False)
    with listening:
        report(f"ready at {options.host} port {listening.getsockname()[1]}")
        asyncio.run(_serve(MetricsService(collector, report), listening, stop, report))
    collector.close()


async def _serve(application: object, listening: socket.socket, stop: Stop, report: Report) -> None:
    from .http import serve

    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(stop.fileno(), stopped.set)
    tending = asyncio.create_task(tend_watchdog())
    tell_ready()
    await serve(application, listening, stopped, report)  # type: ignore[arg-type]
    tending.cancel()
    loop.remove_reader(stop.fileno())


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dsn", required=True, help="the database, as ward_metrics or superuser")
    parser.add_argument("--keeper", type=Path, help="socket of the keeper (default: as the database says)")
    parser.add_argument("--port", type=int, default=PORT, help=f"where to listen, TCP (default {PORT})")
    parser.add_argument("--host", default="127.0.0.1", help="address of --port (default 127.0.0.1)")


SERVICE = Service("metrics", "Serve metrics to Prometheus.", _add_options, _prepare, _work)

if __name__ == "__main__":
    SERVICE.run()
