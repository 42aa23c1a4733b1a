"""What keeps a process's memory, and so the keys in it, from its neighbours and from the disk."""

from __future__ import annotations

import ctypes
import os
import resource

__all__ = ["become", "harden"]

_PR_SET_DUMPABLE = 4


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
