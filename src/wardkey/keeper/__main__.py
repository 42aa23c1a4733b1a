"""Run the keeper: ``python -m wardkey.keeper --directory DIR --socket PATH --allow-uid UID``."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import pwd
import re
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from wardkey_core.jwk_algorithms import import_algorithms
from wardkey_core.wire import REGION_FORM

from wardkey import tracing
from wardkey.daemon.lines import Line
from wardkey.daemon.listening import bind, group_id
from wardkey.daemon.service import Report, ServiceError, Stop, tell_ready, tend_watchdog
from wardkey.daemon.service import Service as Daemon
from wardkey.kms import KmsConfigurationError

from .budgets import BUDGETS_FILE, KeeperBudgets
from .checkpoints import CHECKPOINTS_FILE, Checkpoints
from .counters import COUNTERS_FILE, Counters
from .ended import ENDED_FILE, Ended
from .grants import GRANTS_FILE, Grants
from .journal import ReleaseLog
from .ledger import LEDGER_FILE, Ledger
from .policy import POLICY_FILE, KeeperPolicy
from .providers import Providers, configured, import_all
from .server import SocketServer
from .service import Service
from .signing import SigningKey
from .trust import ISSUERS_FILE, TrustedIssuers

SWITCH_SECONDS = (
    0.0005  # that a release waits for the thread that reseals, each time it wants the interpreter
)


def _prepare(options: argparse.Namespace, report: Report) -> None:
    try:
        import_all(configured(options.directory, options.kms, options.region), report)
    except KmsConfigurationError as error:
        raise ServiceError(str(error)) from None
    if os.environ.get("WARDKEY_TRACES") == "on":
        try:
            tracing.enable()
        except ImportError:
            raise ServiceError("traces need OpenTelemetry (pip install 'wardkey[otel]')") from None
    if options.run_as:
        import_algorithms()


def _work(options: argparse.Namespace, report: Report, stop: Stop) -> None:
    directory: Path = options.directory
    lock = _lock(directory)
    try:
        providers = Providers(directory, report, options.kms, regions=options.region)
    except KmsConfigurationError as error:
        raise ServiceError(str(error)) from None
    ledger = Ledger(directory / LEDGER_FILE, report)
    signing = SigningKey(directory / "signing.key")
    checkpoints = Checkpoints(directory / CHECKPOINTS_FILE, signing, report)
    counters = Counters(directory / COUNTERS_FILE, report)
    listening = bind(options.socket, options.socket_group, "a keeper")
    mine = options.socket.lstat().st_ino
    sys.setswitchinterval(SWITCH_SECONDS)
    service = Service(
        providers,
        TrustedIssuers(directory / ISSUERS_FILE, report),
        KeeperPolicy(directory / POLICY_FILE, report),
        ledger,
        signing,
        ReleaseLog(directory / "release.log"),
        checkpoints,
        Grants(directory / GRANTS_FILE, report),
        KeeperBudgets(directory / BUDGETS_FILE, report),
        counters,
        Ended(directory / ENDED_FILE, options.socket, report),
        administrators=frozenset((*options.admin_uid, os.geteuid(), 0)),
        scribes=frozenset(options.scribe_uid),
        ttl=options.ttl,
        report=report,
    )
    allowed = frozenset((*options.allow_uid, *options.admin_uid, *options.scribe_uid, os.geteuid(), 0))
    observers = frozenset(options.status_uid) - allowed
    place = f"KMS {providers.cell.scheme}, region {' '.join(providers.regions)}"
    report(Line("ready", f"ready at {options.socket}, process {os.getpid()}, {place}"))
    try:
        asyncio.run(_serve(SocketServer(service, allowed, report, observers), listening, stop, report))
    finally:
        service.close()
        with suppress(OSError):
            if options.socket.lstat().st_ino == mine:
                options.socket.unlink()
        os.close(lock)


async def _serve(server: SocketServer, listening: socket.socket, stop: Stop, report: Report) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(
        lambda _, context: report(
            Line("internal_error", f"internal error: {type(context.get('exception')).__name__}")
        )
    )
    loop.add_reader(stop.fileno(), stopped.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    tending = asyncio.create_task(tend_watchdog())
    tell_ready()
    try:
        await server.run(listening, stopped)
    finally:
        tending.cancel()
        loop.remove_reader(stop.fileno())


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_uids = partial(parser.add_argument, type=_uid, metavar="USER", action="extend", nargs="+", default=[])
    parser.add_argument("--directory", type=_path, required=True, help="the keeper's own files, mode 0700")
    parser.add_argument("--socket", type=_path, required=True, help="where to listen (a unix socket)")
    add_uids("--allow-uid", help="users who may ask, besides its own and root")
    add_uids("--admin-uid", help="users who may also shred, certify, and end KEKs, besides its own and root")
    add_uids(
        "--scribe-uid",
        help="users who may also have checkpoints of audit logs signed, besides administrators",
    )
    add_uids(
        "--status-uid", help="users who may ask how the keeper is, and nothing else: the metrics service's"
    )
    parser.add_argument(
        "--socket-group", type=group_id, metavar="GROUP", help="group that may open the socket"
    )
    parser.add_argument("--ttl", type=_ttl, default=300, help="seconds a key stays in memory (default 300)")
    parser.add_argument(
        "--region",
        type=_region,
        action="append",
        default=[],
        help="region whose keys it opens and makes; may be given more than once (default: kms.json's)",
    )
    parser.add_argument(
        "--kms", metavar="URI", help="the cell's key management service, instead of what kms.json says"
    )


def _path(text: str) -> Path:
    return Path(text).absolute()


def _uid(text: str) -> int:
    try:
        return int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user {text}") from None


def _region(text: str) -> str:
    if not re.match(REGION_FORM, text) or len(text) > 63:
        raise argparse.ArgumentTypeError(
            "must be words of lower-case letters and digits with hyphens between"
        )
    return text


def _ttl(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 86400")
    return seconds


def _lock(directory: Path) -> int:
    """Return a descriptor that holds the directory's lock until it is closed or the process dies."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise ServiceError(f"{directory} belongs to another user")
    if status.st_mode & 0o077:
        raise ServiceError(f"{directory} is open to other users; fix it with: chmod 700 {directory}")
    descriptor = os.open(
        directory / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ServiceError(f"a keeper already runs with {directory}") from None
    return descriptor


SERVICE = Daemon(
    "keeper", "Release tenants' data keys to their tokens.", _add_options, _prepare, _work, is_first=True
)

if __name__ == "__main__":
    SERVICE.run()
