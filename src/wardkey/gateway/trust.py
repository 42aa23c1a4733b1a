"""Whose tokens the gateway believes: an issuers.json like the keeper's, with keys that may be renewed.

An issuer document has ``keys``, as the database and the keeper know them, or ``jwks``: the URL or the
absolute path of a JWKS. A URL is fetched again every five minutes, beside the requests; and, at most every 30
seconds, when a token names a key that is not known. An identity provider that is away changes nothing for a
day; after it, nobody of that issuer passes. A file is read again when it was replaced; one that is missing,
damaged or writable by others means that nobody of it passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardkey_core.errors import InvalidToken
from wardkey_core.tokens import Claims, Issuer, UnknownKey, unverified_issuer
from wardkey_core.verifier import Verifier, parse_issuers

from ..daemon.files import identity_of, read_guarded
from ..daemon.lines import Line
from ..identity.jwks import JwksError, check_url, document_from_jwks, fetch

__all__ = ["KeysUnavailable", "Trust"]

LOOK_SECONDS = 1.0  # between looks at files
RENEW_SECONDS = 300.0
RETRY_SECONDS = 30.0  # between fetches of one JWKS, whatever tokens name
STALE_SECONDS = 86_400.0

_NO_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "none", "alg": "EdDSA"}
_NEVER = float("-inf")
_LOG = logging.getLogger(__name__)


class KeysUnavailable(Exception):
    """The keys of the token's issuer are not known at the moment."""


