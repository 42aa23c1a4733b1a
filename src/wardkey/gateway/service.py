"""What ``wardkey gateway run`` answers: subrequests of nginx (auth_request) and checks of Envoy (ext_authz).

``/auth``            204 with X-Auth-*, or 401, 403. ``?role=ADMIN&role=EVALUATOR``: for these roles only.
``/envoy``, below    the same with 200, which alone is good for Envoy; it appends the request's own path.
``/health``          204, or 503 while no issuer's keys are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs

from .asgi import Receive, Scope, Send, authenticate, respond
from .headers import Identity, Refusal, new_request_id
from .trust import Trust

__all__ = ["AuthService"]

_NO_STORE = ("Cache-Control", "no-store")


class AuthService:
    """An ASGI application. ``log`` is given a line of JSON a request: verified claims and constants only."""

    def __init__(self, trust: Trust, log: Callable[[str], object] | None = None) -> None:
        self._trust, self._log = trust, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == "/health":
            await respond(send, 204 if self._trust.has_keys() else 503, [_NO_STORE], b"")
            return
        good = 204 if path == "/auth" else 200 if path == "/envoy" or path.startswith("/envoy/") else None
        if good is None:
            await respond(send, 404, [_NO_STORE], b"")
            return
        try:
            identity = await self._identify(scope, parse_roles(scope) if good == 204 else ())
        except Refusal as refusal:
            status, headers, body = refusal.response()
            if status == 400:  # of which auth_request makes 500
                status = 401
            self._write(status, refusal.reason)
            await respond(send, status, headers, body)
            return
        self._write(good, "", identity)
        await respond(send, good, [_NO_STORE, *identity.headers()], b"")

    async def _identify(self, scope: Scope, roles: tuple[str, ...]) -> Identity:
        credentials = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        identity = await authenticate(self._trust, credentials)
        if roles and identity.role not in roles:
            raise Refusal(403, "insufficient_scope", "the role may not do this")
        return identity

    def _write(self, status: int, reason: str, identity: Identity | None = None) -> None:
        if self._log is None:
            return
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "status": status}
        if identity is None:
            line |= {"reason": reason, "request_id": new_request_id()}
        else:
            line |= {"request_id": identity.request_id, "tenant": identity.tenant_id, "role": identity.role}
        self._log(json.dumps(line))


def parse_roles(scope: Scope) -> tuple[str, ...]:
    """Return the roles that the query names; it is the proxy's own, not the client's."""
    return tuple(parse_qs(scope.get("query_string", b"").decode("latin-1")).get("role", ()))
