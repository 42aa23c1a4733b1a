"""A Redis of the tests' own: Debian's ``redis-server`` on a unix socket, with nothing on disk."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.homes import make_directory, throw_away


class RedisServer:
    """``url``: as the user ``default``, until wardkey turns that off."""

    def __init__(self) -> None:
        self.directory = make_directory()
        self.directory.chmod(0o755)
        self._socket = self.directory / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> RedisServer:
        given = ["--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "777", *options]
        log = ["--logfile", "", "--loglevel", "warning", "--save", "", "--dir", str(self.directory)]
        self._process = subprocess.Popen(
            ["redis-server", *given, *log], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                redis.Redis(unix_socket_path=str(self._socket)).ping()
                return self
            except redis.AuthenticationError:
                return self  # its users were saved
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.01)

    def connect(self, user: str | None = None, password: str | None = None) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket),
            username=user,
            password=password,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)

    def remove(self) -> None:
        self.kill()
        throw_away(Path(self.directory))
