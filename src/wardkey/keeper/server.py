"""The keeper's socket: who may speak, how long, how much. It knows frames, but not what is in them.

Each connection has its own deadlines, so that nobody who is slow, silent or talks nonsense holds up
another; their number is bounded, and users other than the allowed ones cannot take a place.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import stat
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from wardkey_pg.errors import KeeperUnavailable, Unsupported, WardError

from .journal import Peer
from .protocol import HEADER_LENGTH, MAX_FRAME, frame, frame_length, refusal
from .requests import Reseal, parse_request
from .service import Service

__all__ = ["SocketError", "SocketServer", "bind"]

MAX_CONNECTIONS = 400
BACKLOG = 512  # connections that wait to be accepted; further ones are told to try again
IDLE_SECONDS = 60.0  # between requests
FRAME_SECONDS = 5.0  # from the first byte of a request to its last, and for an answer to be taken
SLOWEST = 8 * 1024 * 1024  # bytes a second, of those behind a frame: fields to reseal and their answer
PIECE = 256 * 1024  # bytes of those written at once
GRACE_SECONDS = 2.0  # for requests that are being answered when the keeper stops
_MAX_PATH = 107
_NOTHING = memoryview(b"")

_T = TypeVar("_T")


class SocketError(Exception):
    """The socket cannot be had; the message says why."""


class SocketServer:
    """Serves ``service`` on a listening socket to the processes of ``allowed`` uids."""

    def __init__(self, service: Service, allowed: frozenset[int], report: Callable[[str], None]) -> None:
        self._service = service
        self._allowed = allowed
        self._report = report
        self._connections: set[asyncio.Task[None]] = set()
        self._answering = 0
        self._resealing = asyncio.Lock()  # one at a time, so that memory is bounded

    async def run(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then finish what is being answered."""
        server = await asyncio.start_unix_server(
            self._connected, sock=listening, limit=MAX_FRAME, backlog=BACKLOG
        )
        sweeper = asyncio.create_task(self._service.sweep())
        await stop.wait()
        server.close()
        until = time.monotonic() + GRACE_SECONDS
        while self._answering and time.monotonic() < until:
            await asyncio.sleep(0.01)
        tasks = [sweeper, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # it left, was too slow, or we stop: there is nobody to tell
        except Exception as error:
            self._report(f"internal error: {type(error).__name__} at {_where(error)}")
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer(writer.get_extra_info("socket"))
        if peer.uid not in self._allowed:
            return await self._send(writer, refusal(self._service.refuse_peer(peer)))
        if len(self._connections) > MAX_CONNECTIONS:
            return await self._send(writer, refusal(KeeperUnavailable("the keeper has too many connections")))
        while first := await _within(reader.read(1), IDLE_SECONDS):
            try:
                body = await _within(_rest(reader, first), FRAME_SECONDS)
                request = parse_request(body)
            except Unsupported as error:
                return await self._send(writer, refusal(error))
            self._answering += 1
            try:
                if isinstance(request, Reseal):
                    await self._reseal(request, peer, reader, writer)
                else:
                    answer = await self._guarded(self._service.answer(request, peer))
                    await self._send(writer, {"ok": True, **answer})
            except WardError as error:
                await self._send(writer, refusal(error))
            finally:
                self._answering -= 1

    async def _reseal(
        self, request: Reseal, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the fields behind a frame. Who waits for a KMS holds up nobody; who has the keys goes on."""
        seconds = FRAME_SECONDS + request.length / SLOWEST
        try:
            deks = await self._guarded(self._service.unlock(request, peer))
        except WardError:
            await _within(_skip(reader, request.length), seconds)
            raise
        async with self._resealing:
            fields = await _within(_read(reader, request.length), seconds)
            resealed = await self._guarded(self._service.reseal(request, deks, fields))
            await self._send(writer, {"ok": True, "length": len(resealed)}, resealed)

    async def _guarded(self, answer: Awaitable[_T]) -> _T:
        """Await ``answer``. Raises WardError, whatever goes wrong."""
        try:
            return await answer
        except WardError:
            raise
        except Exception as error:
            self._report(f"internal error: {type(error).__name__} at {_where(error)}")
        raise KeeperUnavailable("the keeper failed", "see the keeper's log")

    async def _send(
        self, writer: asyncio.StreamWriter, message: dict[str, Any], behind: memoryview = _NOTHING
    ) -> None:
        """Send a frame, and the bytes ``behind`` it."""
        async with asyncio.timeout(FRAME_SECONDS + len(behind) / SLOWEST):
            writer.write(frame(message))
            for position in range(0, len(behind), PIECE):
                writer.write(behind[position : position + PIECE])
                await writer.drain()
            await writer.drain()


def bind(path: Path, group: int | None) -> socket.socket:
    """Return a socket that listens at ``path``, mode 0660. Raises SocketError.

    It gets its mode and group under another name first, so that nobody meets it without them. What a dead
    keeper left is replaced; a living one is not.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise SocketError(f"{path} is longer than the {_MAX_PATH} bytes a socket's path may have")
    _refuse_living(path)
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
        raise SocketError(f"cannot listen at {path}: {error.strerror}") from None
    finally:
        os.umask(previous)
    return listening


def _refuse_living(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(os.fspath(path))
    if failure not in (errno.ECONNREFUSED, errno.ENOENT):
        raise SocketError(f"a keeper already runs at {path}")


async def _within(result: Awaitable[_T], seconds: float) -> _T:
    """Await ``result`` for so long, in this task: wait_for would start another one. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        return await result


async def _rest(reader: asyncio.StreamReader, first: bytes) -> bytes:
    return await reader.readexactly(frame_length(first + await reader.readexactly(HEADER_LENGTH - 1)))


async def _read(reader: asyncio.StreamReader, length: int) -> bytearray:
    data = bytearray()  # not of its length at once: it may be announced and never come
    while len(data) < length:
        data += await _piece(reader, length - len(data))
    return data


async def _skip(reader: asyncio.StreamReader, length: int) -> None:
    while length:
        length -= len(await _piece(reader, length))


async def _piece(reader: asyncio.StreamReader, most: int) -> bytes:
    piece = await _within(reader.read(min(most, PIECE)), FRAME_SECONDS)
    if not piece:
        raise EOFError
    return piece


def _peer(connection: socket.socket) -> Peer:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return Peer(uid=uid, pid=pid)


def _where(error: Exception) -> str:
    # Module and line only: the text of an unforeseen exception may carry what it was given.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return (
        f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
    )
