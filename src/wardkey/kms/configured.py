"""Which KMSes a cell and its tenants use: ``kms.json``, one list.

The file is in the directory of the keeper and, the same, in the orchestrator's, which believes its own only::

    {"kms": [{"uri": "vault://127.0.0.1:8200/transit", "admin": "vault://127.0.0.1:8200/transit?keeper=k"},
             {"uri": "local:", "state": "left"},
             {"uri": "gcpkms://projects/…/locations/…", "tenant": "0b6f0000-0000-4000-8000-00000000000a"},
             {"uri": "awskms://eu-central-1", "tenant": "0b6f0000-0000-4000-8000-00000000000b",
              "name": "1", "state": "left"}],
     "regions": ["eu-de", "us"],
     "environment": {"SOFTHSM2_CONF": "/etc/softhsm2.conf"}}

``admin`` is how the orchestrator reaches the KMS with a credential of its own. Without it the keeper is asked
instead.

``regions`` are those that the keeper serves, ``["default"]`` if left out: it makes and opens no other's keys.
An entry's own ``regions`` name the KMS of each, by what stands in its URI's place of the address: ``{"eu-de":
"projects/…/locations/europe-west3", "us": "projects/…/locations/us-east1"}``; then it is used in these only.

Without the file, the cell's KMS is ``local:``. An entry with ``tenant`` is that tenant's own. Where a KMS is
``left``, nothing new is wrapped; it unwraps until every DEK was rewrapped. ``environment`` is for what the
KMS's own tools read.

``name`` tells the KMSes of the cell, or of one tenant, apart: the cell's have the scheme as name, of which
there is one each, a tenant's own ``0``, ``1``, … The cell's credentials are beside the file, a tenant's own
in ``tenants/<its id>/<name>/``: so none is ever sent to a KMS it is not for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from wardkey_core.wire import DEFAULT_REGION, REGION_FORM, parse_json

from wardkey.daemon.files import read_guarded, write_atomically

from . import may_hold
from .base import KmsConfigurationError

__all__ = [
    "CONFIGURATION_FILE",
    "DEFAULT_KMS",
    "TENANTS",
    "Configuration",
    "Entry",
    "directory_of",
    "read",
    "write",
]

CONFIGURATION_FILE = "kms.json"
DEFAULT_KMS = "local:"
TENANTS = "tenants"  # the directory of what tenants bring
_Uri = Annotated[str, Meta(pattern="^[a-z0-9]*:")]
_Region = Annotated[str, Meta(max_length=63, pattern=REGION_FORM)]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)


class Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A KMS. Without ``tenant`` it is the cell's. Raises ValueError."""

    uri: _Uri
    tenant: UUID | None = None
    state: Literal["present", "left"] = "present"
    name: Annotated[str, Meta(pattern=r"^[a-z0-9]*\Z")] = ""
    regions: dict[_Region, Annotated[str, Meta(min_length=1, pattern=r"^[^?\s]*\Z")]] = {}
    admin: _Uri | None = None

    def __post_init__(self) -> None:
        if not f"{self.uri}{self.admin or ''}".isprintable():
            raise ValueError("uri and admin must be printable")
        if not self.name:
            name = self.uri.partition(":")[0] if self.tenant is None else "0"
            msgspec.structs.force_setattr(self, "name", name)

    @property
    def key(self) -> tuple[UUID | None, str]:
        return self.tenant, self.name

    @property
    def is_left(self) -> bool:
        return self.state == "left"

    @property
    def label(self) -> str:
        """What keeper and orchestrator call it of the KMSes that one tenant's KEK may be in."""
        return self.name if self.tenant is None else f"own/{self.name}"

    def within(self, region: str) -> Entry | None:
        """Return what it is in a region, None when it is not used there."""
        if not self.regions or self.uri == DEFAULT_KMS:
            return self
        if region not in self.regions:
            return None
        uri, admin = (each and self._at(each, self.regions[region]) for each in (self.uri, self.admin))
        return msgspec.structs.replace(self, uri=uri, admin=admin, regions={})

    @staticmethod
    def _at(uri: str, address: str) -> str:
        _, question, options = uri.partition("?")
        return f"{uri.partition(':')[0]}://{address}{question}{options}"

    def everywhere(self) -> list[Entry]:
        """Return what it is in each of its regions."""
        within = (self.within(region) for region in self.regions or (DEFAULT_REGION,))
        return list({entry.uri: entry for entry in within if entry}.values())

    def directory(self, base: Path) -> Path:
        """Return where its credentials are."""
        return base if self.tenant is None else directory_of(base, self.tenant, self.name)


