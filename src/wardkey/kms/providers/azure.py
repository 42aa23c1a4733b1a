"""Azure Key Vault: ``azure://NAME.vault.azure.net``.

A version of a tenant's KEK is an RSA key of its own (3072 bits), because Key Vault destroys keys, not single
versions of a key. The versions of ``wardkey-<tenant>``, an EC key that is used for nothing, say which there
are: for its version V the RSA key is ``wardkey-<tenant>-V``. The KEK's version is V and the version of that
key, which is pinned. Key Vault makes versions one after the other, so two makers never collide. The newest is
the current one; when it is disabled, the KEK was destroyed.

A wrapped DEK is RSA-OAEP-256 (RFC 8017: SHA-256, MGF1 with SHA-256, no label) of the DEK and, in the place of
additional data, of 32 bytes: SHA-256 of ``wardkey/1 azure kek``, the KEK's name (with the vault's, and so its
region) and its version, each followed by a zero byte, and the DEK's additional data (tenant, version).
Anybody who has the public key can wrap, so the keeper signs what it wrapped (``is_asymmetric``).

Options of the URI: ``hsm=on`` for keys in a hardware module (a Premium vault); ``purge=on``, for the
orchestrator: a destroyed key is purged at once, not after the vault's retention of 7 to 90 days, in which it
can be recovered; vaults with purge protection refuse. ``authority=login.microsoftonline.us``: another Entra.

Credential, in the keeper's directory: ``azure.json``, mode 0600::

    {"tenant_id": "…", "client_id": "…", "client_secret": "…"}    a service principal
    {"client_id": "…"}                                            a user-assigned managed identity

or else the machine's managed identity, or the workload's. The keeper needs the data actions keys/read,
keys/wrap/action and keys/unwrap/action; the orchestrator needs keys/read, keys/create/action,
keys/update/action, keys/delete and deletedkeys/read, for ``purge=on`` also deletedkeys/purge/action.
``azure-ca.pem`` there replaces the system's certificates.
"""

from __future__ import annotations

import base64
import encodings.utf_8_sig  # noqa: F401
import hashlib
import hmac
import logging
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import azure.core.rest._requests_basic
import azure.identity._credentials.app_service
import azure.identity._credentials.imds
import azure.identity._credentials.workload_identity  # noqa: F401
import msal_extensions  # noqa: F401  these, like utf_8_sig, are otherwise imported when needed: too late
import requests
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential, CredentialUnavailableError, ManagedIdentityCredential
from azure.keyvault.keys import KeyClient

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable
from ._http import BoundedAdapter
from ._settings import ca_bundle, parse_uri, read_credential

__all__ = ["AzureKms"]

_BITS = 3072
_ALGORITHM = "RSA-OAEP-256"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?", re.ASCII)
_KEY = re.compile(r"wardkey-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_VERSION = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})", re.ASCII)
_LOOKS, _PAUSE = 20, 0.25  # how often, and after how many seconds, a deletion is looked after
_PATIENCE = 60.0  # seconds that Key Vault may say to wait

