"""The keeper's socket: who may speak, how long, how much. It knows frames, but not what is in them.

Each connection has its own deadlines, so that nobody who is slow, silent or talks nonsense holds up
another; their number is bounded, and users other than the allowed ones cannot take a place. No tenant has
more requests waiting than places are left for others, so that one whose KMS is slow does not take them all.

Sockets are read and written without asyncio's transports and streams: most connections carry one request, and
setting those up cost as much as the rest of a release.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperBusy, KeeperUnavailable, WardError
from wardkey_core.wire import HEADER_LENGTH, MAX_FRAME, frame, frame_length, refusal

from ..daemon.lines import Line
from .journal import Peer
from .requests import Reseal, Status, parse_request
from .service import Service

__all__ = ["SocketServer"]

MAX_CONNECTIONS = 400  # further ones are told to ask again
IDLE_SECONDS = 60.0  # between requests
FRAME_SECONDS = 5.0  # from the first byte of a request to its last, and for an answer to be taken
SLOWEST = 8 * 1024 * 1024  # bytes a second, of those behind a frame: fields to reseal and their answer
PIECE = 256 * 1024  # bytes of those written at once
ACCEPTED_AT_ONCE = 64  # before others get their turn
SHORT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
AFTER_SHORTAGE = 1.0  # seconds until the next connection is accepted
GRACE_SECONDS = 2.0  # for requests that are being answered when the keeper stops
_NOTHING = memoryview(b"")

_T = TypeVar("_T")


class SocketServer:
    """Serves ``service`` on a listening socket to the processes of ``allowed`` uids.

    ``observers``: uids besides them that are told how the keeper is, and nothing else.
    """

    def __init__(
        self,
        service: Service,
        allowed: frozenset[int],
        report: Callable[[str], None],
        observers: frozenset[int] = frozenset(),
    ) -> None:
        self._service = service
        self._allowed = allowed
        self._observers = observers
        self._report = report
        self._connections: set[asyncio.Task[None]] = set()
        self._answering = 0
        self._of_tenant: Counter[UUID | None] = Counter()  # of those, a tenant's
        self._stopped = False
        self._resealing = asyncio.Lock()  # one at a time, so that memory is bounded

    def reload(self) -> None:
        self._service.reload()

    async def run(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then finish what is being answered."""
        loop = asyncio.get_running_loop()
        loop.add_reader(listening, self._accept, listening)
        sweeper = asyncio.create_task(self._service.sweep())
        await stop.wait()
        loop.remove_reader(listening)
        self._stopped = True
        listening.close()
        until = time.monotonic() + GRACE_SECONDS
        while self._answering and time.monotonic() < until:
            await asyncio.sleep(0.01)
        tasks = [sweeper, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in SHORT_OF_FILES:
                    raise
                self._report(
                    Line("no_connections", f"no connection can be accepted for a while: {error.strerror}")
                )
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(AFTER_SHORTAGE, self._accept_again, listening)
                return
            connection.setblocking(False)
            task = asyncio.create_task(self._connected(Wire(connection)))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._stopped:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def _connected(self, wire: Wire) -> None:
        try:
            await self._converse(wire)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # it left, was too slow, or we stop: there is nobody to tell
        except Exception as error:
            self._report(Line("internal_error", f"internal error: {type(error).__name__} at {_where(error)}"))
        finally:
            wire.close()

    async def _converse(self, wire: Wire) -> None:
        peer = wire.peer()
        if peer.uid not in self._allowed | self._observers:
            return await self._send(wire, refusal(self._service.refuse_peer(peer)))
        if len(self._connections) > MAX_CONNECTIONS:
            return await self._send(wire, refusal(KeeperBusy()))
        while first := await _within(wire.read(1), IDLE_SECONDS):
            try:
                body = await _within(_rest(wire, first), FRAME_SECONDS)
                request = parse_request(body)
            except Unsupported as error:
                return await self._send(wire, refusal(error))
            if peer.uid not in self._allowed and not isinstance(request, Status):
                return await self._send(wire, refusal(self._service.refuse_peer(peer)))
            tenant = request.tenant
            if self._of_tenant[tenant] >= MAX_CONNECTIONS - len(self._connections):
                return await self._send(
                    wire, refusal(KeeperBusy())
                )  # its KMS is slow: the rest is for others
            self._answering += 1
            self._of_tenant[tenant] += 1
            try:
                if isinstance(request, Reseal):
                    await self._reseal(request, peer, wire)
                else:
                    answer = await self._guarded(self._service.answer(request, peer))
                    await self._send(wire, {"ok": True, **answer})
            except WardError as error:
                await self._send(wire, refusal(error))
            finally:
                self._answering -= 1
                self._of_tenant[tenant] -= 1
                if not self._of_tenant[tenant]:
                    del self._of_tenant[tenant]

    async def _reseal(self, request: Reseal, peer: Peer, wire: Wire) -> None:
        """Answer the fields behind a frame. Who waits for a KMS holds up nobody; who has the keys goes on."""
        seconds = FRAME_SECONDS + request.length / SLOWEST
        try:
            deks = await self._guarded(self._service.unlock(request, peer))
        except WardError:
            await _within(_skip(wire, request.length), seconds)
            raise
        async with self._resealing:
            fields = await _within(_read(wire, request.length), seconds)
            resealed = await self._guarded(self._service.reseal(request, deks, fields))
            await self._send(wire, {"ok": True, "length": len(resealed)}, resealed)

    async def _guarded(self, answer: Awaitable[_T]) -> _T:
        """Await ``answer``. Raises WardError, whatever goes wrong."""
        try:
            return await answer
        except WardError:
            raise
        except Exception as error:
            self._report(Line("internal_error", f"internal error: {type(error).__name__} at {_where(error)}"))
        raise KeeperUnavailable("the keeper failed", "see the keeper's log")

    async def _send(self, wire: Wire, message: dict[str, Any], behind: memoryview = _NOTHING) -> None:
        """Send a frame, and the bytes ``behind`` it."""
        async with asyncio.timeout(FRAME_SECONDS + len(behind) / SLOWEST):
            await wire.write(frame(message))
            for position in range(0, len(behind), PIECE):
                await wire.write(behind[position : position + PIECE])


class Wire:
    """A connection: what was read and not yet asked for is kept."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def peer(self) -> Peer:
        size = struct.calcsize("3i")
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = struct.unpack("3i", credentials)
        return Peer(uid=uid, pid=pid)

    async def read(self, most: int) -> bytes:
        """Return 1 to ``most`` bytes, none when the other side has hung up. Raises OSError."""
        data = self._received or await self._loop.sock_recv(self._connection, max(most, MAX_FRAME))
        self._received = data[most:]
        return data[:most]

    async def exactly(self, length: int) -> bytes:
        """Return so many bytes. Raises EOFError when the other side hangs up before, OSError."""
        data = await self.read(length)
        while len(data) < length:
            piece = await self.read(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    async def write(self, data: bytes | memoryview) -> None:
        """Return when the kernel has taken all of it. Raises OSError."""
        await self._loop.sock_sendall(self._connection, data)

    def close(self) -> None:
        self._connection.close()


async def _within(result: Awaitable[_T], seconds: float) -> _T:
    """Await ``result`` for so long, in this task: wait_for would start another one. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        return await result


async def _rest(wire: Wire, first: bytes) -> bytes:
    return await wire.exactly(frame_length(first + await wire.exactly(HEADER_LENGTH - 1)))


async def _read(wire: Wire, length: int) -> bytearray:
    data = bytearray()  # not of its length at once: it may be announced and never come
    while len(data) < length:
        data += await _piece(wire, length - len(data))
    return data


async def _skip(wire: Wire, length: int) -> None:
    while length:
        length -= len(await _piece(wire, length))


async def _piece(wire: Wire, most: int) -> bytes:
    piece = await _within(wire.read(min(most, PIECE)), FRAME_SECONDS)
    if not piece:
        raise EOFError
    return piece


def _where(error: Exception) -> str:
    # Module and line only: the text of an unforeseen exception may carry what it was given.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return (
        f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
    )
