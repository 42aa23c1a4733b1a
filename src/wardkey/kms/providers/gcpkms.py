"""Google Cloud KMS: ``gcpkms://projects/PROJECT/locations/LOCATION``.

A tenant has the key ring ``wardkey-<tenant>`` with one symmetric key, ``kek``, labelled and rotated by Cloud
KMS every 365 days; the KEK's version is the number of the key's version. A wrapped DEK is a ciphertext of
Encrypt; its additional authenticated data is the DEK's, a zero byte and the KEK's version, so that Cloud KMS
itself refuses another version. CRC32C checksums are sent with all data, and asked of all answers.

Options of the URI: ``keeper=NAME@PROJECT.iam.gserviceaccount.com``, for the orchestrator: the service
account that gets roles/cloudkms.cryptoKeyEncrypterDecrypter on the tenant's key, and on nothing else;
``transport=rest`` instead of gRPC; ``endpoint=HOST:PORT``, as of Private Service Connect.

Credential, in the keeper's directory: ``gcp.json``, mode 0600, a service account's key; or else Google's
application default credentials: GOOGLE_APPLICATION_CREDENTIALS, or the instance's service account.
The orchestrator needs roles/cloudkms.admin, which cannot decrypt unless it gives itself a role, which
the audit logs show. ``gcp-ca.pem`` in the directory replaces the system's certificates.

A version to be destroyed is beyond use at once and gone after 7 days, as AWS's shortest wait is: within them
an administrator can restore what was destroyed by mistake, and a person's month to be forgotten is kept. An
organization whose policy demands longer makes the key itself, with what ``_description`` says.
"""

from __future__ import annotations

import logging
import netrc  # noqa: F401
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import google.auth
import google.auth.compute_engine
import google.auth.transport._http_client
import google.auth.transport.requests
import google_crc32c
import grpc
import grpc._channel
import grpc._interceptor
import grpc._plugin_wrapping  # these, like netrc, are otherwise imported when they are first needed: too late
from google.api_core import exceptions as errors
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.kms_v1 import CryptoKey, CryptoKeyVersion, KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcTransport,
    KeyManagementServiceRestTransport,
)
from google.iam.v1 import iam_policy_pb2, options_pb2
from google.oauth2 import service_account

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable
from ._http import BoundedAdapter
from ._settings import ca_bundle, parse_uri, read_credential

__all__ = ["GcpKms"]

# Told to by GOOGLE_SDK_PYTHON_LOGGING_SCOPE, the client writes whole requests at DEBUG: DEKs among them.
logging.getLogger("google.cloud.kms_v1").setLevel(logging.INFO)

