"""FastAPI dependencies: who asks, and with which role. They need ``AsgiGateway`` before the application.

::

    app.add_middleware(AsgiGateway, trust=Trust(Path("/etc/wardkey/issuers.json")))

    @app.get("/patients")
    def patients(identity: Annotated[Identity, Depends(identity)]): ...

    @app.delete("/patients/{id}", dependencies=[Depends(require("ADMIN"))])
    def remove(id: int): ...
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import HTTPException
from starlette.requests import HTTPConnection
from wardkey_core.tokens import ROLES

from .headers import IDENTITY, Identity, Refusal

__all__ = ["identity", "require"]


def identity(connection: HTTPConnection) -> Identity:
    """Return who asks, of a request or a websocket.

    Raises HTTPException 401 on a public path, RuntimeError without the middleware.
    """
    if IDENTITY not in connection.scope:
        raise RuntimeError("wardkey.gateway.AsgiGateway is not before this application: app.add_middleware")
    known: Identity | None = connection.scope[IDENTITY]
    if known is None:
        raise _exception(Refusal(401, "", "no token"))
    return known


def require(*roles: str) -> Callable[[HTTPConnection], Identity]:
    """Return a dependency that is ``identity``, and raises HTTPException 403 for other roles."""
    if unknown := set(roles) - set(ROLES):
        raise ValueError(f"there is no role {min(unknown)}")

    def required(connection: HTTPConnection) -> Identity:
        known = identity(connection)
        if known.role not in roles:
            raise _exception(Refusal(403, "insufficient_scope", "the role may not do this"))
        return known

    return required


def _exception(refusal: Refusal) -> HTTPException:
    headers = {"WWW-Authenticate": refusal.challenge()}
    return HTTPException(refusal.status, refusal.error or "unauthorized", headers)
