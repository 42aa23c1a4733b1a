"""Azure Key Vault on loopback: the keys' REST API over TLS, bearer challenge, Entra's token endpoint."""

from __future__ import annotations

import base64
import json
import re
import secrets
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit
from uuid import uuid4

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

USER = frozenset(("get", "wrapKey", "unwrapKey"))
OFFICER = frozenset(("get", "list", "create", "update", "delete"))
DIRECTORY = str(uuid4())  # what Azure calls a tenant
RETENTION = 90 * 86_400
TOKEN_SECONDS = 3600
_NAME = r"([0-9a-zA-Z-]{1,127})"
# verb, path, permission, method
_ROUTES = (
    ("POST", rf"/keys/{_NAME}/create", "create", "_create"),
    ("GET", rf"/keys/{_NAME}/versions", "list", "_versions"),
    ("GET", rf"/keys/{_NAME}/?", "get", "_get"),
    ("GET", rf"/keys/{_NAME}/([0-9a-f]+)", "get", "_get"),
    ("PATCH", rf"/keys/{_NAME}/([0-9a-f]*)", "update", "_update"),
    ("DELETE", rf"/keys/{_NAME}", "delete", "_delete"),
    ("GET", rf"/deletedkeys/{_NAME}", "get", "_get_deleted"),
    ("DELETE", rf"/deletedkeys/{_NAME}", "purge", "_purge"),
    ("POST", rf"/deletedkeys/{_NAME}/recover", "recover", "_recover"),
    ("POST", rf"/keys/{_NAME}/([0-9a-f]+)/wrapkey", "wrapKey", "_wrap"),
    ("POST", rf"/keys/{_NAME}/([0-9a-f]+)/unwrapkey", "unwrapKey", "_unwrap"),
)


class Refusal(Exception):
    def __init__(
        self, status: int, code: str, headers: dict[str, str] | None = None, inner: str = ""
    ) -> None:
        super().__init__(code)
        self.status, self.headers = status, headers or {}
        self.body = {
            "error": {"code": code, "message": code, **({"innererror": {"code": inner}} if inner else {})}
        }


@dataclass
class _Version:
    id: str
    material: Any
    created: int
    operations: list[str]
    tags: dict[str, str]
    enabled: bool = True


@dataclass
class _Key:
    versions: list[_Version] = field(default_factory=list)
    deleted_at: int | None = None
    is_purged: bool = False
    hidden: int = 0


