"""The gateway as ASGI middleware, for http and websocket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any

from wardkey_core.tokens import UnknownKey

from .headers import IDENTITY, Identity, Refusal, bearer, identify, split
from .trust import Trust

__all__ = ["AsgiGateway", "authenticate", "respond"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008


class AsgiGateway:
    """Lets requests with a good token through to ``app``, with X-Auth-* and ``scope["wardkey.identity"]``.

    ``public``: paths, each exactly as it is routed, that pass without a token; X-Auth-* is dropped there too.
    A websocket is closed with the first message after its token has expired.
    """

    def __init__(self, app: App, trust: Trust, *, public: Collection[str] = ()) -> None:
        self._app, self._trust, self._public = app, trust, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            raise ValueError("the gateway lets http and websocket through, nothing else")
        headers, credentials = split(scope["headers"])
        identity: Identity | None = None
        if scope["path"] not in self._public:
            try:
                identity = await authenticate(self._trust, credentials)
            except Refusal as refusal:
                await _refuse(refusal, scope, receive, send)
                return
            headers += identity.raw_headers()
            if kind == "websocket":
                receive, send = _until(identity.expires_at, receive, send)
        await self._app({**scope, "headers": headers, IDENTITY: identity}, receive, send)


async def authenticate(trust: Trust, credentials: Sequence[bytes]) -> Identity:
    """Return whose token the Authorization headers have; may wait for keys. Raises Refusal."""
    token = bearer(credentials)
    try:
        return identify(trust.verify, token)
    except UnknownKey:
        pass
    return await asyncio.to_thread(identify, trust.verify_renewed, token)


async def respond(
    send: Send, status: int, headers: Sequence[tuple[str, str]], body: bytes, kind: str = "http"
) -> None:
    """Send a whole response."""
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": f"{kind}.response.start", "status": status, "headers": encoded})
    await send({"type": f"{kind}.response.body", "body": body})


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await respond(send, *refusal.response())
        return
    await receive()  # websocket.connect
    if "websocket.http.response" in scope.get("extensions", {}):
        await respond(send, *refusal.response(), kind="websocket.http")
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


def _until(expires_at: float, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Return ``receive`` and ``send`` that close a websocket instead of passing on a message that is late."""
    is_closed = False

    async def close() -> None:
        nonlocal is_closed
        if not is_closed:
            is_closed = True
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "token has expired"})

    async def receive_in_time() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and time.time() >= expires_at:
            await close()
            return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
        return message

    async def send_in_time(message: Message) -> None:
        if message["type"] == "websocket.send" and time.time() >= expires_at:
            await close()
            raise OSError("the token of this connection has expired")
        if not (is_closed and message["type"] == "websocket.close"):
            await send(message)

    return receive_in_time, send_in_time
