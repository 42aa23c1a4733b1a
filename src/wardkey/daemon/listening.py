"""Unix sockets that services listen at."""

from __future__ import annotations

import argparse
import errno
import grp
import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path

from .service import ServiceError

__all__ = ["BACKLOG", "bind", "group_id"]

BACKLOG = 512  # connections that wait to be accepted; further ones wait for that
_MAX_PATH = 107


def group_id(text: str) -> int:
    """Return a group by its name or number, as an option of a service. Raises ArgumentTypeError."""
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group {text}") from None


def bind(path: Path, group: int | None, what: str) -> socket.socket:
    """Return a socket that listens at ``path``, mode 0660. Raises ServiceError.

    It gets its mode and group under another name first, so that nobody meets it without them. What a dead
    process left is replaced; a living one, which is ``what``, is not.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ServiceError(f"{path} is longer than the {_MAX_PATH} bytes a socket's path may have")
    _refuse_living(path, what)
    temporary = path.with_name(f".{secrets.token_hex(4)}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listening.bind(os.fspath(temporary))
        if group is not None:
            os.chown(temporary, -1, group, follow_symlinks=False)
        temporary.chmod(0o660)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        temporary.rename(path)
    except OSError as error:
        listening.close()
        with suppress(OSError):
            temporary.unlink()
        raise ServiceError(f"cannot listen at {path}: {error.strerror}") from None
    finally:
        os.umask(previous)
    return listening


def _refuse_living(path: Path, what: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServiceError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(os.fspath(path))
    if failure not in (errno.ECONNREFUSED, errno.ENOENT):
        raise ServiceError(f"{what} already runs at {path}")
