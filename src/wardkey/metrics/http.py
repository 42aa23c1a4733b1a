"""HTTP as far as a scrape needs it: one request a connection, bounded in size, time and number.

h11 reads and writes the protocol. A scrape takes milliseconds; who sends or takes slower than ``SECONDS`` for
all of it is left, so that connections which do nothing hold up others for no longer than that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import h11

__all__ = ["MOST_CONNECTIONS", "MOST_HEAD", "SECONDS", "Answer", "Request", "serve"]

MOST_HEAD = 8 * 1024  # bytes of a request's head; a body is not read
MOST_CONNECTIONS = 256  # further ones wait to be accepted
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    authorization: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


Application = Callable[[Request], Awaitable[Answer]]


async def serve(
    application: Application,
    listening: socket.socket,
    stop: asyncio.Event,
    report: Callable[[str], None],
    seconds: float = SECONDS,
) -> None:
    """Answer until ``stop`` is set. ``listening`` does not block; ``report`` hears of our own errors."""
    loop, room, tasks = asyncio.get_running_loop(), asyncio.Semaphore(MOST_CONNECTIONS), set()

    async def converse(connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(seconds):
                await _converse(application, connection)
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # it left, was too slow, or speaks no HTTP: there is nobody to tell
        except Exception as error:  # not its text, which may be of a client
            report(f"internal error: {type(error).__name__}")
        finally:
            connection.close()
            room.release()

    async def accept() -> None:
        while True:
            await room.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:  # short of files, or the client has left
                room.release()
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            task = asyncio.create_task(converse(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = asyncio.create_task(accept())
    await stop.wait()
    for task in (accepting, *tasks):
        task.cancel()
    await asyncio.gather(accepting, *tasks, return_exceptions=True)


async def _converse(application: Application, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
    try:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await loop.sock_recv(connection, MOST_HEAD))
        if not isinstance(event, h11.Request):
            return  # it has hung up
        answer = await application(
            Request(
                event.method.decode("latin-1"),
                event.target.decode("latin-1").partition("?")[0],
                [value for name, value in event.headers if name == b"authorization"],
            )
        )
    except h11.RemoteProtocolError as error:
        answer = Answer(error.error_status_hint, b"")
    headers = [
        *answer.headers,
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    with suppress(h11.LocalProtocolError):  # of a request that was none, h11 says so
        head = protocol.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        data = protocol.send(h11.Data(data=answer.body)) or b""
        await loop.sock_sendall(connection, head + data)
        connection.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(connection, MOST_HEAD):  # else what was not read resets the connection
            pass
