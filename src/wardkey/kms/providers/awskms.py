"""AWS KMS: ``awskms://REGION``.

A tenant's KEK is named by the alias ``alias/wardkey-<tenant>``; its version is the id of the key that the
alias leads to. AWS's own rotation is on (365 days) and makes no new version; leading the alias to another
key does. Keys are described as ``wardkey KEK of <tenant>, version <n>``, and the n-th is found by the alias
``alias/wardkey-<tenant>-<n>`` when it is not the current one any more. A key to be destroyed is beyond use at
once and gone, with its aliases, after 7 days, the shortest time AWS allows; until then it can be restored.

Keys are tagged ``managed-by: wardkey`` and ``wardkey-tenant: <tenant>``: the keeper needs kms:Encrypt and
kms:Decrypt under the condition ``aws:ResourceTag/managed-by``. The orchestrator needs kms:DescribeKey,
CreateKey, TagResource, CreateAlias, UpdateAlias, EnableKeyRotation, DisableKey and ScheduleKeyDeletion.

A wrapped DEK is a ciphertext of Encrypt, whose encryption context is the alias (``wardkey-kek``) and the
additional data in hexadecimal digits (``wardkey-aad``).

Option of the URI: ``endpoint=https://HOST:PORT``, as of a VPC endpoint; http to a loopback address only.

Credential, in the keeper's directory: ``aws.json``, mode 0600::

    {"access_key_id": "…", "secret_access_key": "…", "session_token": "…"}    the last may be left out

or else where AWS's own tools look: AWS_ variables, ``~/.aws``, the instance's or container's role.
``awskms-ca.pem`` in the directory replaces the system's certificates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import boto3.session
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable
from ._answers import read_whole
from ._settings import ca_bundle, is_loopback, parse_uri, read_credential

__all__ = ["AwsKms"]

_ROTATION_DAYS = 365
_DESTRUCTION_DAYS = 7
_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"total_max_attempts": 1},
    max_pool_connections=16,
    ignore_configured_endpoint_urls=True,
)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]", re.ASCII)
_ALIAS = re.compile(r"alias/wardkey-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_KEY_ID = re.compile(r"(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)
_PASSING = (
    "DependencyTimeoutException",
    "InternalFailure",
    "KMSInternalException",
    "KeyUnavailableException",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)
_GONE = ("PendingDeletion", "PendingReplicaDeletion")
_MISSING = "NotFoundException"
_TAKEN = "AlreadyExistsException"


def _load() -> Any:
    """Return a loader that has read what clients are made of: later the keeper may not read it any more."""
    session = botocore.session.Session()
    session.create_client("kms", "us-east-1", aws_access_key_id="none", aws_secret_access_key="none")  # noqa: S106
    return session.get_component("data_loader")


_LOADER = _load()


class _Bounded:
    """Sends the client's requests in its place, because botocore reads answers of any length."""

    def __init__(self, url: str, bundle: Path | None) -> None:
        self._session = URLLib3Session(
            verify=str(bundle) if bundle else True,
            proxies=get_environ_proxies(url),
            timeout=(_CONFIG.connect_timeout, _CONFIG.read_timeout),
            max_pool_connections=_CONFIG.max_pool_connections,
        )

    def __call__(self, request: AWSPreparedRequest, **event: Any) -> AWSResponse:
        request.stream_output = True  # so that the session leaves the body to us
        answer = self._session.send(request)
        body = read_whole(answer.raw, decode=False)
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Body(body))