class Configuration(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Raises ValueError when it is not consistent."""

    kms: tuple[Entry, ...] = (Entry(DEFAULT_KMS),)
    environment: dict[str, str] = {}
    regions: Annotated[tuple[_Region, ...], Meta(min_length=1)] = (DEFAULT_REGION,)

    def __post_init__(self) -> None:
        if not all(_VARIABLE.fullmatch(name) and "\0" not in text for name, text in self.environment.items()):
            raise ValueError("environment must be variables and their texts")
        present = Counter(entry.tenant for entry in self.kms if not entry.is_left)
        if present[None] != 1 or max(present.values()) > 1:
            raise ValueError("the cell must have one present KMS, a tenant one at most")
        if len({entry.key for entry in self.kms}) != len(self.kms):
            raise ValueError("KMSes of the cell, or of one tenant, must have different names")
        for entry in self.kms:
            if entry.tenant is not None and not entry.name.isdigit():
                raise ValueError("a KMS of a tenant has a number as name")
            if entry.tenant is None and not entry.uri.startswith(f"{entry.name}:"):
                raise ValueError("a KMS of the cell has its scheme as name")

    @property
    def cell(self) -> Entry:
        """The one that the cell uses now."""
        return self.owned(None)[0]

    def owned(self, tenant: UUID | None) -> list[Entry]:
        """Return the KMSes of the cell (None), or those that a tenant brings; the present one first."""
        return sorted((each for each in self.kms if each.tenant == tenant), key=lambda each: each.is_left)

    def of(self, tenant: UUID, region: str | None = None) -> list[Entry]:
        """Return where a KEK of the tenant may be, in one region or in all: where it is made now first."""
        entries = sorted([*self.owned(tenant), *self.owned(None)], key=lambda entry: entry.is_left)
        if region is None:
            return [each for entry in entries for each in entry.everywhere()]
        return [each for entry in entries if (each := entry.within(region))]

    def everywhere(self) -> list[Entry]:
        """Return every KMS there is, in each of its regions."""
        return [each for entry in self.kms for each in entry.everywhere()]

    def holding(self, tenant: UUID, kek: str) -> list[Entry]:
        """Return where this KEK of the tenant may be, as far as its name tells."""
        return [entry for entry in self.of(tenant) if may_hold(entry.uri, kek)]

    def with_owned(self, tenant: UUID | None, entries: Iterable[Entry]) -> Configuration:
        """Return the configuration with ``entries`` in the place of the cell's, or of a tenant's."""
        others = [each for each in self.kms if each.tenant != tenant]
        kms = (*entries, *others) if tenant is None else (*others, *entries)
        return msgspec.structs.replace(self, kms=kms)


def read(directory: Path) -> Configuration:
    """Return what ``kms.json`` of ``directory`` says. Raises KmsConfigurationError.

    Only the directory's owner and root may be able to change the file.
    """
    path = directory / CONFIGURATION_FILE
    try:
        return msgspec.convert(parse_json(read_guarded(path, secret=False)), Configuration)
    except FileNotFoundError:
        return Configuration()
    except OSError as error:
        raise KmsConfigurationError(f"{CONFIGURATION_FILE} cannot be read: {error}") from None
    except msgspec.ValidationError as error:
        wrong = str(error)
    except ValueError:
        wrong = "it is not JSON, or has a member twice"
    raise KmsConfigurationError(f"{path}: {wrong}")


def write(directory: Path, configuration: Configuration, owner: tuple[int, int] | None = None) -> None:
    """Replace ``kms.json`` of ``directory`` at once. ``owner``: its uid and gid. Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(configuration), indent=1) + b"\n"
    write_atomically(directory / CONFIGURATION_FILE, data, owner=owner)


def directory_of(directory: Path, tenant: UUID, name: str = "0") -> Path:
    """Return where the credentials of a tenant's own KMS are."""
    return directory / TENANTS / str(tenant) / name
