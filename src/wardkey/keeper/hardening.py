"""A process's memory, and so the keys in it, kept from its neighbours and the disk; its user and priority."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress

__all__ = ["become", "come_first", "harden"]

_PR_SET_DUMPABLE = 4


_NICE = -10


def come_first() -> None:
    """Get the CPU before a hundred backends that begin at once and wait for an answer, if that is allowed."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def become(uid: int, gid: int) -> None:
    """Go from root to another user for good. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def harden() -> None:
    """No core dumps; no ptrace and no /proc/PID/mem for processes of the same user. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