class _Body:
    """What an AWSResponse takes its content from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


class AwsKms(Kms):
    """KEKs of one account and region. Raises KmsConfigurationError."""

    scheme = "awskms"
    files = ("aws.json", "awskms-ca.pem")

    def __init__(self, uri: str, directory: Path) -> None:
        self._region, options = parse_uri(uri, ("endpoint",))
        if not _REGION.fullmatch(self._region):
            raise KmsConfigurationError("write the KMS URI as awskms://REGION, without a credential")
        endpoint = options.get("endpoint")
        if endpoint is not None:
            _check_endpoint(endpoint)
        bundle = ca_bundle(directory / "awskms-ca.pem")
        session = botocore.session.Session()
        session.register_component("data_loader", _LOADER)
        try:
            self._client = boto3.session.Session(botocore_session=session).client(
                "kms",
                region_name=self._region,
                endpoint_url=endpoint,
                verify=str(bundle) if bundle else None,
                config=_CONFIG,
                **_credential(directory / "aws.json"),
            )
            bounded = _Bounded(self._client.meta.endpoint_url, bundle)
        except (BotoCoreError, ValueError):
            raise KmsConfigurationError(
                "the AWS settings of the keeper's environment are not usable"
            ) from None
        self._client.meta.events.register("before-send.kms", bounded)

    def __repr__(self) -> str:
        return f"AwsKms({self._region!r})"

    def create_kek(self, tenant: UUID) -> KekRef:
        alias = f"alias/wardkey-{tenant}"
        key = self._find(alias) or self._make(alias, tenant, 1)
        return self._current(alias, key)

    def rotate_kek(self, tenant: UUID) -> KekRef:
        alias = f"alias/wardkey-{tenant}"
        key = self._find(alias)
        if key is None:
            raise KmsDenied("AWS KMS has no such KEK")
        old, number = self._current(alias, key), _number_of(key, tenant)
        try:
            self._ask("create_alias", AliasName=f"{alias}-{number}", TargetKeyId=old.version)
        except _RefusedError as error:
            if error.code != _TAKEN:
                raise
        while True:  # past what was made by a rotation that did not end, and cannot be used any more
            number += 1
            new = self._find(f"{alias}-{number}") or self._make(f"{alias}-{number}", tenant, number)
            if new["KeyState"] == "Enabled":
                break
        self._ask("update_alias", AliasName=alias, TargetKeyId=new["KeyId"])
        return self._current(alias, new)

    def disable_kek(self, kek: KekRef) -> None:
        key = self._replaced(kek)
        if key is not None and key["KeyState"] != "Disabled":
            self._ask("disable_key", KeyId=key["KeyId"])

    def destroy_kek(self, kek: KekRef) -> None:
        key = self._replaced(kek)
        if key is not None:
            self._destroy(key["KeyId"])

    def destroy_all(self, tenant: UUID) -> None:
        for key in self._keys(tenant):
            if key["KeyState"] not in _GONE:
                self._destroy(key["KeyId"])

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        return [
            KekVersion(
                key["KeyId"], _state(key), _seconds(key, "CreationDate"), _seconds(key, "DeletionDate")
            )
            for key in self._keys(tenant)
        ]

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        return self._convert("encrypt", "CiphertextBlob", kek, aad, Plaintext=dek)

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        return self._convert("decrypt", "Plaintext", kek, aad, CiphertextBlob=wrapped)

    def _convert(self, operation: str, result: str, kek: KekRef, aad: bytes, **data: bytes) -> bytes:
        alias = _alias_of(kek)
        context = {"wardkey-kek": alias, "wardkey-aad": aad.hex()}
        answer = self._ask(operation, KeyId=kek.version, EncryptionContext=context, **data)
        value = answer.get(result)
        if not isinstance(value, bytes) or answer.get("KeyId", "").rpartition("/")[2] != kek.version:
            raise KmsUnavailable("AWS KMS answered something else than was asked for")
        return value

    def _find(self, name: str) -> dict[str, Any] | None:
        """Return what AWS KMS says of a key, named by its id or an alias; None when there is none."""
        try:
            return _description(self._ask("describe_key", KeyId=name))
        except _RefusedError as error:
            if error.code == _MISSING:
                return None
            raise

    def _make(self, alias: str, tenant: UUID, number: int) -> dict[str, Any]:
        """Make a key behind ``alias``, or return the key that another process made first."""
        tags = {"managed-by": "wardkey", "wardkey-tenant": str(tenant)}
        pairs = [{"TagKey": name, "TagValue": value} for name, value in tags.items()]
        key = _description(
            self._ask("create_key", Description=f"wardkey KEK of {tenant}, version {number}", Tags=pairs)
        )
        self._ask("enable_key_rotation", KeyId=key["KeyId"], RotationPeriodInDays=_ROTATION_DAYS)
        try:
            self._ask("create_alias", AliasName=alias, TargetKeyId=key["KeyId"])
        except _RefusedError as error:
            if error.code != _TAKEN:
                raise
            self._destroy(key["KeyId"])
            return _description(self._ask("describe_key", KeyId=alias))
        return key

    def _destroy(self, key_id: str) -> None:
        self._ask("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=_DESTRUCTION_DAYS)

    def _current(self, alias: str, key: dict[str, Any]) -> KekRef:
        if key["KeyState"] in _GONE:  # it is never destroyed but with all others
            raise KmsDenied("the tenant's KEK was destroyed; there is none after it")
        return KekRef(f"{self.scheme}:{alias}", key["KeyId"])

    def _keys(self, tenant: UUID) -> Iterator[dict[str, Any]]:
        """Find every key of the tenant that is not gone for good, oldest first."""
        alias = f"alias/wardkey-{tenant}"
        current = self._find(alias)
        if current is None:
            return
        last = _number_of(current, tenant)
        for number in count(1):
            key = current if number == last else self._find(f"{alias}-{number}")
            if key is not None:
                yield key
            elif number > last:  # those after the current one are of a rotation that did not end
                return

    def _replaced(self, kek: KekRef) -> dict[str, Any] | None:
        """Return the key of a version that is not the current one; None when it is or will be destroyed."""
        alias, key = _alias_of(kek), self._find(kek.version)
        if key is None:
            return None
        _number_of(key, UUID(alias.removeprefix("alias/wardkey-")))
        if key["KeyState"] in _GONE:
            return None
        current = self._find(alias)
        if current is not None and current["KeyId"] == kek.version:
            raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
        return key

    def _ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            passing = code in _PASSING or status >= 500 or status == 429
        except (NoCredentialsError, PartialCredentialsError):
            raise KmsConfigurationError(
                "no AWS credential is found: put aws.json beside the keeper's files"
            ) from None
        except ParamValidationError:
            raise KmsDenied("the wrapped key is not one of AWS KMS") from None
        except BotoCoreError:
            raise KmsUnavailable("AWS KMS cannot be reached") from None
        except Exception:  # of a body that is not as described, the client's parsers raise anything
            raise KmsUnavailable("AWS KMS answered something that is not its protocol") from None
        else:
            return answer
        if passing:
            raise KmsUnavailable("AWS KMS cannot answer now")
        raise _RefusedError(code)


class _RefusedError(KmsDenied):
    """AWS KMS refused. ``code`` is its word for why, which is not shown."""

    def __init__(self, code: str) -> None:
        super().__init__("AWS KMS refused the key, its version or its additional data")
        self.code = code


def _alias_of(kek: KekRef) -> str:
    scheme, _, alias = kek.name.partition(":")
    if scheme != AwsKms.scheme or not _ALIAS.fullmatch(alias) or not _KEY_ID.fullmatch(kek.version):
        raise KmsDenied("the KEK is not one of AWS KMS")
    return alias


def _description(answer: dict[str, Any]) -> dict[str, Any]:
    key: dict[str, Any] = answer.get("KeyMetadata", {})
    key_id, texts = key.get("KeyId"), (key.get("KeyState"), key.get("Description"))
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id) or None in texts:
        raise KmsUnavailable("AWS KMS answered something else than was asked for")
    return key


def _number_of(key: dict[str, Any], tenant: UUID) -> int:
    """Return which of the tenant's keys it is. wardkey 0.1 did not number its first."""
    match = re.fullmatch(rf"wardkey KEK of {tenant}(?:, version ([1-9][0-9]{{0,5}}))?", key["Description"])
    if not match:
        raise KmsDenied("the AWS key's description is not that of a KEK of this tenant")
    return int(match[1] or 1)


def _state(key: dict[str, Any]) -> str:
    if key["KeyState"] in _GONE:
        return "scheduled"
    return "enabled" if key["KeyState"] == "Enabled" else "disabled"


def _seconds(key: dict[str, Any], name: str) -> float | None:
    time = key.get(name)
    return time.timestamp() if isinstance(time, datetime) else None


def _credential(path: Path) -> dict[str, str]:
    credential = read_credential(path)
    if credential is None:
        return {}
    needed = {"access_key_id", "secret_access_key"}
    if not needed <= credential.keys() <= needed | {"session_token"} or not all(
        isinstance(value, str) and value for value in credential.values()
    ):
        raise KmsConfigurationError(f"{path} must hold access_key_id and secret_access_key")
    return {f"aws_{name}": value for name, value in credential.items()}


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or "@" in parts.netloc or parts.scheme not in ("https", "http"):
        raise KmsConfigurationError("endpoint= is to be https://HOST:PORT, without a credential")
    if parts.scheme == "http" and not is_loopback(host):
        raise KmsConfigurationError("endpoint= may be http for a loopback address only")