class KeyVault:
    """One vault and one directory. ``trouble`` may raise Refusal, ``calls`` counts operations.

    ``identities``: permissions by client id; ``is_protected``: purge protection is on.
    ``deleting``: how often a key that was deleted is shown nowhere, because deletion takes its time.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.trouble: Callable[[str], None] = lambda operation: None
        self.change: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda operation, answer: answer
        self.is_protected = False
        self.deleting = 0
        self.keys: dict[str, _Key] = {}
        self.identities: dict[str, tuple[str, frozenset[str]]] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._authority = trustme.CA()
        next(_MATERIAL)  # made here, that no request waits for them
        self.certificate = self._authority.cert_pem.bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1").configure_cert(context)
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        # Hands are shaken in the connection's own thread, not in the one that accepts them all.
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.host = f"127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def uri(self) -> str:
        return f"azure://{self.host}?authority={self.host}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def make_identity(self, permissions: frozenset[str]) -> dict[str, str]:
        """Return the credential of a new service principal, as ``azure.json`` holds it."""
        client, secret = str(uuid4()), secrets.token_urlsafe(30)
        self.identities[client] = (secret, permissions)
        return {"tenant_id": DIRECTORY, "client_id": client, "client_secret": secret}

    def recover(self, name: str) -> None:
        self._recover(name, {})

    def public_key(self, name: str, version: str) -> Any:
        return self._version(name, version).material.public_key()

    def forget_tokens(self) -> None:
        self._tokens.clear()

    def token(self, body: bytes) -> dict[str, Any]:
        """Answer as Entra's token endpoint to client credentials."""
        asked = dict(parse_qsl(body.decode()))
        self.calls["token"] += 1
        self.trouble("token")
        secret, _ = self.identities.get(asked.get("client_id", ""), ("", None))
        is_right = secrets.compare_digest(secret, asked.get("client_secret", "")) and secret
        if asked.get("grant_type") != "client_credentials" or not is_right:
            raise Refusal(401, "invalid_client: AADSTS7000215")
        if asked.get("scope") != f"{self.resource}/.default":
            raise Refusal(400, "invalid_scope")
        return self._token_of(asked["client_id"])

    def machine_token(self, header: str | None, target: str) -> dict[str, Any]:
        """Answer as App Service's endpoint for managed identities; ``header`` is the client id here."""
        if header not in self.identities or parse_qs(urlsplit(target).query)["resource"] != [self.resource]:
            raise Refusal(401, "Unauthorized")
        return {**self._token_of(header), "expires_on": str(int(time.time()) + TOKEN_SECONDS)}

    def _token_of(self, client: str) -> dict[str, Any]:
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (client, time.time() + TOKEN_SECONDS)
        return {"token_type": "Bearer", "expires_in": TOKEN_SECONDS, "access_token": token}

    @property
    def resource(self) -> str:
        """What tokens are for: the parent domain of the vault's, which clients check."""
        return "https://" + self.host.partition(".")[2]

    def answer(self, verb: str, target: str, authorization: str | None, body: bytes) -> dict[str, Any]:
        """Answer a request for the vault. Raises Refusal."""
        url = urlsplit(target)
        if "api-version" not in parse_qs(url.query):
            raise Refusal(400, "BadParameter")
        permissions = self._permissions(authorization)
        for route_verb, pattern, permission, method in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if verb == route_verb and match:
                self.calls[permission] += 1
                self.trouble(permission)
                if permission not in permissions:
                    raise Refusal(403, "Forbidden", inner="ForbiddenByRbac")
                content = json.loads(body or b"{}")
                with self._lock:
                    answer: dict[str, Any] = getattr(self, method)(*match.groups(), content)
                return self.change(permission, answer)
        raise Refusal(404, "NotFound")

    def _permissions(self, authorization: str | None) -> frozenset[str]:
        client, until = self._tokens.get((authorization or "").removeprefix("Bearer "), ("", 0.0))
        if until <= time.time():
            challenge = f'Bearer authorization="https://{self.host}/{DIRECTORY}", resource="{self.resource}"'
            raise Refusal(401, "Unauthorized", {"WWW-Authenticate": challenge})
        return self.identities[client][1]

    def _create(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        key = self.keys.setdefault(name, _Key())
        if key.is_purged:
            key = self.keys[name] = _Key()
        if key.deleted_at is not None:
            raise Refusal(409, "Conflict", inner="ObjectIsDeletedButRecoverable")
        version = _Version(
            secrets.token_hex(16),
            _material(content),
            int(time.time()),
            content.get("key_ops", []),
            content.get("tags", {}),
        )
        key.versions.append(version)
        return self._bundle(name, version)

    def _versions(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        versions = (
            [] if self.keys.get(name, _Key()).deleted_at is not None else self.keys.get(name, _Key()).versions
        )
        items = [{k: v for k, v in self._bundle(name, each).items() if k != "key"} for each in versions]
        for item, each in zip(items, versions, strict=True):
            item["kid"] = self._id(name, each)
        return {"value": items[::-1], "nextLink": None}

    def _get(self, name: str, *rest: Any) -> dict[str, Any]:
        return self._bundle(name, self._version(name, rest[0] if len(rest) > 1 else ""))

    def _update(self, name: str, version: str, content: dict[str, Any]) -> dict[str, Any]:
        key_version = self._version(name, version)
        key_version.enabled = content.get("attributes", {}).get("enabled", key_version.enabled)
        return self._bundle(name, key_version)

    def _delete(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        version = self._version(name, "")
        self.keys[name].deleted_at, self.keys[name].hidden = int(time.time()), self.deleting
        return self._deleted(name, version)

    def _get_deleted(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        key = self._gone(name)
        key.hidden -= 1
        if key.hidden >= 0:
            raise Refusal(404, "KeyNotFound")
        return self._deleted(name, key.versions[-1])

    def _purge(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        if self.is_protected:
            raise Refusal(403, "Forbidden", inner="ForbiddenByPurgeProtection")
        self._gone(name).is_purged = True
        self.keys[name].versions.clear()
        return {}

    def _recover(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        self._gone(name).deleted_at = None
        return self._bundle(name, self._version(name, ""))

    def _wrap(self, name: str, version: str, content: dict[str, Any]) -> dict[str, Any]:
        key_version = self._usable(name, version, content, "wrapKey")
        return {
            "kid": self._id(name, key_version),
            "value": _text(key_version.material.public_key().encrypt(_bytes(content), OAEP_256)),
        }

    def _unwrap(self, name: str, version: str, content: dict[str, Any]) -> dict[str, Any]:
        key_version = self._usable(name, version, content, "unwrapKey")
        try:
            value = key_version.material.decrypt(_bytes(content), OAEP_256)
        except ValueError:
            raise Refusal(400, "BadParameter") from None
        return {"kid": self._id(name, key_version), "value": _text(value)}

    def _usable(self, name: str, version: str, content: dict[str, Any], operation: str) -> _Version:
        key_version = self._version(name, version)
        if not key_version.enabled:
            raise Refusal(403, "Forbidden", inner="KeyDisabled")
        if content.get("alg") != "RSA-OAEP-256" or operation not in key_version.operations:
            raise Refusal(400, "BadParameter")
        return key_version

    def _version(self, name: str, version: str) -> _Version:
        key = self.keys.get(name, _Key())
        versions = [each for each in key.versions if version in ("", each.id)]
        if not versions or key.deleted_at is not None:
            raise Refusal(404, "KeyNotFound")
        return versions[-1]

    def _gone(self, name: str) -> _Key:
        key = self.keys.get(name, _Key())
        if key.deleted_at is None or key.is_purged:
            raise Refusal(404, "KeyNotFound")
        return key

    def _id(self, name: str, version: _Version) -> str:
        return f"https://{self.host}/keys/{name}/{version.id}"

    def _bundle(self, name: str, version: _Version) -> dict[str, Any]:
        level = "Recoverable" if self.is_protected else "Recoverable+Purgeable"
        attributes = {"enabled": version.enabled, "created": version.created, "recoverableDays": 90}
        key = {"kid": self._id(name, version), "key_ops": version.operations}
        return {"key": key, "attributes": {**attributes, "recoveryLevel": level}, "tags": version.tags}

    def _deleted(self, name: str, version: _Version) -> dict[str, Any]:
        at = self.keys[name].deleted_at or 0
        times = {"deletedDate": at, "scheduledPurgeDate": at + RETENTION}
        return {
            **self._bundle(name, version),
            "recoveryId": f"https://{self.host}/deletedkeys/{name}",
            **times,
        }


OAEP_256 = OAEP(MGF1(SHA256()), SHA256(), None)


def _material(content: dict[str, Any]) -> Any:
    if content.get("kty") == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    if content.get("kty") not in ("RSA", "RSA-HSM") or content.get("key_size") not in (2048, 3072, 4096):
        raise Refusal(400, "BadParameter")
    return next(_MATERIAL)


def _some_keys() -> Iterator[rsa.RSAPrivateKey]:
    """Give a few keys in turn: they take long to make, and what opens must depend on more than the key."""
    keys = [rsa.generate_private_key(65537, 3072) for _ in range(3)]
    while True:
        yield from keys


_MATERIAL = _some_keys()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(content: dict[str, Any]) -> bytes:
    text = content.get("value", "")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *arguments: object) -> None:
        """A client that is gone before its answer is nothing to tell."""


def _handler(vault: KeyVault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, status, headers = urlsplit(self.path).path, 200, dict[str, str]()
            answer: dict[str, Any]
            try:
                if path == f"/{DIRECTORY}/v2.0/.well-known/openid-configuration":
                    base = f"https://{vault.host}/{DIRECTORY}"
                    answer = {
                        "token_endpoint": f"{base}/oauth2/v2.0/token",
                        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                        "issuer": f"{base}/v2.0",
                    }
                elif path == "/msi/token":
                    answer = vault.machine_token(self.headers.get("X-IDENTITY-HEADER"), self.path)
                elif path == f"/{DIRECTORY}/oauth2/v2.0/token" and self.command == "POST":
                    answer = vault.token(body)
                else:
                    answer = vault.answer(self.command, self.path, self.headers.get("Authorization"), body)
            except Refusal as refusal:
                status, headers, answer = refusal.status, refusal.headers, refusal.body
                if "/oauth2/" in path:
                    answer = {"error": str(refusal), "error_description": str(refusal)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name in ("do_GET", "do_POST", "do_PATCH", "do_DELETE"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
