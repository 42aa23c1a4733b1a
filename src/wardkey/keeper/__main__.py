"""Run the keeper: ``python -m wardkey.keeper --directory DIR --socket PATH --allow-uid UID``.

It stays in the foreground, says on stderr what an operator should know, and stops on SIGTERM or SIGINT.
Exit codes: 0 stopped · 1 could not start · 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from wardkey_core.jwk import import_algorithms

from wardkey.kms import KmsConfigurationError, configured

from .checkpoints import CHECKPOINTS_FILE, Checkpoints, CheckpointsError
from .hardening import become, come_first, harden
from .journal import ReleaseLog
from .ledger import LEDGER_FILE, Ledger, LedgerError
from .providers import Providers, import_all
from .server import SocketError, SocketServer, bind
from .service import Service
from .signing import SigningKey
from .trust import ISSUERS_FILE, TrustedIssuers

SWITCH_SECONDS = (
    0.0005  # that a release waits for the thread that reseals, each time it wants the interpreter
)


class StartError(Exception):
    """The keeper cannot start; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    directory: Path = options.directory.absolute()
    path: Path = options.socket.absolute()
    try:
        come_first()
        import_all(_configuration(options, directory), _report)
        if options.run_as:
            import_algorithms()
            become(*options.run_as)
        harden()
        lock = _lock(directory)
        providers = Providers(directory, _report, options.kms)
        ledger = Ledger(directory / LEDGER_FILE, _report)
        signing = SigningKey(directory / "signing.key")
        checkpoints = Checkpoints(directory / CHECKPOINTS_FILE, signing, _report)
        listening = bind(path, options.socket_group)
    except (StartError, SocketError, KmsConfigurationError, LedgerError, CheckpointsError, OSError) as error:
        _report(f"cannot start: {error}")
        return 1
    mine = path.lstat().st_ino
    try:
        asyncio.run(_serve(options, directory, providers, ledger, signing, checkpoints, listening))
    finally:
        with suppress(OSError):
            if path.lstat().st_ino == mine:
                path.unlink()
        os.close(lock)
    _report("stopped")
    return 0


async def _serve(
    options: argparse.Namespace,
    directory: Path,
    providers: Providers,
    ledger: Ledger,
    signing: SigningKey,
    checkpoints: Checkpoints,
    listening: socket.socket,
) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(
        lambda _, context: _report(f"internal error: {_kind(context.get('exception'))}")
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    trust = TrustedIssuers(directory / ISSUERS_FILE, _report)
    log = ReleaseLog(directory / "release.log")
    service = Service(
        providers,
        trust,
        ledger,
        signing,
        log,
        checkpoints,
        administrators=frozenset((*options.admin_uid, os.geteuid(), 0)),
        scribes=frozenset(options.scribe_uid),
        ttl=options.ttl,
        report=_report,
    )
    allowed = frozenset((*options.allow_uid, *options.admin_uid, *options.scribe_uid, os.geteuid(), 0))
    _report(f"ready at {options.socket}, process {os.getpid()}, KMS {providers.cell.scheme}")
    try:
        await SocketServer(service, allowed, _report).run(listening, stop)
    finally:
        service.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "wardkey.keeper", description="Release tenants' data keys to their tokens."
    )
    parser.add_argument("--directory", type=Path, required=True, help="the keeper's own files, mode 0700")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen (a unix socket)")
    parser.add_argument(
        "--allow-uid",
        type=int,
        action="extend",
        nargs="+",
        default=[],
        help="users who may ask, besides its own and root",
    )
    parser.add_argument(
        "--admin-uid",
        type=int,
        action="extend",
        nargs="+",
        default=[],
        help="users who may also shred, certify, and end KEKs, besides its own and root",
    )
    parser.add_argument(
        "--scribe-uid",
        type=int,
        action="extend",
        nargs="+",
        default=[],
        help="users who may also have checkpoints of audit logs signed, besides administrators",
    )
    parser.add_argument(
        "--run-as",
        type=_user,
        metavar="UID:GID",
        help="started as root: become this user once everything is imported",
    )
    parser.add_argument("--socket-group", type=int, metavar="GID", help="group that may open the socket")
    parser.add_argument("--ttl", type=_ttl, default=300, help="seconds a key stays in memory (default 300)")
    parser.add_argument(
        "--kms", metavar="URI", help="the cell's key management service, instead of what kms.json says"
    )
    return parser


def _configuration(options: argparse.Namespace, directory: Path) -> configured.Configuration:
    said = configured.read(directory)
    return replace(said, kms=options.kms) if options.kms else said


def _ttl(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 86400")
    return seconds


def _user(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not gid.isdecimal():
        raise argparse.ArgumentTypeError("must be UID:GID, two numbers")
    return int(uid), int(gid)


def _lock(directory: Path) -> int:
    """Return a descriptor that holds the directory's lock until it is closed or the process dies."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise StartError(f"{directory} belongs to another user")
    if found.st_mode & 0o077:
        raise StartError(f"{directory} is open to other users; mend it with: chmod 700 {directory}")
    descriptor = os.open(
        directory / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartError(f"a keeper already runs with {directory}") from None
    return descriptor


def _report(text: str) -> None:
    print(
        f"{datetime.now(UTC).isoformat(timespec='milliseconds')} keeper: {text}", file=sys.stderr, flush=True
    )


def _kind(error: object) -> str:
    return type(error).__name__


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a KMS call that hangs in a thread must not keep the process
