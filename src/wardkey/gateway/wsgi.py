"""The gateway as WSGI middleware."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from wardkey_core.tokens import UnknownKey

from .headers import IDENTITY, Identity, Refusal, bearer, identify, is_dropped, kept_options
from .trust import Trust

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

__all__ = ["WsgiGateway"]


class WsgiGateway:
    """Lets requests with a good token through to ``app``, with HTTP_X_AUTH_* and "wardkey.identity".

    ``public``: values of PATH_INFO that pass without a token; HTTP_X_AUTH_* is dropped there too.
    """

    def __init__(self, app: WSGIApplication, trust: Trust, *, public: Collection[str] = ()) -> None:
        self._app, self._trust, self._public = app, trust, frozenset(public)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        for key in [key for key in environ if key[:5] == "HTTP_" and is_dropped(_name(key))]:
            del environ[key]
        if "HTTP_CONNECTION" in environ:
            options = environ["HTTP_CONNECTION"].encode("latin-1")
            environ["HTTP_CONNECTION"] = kept_options(options).decode("latin-1")
        environ[IDENTITY] = None
        if environ.get("PATH_INFO", "") not in self._public:
            try:
                identity = self._authenticate(environ.get("HTTP_AUTHORIZATION"))
            except Refusal as refusal:
                status, headers, body = refusal.response()
                start_response(f"{status} {HTTPStatus(status).phrase}", headers)
                return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
            environ[IDENTITY] = identity
            for name, value in identity.headers():
                environ["HTTP_" + name.upper().replace("-", "_")] = value
        return self._app(environ, start_response)

    def _authenticate(self, credential: str | None) -> Identity:
        token = bearer([] if credential is None else [credential.encode("latin-1", "replace")])
        try:
            return identify(self._trust.verify, token)
        except UnknownKey:
            pass
        return identify(self._trust.verify_renewed, token)


def _name(key: str) -> bytes:
    return key[5:].encode("latin-1", "replace")
