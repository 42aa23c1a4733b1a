"""Files that hold keys or decide whom to trust: written whole or not at all, read only if nobody else can."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "UnsafeFileError",
    "identity_of",
    "locked",
    "new_file",
    "read_guarded",
    "sync_directory",
    "write_atomically",
]

MAX_LENGTH = 4 * 1024 * 1024


class UnsafeFileError(OSError):
    """A file that others may read or change, or that is no regular file."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other writers of the files in ``directory`` waiting. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_atomically(
    path: Path,
    data: bytes,
    *,
    owner: tuple[int, int] | None = None,
    exclusive: bool = False,
    mode: int = 0o600,
) -> None:
    """Write ``path``: a reader or a crash meets the old content or the new, nothing between.

    ``owner``: uid and gid of the file. ``exclusive``: raise FileExistsError instead of replacing. Raises
    OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if exclusive:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def read_guarded(path: Path, *, secret: bool, limit: int | None = MAX_LENGTH) -> bytes:
    """Read a file that only its owner may change and, when ``secret``, only its owner may read.

    No more than ``limit`` bytes of it are read. Its owner must be this process's user or root; for root, also
    the owner of its directory.
    Raises UnsafeFileError, FileNotFoundError, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFileError(f"{path} is not a regular file")
        trusted = {0, os.geteuid()}
        if os.geteuid() == 0:  # the operator, looking after the keeper's directory
            trusted.add(path.parent.stat().st_uid)
        if status.st_uid not in trusted:
            raise UnsafeFileError(f"{path} belongs to another user; fix it with: chown")
        if status.st_mode & (0o077 if secret else 0o022):
            raise UnsafeFileError(f"{path} is open to other users; fix it with: chmod 600")
        return file.read(limit)


def identity_of(path: Path) -> tuple[int, ...] | None:
    """Return what is another as soon as the file was replaced or changed, None when there is no file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sync_directory(directory: Path) -> None:
    """Make names that were given or taken in ``directory`` last through a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream, mode 0600, whose content is ``path`` when the block has ended well; else nothing is.

    Raises FileExistsError, OSError.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "there is something already", str(path))
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)  # refuses what has come there meanwhile
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
