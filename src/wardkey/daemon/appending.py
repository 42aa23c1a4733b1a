"""Files of lines that are only appended to, by one process."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from .files import sync_directory, write_atomically
from .lines import Line
from .service import ServiceError

__all__ = ["AppendFile", "append_line", "open_to_append"]


class AppendFile:
    """Reads ``path``, making it when it is missing. Raises ServiceError, OSError.

    ``take`` is called with each of its ``count`` lines; where it raises an error, the line is
    damaged. A line is acknowledged once it is on the disk. So an end without its newline, which a crash
    may leave, was acknowledged to nobody and is cut off.
    """

    def __init__(self, path: Path, report: Callable[[str], None], take: Callable[[bytes], None]) -> None:
        self.path = path
        descriptor = _open(path, os.O_RDWR | os.O_CREAT)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
            self._length = data.rfind(b"\n") + 1
            lines = data[: self._length].splitlines()
            if self._length < len(data):
                os.ftruncate(descriptor, self._length)
                report(
                    Line(
                        "end_cut_off",
                        f"the end of {path} was cut off: a crash left it half written, told to nobody",
                    )
                )
            os.fsync(descriptor)
        sync_directory(path.parent)
        self.count = len(lines)
        for number, line in enumerate(lines, 1):
            try:
                take(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                wrong = f"line {number} of {path} is damaged; restore the file from its backup"
                raise ServiceError(wrong) from None

    def append(self, line: bytes, *, later: bool = False) -> None:
        """Put a line, newline included, on the disk, or nothing of it. Raises OSError, ServiceError.

        ``later``: into the kernel, so that a crash of the process loses nothing; ``flush`` does the rest.
        """
        descriptor = _open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(descriptor).st_size != self._length:
                raise ServiceError(f"{self.path} is not of the length it had")
            append_line(descriptor, line)
            try:
                if not later:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._length)
                raise
            self._length += len(line)
        finally:
            os.close(descriptor)

    def flush(self) -> None:
        """Put what was appended on the disk. Raises OSError; may be called in a thread."""
        descriptor = open_to_append(self.path)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, lines: Iterable[bytes]) -> None:
        """Put these lines in place of all. Raises OSError."""
        data = b"".join(lines)
        write_atomically(self.path, data)
        self._length = len(data)


def open_to_append(path: Path) -> int:
    """Return a descriptor of ``path``, made with mode 0600 when it is missing. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def append_line(descriptor: int, line: bytes) -> None:
    """Write a line whole or not at all: half of one accounts for nothing. Raises OSError."""
    written = os.write(descriptor, line)
    if written != len(line):  # the disk is full
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return descriptor
    os.close(descriptor)
    raise ServiceError(f"{path} is no regular file, belongs to another user or is open to others")
