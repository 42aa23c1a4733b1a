"""What a process may do and what others may do to it: its user, its priority, its memory."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

__all__ = ["FIRST", "LAST", "become", "harden", "set_nice", "set_process_nice"]

FIRST = -10
"""The nice value of who gets the CPU before a hundred backends that begin at once and wait for an answer."""
LAST = 5
"""That of what nobody waits for. Not more: the thread that has it holds the interpreter now and then."""

_PR_SET_DUMPABLE = 4


def set_nice(nice: int) -> None:
    """Give the calling thread, and those it starts, this nice value; keep the present one if not allowed."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def set_process_nice(nice: int, process: int = 0) -> None:
    """Give a process, this one by default, a nice value; keep the present one if not allowed.

    Where the kernel groups processes by session (sched(7), autogroup), that counts within the session only: a
    leader's session gets the value too.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, nice)
        if os.getsid(process) == (process or os.getpid()):
            Path(f"/proc/{process or 'self'}/autogroup").write_text(str(nice))


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
