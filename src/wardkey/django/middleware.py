"""``BearerMiddleware``: the token of a request, and what a refusal of the database is to the client.

The views below it, sync or async, run with the token of ``Authorization: Bearer``. Nothing is decided here:
whether the token is good the database says, at the first statement of a transaction.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.db import Error, transaction
from django.http import HttpRequest, HttpResponse

from ..errors import (
    AuditUnavailable,
    BudgetExhausted,
    ClassHidden,
    ContextError,
    InvalidToken,
    KeeperBusy,
    KeeperUnavailable,
    NoContext,
    ServerError,
    TokenExpired,
    UnknownTenant,
    WardError,
)
from . import tokens

__all__ = ["BearerMiddleware"]

_NOT_KNOWN = (NoContext, InvalidToken, TokenExpired)
_FORBIDDEN = (ContextError, ClassHidden, UnknownTenant)
_AWAY = (KeeperBusy, KeeperUnavailable, AuditUnavailable, ServerError)


class BearerMiddleware:
    """Override ``token`` where it comes from elsewhere, ``refuse`` for another answer."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self._await(request)
        with tokens.use(self.token(request)):
            return self.get_response(request)

    def token(self, request: HttpRequest) -> str | None:
        """Return the token of a request; None: its transactions are refused."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def refuse(self, request: HttpRequest, status: int, error: WardError) -> HttpResponse:
        """Return the answer to a request that the database refused: 401, 403, 429 or 503."""
        response = HttpResponse(f"{error.message}\n", status=status, content_type="text/plain; charset=utf-8")
        if status == 401:
            response["WWW-Authenticate"] = (
                "Bearer" if isinstance(error, NoContext) else 'Bearer error="invalid_token"'
            )
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        cause = exception.__cause__ if isinstance(exception, Error) else None
        for kinds, status in ((_NOT_KNOWN, 401), (_FORBIDDEN, 403), (BudgetExhausted, 429), (_AWAY, 503)):
            if isinstance(cause, kinds):
                return self.refuse(request, status, cause)
        return None

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        """Let a template query faces: Django renders it when the transaction of the view is over."""

        def render() -> Any:
            del response.render
            with ExitStack() as stack:
                for alias, database in settings.DATABASES.items():
                    if database["ENGINE"] == "wardkey.django":
                        stack.enter_context(transaction.atomic(using=alias))
                return response.render()

        response.render = render
        return response

    async def _await(self, request: HttpRequest) -> Any:
        with tokens.use(self.token(request)):
            return await self.get_response(request)
