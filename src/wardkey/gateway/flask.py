"""A Flask extension.

::

    gateway = Gateway(Trust(Path("/etc/wardkey/issuers.json")), public=["/health"])
    gateway.init_app(app)

    @app.get("/patients")
    @require("ADMIN", "EVALUATOR")
    def patients():
        with wards.transaction(identity().token) as connection: ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import Flask, Response, abort, request
from wardkey_core.tokens import ROLES

from .headers import IDENTITY, Identity, Refusal
from .trust import Trust
from .wsgi import WsgiGateway

__all__ = ["Gateway", "identity", "require"]

P = ParamSpec("P")
R = TypeVar("R")


class Gateway:
    """Puts ``WsgiGateway`` before an application. ``public``: paths that pass without a token."""

    def __init__(self, trust: Trust, app: Flask | None = None, *, public: Collection[str] = ()) -> None:
        self._trust, self._public = trust, public
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put it before ``app``."""
        app.wsgi_app = WsgiGateway(app.wsgi_app, self._trust, public=self._public)  # type: ignore[method-assign]
        app.extensions["wardkey"] = self


def identity() -> Identity:
    """Return who asks. Aborts with 401 on a public path; raises RuntimeError without the extension."""
    if IDENTITY not in request.environ:
        raise RuntimeError("wardkey.gateway.flask.Gateway is not before this application: init_app")
    known: Identity | None = request.environ[IDENTITY]
    if known is None:
        abort(_response(Refusal(401, "", "no token")))
    return known


def require(*roles: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of views that aborts with 403 for other roles."""
    if unknown := set(roles) - set(ROLES):
        raise ValueError(f"there is no role {min(unknown)}")

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def required(*args: P.args, **named: P.kwargs) -> R:
            if identity().role not in roles:
                abort(_response(Refusal(403, "insufficient_scope", "the role may not do this")))
            return view(*args, **named)

        return required

    return decorate


def _response(refusal: Refusal) -> Response:
    status, headers, body = refusal.response()
    return Response(body, status, headers)
