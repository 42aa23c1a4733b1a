"""Programs run as another user, with a clean environment. Standard library only: an installer has no more."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ServerError

__all__ = ["OsUser", "clean_environment", "piped", "run"]


@dataclass(frozen=True, slots=True)
class OsUser:
    """An OS user that programs are run as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> OsUser | None:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def current(cls) -> OsUser:
        entry = pwd.getpwuid(os.geteuid())
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return ``arguments`` prefixed so that they run as this user."""
        if self.uid == os.geteuid():
            return list(arguments)
        switch = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--"]
        return [*switch, *arguments]

    def may_enter(self, directory: Path) -> bool:
        """Say whether this user can reach into ``directory``."""
        probe = ["/usr/bin/test", "-x", str(directory)]
        return subprocess.run(self.command(probe), check=False, stdin=subprocess.DEVNULL).returncode == 0


def clean_environment(**extra: str) -> dict[str, str]:
    """Return the whole environment of a server process: nothing of ours reaches the embedded interpreter."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **extra}


def run(
    arguments: Sequence[str],
    what: str,
    *,
    user: OsUser | None = None,
    environment: Mapping[str, str] | None = None,
    hint: str | None = None,
    directory: Path = Path("/"),
    timeout: float = 600,
) -> str:
    """Run a program to its end and return its stdout. On Ctrl-C its whole process group goes too.

    Raises ServerError ``what``: last line of its stderr.
    """
    command = user.command(arguments) if user else list(arguments)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=environment,
        umask=0o022,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as program:
        try:
            out, err = program.communicate(timeout=timeout)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ServerError(f"{what}: no end after {timeout:.0f} s", hint) from None
            raise
    if program.returncode:
        lines = [line.strip() for line in (err or out).splitlines() if line.strip()]
        raise ServerError(f"{what}: {lines[-1] if lines else f'exit code {program.returncode}'}", hint)
    return out


@contextmanager
def piped(
    arguments: Sequence[str],
    what: str,
    *,
    user: OsUser | None = None,
    environment: Mapping[str, str] | None = None,
    hint: str | None = None,
    is_read: bool,
) -> Iterator[IO[bytes]]:
    """Yield the stdout of a program if ``is_read``, else its stdin; the program has ended with the block.

    Raises ServerError ``what``: last line of its stderr; that goes before what the block raised.
    """
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            user.command(arguments) if user else list(arguments),
            stdin=subprocess.DEVNULL if is_read else subprocess.PIPE,
            stdout=subprocess.PIPE if is_read else subprocess.DEVNULL,
            stderr=complaints,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
        ) as program,
    ):
        stream = program.stdout if is_read else program.stdin
        try:
            yield stream  # type: ignore[misc]
            stream.close()  # type: ignore[union-attr]
            program.wait()
        except BaseException as error:
            if isinstance(error, OSError):  # has it ended first? Then it says why
                with suppress(subprocess.TimeoutExpired):
                    program.wait(timeout=10)
            if not program.poll():
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                raise
        if program.returncode:
            complaints.seek(0)
            lines = complaints.read().decode(errors="replace").split("\n")
            said = [line.strip() for line in lines if line.strip()]
            raise ServerError(f"{what}: {said[-1] if said else f'exit code {program.returncode}'}", hint)
