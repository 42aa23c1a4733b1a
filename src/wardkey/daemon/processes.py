"""Processes, told apart by pid and start time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from .files import write_atomically

__all__ = ["Process", "end", "find"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process: ``started`` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the live process with this pid, None when there is none or it is a zombie."""
        try:
            booted, process = psutil.boot_time(), psutil.Process(pid)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return None
            return cls(pid, round((process.create_time() - booted) * _TICKS))
        except (psutil.Error, ValueError):
            return None

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    @classmethod
    def recorded(cls, file: Path) -> Process | None:
        """Return the live process that ``record`` wrote into ``file``, None when it is gone."""
        try:
            pid, started, boot = file.read_text().split()
            process = cls.of(int(pid))
        except (OSError, ValueError):
            return None
        if process is None or process.started != int(started) or boot != _boot():
            return None
        return process

    def record(self, file: Path) -> None:
        """Write down which process this is; after a reboot the record means none."""
        write_atomically(file, f"{self.pid} {self.started} {_boot()}\n".encode())

    def works_in(self, directory: Path) -> bool:
        """Say whether its working directory is this one: not one of the same path in another container."""
        try:
            return (Path("/proc") / str(self.pid) / "cwd").samefile(directory)
        except OSError:
            return False

    @property
    def program(self) -> str:
        try:
            return Path(psutil.Process(self.pid).exe()).name.removesuffix(" (deleted)")
        except psutil.Error:
            return ""

    @property
    def seconds_up(self) -> float:
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / _TICKS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone already."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _boot() -> str:
    return _BOOT.read_text().strip()


def find(matches: Callable[[Process], bool]) -> list[Process]:
    """Return every live process for which ``matches`` holds."""
    every = filter(None, map(Process.of, psutil.pids()))
    return [process for process in every if matches(process)]


def end(processes: Iterable[Process], signals: Sequence[tuple[signal.Signals, float]]) -> bool:
    """Send each signal in turn to those still alive and wait its seconds; True when all have gone."""
    left = [process for process in processes if process.alive]
    for number, seconds in signals:
        for process in left:
            process.signal(number)
        deadline = time.monotonic() + seconds
        while (left := [process for process in left if process.alive]) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not left:
            return True
    return not left