for _name in ("azure", "msal"):  # both tell stderr of what is reported here as an error
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class AzureKms(Kms):
    """KEKs of one vault. Raises KmsConfigurationError; the vault is first asked when a key is."""

    scheme = "azure"
    files = ("azure.json", "azure-ca.pem")
    copies = "the key (az keyvault key backup)"
    is_asymmetric = True

    def __init__(self, uri: str, directory: Path) -> None:
        self._host, options = parse_uri(uri, ("authority", "hsm", "purge"))
        authority = options.get("authority", "login.microsoftonline.com")
        switches = [options.get(name, "off") for name in ("hsm", "purge")]
        if not all(map(_HOST.fullmatch, (self._host, authority))) or not {*switches} <= {"on", "off"}:
            raise KmsConfigurationError(
                "write the KMS URI as azure://NAME.vault.azure.net; hsm= and purge= are on or off"
            )
        self._is_hsm, self._purges = (switch == "on" for switch in switches)
        identity, bundle = _credential(directory / "azure.json"), ca_bundle(directory / "azure-ca.pem")

        def connect() -> KeyClient:
            options: dict[str, Any] = {"transport": _transport(bundle), "retry_total": 0}
            credential = _identity(identity, authority, options)
            # No redirects: the token would go along.
            return KeyClient(f"https://{self._host}", credential, permit_redirects=False, **options)

        self._connect = connect
        try:
            self._client = connect()
        except ValueError:
            raise KmsConfigurationError("azure.json: tenant_id is not the id of an Entra tenant") from None
        self._not_before = 0.0  # on the clock of time.monotonic(): Key Vault said to wait until then

    def __repr__(self) -> str:
        return f"AzureKms({self._host!r})"

    @classmethod
    def holds(cls, uri: str, kek: str) -> bool:
        return kek.startswith(f"{cls.scheme}:{cls.place(uri)}/")

    def create_kek(self, tenant: UUID) -> KekRef:
        name = f"wardkey-{tenant}"
        versions = self._get(f"keys/{name}")
        if versions is None:
            return self._make(name)
        return self._current(name, versions)

    def rotate_kek(self, tenant: UUID) -> KekRef:
        name = f"wardkey-{tenant}"
        versions = self._get(f"keys/{name}")
        if versions is None:
            raise KmsDenied("Azure Key Vault has no such KEK")
        self._check_alive(versions)
        return self._make(name)

    def disable_kek(self, kek: KekRef) -> None:
        key, version = self._replaced(kek)
        if version is not None:
            self._ask("PATCH", f"keys/{key}/{version}", {"attributes": {"enabled": False}})

    def destroy_kek(self, kek: KekRef) -> None:
        key, version = self._replaced(kek)
        self._delete(key, is_there=version is not None)

    def destroy_all(self, tenant: UUID) -> None:
        name = f"wardkey-{tenant}"
        newest = self._get(f"keys/{name}")
        if newest is None:
            return
        self._ask("PATCH", f"keys/{name}/{_id(newest)}", {"attributes": {"enabled": False}})
        for number in self._versions(name):
            self._delete(f"{name}-{number}", is_there=self._get(f"keys/{name}-{number}") is not None)

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        name = f"wardkey-{tenant}"
        return [self._report(f"{name}-{number}", number) for number in self._versions(name)]

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        return self._convert("wrapkey", kek, dek + _digest(kek, aad))

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        opened, digest = self._convert("unwrapkey", kek, wrapped), _digest(kek, aad)
        if not hmac.compare_digest(opened[-len(digest) :], digest):
            raise KmsDenied("the wrapped key does not open under this KEK and tenant")
        return opened[: -len(digest)]

    def _convert(self, operation: str, kek: KekRef, data: bytes) -> bytes:
        name, number, version = self._parts(kek)
        body = {"alg": _ALGORITHM, "value": base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")}
        answer = self._ask("POST", f"keys/{name}-{number}/{version}/{operation}", body)
        value = answer.get("value")
        if not isinstance(value, str) or not str(answer.get("kid")).endswith(f"/{name}-{number}/{version}"):
            raise KmsUnavailable("Azure Key Vault answered something else than was asked for")
        try:
            return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except ValueError:
            raise KmsUnavailable("Azure Key Vault answered something that is not its protocol") from None

    def _make(self, name: str) -> KekRef:
        made: dict[str, Any] = {"kty": "EC", "crv": "P-256", "key_ops": ["verify"], "tags": _tags(name)}
        number = _id(self._ask("POST", f"keys/{name}/create", made))
        kty = "RSA-HSM" if self._is_hsm else "RSA"
        made = {"kty": kty, "key_size": _BITS, "key_ops": ["wrapKey", "unwrapKey"], "tags": _tags(name)}
        version = _id(self._ask("POST", f"keys/{name}-{number}/create", made))
        return KekRef(f"{self.scheme}:{self._host}/{name}", f"{number}-{version}")

    def _current(self, name: str, versions: dict[str, Any]) -> KekRef:
        self._check_alive(versions)
        number = _id(versions)
        key = self._get(f"keys/{name}-{number}")
        if key is None:  # its maker is at it, or was interrupted; two keys of one number would go together
            return self._make(name)
        return KekRef(f"{self.scheme}:{self._host}/{name}", f"{number}-{_id(key)}")

    def _check_alive(self, versions: dict[str, Any]) -> None:
        if not versions["attributes"].get("enabled"):
            raise KmsDenied("the tenant's KEK was destroyed; there is none after it")

    def _versions(self, name: str) -> list[str]:
        """Return which versions there are or were, oldest first."""
        versions: list[tuple[float, int, str]] = []
        path: str | None = f"keys/{name}/versions"
        while path:
            answer = self._get(path) or {}
            for item in answer.get("value") or ():
                number = str(item.get("kid")).rpartition("/")[2]
                versions.append(
                    (item["attributes"]["created"], int(item.get("tags", {}).get("made", 0)), number)
                )
            path = answer.get("nextLink")
            if path and not path.startswith(f"https://{self._host}/"):
                raise KmsUnavailable("Azure Key Vault answered something else than was asked for")
        return [number for _, _, number in sorted(versions)]

    def _report(self, key: str, number: str) -> KekVersion:
        if (answer := self._get(f"keys/{key}")) is not None:
            attributes = answer["attributes"]
            state = "enabled" if attributes.get("enabled") else "disabled"
            return KekVersion(f"{number}-{_id(answer)}", state, attributes.get("created"))
        if (answer := self._get(f"deletedkeys/{key}")) is not None:
            times = answer["attributes"].get("created"), answer.get("scheduledPurgeDate")
            return KekVersion(f"{number}-{_id(answer)}", "scheduled", *times)
        return KekVersion(number, "destroyed")

    def _replaced(self, kek: KekRef) -> tuple[str, str | None]:
        """Return the key of a version that is not the current one, and its version; None when it is gone."""
        name, number, version = self._parts(kek)
        if self._get(f"keys/{name}-{number}/{version}") is None:
            return f"{name}-{number}", None
        newest = self._get(f"keys/{name}")
        if newest is not None and _id(newest) == number:
            raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
        return f"{name}-{number}", version

    def _delete(self, key: str, *, is_there: bool) -> None:
        """Delete a key, wait until Key Vault shows it as deleted, and purge it if that is to be.

        While it is being deleted, Key Vault shows it nowhere, as if it were purged.
        """
        if is_there:
            self._ask("DELETE", f"keys/{key}")
            for _ in range(_LOOKS):
                if self._get(f"deletedkeys/{key}") is not None:
                    break
                time.sleep(_PAUSE)
            else:
                raise KmsUnavailable("Azure Key Vault is still deleting the key")
        if self._purges and self._get(f"deletedkeys/{key}") is not None:
            self._ask("DELETE", f"deletedkeys/{key}")

    def _parts(self, kek: KekRef) -> tuple[str, str, str]:
        prefix = f"{self.scheme}:{self._host}/"
        name, match = kek.name.removeprefix(prefix), _VERSION.fullmatch(kek.version)
        if not kek.name.startswith(prefix) or not _KEY.fullmatch(name) or not match:
            raise KmsDenied("the KEK is not one of this Azure Key Vault")
        return name, match[1], match[2]

    def _get(self, path: str) -> dict[str, Any] | None:
        """Return what there is at ``path``, None when there is nothing."""
        try:
            return self._ask("GET", path)
        except _MissingError:
            return None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if (wait := self._not_before - time.monotonic()) > 0:
            raise KmsUnavailable("Azure Key Vault said to wait", wait)
        url = path if path.startswith("https://") else f"/{path}"
        try:
            answer = self._client.send_request(HttpRequest(method, url, json=body))
            status, document = answer.status_code, answer.json() if answer.content else {}
            asked_to_wait = float(answer.headers.get("Retry-After", 0))
        except CredentialUnavailableError:
            raise KmsConfigurationError(
                "no Azure credential is found: put azure.json beside the keeper's files"
            ) from None
        except ClientAuthenticationError as error:
            if "AADSTS" in str(error):  # Entra's own code; anything else may pass
                raise KmsDenied("Entra does not take the credential") from None
            self._client = self._connect()  # MSAL would repeat this answer for a minute
            raise KmsUnavailable("Entra cannot be reached or cannot answer now") from None
        except (AzureError, ValueError, RecursionError):
            raise KmsUnavailable("Azure Key Vault cannot be reached, or it is not Azure Key Vault") from None
        if status < 300 and isinstance(document, dict):
            return document
        if status == 404:
            raise _MissingError("Azure Key Vault has no such key")
        if status == 401:
            self._client = self._connect()  # without the token, which azure-identity goes on with
            raise KmsUnavailable("Azure Key Vault does not take the token any more")
        if status == 403:
            raise KmsDenied("Azure Key Vault does not allow it, or the key is disabled")
        if status == 409:
            raise KmsDenied("Azure Key Vault has it as deleted, and it can be recovered")
        if 400 <= status < 500 and status not in (408, 429):
            raise KmsDenied("Azure Key Vault refused the key, its version or its additional data")
        wait = min(max(asked_to_wait, 0), _PATIENCE) if status in (429, 503) else 0
        self._not_before = time.monotonic() + wait
        raise KmsUnavailable(f"Azure Key Vault cannot answer now (HTTP status {status})", wait)


class _MissingError(KmsDenied):
    """There is nothing of this name."""


def _id(key: dict[str, Any]) -> str:
    """Return the version of a key that Key Vault describes."""
    version = str((key.get("key") or {}).get("kid")).rpartition("/")[2]
    if not re.fullmatch("[0-9a-f]{32}", version) or not isinstance(key.get("attributes"), dict):
        raise KmsUnavailable("Azure Key Vault answered something that is not a key's description")
    return version


def _tags(name: str) -> dict[str, str]:
    """Return a key's tags. ``made``: nanoseconds, because Key Vault tells whole seconds."""
    return {
        "managed-by": "wardkey",
        "wardkey-tenant": name.removeprefix("wardkey-"),
        "made": str(time.time_ns()),
    }


def _digest(kek: KekRef, aad: bytes) -> bytes:
    parts = ("wardkey/1 azure kek", kek.name, kek.version)
    return hashlib.sha256(b"".join(part.encode("utf-8", "replace") + b"\0" for part in parts) + aad).digest()


def _transport(bundle: Path | None) -> RequestsTransport:
    session = requests.Session()
    session.mount("https://", BoundedAdapter())
    session.trust_env = False  # no ~/.netrc, no proxy
    return RequestsTransport(
        session=session,
        session_owner=False,
        use_env_settings=False,
        connection_verify=str(bundle) if bundle else True,
        connection_timeout=1,
        read_timeout=3,
    )


def _credential(path: Path) -> dict[str, Any]:
    credential = read_credential(path) or {}
    principal = {"tenant_id", "client_id", "client_secret"}
    known = credential.keys() <= {"client_id"} or credential.keys() == principal
    if not known or not all(isinstance(value, str) and value for value in credential.values()):
        raise KmsConfigurationError(f"{path} must hold tenant_id, client_id and client_secret")
    return credential


def _identity(credential: dict[str, Any], authority: str, options: dict[str, Any]) -> TokenCredential:
    """Return who asks. Raises ValueError."""
    if "client_secret" not in credential:
        return ManagedIdentityCredential(**credential, **options)
    return ClientSecretCredential(
        **credential, authority=authority, disable_instance_discovery=True, **options
    )
