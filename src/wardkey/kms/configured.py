"""Which KMS a cell uses and which of its tenants bring their own: ``kms.json``.

The file is in the directory of whoever uses the KMS, the keeper or the orchestrator, beside its credentials::

    {"kms": "vault://127.0.0.1:8200/transit",
     "former": ["local:"],
     "environment": {"SOFTHSM2_CONF": "/etc/softhsm2.conf"},
     "tenants": {"0b6f0000-0000-4000-8000-00000000000a": {"kms": "gcpkms://projects/…/locations/…"}}}

Each member may be left out; without the file, the KMS is ``local:``. ``former`` are those that the cell used
before: they unwrap until every DEK was rewrapped under the present one, and are of other schemes than it.
``environment`` is for what the KMS's own tools read. The credentials of a tenant's own KMS are in
``tenants/<its id>/`` of the directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from wardkey._files import read_guarded, write_atomically

from .base import KmsConfigurationError

__all__ = ["CONFIGURATION_FILE", "DEFAULT_KMS", "Configuration", "directory_of", "read", "write"]

CONFIGURATION_FILE = "kms.json"
DEFAULT_KMS = "local:"
_MEMBERS = {"kms", "former", "environment", "tenants"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Configuration:
    """URIs: the cell's, those it used before, and by tenant those of the tenants that bring their own KMS."""

    kms: str = DEFAULT_KMS
    environment: Mapping[str, str] = field(default_factory=dict)
    tenants: Mapping[UUID, str] = field(default_factory=dict)
    former: tuple[str, ...] = ()


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
    return Configuration(
        uri,
        environment,
        {_tenant(path, tenant): _own(path, entry) for tenant, entry in tenants.items()},
        tuple(former),
    )


def write(directory: Path, configuration: Configuration, owner: tuple[int, int] | None = None) -> None:
    """Replace ``kms.json`` of ``directory`` at once. ``owner``: its uid and gid. Raises OSError."""
    document: dict[str, Any] = {"kms": configuration.kms}
    if configuration.former:
        document["former"] = list(configuration.former)
    if configuration.environment:
        document["environment"] = dict(configuration.environment)
    if configuration.tenants:
        document["tenants"] = {str(tenant): {"kms": uri} for tenant, uri in configuration.tenants.items()}
    data = json.dumps(document, indent=1).encode("utf-8") + b"\n"
    write_atomically(directory / CONFIGURATION_FILE, data, owner=owner)


def directory_of(directory: Path, tenant: UUID) -> Path:
    """Return where the credentials of a tenant's own KMS are."""
    return directory / "tenants" / str(tenant)


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


def _own(path: Path, entry: object) -> str:
    if not isinstance(entry, dict) or entry.keys() != {"kms"}:
        raise KmsConfigurationError(f'{path}: a tenant\'s entry must be an object with the one member "kms"')
    return _uri(path, entry["kms"])


def _tenant(path: Path, text: str) -> UUID:
    try:
        tenant = UUID(text)
    except ValueError:
        tenant = None
    if tenant is None or str(tenant) != text:
        raise KmsConfigurationError(f"{path}: tenants are named by their id, a uuid in its canonical form")
    return tenant
