"""``python -m wardkey``, forked from a process that has read its modules: 0.3 s of CPU less for each command.

What runs is the same: ``wardkey.__main__``, in a process of its own, with arguments, environment, directory,
umask, pipes and exit code. An environment that acts on how Python starts needs a real start: ``is_alike``.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

_AT_START = ("LD_", "PYTHON", "LC_", "LANG", "TZ", "MALLOC_", "OPENSSL_", "SSL_")
_MOST = 1 << 20  # bytes of a request


class Starter:
    """The process that others are forked from, started when it is first needed; it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def is_alike(self, environment: Mapping[str, str]) -> bool:
        """Whether Python itself would start in this environment as the starter did in its own."""
        ours = self._environment or os.environ
        return all(
            ours.get(name) == environment.get(name)
            for name in {*ours, *environment}
            if name.startswith(_AT_START)
        )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run the command. Return exit code, minus the number of a signal, and its output."""
        umask = os.umask(0)
        os.umask(umask)
        request = {
            "arguments": arguments,
            "environment": dict(environment),
            "directory": str(Path.cwd()),
            "umask": umask,
        }
        (out, to_out), (err, to_err), (answer, to_answer) = os.pipe(), os.pipe(), os.pipe()
        try:
            self._send(json.dumps(request).encode(), [to_out, to_err, to_answer])
        finally:
            for descriptor in (to_out, to_err, to_answer):
                os.close(descriptor)
        read = _read_all([answer, out, err], timeout)
        return int(read[0].split()[1]), read[1], read[2]

    def _send(self, request: bytes, descriptors: list[int]) -> None:
        with self._lock:
            if self._control is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
                self._environment = dict(os.environ)
                with theirs:
                    command = [sys.executable, __file__, str(theirs.fileno())]
                    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
                atexit.register(process.wait)
                atexit.register(self._control.close)
            rights = array.array("i", descriptors)
            self._control.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _read_all(descriptors: Sequence[int], timeout: float) -> list[bytes]:
    """Read pipes to their ends. The first tells the process id, and then how the process ended."""
    read = dict.fromkeys(descriptors, b"")
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(max(deadline - time.monotonic(), 0)):
                piece = os.read(key.fd, 1 << 16)
                read[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
            if time.monotonic() > deadline:
                os.kill(int(read[descriptors[0]].split()[0]), signal.SIGKILL)
                raise TimeoutError(f"{timeout} s: {read}")
    for descriptor in descriptors:
        os.close(descriptor)
    return list(read.values())


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request. Return the request in it, and None when nobody asks any more."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    running: dict[int, tuple[int, int]] = {}  # by pidfd: process id, where to say how it ended
    while True:
        for key, _ in selector.select():
            if key.fd in running:
                process, answer = running.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                os.write(answer, b"%d" % code)
                os.close(answer)
                continue
            size = array.array("i").itemsize * 3
            message, ancillary, _, _ = control.recvmsg(_MOST, socket.CMSG_SPACE(size))
            if not message:
                return None
            out, err, answer = array.array("i", ancillary[0][2])
            process = os.fork()
            if process == 0:
                selector.close()
                control.close()
                for descriptor in (*running, *(ours for _, ours in running.values()), answer):
                    os.close(descriptor)
                null = os.open(os.devnull, os.O_RDONLY)
                for descriptor, standard in ((null, 0), (out, 1), (err, 2)):
                    os.dup2(descriptor, standard)
                    os.close(descriptor)
                request: dict[str, Any] = json.loads(message)
                return request
            os.close(out)
            os.close(err)
            os.write(answer, b"%d " % process)
            pidfd = os.pidfd_open(process)
            running[pidfd] = (process, answer)
            selector.register(pidfd, selectors.EVENT_READ)


def _run(request: dict[str, Any]) -> int:
    """Be the command. Return its exit code."""
    os.chdir(request["directory"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = ["wardkey", *request["arguments"]]
    try:
        runpy.run_module("wardkey", run_name="__main__", alter_sys=True)
        code: object = 0
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(str(code or 0))


def _preload() -> None:
    import wardkey

    others = (
        ".__main__",
        ".providers",
        "wardkey.django.",
        "wardkey.gateway.fastapi",
        "wardkey.gateway.flask",
    )
    for module in walk_packages(wardkey.__path__, "wardkey."):
        if not any(
            other in module.name for other in others
        ):  # frameworks are no command's, and want settings
            import_module(module.name)
    for name in ("psycopg", "rich.console", "rich.table", "rich.markdown", "jinja2", "alembic.command"):
        import_module(name)


if __name__ == "__main__":
    import gc

    sys.path.pop(0)  # of this file
    _preload()
    gc.freeze()
    if asked := _serve(socket.socket(fileno=int(sys.argv[1]))):
        os._exit(_run(asked))