class Trust:
    """Verifies tokens of ``issuers``: a file, or issuer documents. Threads may share it.

    ``report`` is told what cannot be used. Raises ValueError, OSError for issuers that are not understood;
    keys that cannot be fetched yet are reported, and tried again.
    """

    def __init__(
        self,
        issuers: Path | Sequence[Mapping[str, Any]],
        *,
        report: Callable[[str], object] = _LOG.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = issuers if isinstance(issuers, Path) else None
        self._report, self._clock = report, clock
        self._lock = threading.Lock()  # of everything but _verifier, which is replaced as a whole
        self._verifier = Verifier(())
        self._seen = identity_of(self._path) if self._path else None
        documents = issuers if not isinstance(issuers, Path) else _read(issuers)
        self._sources = [_Source(document) for document in documents]
        if not self._sources or len({source.name for source in self._sources}) < len(self._sources):
            raise ValueError("there must be an issuer, and each once")
        for source in self._sources:
            if source.is_due(clock()):
                source.renew(clock(), report)
        self._due = _NEVER
        self._look(clock())

    def verify(self, token: str) -> Claims:
        """Return a token's claims, without waiting for anything.

        Raises InvalidToken, TokenExpired, KeysUnavailable; UnknownKey when ``verify_renewed`` may know more.
        """
        now = self._clock()
        if now >= self._due:
            self._look(now)
        try:
            return self._verifier.verify(token, time.time())
        except UnknownKey:
            pass
        source = self._source_of(token)
        if source is not None and source.may_renew(now):
            raise UnknownKey
        if source is None or source.is_busy or not source.at(now).keys:
            raise KeysUnavailable("the keys of the token's issuer are not known at the moment")
        raise InvalidToken("token is not valid: its issuer has no key of that kid")

    def verify_renewed(self, token: str) -> Claims:
        """Fetch the keys of a token's issuer, if that may be done now, and verify it; may wait for seconds.

        Raises InvalidToken, TokenExpired, KeysUnavailable.
        """
        source, now = self._source_of(token), self._clock()
        with self._lock:
            begun = source is not None and source.may_renew(now) and source.begin(now)
        if source is not None and begun:
            source.renew(now, self._report)
            self._due = _NEVER
        try:
            return self.verify(token)
        except UnknownKey:
            pass
        raise KeysUnavailable("the keys of the token's issuer are not known at the moment")

    def has_keys(self) -> bool:
        """Tell whether anybody can pass."""
        self._look(self._clock())
        return any(issuer.keys for issuer in self._verifier.issuers.values())

    def _source_of(self, token: str) -> _Source | None:
        name = unverified_issuer(token)
        return next((source for source in self._sources if source.name == name), None)

    def _look(self, now: float) -> None:
        """Take over what has changed. Other threads meanwhile use what there was."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._due = now + LOOK_SECONDS
            if self._path is not None and (seen := identity_of(self._path)) != self._seen:
                self._seen = seen
                self._sources = self._read_again(self._path)
            for source in self._sources:
                if not source.is_due(now):
                    continue
                if source.is_remote and source.begin(now):
                    threading.Thread(target=self._renew, args=(source,), daemon=True).start()
                elif not source.is_remote:
                    source.renew(now, self._report)
            issuers = [source.at(now) for source in self._sources]
            known = list(self._verifier.issuers.values())
            if len(known) != len(issuers) or any(a is not b for a, b in zip(known, issuers, strict=True)):
                self._verifier = Verifier(issuers)
        finally:
            self._lock.release()

    def _renew(self, source: _Source) -> None:
        source.renew(self._clock(), self._report)
        self._due = _NEVER

    def _read_again(self, path: Path) -> list[_Source]:
        try:
            documents = _read(path)
            known = [source for source in self._sources if source.document in documents]
            left = [document for document in documents if all(document != one.document for one in known)]
            return known + [_Source(document) for document in left]
        except (OSError, ValueError) as error:
            self._report(Line("file_unusable", f"{path} cannot be used, so nobody passes: {error}"))
            return []


class _Source:
    """An issuer and where its keys come from."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        self._settings = {name: value for name, value in document.items() if name != "jwks"}
        self._jwks = document.get("jwks")
        self.is_busy = False
        self._data: bytes | None = None
        self._seen: tuple[int, ...] | None = ()
        self._tried = self._renewed = _NEVER
        if self._jwks is None:
            self._issuer = self._without = Issuer.from_document(self._settings)
        else:
            if not isinstance(self._jwks, str) or "keys" in document:
                raise ValueError("jwks: must be a URL or a path, in place of keys")
            self._without = Issuer.from_document({**self._settings, "keys": [_NO_KEY]})._replace(keys={})
            self._issuer = self._without
        self.is_remote = self._jwks is not None and "://" in self._jwks
        if self.is_remote:
            check_url(str(self._jwks))
        elif self._jwks is not None and not Path(self._jwks).is_absolute():
            raise ValueError("jwks: a path must be absolute")
        self.name = self._issuer.issuer

    def at(self, now: float) -> Issuer:
        """Return the issuer, without keys where they are too old."""
        is_stale = self.is_remote and now - self._renewed > STALE_SECONDS
        return self._without if is_stale else self._issuer

    def is_due(self, now: float) -> bool:
        if self._jwks is None:
            return False
        if self.is_remote:
            return now - self._renewed >= RENEW_SECONDS and self.may_renew(now)
        return identity_of(Path(self._jwks)) != self._seen

    def may_renew(self, now: float) -> bool:
        return self.is_remote and not self.is_busy and now - self._tried >= RETRY_SECONDS

    def begin(self, now: float) -> bool:
        self.is_busy, self._tried = True, now
        return True

    def renew(self, now: float, report: Callable[[str], object]) -> None:
        """Take the keys of the JWKS; where it cannot be used, a file's are gone and a URL's stay."""
        try:
            if not self.is_remote:
                self._seen = identity_of(Path(str(self._jwks)))
            data = self._fetch()
            if data != self._data:
                self._issuer = self._read(data)
                self._data = data
            self._renewed = now
        except (JwksError, OSError) as error:
            if not self.is_remote:
                self._issuer, self._data = self._without, None
            report(Line("keys_not_renewed", f"the keys of issuer {self.name} cannot be renewed: {error}"))
        finally:
            self._tried, self.is_busy = now, False

    def _fetch(self) -> bytes:
        jwks = str(self._jwks)
        return fetch(jwks) if self.is_remote else read_guarded(Path(jwks), secret=False)

    def _read(self, data: bytes) -> Issuer:
        document, _ = document_from_jwks(
            data,
            issuer=self._without.issuer,
            audience=self._without.audience,
            max_lifetime=self._without.max_lifetime,
            settings=self._settings,
        )
        return Issuer.from_document(document)


def _read(path: Path) -> list[dict[str, Any]]:
    return parse_issuers(read_guarded(path, secret=False))
