"""HashiCorp Vault and OpenBao: KEKs in the transit engine, ``vault://HOST:PORT/MOUNT``.

A tenant's KEK is the transit key ``wardkey-<tenant>`` (aes256-gcm96, not exportable, rotated after 365
days); the KEK's version is the key's. A wrapped DEK is the engine's ciphertext without ``vault:v<version>:``,
and the DEK's additional data is its ``associated_data``.

Options of the URI: ``namespace=NAME``; ``tls=off``, to a loopback address only; ``keeper=ENTITY``, for
the orchestrator: the identity entity that is to use them. Making a KEK then also writes the policy
``wardkey-<tenant>`` (encrypt and decrypt with this key and read its description, nothing else) and an
identity group of that name, which gives the policy to the entity and the tokens it has. Of another mount than
``transit`` both are called ``wardkey-<tenant>-<mount>``.

The orchestrator needs create, read, update and delete on ``MOUNT/keys/wardkey-*``; with ``keeper=`` also
create, update and delete on ``sys/policies/acl/wardkey-*`` and ``identity/group/name/wardkey-*``, and read on
``identity/entity/name/ENTITY``. It cannot use a KEK, unless it gives itself a policy, which Vault's audit
device shows. Versions are disabled and destroyed (trimmed) from the oldest on: Vault knows no other order.
A destroyed KEK is in the server's snapshots until these are gone.

Credential, in the keeper's directory: ``vault.json``, mode 0600::

    {"role_id": "…", "secret_id": "…", "mount": "approle"}     AppRole; mount may be left out
    {"token": "…"}

or the environment variable VAULT_TOKEN. The token is renewed when two thirds of its time have passed, and
got again from the AppRole when it cannot be. ``vault-ca.pem`` there replaces the system's certificates.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import hvac
import requests

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable, address_of
from ._http import BoundedAdapter
from ._settings import ca_bundle, is_loopback, parse_uri
from ._vault_login import MOUNT, TIMEOUT, FailedError, ForbiddenError, Login, MissingError, request

__all__ = ["VaultKms"]

_OPTIONS = ("keeper", "namespace", "tls")
_MOUNT = "transit"  # when the URI names none
_ROTATION = "8760h"
_TRIES = 10  # of a rotation
_KEY = re.compile(r"wardkey-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


class VaultKms(Kms):
    """KEKs of one transit mount. Raises KmsConfigurationError; the server is first asked when a key is."""

    scheme = "vault"
    files = ("vault.json", "vault-ca.pem")
    copies = "the Vault's storage"
    names_tell = False  # a KEK is named by its mount, not by its server

    def __init__(self, uri: str, directory: Path) -> None:
        address, options = parse_uri(uri, _OPTIONS)
        url, self._mount = _split(address, options.get("tls", "on"))
        self._keeper = options.get("keeper")
        session = requests.Session()
        session.trust_env = False  # no ~/.netrc, no proxy, no other certificates
        session.mount("http://", BoundedAdapter())
        session.mount("https://", BoundedAdapter())
        verify = ca_bundle(directory / "vault-ca.pem")
        session.verify = str(verify) if verify else True
        # An empty token keeps the client from looking for one itself.
        self._client = hvac.Client(
            url,
            token="",
            session=session,
            timeout=TIMEOUT,
            allow_redirects=False,  # the token would go along, to any server that answers
            namespace=options.get("namespace"),
        )
        self._login = Login(self._client, directory / "vault.json")

    def __repr__(self) -> str:
        return f"VaultKms({self._client.url!r}, {self._mount!r})"

    @classmethod
    def place(cls, uri: str) -> str:
        """Return the mount, whatever the address: nothing in a KEK's name tells two Vaults apart."""
        return address_of(uri).partition("/")[2].strip("/") or _MOUNT

    @classmethod
    def holds(cls, uri: str, kek: str) -> bool:
        return kek.rpartition("/")[0] == f"{cls.scheme}:{cls.place(uri)}"

    def create_kek(self, tenant: UUID) -> KekRef:
        name = f"wardkey-{tenant}"
        path = f"{self._mount}/keys/{name}"
        key = self._ask("GET", path, missing_is_none=True)
        if key is None:
            self._ask("POST", path, {"type": "aes256-gcm96", "auto_rotate_period": _ROTATION})
            key = self._ask("GET", path)
        if self._keeper is not None:
            self._allow(name, self._keeper)
        return self._ref(name, key)

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        key, version = self._parts(kek)
        body = {"plaintext": _text(dek), "associated_data": _text(aad), "key_version": int(version)}
        answer = self._ask("POST", f"{self._mount}/encrypt/{key}", body)
        return _bytes(answer, "ciphertext", f"vault:v{version}:")

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        key, version = self._parts(kek)
        body = {"ciphertext": f"vault:v{version}:{_text(wrapped)}", "associated_data": _text(aad)}
        return _bytes(self._ask("POST", f"{self._mount}/decrypt/{key}", body), "plaintext", "")

    def rotate_kek(self, tenant: UUID) -> KekRef:
        name = f"wardkey-{tenant}"
        path = f"{self._mount}/keys/{name}"
        # OpenBao fails one of two rotations at once, yet shows its version, which is not stored and would be
        # lost with the server's memory. The next rotation that succeeds stores both: so it is tried again,
        # and the version taken is the one of the rotation's own answer, not the newest that is shown.
        for left in reversed(range(_TRIES)):
            try:
                key = self._ask("POST", f"{path}/rotate", {})
                break
            except FailedError:
                if not left:
                    raise
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311
        return self._ref(name, key or self._ask("GET", path))  # older Vaults answer nothing

    def disable_kek(self, kek: KekRef) -> None:
        key, version = self._parts(kek)
        known = self._known(key)
        if known is None or int(version) < known.enabled_from:
            return
        _check_order(int(version), known.enabled_from, known.latest)
        self._disable(key, known)

    def destroy_kek(self, kek: KekRef) -> None:
        key, version = self._parts(kek)
        known = self._known(key)
        if known is None or int(version) < known.kept_from:
            return
        _check_order(int(version), known.kept_from, known.latest)
        if int(version) == known.enabled_from:
            self._disable(key, known)
        self._ask("POST", f"{self._mount}/keys/{key}/trim", {"min_available_version": int(version) + 1})

    def destroy_all(self, tenant: UUID) -> None:
        name = f"wardkey-{tenant}"
        path = f"{self._mount}/keys/{name}"
        if self._ask("GET", path, missing_is_none=True) is not None:
            self._ask("POST", f"{path}/config", {"deletion_allowed": True})
            self._ask("DELETE", path)
        if self._keeper is not None:
            self._ask("DELETE", f"identity/group/name/{self._policy(name)}")
            self._ask("DELETE", f"sys/policies/acl/{self._policy(name)}")

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        known = self._known(f"wardkey-{tenant}")
        if known is None:
            return []
        return [
            KekVersion(str(number), known.state(number), known.created.get(str(number)))
            for number in range(1, known.latest + 1)
        ]

    def _known(self, name: str) -> _Known | None:
        key = self._ask("GET", f"{self._mount}/keys/{name}", missing_is_none=True)
        return None if key is None else _Known.of(key)

    def _disable(self, name: str, known: _Known) -> None:
        """Disable the oldest enabled version."""
        first = known.enabled_from + 1
        limits = {
            "min_decryption_version": first,
            "min_encryption_version": max(first, known.encrypting_from),
        }
        self._ask("POST", f"{self._mount}/keys/{name}/config", limits)

    def _ref(self, name: str, key: object) -> KekRef:
        return KekRef(f"{self.scheme}:{self._mount}/{name}", str(_Known.of(key).latest))

    def _parts(self, kek: KekRef) -> tuple[str, str]:
        mount, _, key = kek.name.removeprefix(f"{self.scheme}:").rpartition("/")
        known = kek.name.startswith(f"{self.scheme}:{mount}/") and mount == self._mount
        if not known or not _KEY.fullmatch(key) or not _VERSION.fullmatch(kek.version):
            raise KmsDenied("the KEK is not one of this Vault")
        return key, kek.version

    def _policy(self, name: str) -> str:
        """Return the name of the policy for this KEK: another mount of the same Vault may have one, too."""
        return name if self._mount == _MOUNT else f"{name}-{self._mount.replace('/', '.')}"

    def _allow(self, name: str, entity: str) -> None:
        """Let ``entity`` use the KEK. Done each time: what was interrupted or undone is whole again."""
        identity = self._ask("GET", f"identity/entity/name/{entity}", missing_is_none=True)
        if not isinstance(identity, dict) or not isinstance(identity.get("id"), str):
            raise KmsConfigurationError("Vault has no identity entity of the name in the KMS URI (keeper=)")
        rules = {
            f"{self._mount}/encrypt/{name}": "update",
            f"{self._mount}/decrypt/{name}": "update",
            f"{self._mount}/keys/{name}": "read",
        }
        policy = {"path": {path: {"capabilities": [can]} for path, can in rules.items()}}
        named = self._policy(name)
        self._ask("PUT", f"sys/policies/acl/{named}", {"policy": json.dumps(policy)})
        group = {"policies": [named], "member_entity_ids": [identity["id"]]}
        self._ask("POST", f"identity/group/name/{named}", group)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        missing_is_none: bool = False,
    ) -> Any:
        """Return what Vault answers; a token it no longer takes is replaced once."""
        token = self._login.token()
        try:
            answer = request(self._client, method, path, token, body)
        except ForbiddenError:
            if self._login.is_valid(token):
                raise
            answer = request(self._client, method, path, self._login.token(instead_of=token), body)
        except MissingError:
            if missing_is_none:
                return None
            raise
        return answer.get("data")


