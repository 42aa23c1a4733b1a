"""A TCP port on loopback for a server that a test starts."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that nobody listens at; the caller takes it soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
