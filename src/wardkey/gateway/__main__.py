"""Run the gateway: ``python -m wardkey.gateway --issuers FILE --socket PATH``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from wardkey_core.jwk_algorithms import import_algorithms

from wardkey.daemon.lines import Line
from wardkey.daemon.listening import BACKLOG, bind, group_id
from wardkey.daemon.service import Report, Service, ServiceError, Stop, tell_ready, tend_watchdog

from .service import AuthService
from .trust import Trust

__all__ = ["SERVICE"]

MOST_REQUESTS = 400  # at a time; further ones are answered 503
MOST_HEADERS = 32 * 1024  # bytes of a request's headers
GRACE_SECONDS = 5


def _prepare(options: argparse.Namespace, report: Report) -> None:
    if (options.socket is None) == (options.port is None):
        raise ServiceError("give one of --socket PATH and --port PORT")
    try:
        import uvicorn.lifespan.off
        import uvicorn.loops.asyncio
        import uvicorn.protocols.http.h11_impl  # noqa: F401
    except ImportError as error:
        raise ServiceError(f"the gateway needs {error.name} (pip install 'wardkey[gateway]')") from None
    import_algorithms()


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    import uvicorn

    try:
        trust = Trust(options.issuers, report=report)
    except ValueError as error:
        raise ServiceError(f"{options.issuers}: {error}") from None
    listening, place = _listen(options)
    log = _write_line if options.log_requests else None
    configuration = uvicorn.Config(
        AuthService(trust, log),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_REQUESTS,
        h11_max_incomplete_event_size=MOST_HEADERS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )

    def reload() -> None:
        trust.has_keys()
        report(Line("reloaded", "issuers that changed are read again"))

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
            self.tending = asyncio.create_task(tend_watchdog())
            report(Line("ready", f"ready at {place}"))
            tell_ready()

    try:
        asyncio.run(Server(configuration).serve([listening]))
    finally:
        if options.socket is not None:
            with suppress(OSError):
                options.socket.unlink()


def _listen(options: argparse.Namespace) -> tuple[socket.socket, str]:
    if options.socket is not None:
        return bind(options.socket, options.socket_group, "a gateway"), str(options.socket)
    listening = socket.create_server((options.host, options.port), backlog=BACKLOG)
    return listening, f"{options.host} port {listening.getsockname()[1]}"


def _write_line(line: str) -> Any:
    print(line, file=sys.stdout, flush=True)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--issuers", type=Path, required=True, help="issuers.json: whose tokens pass")
    parser.add_argument("--socket", type=Path, help="where to listen (a unix socket)")
    parser.add_argument(
        "--socket-group", type=group_id, metavar="GROUP", help="group that may open the socket"
    )
    parser.add_argument("--port", type=int, help="where to listen (TCP)")
    parser.add_argument("--host", default="127.0.0.1", help="address of --port (default 127.0.0.1)")
    parser.add_argument("--log-requests", action="store_true", help="a line of JSON a request, on stdout")


SERVICE = Service("gateway", "Verify tokens for nginx and Envoy.", _add_options, _prepare, _work)

if __name__ == "__main__":
    SERVICE.run()