_TIMEOUT = 3.0
_ROTATION = timedelta(days=365)
_DESTRUCTION = timedelta(days=7)
_State = CryptoKeyVersion.CryptoKeyVersionState
_GONE = (_State.DESTROY_SCHEDULED, _State.DESTROYED)
_STATES = {_State.ENABLED: "enabled", _State.DESTROY_SCHEDULED: "scheduled", _State.DESTROYED: "destroyed"}
_ROLE = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_HOST = "cloudkms.googleapis.com"
_PARENT = re.compile(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+", re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", re.ASCII)
_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}", re.ASCII)
_KEY = re.compile(r"/keyRings/wardkey-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/cryptoKeys/kek", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_CHANNEL = (
    # Without these a channel that lost its server would not look for it again for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 60_000),
)


class GcpKms(Kms):
    """KEKs of one project and location. Raises KmsConfigurationError."""

    scheme = "gcpkms"
    files = ("gcp.json", "gcp-ca.pem")

    def __init__(self, uri: str, directory: Path) -> None:
        self._parent, options = parse_uri(uri, ("endpoint", "keeper", "transport"))
        keeper, endpoint = options.get("keeper"), options.get("endpoint", f"{_HOST}:443")
        transport = options.get("transport", "grpc")
        if not _PARENT.fullmatch(self._parent) or transport not in ("grpc", "rest"):
            raise KmsConfigurationError(
                "write the KMS URI as gcpkms://projects/PROJECT/locations/LOCATION; transport=grpc or rest"
            )
        if not _ENDPOINT.fullmatch(endpoint) or (keeper is not None and not _ACCOUNT.fullmatch(keeper)):
            raise KmsConfigurationError(
                "endpoint= is HOST:PORT, and keeper= a service account's e-mail address"
            )
        self._member = f"serviceAccount:{keeper}" if keeper else None
        connect = _over_rest if transport == "rest" else _over_grpc
        bundle = ca_bundle(directory / "gcp-ca.pem")
        self._client = KeyManagementServiceClient(
            transport=connect(endpoint, _credentials(directory), bundle)
        )

    def __repr__(self) -> str:
        return f"GcpKms({self._parent!r})"

    @classmethod
    def holds(cls, uri: str, kek: str) -> bool:
        return kek.startswith(f"{cls.scheme}:{cls.place(uri)}/keyRings/")

    def create_kek(self, tenant: UUID) -> KekRef:
        ring = f"wardkey-{tenant}"
        name = self._name(tenant)
        try:
            key = self._ask(self._client.get_crypto_key, {"name": name})
        except _MissingError:
            self._make(self._client.create_key_ring, {"parent": self._parent, "key_ring_id": ring})
            request = {
                "parent": f"{self._parent}/keyRings/{ring}",
                "crypto_key_id": "kek",
                "crypto_key": _description(tenant),
            }
            self._make(self._client.create_crypto_key, request)
            key = self._ask(self._client.get_crypto_key, {"name": name})
        if self._member is not None:
            self._allow(name, self._member)
        return self._current(key)

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        key, aad = self._parts(kek, aad)
        request = {
            "name": f"{key}/cryptoKeyVersions/{kek.version}",
            "plaintext": dek,
            "plaintext_crc32c": google_crc32c.value(dek),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": google_crc32c.value(aad),
        }
        answer = self._ask(self._client.encrypt, request)
        if answer.name != request["name"]:
            raise KmsUnavailable("Cloud KMS used another key than was asked for")
        if not answer.verified_plaintext_crc32c or not answer.verified_additional_authenticated_data_crc32c:
            raise KmsUnavailable("Cloud KMS did not get what was sent")
        return _intact(answer.ciphertext, answer.ciphertext_crc32c)

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        key, aad = self._parts(kek, aad)
        request = {
            "name": key,
            "ciphertext": wrapped,
            "ciphertext_crc32c": google_crc32c.value(wrapped),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": google_crc32c.value(aad),
        }
        answer = self._ask(self._client.decrypt, request)
        return _intact(answer.plaintext, answer.plaintext_crc32c)

    def rotate_kek(self, tenant: UUID) -> KekRef:
        name = self._name(tenant)
        self._current(self._ask(self._client.get_crypto_key, {"name": name}))
        request = {"parent": name, "crypto_key_version": CryptoKeyVersion()}
        made = self._ask(self._client.create_crypto_key_version, request)
        primary = {"name": name, "crypto_key_version_id": made.name.rpartition("/")[2]}
        return self._current(self._ask(self._client.update_crypto_key_primary_version, primary))

    def disable_kek(self, kek: KekRef) -> None:
        version = self._replaced(kek)
        if version is not None and version.state != _State.DISABLED:
            changed = CryptoKeyVersion(name=version.name, state=_State.DISABLED)
            request = {"crypto_key_version": changed, "update_mask": {"paths": ["state"]}}
            self._ask(self._client.update_crypto_key_version, request)

    def destroy_kek(self, kek: KekRef) -> None:
        version = self._replaced(kek)
        if version is not None:
            self._ask(self._client.destroy_crypto_key_version, {"name": version.name})

    def destroy_all(self, tenant: UUID) -> None:
        name = self._name(tenant)
        try:
            key = self._ask(self._client.get_crypto_key, {"name": name})
        except _MissingError:
            return
        if key.rotation_period:  # or Cloud KMS itself would make the next version
            paths = ["rotation_period", "next_rotation_time"]
            request = {"crypto_key": CryptoKey(name=name), "update_mask": {"paths": paths}}
            self._ask(self._client.update_crypto_key, request)
        for version in self._versions(name):
            if version.state not in _GONE:
                self._ask(self._client.destroy_crypto_key_version, {"name": version.name})

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        try:
            versions = self._versions(self._name(tenant))
        except _MissingError:
            return []
        return [
            KekVersion(
                _number(version.name),
                _STATES.get(version.state, "disabled"),
                _seconds(version.create_time),
                _seconds(version.destroy_event_time or version.destroy_time),
            )
            for version in versions
        ]

    def _name(self, tenant: UUID) -> str:
        return f"{self._parent}/keyRings/wardkey-{tenant}/cryptoKeys/kek"

    def _current(self, key: CryptoKey) -> KekRef:
        if key.primary.state in _GONE:  # it is never destroyed but with all others
            raise KmsDenied("the tenant's KEK was destroyed; there is none after it")
        return KekRef(f"{self.scheme}:{key.name}", _number(key.primary.name))

    def _versions(self, name: str) -> list[CryptoKeyVersion]:
        def every_page(**asked: Any) -> list[CryptoKeyVersion]:
            return list(self._client.list_crypto_key_versions(**asked))

        versions: list[CryptoKeyVersion] = self._ask(every_page, {"parent": name})
        return sorted(versions, key=lambda version: int(_number(version.name)))

    def _replaced(self, kek: KekRef) -> CryptoKeyVersion | None:
        """Return a version that is not the current one; None when it is destroyed or will be."""
        key, _ = self._parts(kek, b"")
        name = f"{key}/cryptoKeyVersions/{kek.version}"
        version: CryptoKeyVersion = self._ask(self._client.get_crypto_key_version, {"name": name})
        if version.state in _GONE:
            return None
        if self._ask(self._client.get_crypto_key, {"name": key}).primary.name == name:
            raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
        return version

    def _parts(self, kek: KekRef, aad: bytes) -> tuple[str, bytes]:
        prefix = f"{self.scheme}:{self._parent}"
        key = kek.name.removeprefix(prefix)
        if not kek.name.startswith(prefix) or not _KEY.fullmatch(key) or not _VERSION.fullmatch(kek.version):
            raise KmsDenied("the KEK is not one of this Cloud KMS location")
        return self._parent + key, aad + b"\0" + kek.version.encode()

    def _allow(self, name: str, member: str) -> None:
        """Let ``member`` use the KEK, and leave what else is allowed as it is."""
        options = options_pb2.GetPolicyOptions(requested_policy_version=3)
        asked = iam_policy_pb2.GetIamPolicyRequest(resource=name, options=options)
        policy = self._ask(self._client.get_iam_policy, asked)
        same = [each for each in policy.bindings if each.role == _ROLE and not each.HasField("condition")]
        if any(member in each.members for each in same):
            return
        binding = same[0] if same else policy.bindings.add(role=_ROLE)
        binding.members.append(member)
        # The policy's etag goes back with it: who changed it meanwhile is not overwritten.
        self._ask(
            self._client.set_iam_policy, iam_policy_pb2.SetIamPolicyRequest(resource=name, policy=policy)
        )

    def _make(self, method: Callable[..., Any], request: dict[str, Any]) -> None:
        with suppress(_TakenError):
            self._ask(method, request, taken_is_well=True)

    def _ask(self, method: Callable[..., Any], request: Any, *, taken_is_well: bool = False) -> Any:
        try:
            return method(request=request, retry=None, timeout=_TIMEOUT)
        except errors.NotFound:
            raise _MissingError("Cloud KMS has no such key, or does not show it") from None
        except errors.Conflict:  # over REST one class: it is there already, or was changed meanwhile
            if taken_is_well:
                raise _TakenError("Cloud KMS has it already") from None
            raise KmsUnavailable("Cloud KMS was changed by somebody else at the same time") from None
        except (errors.Forbidden, errors.Unauthorized):
            raise KmsDenied("Cloud KMS does not allow it") from None
        except errors.BadRequest:
            raise KmsDenied("Cloud KMS refused the key, its version or its additional data") from None
        except GoogleAuthError as error:
            passing = error.retryable
        except Exception:  # of what is not its protocol, the client makes exceptions of many kinds
            passing = True
        if passing:
            raise KmsUnavailable("Cloud KMS cannot be reached or cannot answer now")
        raise KmsDenied("Google does not take the keeper's credential")


class _MissingError(KmsDenied):
    """There is nothing of this name."""


class _TakenError(KmsDenied):
    """There is something of this name."""


def _intact(data: bytes, checksum: int | None) -> bytes:
    if checksum is None or checksum != google_crc32c.value(data):
        raise KmsUnavailable("the checksum of Cloud KMS's answer is wrong")
    return data


def _number(name: str) -> str:
    number = name.rpartition("/")[2]
    if not _VERSION.fullmatch(number):
        raise KmsUnavailable("the Cloud KMS key has no version to encrypt with yet")
    return number


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None


def _description(tenant: UUID) -> CryptoKey:
    return CryptoKey(
        purpose=CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT,
        version_template={
            "algorithm": CryptoKeyVersion.CryptoKeyVersionAlgorithm.GOOGLE_SYMMETRIC_ENCRYPTION
        },
        destroy_scheduled_duration=_DESTRUCTION,
        rotation_period=_ROTATION,
        next_rotation_time=datetime.now(UTC) + _ROTATION,
        labels={"managed-by": "wardkey", "wardkey-tenant": str(tenant)},
    )


def _credentials(directory: Path) -> Any:
    path = directory / "gcp.json"
    document = read_credential(path)
    load: Callable[..., Any] = service_account.Credentials.from_service_account_info
    try:
        credentials = (
            load(document, scopes=[_SCOPE])
            if document is not None
            else google.auth.default(scopes=[_SCOPE])[0]
        )
    except DefaultCredentialsError:
        raise KmsConfigurationError(
            f"no Google credential: {path} is missing, and there is no default"
        ) from None
    except (GoogleAuthError, ValueError, TypeError, AttributeError):
        raise KmsConfigurationError(f"{path} does not hold the key of a service account") from None
    if isinstance(credentials, service_account.Credentials):
        sign: Callable[[bool], Any] = credentials.with_always_use_jwt_access
        return sign(True)  # its own tokens: no call for one, which could fail too
    return credentials


def _over_grpc(endpoint: str, credentials: Any, bundle: Path | None) -> KeyManagementServiceGrpcTransport:
    certificates = bundle.read_bytes() if bundle else None
    channel = KeyManagementServiceGrpcTransport.create_channel(
        endpoint,
        credentials=credentials,
        ssl_credentials=grpc.ssl_channel_credentials(root_certificates=certificates),
        options=_CHANNEL,
    )
    return KeyManagementServiceGrpcTransport(host=endpoint, channel=channel)


def _over_rest(endpoint: str, credentials: Any, bundle: Path | None) -> KeyManagementServiceRestTransport:
    transport = KeyManagementServiceRestTransport(host=endpoint, credentials=credentials)
    session = transport._session  # the transport has no other way to say these three
    session.mount("https://", BoundedAdapter())
    session.verify = str(bundle) if bundle else True
    session.trust_env = False  # no ~/.netrc, no proxy
    return transport
