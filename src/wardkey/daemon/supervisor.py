"""The supervisor of one home: ``python -m wardkey.daemon.supervisor DIRECTORY LOG``.

It starts what ``wanted.json`` names and does not run: at once, and later and later when that ends again and
again. Where it is allowed, it gets the CPU before others, and so does what it starts, until that works.
SIGHUP: look at ``wanted.json`` now. SIGTERM: end, and leave the processes alone; the next supervisor takes
them over.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .lines import Line, reporter
from .privileges import FIRST, set_process_nice
from .processes import Process
from .programs import clean_environment
from .supervision import Supervision, Wanted

_SETTLED = 10.0  # seconds: one that has run for so long does not end again and again
_DELAYS = (0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until the next start
_LONGEST_SLEEP = 60.0
_report = reporter("supervisor")

# It waits until its pid is written down. If the supervisor dies before, it does not start.
_SCRIPT = 'read -r _ || exit 1; exec "$@" </dev/null'


@dataclass(slots=True)
class _Part:
    """A process that is wanted: the one that runs, and what is known of those before it."""

    status: dict[str, Any]
    process: Process | None = None
    child: subprocess.Popen[bytes] | None = None
    descriptor: int = -1  # of a process that a former supervisor has started
    since: float = 0.0
    has_ended: bool = False
    ends: int = 0  # in a row, each soon after its start
    due: float = 0.0


class Supervisor:
    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision
        self._status = supervision.status()
        self._parts: dict[str, _Part] = {}
        self._leaving: list[subprocess.Popen[bytes]] = []  # no longer wanted, and not ended yet
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._stopped = self._asked = False

    def run(self) -> None:
        """Work until SIGTERM."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes us
        self._supervision.record_supervisor()
        while not self._stopped:
            with self._supervision.locked():
                wait = self._obey(self._supervision.wanted())
            self._sleep(wait)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _obey(self, wanted: dict[str, Wanted]) -> float:
        """Start what is wanted and does not run; return in how many seconds to look again."""
        now, asked, self._asked = time.monotonic(), self._asked, False
        for name in [name for name in self._parts if name not in wanted]:
            part = self._parts.pop(name)
            self._leaving += [part.child] if part.child else []
            _release(part)
        self._leaving = [child for child in self._leaving if child.poll() is None]
        wait = _LONGEST_SLEEP
        for name, each in wanted.items():
            status = self._status.setdefault(name, {"restarts": 0})
            part = self._parts.setdefault(name, _Part(status))
            if part.process and not part.process.alive:
                self._ended(name, part, now)
            if part.process is None and (running := self._supervision.process(name)):
                _watch(part, running, None)
            if part.process is None and (now >= part.due or asked):
                self._start(name, part, each, now)
            if part.process is None:
                wait = min(wait, max(part.due - now, 0.0))
        return wait

    def _start(self, name: str, part: _Part, wanted: Wanted, now: float) -> None:
        try:
            with Path(wanted.log).open("ab") as log:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _SCRIPT, "sh", *wanted.command],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=clean_environment(),
                    umask=0o022,
                    start_new_session=True,
                )
        except OSError as error:
            _report(Line("cannot_work", f"{name} cannot be started: {error.strerror}"))
            part.due = now + _DELAYS[-1]
            return
        process = Process.of(child.pid) or Process(child.pid, 0)
        _watch(part, process, child)
        set_process_nice(FIRST, child.pid)
        with child.stdin as go:  # type: ignore[union-attr]
            try:
                process.record(self._supervision.pid_file(name))
                go.write(b"\n")
            except OSError as error:
                _report(Line("cannot_work", f"{name} cannot be started: {error.strerror}"))
        if part.has_ended:
            part.status["restarts"] += 1
        _report(Line("process_started", f"{name} started, process {child.pid}"))
        self._say()

    def _ended(self, name: str, part: _Part, now: float) -> None:
        how = _words(part.child.wait() if part.child else None)
        part.has_ended = True
        part.ends = 0 if now - part.since > _SETTLED else part.ends + 1
        part.due = now + _DELAYS[min(part.ends, len(_DELAYS) - 1)]
        part.status |= {"last_exit": how, "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
        _report(Line("process_ended", f"{name} ended: {how}"))
        _release(part)
        self._say()

    def _say(self) -> None:
        try:
            self._supervision.say(self._status)
        except OSError as error:
            _report(Line("status_unwritable", f"the status cannot be written: {error.strerror}"))

    def _sleep(self, seconds: float) -> None:
        """Return when somebody asks, a process ends or the time is over."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for part in self._parts.values():
            if part.descriptor >= 0:
                poll.register(part.descriptor, select.POLLIN)
        poll.poll(1000 * seconds)
        with suppress(BlockingIOError):
            self._wake.recv(4096)


def _watch(part: _Part, process: Process, child: subprocess.Popen[bytes] | None) -> None:
    part.process, part.child, part.since = process, child, time.monotonic()
    if child is None:
        with suppress(OSError):  # it has ended already: it is found dead at the next look
            part.descriptor = os.pidfd_open(process.pid)


def _release(part: _Part) -> None:
    if part.descriptor >= 0:
        os.close(part.descriptor)
    part.process, part.child, part.descriptor = None, None, -1


def _words(code: int | None) -> str:
    if code is None:
        return "unknown"
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def main(directory: str, log: str) -> int:
    lock = os.open(Path(directory) / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1  # there is one already
    set_process_nice(FIRST)
    _report(Line("ready", f"started, process {os.getpid()}"))
    Supervisor(Supervision(Path(directory), Path(log))).run()
    _report(Line("stopped", "stopped"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