def _split(address: str, tls: str) -> tuple[str, str]:
    """Return the server's URL and the mount. What was written is not in the error."""
    host, _, mount = address.partition("/")
    mount = mount.strip("/") or _MOUNT
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port or 8200
    except ValueError:
        port = 0
    if (
        not port
        or not parts.hostname
        or "@" in host
        or not MOUNT.fullmatch(mount)
        or tls not in ("on", "off")
    ):
        raise KmsConfigurationError("write the KMS URI as vault://HOST:PORT/MOUNT, without a credential")
    if tls == "off" and not is_loopback(parts.hostname):
        raise KmsConfigurationError("tls=off is for Vault on a loopback address")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{'https' if tls == 'on' else 'http'}://{name}:{port}", mount


@dataclass(frozen=True, slots=True)
class _Known:
    """Versions of a transit key: those before ``kept_from`` are destroyed, then disabled, then enabled."""

    latest: int
    enabled_from: int
    encrypting_from: int
    kept_from: int
    created: Mapping[str, float]

    @classmethod
    def of(cls, key: object) -> _Known:
        described: dict[str, Any] = key if isinstance(key, dict) else {}
        limits = ("min_decryption_version", "min_encryption_version", "min_available_version")
        numbers = [described.get("latest_version"), *(described.get(name, 0) for name in limits)]
        times = described.get("keys")
        if not isinstance(times, dict) or not all(type(number) is int for number in numbers):
            raise KmsUnavailable("Vault answered something that is not a key's description")
        created = {version: time for version, time in times.items() if isinstance(time, int)}
        latest, decrypting, encrypting, kept = numbers
        return cls(latest, max(1, decrypting), encrypting, max(1, kept), created)

    def state(self, number: int) -> str:
        if number < self.kept_from:
            return "destroyed"
        return "disabled" if number < self.enabled_from else "enabled"


def _check_order(version: int, oldest: int, latest: int) -> None:
    """Raise KmsDenied unless this version is the oldest and has a newer one."""
    if version > latest:
        raise KmsDenied("Vault has no such version of the KEK")
    if version == latest:
        raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
    if version > oldest:
        raise KmsDenied("an older version comes first: Vault disables and destroys from the oldest on")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(answer: object, name: str, prefix: str) -> bytes:
    value = answer.get(name) if isinstance(answer, dict) else None
    if isinstance(value, str) and value.startswith(prefix):
        try:
            return base64.b64decode(value.removeprefix(prefix), validate=True)
        except binascii.Error:
            pass
    raise KmsUnavailable("Vault answered something that is not its protocol")
