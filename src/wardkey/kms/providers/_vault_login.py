"""Requests to Vault and OpenBao, what their answers mean, and the token they are made with."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import hvac
import hvac.exceptions
import requests

from ..base import KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable
from ._settings import read_credential

__all__ = ["MOUNT", "TIMEOUT", "FailedError", "ForbiddenError", "Login", "MissingError", "request"]

MOUNT = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)
TIMEOUT = (1.0, 3.0)  # seconds to connect, and to wait for an answer
_RENEW_AFTER = 2 / 3  # of the token's time
# 307 is a standby's answer, 501 that of a server not yet initialized, 503 that of a sealed one.
_PASSING = (307, 412, 429, 472, 473, 501, 502, 503, 504)


class Login:
    """The token in use: got, renewed and replaced by one thread at a time."""

    def __init__(self, client: hvac.Client, path: Path) -> None:
        credential = read_credential(path)
        if credential is None and (token := os.environ.get("VAULT_TOKEN")):
            credential = {"token": token}
        if credential is None:
            raise KmsConfigurationError(f"no Vault credential: {path} is missing and VAULT_TOKEN is not set")
        self._client = client
        self._lock = Lock()
        self._token: str = credential.get("token", "")
        self._given = credential.pop("token", "")
        self._mount = credential.pop("mount", "approle")
        self._approle = credential
        wanted = set() if self._given else {"role_id", "secret_id"}
        values = (self._given, self._mount, *credential.values())
        if credential.keys() != wanted or not all(isinstance(value, str) for value in values):
            raise KmsConfigurationError(f"{path} must hold role_id and secret_id, or token")
        if not MOUNT.fullmatch(self._mount):
            raise KmsConfigurationError(f"{path}: mount is not the path of an auth method")
        self._renew_at = 0.0  # on the clock of time.monotonic()

    def token(self, *, instead_of: str | None = None) -> str:
        """Return a token that is good as far as known, and not ``instead_of``. Raises KmsError."""
        if not self._lock.acquire(timeout=sum(TIMEOUT)):
            raise KmsUnavailable("Vault does not answer a login")
        try:
            if self._token and self._token == instead_of:
                self._token = ""
            if not self._token:
                self._log_in()
            elif time.monotonic() >= self._renew_at:
                self._renew()
            return self._token
        finally:
            self._lock.release()

    def is_valid(self, token: str) -> bool:
        """Whether Vault still takes the token, so that what it forbids is forbidden for good."""
        try:
            request(self._client, "GET", "auth/token/lookup-self", token, None)
        except ForbiddenError:
            return False
        return True

    def _log_in(self) -> None:
        if self._given:
            raise KmsDenied("Vault does not take the token any more; give the keeper another")
        self._take(request(self._client, "POST", f"auth/{self._mount}/login", None, self._approle))

    def _renew(self) -> None:
        if self._given and not self._renew_at:
            token = (
                request(self._client, "GET", "auth/token/lookup-self", self._token, None).get("data") or {}
            )
            if not token.get("renewable"):
                self._renew_at = float("inf")
                return
        try:
            self._take(request(self._client, "POST", "auth/token/renew-self", self._token, {}))
        except KmsError:  # a token at the end of its time is answered with status 500
            if self._given:
                raise
            self._log_in()

    def _take(self, answer: Mapping[str, Any]) -> None:
        auth = answer.get("auth")
        if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
            raise KmsUnavailable("Vault answered a login with something else")
        self._token = auth["client_token"]
        lease = auth.get("lease_duration") or float("inf")
        # A token whose renewals are used up is given ever less time: the AppRole then gives the next one.
        self._renew_at = time.monotonic() + lease * _RENEW_AFTER


class ForbiddenError(KmsDenied):
    """Vault does not let this token do this, or does not know the token; it says the same for both."""


class FailedError(KmsUnavailable):
    """Vault tried and failed, which it says of conflicts too."""


class MissingError(KmsDenied):
    """There is nothing at this path."""


def request(
    client: hvac.Client, method: str, path: str, token: str | None, body: Mapping[str, object] | None
) -> dict[str, Any]:
    headers = {} if token is None else {"X-Vault-Token": token}
    try:
        answer = client.adapter.request(
            method, f"/v1/{path}", headers=headers, json=body, raise_exception=False
        )
    except requests.RequestException:
        raise KmsUnavailable("Vault cannot be reached") from None
    except (hvac.exceptions.VaultError, ValueError, RecursionError):
        raise KmsUnavailable("Vault answered something that is not its protocol") from None
    if isinstance(answer, dict):
        return answer
    status = getattr(answer, "status_code", 200)
    if status == 204:
        return {}
    if status < 300:  # a web page or the like: of another server in Vault's place
        raise KmsUnavailable("Vault answered something that is not its protocol")
    if status == 500:
        raise FailedError("Vault cannot answer now (HTTP status 500)")
    if status in _PASSING:
        raise KmsUnavailable(f"Vault cannot answer now (HTTP status {status})")
    if status == 403:
        raise ForbiddenError("Vault does not allow it")
    if status == 404:
        raise MissingError("Vault has nothing of this name")
    raise KmsDenied(f"Vault refused the key, its version or its additional data (HTTP status {status})")
