"""Which KMS a cell uses and which of its tenants bring their own: ``kms.json``.

The file is in the directory of whoever uses the KMS, the keeper or the orchestrator, beside its credentials::

    {"kms": "vault://127.0.0.1:8200/transit",
     "former": ["local:"],
     "environment": {"SOFTHSM2_CONF": "/etc/softhsm2.conf"},
     "tenants": {"0b6f0000-0000-4000-8000-00000000000a": {"kms": "gcpkms://projects/…/locations/…"},
                 "0b6f0000-0000-4000-8000-00000000000b": {
                    "kms": "vault://vault.globex.example/keys", "place": 1,
                    "former": [{"kms": "awskms://eu-central-1"}]}}}

Each member may be left out; without the file, the KMS is ``local:``. ``former`` are those that the cell used
before: they unwrap until every DEK was rewrapped under the present one, and are of other schemes than it.
``environment`` is for what the KMS's own tools read.

A tenant may have left KMSes of its own, too, for another or, without ``kms``, for the cell's. The credentials
of its own are in ``tenants/<its id>/`` of the directory, of the later ones in ``tenants/<its id>/<place>/``:
so none is ever sent to a KMS it is not for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from wardkey.daemon.files import read_guarded, write_atomically

from .base import KmsConfigurationError

__all__ = [
    "CONFIGURATION_FILE",
    "DEFAULT_KMS",
    "TENANTS",
    "Configuration",
    "Own",
    "directory_of",
    "read",
    "write",
]

CONFIGURATION_FILE = "kms.json"
DEFAULT_KMS = "local:"
TENANTS = "tenants"  # the directory of what tenants bring
_MEMBERS = {"kms", "former", "environment", "tenants"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Own:
    """A KMS that a tenant brings or brought. ``place``: where in the tenant's directory credentials are."""

    kms: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """URIs: the cell's, those it used before, and by tenant those of the tenants that bring their own KMS.

    ``places``: of these, unless 0. ``left``: the KMSes of their own that tenants used before.
    """

    kms: str = DEFAULT_KMS
    environment: Mapping[str, str] = field(default_factory=dict)
    tenants: Mapping[UUID, str] = field(default_factory=dict)
    former: tuple[str, ...] = ()
    places: Mapping[UUID, int] = field(default_factory=dict)
    left: Mapping[UUID, tuple[Own, ...]] = field(default_factory=dict)

    def own(self, tenant: UUID) -> Own | None:
        """Return the KMS that the tenant brings, None when it is with the cell's."""
        uri = self.tenants.get(tenant)
        return None if uri is None else Own(uri, self.places.get(tenant, 0))

    def owns(self, tenant: UUID) -> tuple[Own, ...]:
        """Return the KMS that the tenant brings, if it does, and those it brought before."""
        own = self.own(tenant)
        return (*((own,) if own else ()), *self.left.get(tenant, ()))

    def bring(self, tenant: UUID, own: Own | None, left: tuple[Own, ...] = ()) -> Configuration:
        """Return what is so when the tenant uses ``own``, or the cell's KMS, and used ``left`` before."""
        tenants = {id_: uri for id_, uri in self.tenants.items() if id_ != tenant}
        places = {id_: place for id_, place in self.places.items() if id_ != tenant}
        lefts = {id_: owns for id_, owns in self.left.items() if id_ != tenant}
        return replace(
            self,
            tenants={**tenants, tenant: own.kms} if own else tenants,
            places={**places, tenant: own.place} if own and own.place else places,
            left={**lefts, tenant: left} if left else lefts,
        )


