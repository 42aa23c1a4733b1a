"""A service: keeper, scribe or publisher as a process in the foreground.

It says on stderr what an operator should know, stops on SIGTERM or SIGINT, and reads its files again on
SIGHUP. Exit codes: 0 stopped · 1 cannot work · 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from wardkey_core.errors import WardError

from .lines import Line, Report, reporter
from .privileges import FIRST, become, harden, set_process_nice

__all__ = ["Backoff", "Report", "Service", "ServiceError", "Stop", "tell_ready", "tend_watchdog"]


class ServiceError(Exception):
    """A service cannot work; the message says why."""


class Stop:
    """Whether a service is to end. Signal handlers and other threads may set it."""

    def __init__(self) -> None:
        self._is_set = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __bool__(self) -> bool:
        return self._is_set

    def __del__(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """A descriptor that can be read from once this is set."""
        return self._reader

    def set(self, *_: object) -> None:
        self._is_set = True
        with suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def wait(self, seconds: float) -> bool:
        """Return after so many seconds, at once when this is set; says whether it is."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll(1000 * seconds)
        return self._is_set


class Backoff:
    """Seconds to wait before the next try: ``first``, then twice as long each time, up to ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    def next(self) -> float:
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return seconds


@dataclass(frozen=True, slots=True)
class Service:
    """``prepare`` imports what ``work`` needs, while the packages can still be read; ``work`` ends on Stop.

    Both may raise ServiceError, WardError or OSError. ``is_first``: it gets the CPU before its clients.
    """

    name: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace, Report], None]
    work: Callable[[argparse.Namespace, Report, Stop], None]
    is_first: bool = False

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run until stopped; returns the exit code."""
        parser = argparse.ArgumentParser(f"wardkey.{self.name}", description=self.description)
        self.add_options(parser)
        parser.add_argument(
            "--run-as",
            type=_user,
            metavar="UID:GID",
            help="started as root: become this user once everything is imported",
        )
        parser.add_argument(
            "--log-format",
            choices=("text", "json"),
            default="text",
            help="of what it says on stderr: lines of text, or JSON with stable names of events",
        )
        options = parser.parse_args(arguments)
        report = reporter(self.name, options.log_format)
        try:
            if self.is_first:
                set_process_nice(FIRST)
            self.prepare(options, report)
            if not self.is_first:  # the supervisor starts each with its own
                set_process_nice(max(0, os.getpriority(os.PRIO_PROCESS, 0)))
            if options.run_as:
                become(*options.run_as)
            harden()
            self._work(options, report)
        except (ServiceError, WardError, OSError) as error:
            hint = error.hint if isinstance(error, WardError) else None
            report(Line("cannot_work", f"cannot work: {error}" + (f" ({hint})" if hint else "")))
            return 1
        report(Line("stopped", "stopped"))
        return 0

    def _work(self, options: argparse.Namespace, report: Report) -> None:
        """Work until stopped; begin again after a SIGHUP, unless ``work`` takes that itself."""
        ended = False
        while not ended:
            stop, is_asked_again = Stop(), False

            def end(*_: object) -> None:
                nonlocal ended
                ended = True
                stop.set()  # noqa: B023 - that of the turn

            def reload(*_: object) -> None:
                nonlocal is_asked_again
                is_asked_again = True
                stop.set()  # noqa: B023

            for number, handler in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, reload)):
                signal.signal(number, handler)
            self.work(options, report, stop)
            if not is_asked_again:
                return
            if not ended:
                report(Line("reloaded", "it begins again, with what its files say now"))

    def run(self) -> NoReturn:
        """Be this process: a call that hangs in a thread must not keep it."""
        code = self.main()
        sys.stdout.flush()
        os._exit(code)


def tell_ready() -> None:
    """Tell systemd, if it has started this process, that it serves (sd_notify)."""
    _notify(b"READY=1")


async def tend_watchdog() -> None:
    """Tell systemd's watchdog, where it waits for that, that the event loop turns (sd_watchdog_enabled)."""
    microseconds, process = (os.environ.get(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
    if not microseconds.isdecimal() or process not in ("", str(os.getpid())):
        return
    while True:
        _notify(b"WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 1e6 / 2)


def _notify(state: bytes) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, suppress(OSError):
            notified.sendto(state, f"\0{address[1:]}" if address[0] == "@" else address)


def _user(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or not gid.isdecimal():
        raise argparse.ArgumentTypeError("must be UID:GID, two numbers")
    return int(uid), int(gid)
