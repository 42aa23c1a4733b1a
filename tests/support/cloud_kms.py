"""What Google Cloud KMS does with a request: resources, version states, checksums, and IAM for each key.

The messages are those of the API itself (google.cloud.kms.v1 and google.iam.v1); ``cloud_kms_server`` brings
them here over gRPC and REST. Callers are service accounts that sign their own tokens, as Google's client
lets them.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.cloud.kms_v1 import types
from google.iam.v1 import policy_pb2

State = types.CryptoKeyVersion.CryptoKeyVersionState
ADMIN = "roles/cloudkms.admin"
USER = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_USES = {"Encrypt": "useToEncrypt", "Decrypt": "useToDecrypt"}


class Refusal(Exception):
    """The error a caller gets."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class _Key:
    resource: types.CryptoKey
    material: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, types.CryptoKeyVersion] = field(default_factory=dict)
    policy: policy_pb2.Policy = field(default_factory=lambda: policy_pb2.Policy(etag=os.urandom(8)))


class CloudKms:
    """One project. ``trouble`` may change an answer or raise, ``calls`` counts methods.

    ``ahead`` is how far the keys' clock has gone on before ours.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.trouble: Callable[[str, Any], Any] = lambda method, answer: answer
        self.ahead = timedelta(0)
        self.keys: dict[str, _Key] = {}
        self._rings: dict[str, types.KeyRing] = {}
        self._project: dict[str, set[str]] = {ADMIN: set(), USER: set()}
        self._accounts: dict[str, rsa.RSAPublicKey] = {}
        self._lock = threading.Lock()

    def make_account(self, name: str, *roles: str) -> dict[str, str]:
        """Return the key file of a new service account that has ``roles`` in the whole project."""
        key, email = rsa.generate_private_key(65537, 2048), f"{name}@test.iam.gserviceaccount.com"
        self._accounts[email] = key.public_key()
        for role in roles:
            self._project[role].add(f"serviceAccount:{email}")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        token_uri = "https://oauth2.googleapis.com/token"
        return {"type": "service_account", "client_email": email, "private_key": pem, "token_uri": token_uri}

    def answer(self, method: str, request: Any, authorization: str | None) -> Any:
        """Return the answer to a call. Raises Refusal."""
        with self._lock:
            self.calls[method] += 1
            member = f"serviceAccount:{self._caller(authorization)}"
            handler = getattr(self, f"_{method}", None)
            if handler is None:
                raise Refusal(grpc.StatusCode.UNIMPLEMENTED, method)
            name = _resource_of(request)
            self._check(member, method, name)
            self._pass_time()
            answer = handler(request)
        return self.trouble(method, answer)

    def _caller(self, authorization: str | None) -> str:
        """Return whose token it is: a JWT the service account signed, for this API."""
        try:
            signed, _, signature = (authorization or "").removeprefix("Bearer ").rpartition(".")
            claims = json.loads(_decode(signed.split(".")[1]))
            email = str(claims["iss"])
            self._accounts[email].verify(_decode(signature), signed.encode(), padding.PKCS1v15(), SHA256())
            meant = "cloudkms" in f"{claims.get('scope')} {claims.get('aud')}"
            if claims["sub"] == email and meant and claims["iat"] - 60 < time.time() < claims["exp"]:
                return email
        except (IndexError, KeyError, ValueError, InvalidSignature):
            pass
        raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid")

    def _check(self, member: str, method: str, name: str) -> None:
        allowed = member in self._project[USER if method in _USES else ADMIN]
        key = self.keys.get(name.partition("/cryptoKeyVersions/")[0])
        if key is not None and not allowed:
            role = USER if method in _USES else ADMIN
            allowed = any(
                binding.role == role and member in binding.members for binding in key.policy.bindings
            )
        if not allowed:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED, f"no permission for {method} on {name}, or no such thing"
            )

    def _CreateKeyRing(self, request: types.CreateKeyRingRequest) -> types.KeyRing:
        name = f"{request.parent}/keyRings/{request.key_ring_id}"
        if name in self._rings:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, name)
        self._rings[name] = types.KeyRing(name=name, create_time=self._now())
        return self._rings[name]

    def _CreateCryptoKey(self, request: types.CreateCryptoKeyRequest) -> types.CryptoKey:
        if request.parent not in self._rings:
            raise Refusal(grpc.StatusCode.NOT_FOUND, request.parent)
        name = f"{request.parent}/cryptoKeys/{request.crypto_key_id}"
        if name in self.keys:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, name)
        resource = types.CryptoKey(request.crypto_key)
        resource.name, resource.create_time = name, self._now()
        if resource.rotation_period and not resource.next_rotation_time:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "rotation_period without next_rotation_time")
        wait = resource.destroy_scheduled_duration or timedelta(days=30)
        if not timedelta(days=1) <= wait <= timedelta(days=120):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "destroy_scheduled_duration")
        resource.destroy_scheduled_duration = wait
        self.keys[name] = _Key(resource)
        resource.primary = self._new_version(name)
        return resource

    def _GetCryptoKey(self, request: types.GetCryptoKeyRequest) -> types.CryptoKey:
        return self._key(request.name).resource

    def _UpdateCryptoKey(self, request: types.UpdateCryptoKeyRequest) -> types.CryptoKey:
        resource, asked = self._key(request.crypto_key.name).resource, request.crypto_key
        paths = set(request.update_mask.paths)
        if not paths or not paths <= {"rotation_period", "next_rotation_time", "labels"}:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "update_mask")
        for path in paths:
            setattr(resource, path, getattr(asked, path))
        if bool(resource.rotation_period) != bool(resource.next_rotation_time):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "rotation_period without next_rotation_time")
        return resource

    def _GetCryptoKeyVersion(self, request: types.GetCryptoKeyVersionRequest) -> types.CryptoKeyVersion:
        return self._version(request.name)

    def _ListCryptoKeyVersions(
        self, request: types.ListCryptoKeyVersionsRequest
    ) -> types.ListCryptoKeyVersionsResponse:
        """Answer in pages of two, in no order: clients are to cope."""
        versions = list(reversed(self._key(request.parent).versions.values()))
        start = int(request.page_token or 0)
        return types.ListCryptoKeyVersionsResponse(
            crypto_key_versions=versions[start : start + 2],
            next_page_token=str(start + 2) if start + 2 < len(versions) else "",
            total_size=len(versions),
        )

    def _CreateCryptoKeyVersion(self, request: types.CreateCryptoKeyVersionRequest) -> types.CryptoKeyVersion:
        return self._new_version(request.parent)

    def _UpdateCryptoKeyPrimaryVersion(
        self, request: types.UpdateCryptoKeyPrimaryVersionRequest
    ) -> types.CryptoKey:
        key, name = (
            self._key(request.name),
            f"{request.name}/cryptoKeyVersions/{request.crypto_key_version_id}",
        )
        self._usable(key, name)
        key.resource.primary = self._version(name)
        return key.resource

    def _UpdateCryptoKeyVersion(self, request: types.UpdateCryptoKeyVersionRequest) -> types.CryptoKeyVersion:
        version = self._version(request.crypto_key_version.name)
        if list(request.update_mask.paths) != ["state"]:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "update_mask")
        if not {version.state, request.crypto_key_version.state} <= {State.ENABLED, State.DISABLED}:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{version.name} is {version.state.name}")
        version.state = request.crypto_key_version.state
        self._show_primary(version)
        return version

    def _DestroyCryptoKeyVersion(
        self, request: types.DestroyCryptoKeyVersionRequest
    ) -> types.CryptoKeyVersion:
        version = self._version(request.name)
        if version.state not in (State.ENABLED, State.DISABLED):
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{version.name} is {version.state.name}")
        key = self._key(request.name.partition("/cryptoKeyVersions/")[0])
        version.state = State(State.DESTROY_SCHEDULED)
        version.destroy_time = self._now() + key.resource.destroy_scheduled_duration
        self._show_primary(version)
        return version

    def _Encrypt(self, request: types.EncryptRequest) -> types.EncryptResponse:
        key = self._key(request.name.partition("/cryptoKeyVersions/")[0])
        name = request.name if "/cryptoKeyVersions/" in request.name else key.resource.primary.name
        material = self._usable(key, name)
        _checksum(request.plaintext, request.plaintext_crc32c)
        _checksum(request.additional_authenticated_data, request.additional_authenticated_data_crc32c)
        number, nonce = int(name.rpartition("/")[2]), os.urandom(12)
        sealed = AESGCM(material).encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        ciphertext = number.to_bytes(4, "big") + nonce + sealed
        return types.EncryptResponse(
            name=name,
            ciphertext=ciphertext,
            ciphertext_crc32c=google_crc32c.value(ciphertext),
            verified_plaintext_crc32c=request.plaintext_crc32c is not None,
            verified_additional_authenticated_data_crc32c=request.additional_authenticated_data_crc32c
            is not None,
        )

    def _Decrypt(self, request: types.DecryptRequest) -> types.DecryptResponse:
        key = self._key(request.name)
        _checksum(request.ciphertext, request.ciphertext_crc32c)
        _checksum(request.additional_authenticated_data, request.additional_authenticated_data_crc32c)
        number = int.from_bytes(request.ciphertext[:4], "big")
        name = f"{request.name}/cryptoKeyVersions/{number}"
        nonce, sealed = request.ciphertext[4:16], request.ciphertext[16:]
        if len(request.ciphertext) < 32 or name not in key.versions:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        try:
            plaintext = AESGCM(self._usable(key, name)).decrypt(
                nonce, sealed, request.additional_authenticated_data
            )
        except InvalidTag:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: verify the name.") from None
        return types.DecryptResponse(
            plaintext=plaintext,
            plaintext_crc32c=google_crc32c.value(plaintext),
            used_primary=name == key.resource.primary.name,
        )

    def _GetIamPolicy(self, request: Any) -> policy_pb2.Policy:
        return self._key(request.resource).policy

    def _SetIamPolicy(self, request: Any) -> policy_pb2.Policy:
        key = self._key(request.resource)
        if request.policy.etag and request.policy.etag != key.policy.etag:
            raise Refusal(grpc.StatusCode.ABORTED, "the policy was changed meanwhile")
        policy = policy_pb2.Policy()
        policy.CopyFrom(request.policy)
        policy.etag = os.urandom(8)
        key.policy = policy
        return policy

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def _pass_time(self) -> None:
        """Do what has come due: destroy versions, and rotate keys that have a schedule."""
        now = self._now()
        for name, key in self.keys.items():
            for version in key.versions.values():
                due = version.destroy_time is not None and version.destroy_time <= now
                if version.state == State.DESTROY_SCHEDULED and due:
                    version.state, version.destroy_event_time = State(State.DESTROYED), version.destroy_time
                    version.destroy_time = None
                    del key.material[version.name]
                    self._show_primary(version)
            if key.resource.next_rotation_time and key.resource.next_rotation_time <= now:
                key.resource.primary = self._new_version(name)
                key.resource.next_rotation_time = now + key.resource.rotation_period

    def _show_primary(self, version: types.CryptoKeyVersion) -> None:
        resource = self._key(version.name.partition("/cryptoKeyVersions/")[0]).resource
        if resource.primary.name == version.name:
            resource.primary = version

    def _key(self, name: str) -> _Key:
        if name not in self.keys:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"{name} not found")
        return self.keys[name]

    def _version(self, name: str) -> types.CryptoKeyVersion:
        versions = self._key(name.partition("/cryptoKeyVersions/")[0]).versions
        if name not in versions:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"{name} not found")
        return versions[name]

    def _new_version(self, key_name: str) -> types.CryptoKeyVersion:
        key = self._key(key_name)
        name = f"{key_name}/cryptoKeyVersions/{len(key.versions) + 1}"
        key.versions[name] = types.CryptoKeyVersion(name=name, state=State.ENABLED, create_time=self._now())
        key.material[name] = os.urandom(32)
        return key.versions[name]

    def _usable(self, key: _Key, name: str) -> bytes:
        if self._version(name).state != State.ENABLED:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{name} is not enabled")
        return key.material[name]


def _resource_of(request: Any) -> str:
    """Return the name of what a request is about."""
    for member in ("crypto_key", "crypto_key_version"):
        if name := getattr(getattr(request, member, None), "name", ""):
            return str(name)
    return str(getattr(request, "resource", "") or getattr(request, "name", "") or request.parent)


def _checksum(data: bytes, checksum: int | None) -> None:
    if checksum is not None and checksum != google_crc32c.value(data):
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the checksum does not match")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