def read(directory: Path) -> Configuration:
    """Return what ``kms.json`` of ``directory`` says. Raises KmsConfigurationError.

    Only the directory's owner and root may be able to change the file.
    """
    path = directory / CONFIGURATION_FILE
    document: Any = None
    try:
        document = json.loads(read_guarded(path, secret=False))
    except FileNotFoundError:
        return Configuration()
    except OSError as error:
        raise KmsConfigurationError(f"{CONFIGURATION_FILE} cannot be read: {error}") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not document.keys() <= _MEMBERS:
        raise KmsConfigurationError(
            f"{path} must hold one JSON object with the members {', '.join(sorted(_MEMBERS))}"
        )
    environment, tenants = document.get("environment", {}), document.get("tenants", {})
    uri, former = _uri(path, document.get("kms", DEFAULT_KMS)), document.get("former", [])
    if not isinstance(environment, dict) or not all(map(_is_variable, environment.items())):
        raise KmsConfigurationError(f"{path}: environment must be an object of variables and their texts")
    if not isinstance(tenants, dict):
        raise KmsConfigurationError(f"{path}: tenants must be an object")
    if not isinstance(former, list):
        raise KmsConfigurationError(f"{path}: former must be a list")
    schemes = [_uri(path, each).partition(":")[0] for each in (uri, *former)]
    if len(set(schemes)) != len(schemes):
        raise KmsConfigurationError(f"{path}: former must be of other schemes than kms and than each other")
    found = Configuration(uri, environment, former=tuple(former))
    for tenant, entry in tenants.items():
        found = found.bring(_tenant(path, tenant), *_owns(path, entry))
    return found


def write(directory: Path, configuration: Configuration, owner: tuple[int, int] | None = None) -> None:
    """Replace ``kms.json`` of ``directory`` at once. ``owner``: its uid and gid. Raises OSError."""
    document: dict[str, Any] = {"kms": configuration.kms}
    if configuration.former:
        document["former"] = list(configuration.former)
    if configuration.environment:
        document["environment"] = dict(configuration.environment)
    if tenants := {**configuration.tenants, **configuration.left}:
        document["tenants"] = {str(tenant): _entry(configuration, tenant) for tenant in tenants}
    data = json.dumps(document, indent=1).encode("utf-8") + b"\n"
    write_atomically(directory / CONFIGURATION_FILE, data, owner=owner)


def directory_of(directory: Path, tenant: UUID, place: int = 0) -> Path:
    """Return where the credentials of a tenant's own KMS are."""
    first = directory / TENANTS / str(tenant)
    return first / str(place) if place else first


def _is_variable(item: tuple[object, object]) -> bool:
    name, text = item
    return (
        isinstance(name, str)
        and _VARIABLE.fullmatch(name) is not None
        and isinstance(text, str)
        and "\0" not in text
    )


def _uri(path: Path, value: object) -> str:
    if not isinstance(value, str) or ":" not in value or not value.isprintable():
        raise KmsConfigurationError(f"{path}: kms must be a URI")
    return value


def _owns(path: Path, entry: object) -> tuple[Own | None, tuple[Own, ...]]:
    former = entry.get("former", []) if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(former, list) or not ("kms" in entry or former):
        raise KmsConfigurationError(f'{path}: a tenant\'s entry must be an object with the member "kms"')
    present = {name: value for name, value in entry.items() if name != "former"}
    own, left = _own(path, present) if present else None, tuple(_own(path, each) for each in former)
    places = [each.place for each in (own, *left) if each]
    if len(set(places)) != len(places):
        raise KmsConfigurationError(f"{path}: a tenant's KMSes must be of different places")
    return own, left


def _own(path: Path, entry: object) -> Own:
    if not isinstance(entry, dict) or not {"kms"} <= entry.keys() <= {"kms", "place"}:
        raise KmsConfigurationError(f"{path}: a tenant's KMS has the member kms, and place unless it is 0")
    place = entry.get("place", 0)
    if type(place) is not int or place < 0:
        raise KmsConfigurationError(f"{path}: place must be a number")
    return Own(_uri(path, entry["kms"]), place)


def _entry(configuration: Configuration, tenant: UUID) -> dict[str, Any]:
    own, left = configuration.own(tenant), configuration.left.get(tenant, ())
    entry = _members(own) if own else {}
    return {**entry, "former": [_members(each) for each in left]} if left else entry


def _members(own: Own) -> dict[str, Any]:
    return {"kms": own.kms, "place": own.place} if own.place else {"kms": own.kms}


def _tenant(path: Path, text: str) -> UUID:
    try:
        tenant = UUID(text)
    except ValueError:
        tenant = None
    if tenant is None or str(tenant) != text:
        raise KmsConfigurationError(f"{path}: tenants are named by their id, a uuid in its canonical form")
    return tenant
