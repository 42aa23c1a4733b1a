"""What the keeper can be asked: the requests of ``wardkey_core.wire``, checked as they are read. Pure.

Whatever is not exactly a request is Unsupported, and nothing of it is in the error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import MASTER, MAX_VERSION, SALT_LENGTH
from wardkey_core.search import KINDS, NORMALISERS
from wardkey_core.wire import DEFAULT_REGION, MAX_FIELDS, MOST_LEASED, REGION_FORM, parse_json

from wardkey.kms import KekRef

from .grants import LONGEST_MINUTES

__all__ = [
    "MASTER_TENANT",
    "Cache",
    "Certify",
    "Checkpoint",
    "Derive",
    "Grant",
    "Kek",
    "Lease",
    "Logins",
    "Provision",
    "Release",
    "Report",
    "Request",
    "Reseal",
    "Rewrap",
    "Settle",
    "Settled",
    "Shred",
    "Status",
    "Tombstone",
    "Usage",
    "WrappedKey",
    "parse_request",
]

MASTER_TENANT = UUID(bytes=MASTER)
PLATFORM = UUID(int=0)  # whose log has what is of no tenant
_NAMES = {"kek", "kek_version", "to_kek", "to_kek_version", "name", "log"}
_OF_VERSIONS = ("disable", "leave", "destroy")
_OF_ACTIONS: dict[str, set[str]] = {
    "request": {"id", "classes", "minutes", "reason"},
    "approve": {"id", "reason"},
    "deny": {"id"},
    "end": {"id"},
    "allow": set(),
    "forbid": set(),
}

_Region = Annotated[str, Meta(max_length=63, pattern=REGION_FORM)]
_Version = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
_Kind = Literal[KINDS]  # type: ignore[valid-type]
_Normaliser = Literal[NORMALISERS]  # type: ignore[valid-type]
_Step = Annotated[str, Meta(max_length=64, pattern=r"^([0-9]+(\.[0-9]+)?)?$")]
_Number = Annotated[int, Meta(ge=1, le=255)]
_Class = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,47}\Z")]
_Name = Annotated[str, Meta(min_length=1, max_length=1024)]
_Text = Annotated[str, Meta(min_length=1)]
_Wrapped = Annotated[bytes, Meta(min_length=1)]
_Salt = Annotated[bytes, Meta(min_length=SALT_LENGTH, max_length=SALT_LENGTH)]
_Digest = Annotated[bytes, Meta(min_length=8, max_length=8)]
_Commitment = Annotated[bytes, Meta(min_length=32, max_length=32)]


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A version of a tenant's DEK as the database keeps it.

    With ``master``, what is wrapped is that version of the master secret; the DEK derives from it and
    ``salt``.
    """

    tenant: UUID
    version: int
    kek: KekRef
    wrapped: bytes = field(repr=False)
    master: int | None = None
    salt: bytes = field(default=b"", repr=False)
    region: str = DEFAULT_REGION


class _Members(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        for name in _NAMES.intersection(self.__struct_fields__):
            value = getattr(self, name)
            if value is not None and not value.isprintable():
                raise ValueError(f"{name} must be printable")
            if name.endswith("kek") and (value is None) != (getattr(self, f"{name}_version") is None):
                raise ValueError(f"{name} and {name}_version go together")
        (getattr(self, "statement", None) or "").encode()  # it is signed

    def __repr__(self) -> str:
        return type(self).__name__  # without what is in it


class _Request(_Members, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    tenant: UUID


class _Key(_Members, frozen=True, kw_only=True):
    version: _Version
    kek: _Name
    kek_version: _Name
    wrapped: _Wrapped
    master: _Version | None = None
    salt: _Salt | None = None
    region: _Region = DEFAULT_REGION

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.master is None) != (self.salt is None):
            raise ValueError("master and salt go together")

    def of(self, tenant: UUID) -> WrappedKey:
        kek = KekRef(self.kek, self.kek_version)
        salt = self.salt or b""
        return WrappedKey(tenant, self.version, kek, self.wrapped, self.master, salt, self.region)


class _CommittedKey(_Key, frozen=True, kw_only=True):
    commitment: _Commitment


class _KeyRequest(_Key, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    tenant: UUID

    @property
    def key(self) -> WrappedKey:
        return self.of(self.tenant)


class Release(_KeyRequest, frozen=True, kw_only=True):
    """Asks for class keys. ``token`` is empty when none was sent."""

    commitment: _Commitment
    classes: Annotated[list[_Class], Meta(min_length=1, max_length=255)]
    token: str = ""


class Cache(_KeyRequest, frozen=True, kw_only=True):
    """Asks for the key of what clients with the token's role cache."""

    commitment: _Commitment
    token: str = ""


class Provision(_Request, frozen=True, kw_only=True):
    """Asks for a new DEK, wrapped under ``target``, else under the tenant's current KEK, made if missing."""

    version: _Version = 1
    kek: _Name | None = None
    kek_version: _Name | None = None
    region: _Region = DEFAULT_REGION

    @property
    def target(self) -> KekRef | None:
        return _kek(self.kek, self.kek_version)


class Derive(_Request, frozen=True, kw_only=True):
    """Asks for a salt, and so a DEK that derives from ``master``."""

    version: _Version
    master: _Version
    kek: _Name
    kek_version: _Name
    wrapped: _Wrapped
    region: _Region = DEFAULT_REGION

    @property
    def secret(self) -> WrappedKey:
        kek = KekRef(self.kek, self.kek_version)
        return WrappedKey(MASTER_TENANT, self.master, kek, self.wrapped, region=self.region)


class Rewrap(_KeyRequest, frozen=True, kw_only=True):
    """Asks for a DEK to be wrapped under ``target``, else under the tenant's current KEK."""

    commitment: _Commitment
    to_kek: _Name | None = None
    to_kek_version: _Name | None = None

    @property
    def target(self) -> KekRef | None:
        return _kek(self.to_kek, self.to_kek_version)


class Reseal(_Request, frozen=True, kw_only=True):
    """Asks for fields, ``length`` bytes behind the frame, to be sealed under version ``to``.

    ``classes``: numbers by name, of all classes that fields may be of. ``searches``: kind, normaliser and
    step of each search, by column id; with it, the tokens of the values are asked for, not the values.
    """

    to: _Version
    keys: list[_CommittedKey]
    classes: Annotated[dict[_Class, _Number], Meta(min_length=1, max_length=255)]
    length: Annotated[int, Meta(ge=0, le=MAX_FIELDS)]
    searches: dict[UUID, Annotated[list[tuple[_Kind, _Normaliser, _Step]], Meta(max_length=16)]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        versions = {key.version for key in self.keys}
        if len(versions) != len(self.keys) or self.to not in versions:
            raise ValueError("keys must hold each version once, and the one to seal under")
        if len(set(self.classes.values())) != len(self.classes):
            raise ValueError("each class has a number of its own")


class Kek(_Request, frozen=True, kw_only=True):
    """Asks for something to be done with a tenant's KEK.

    ``managed``: the KMSes that destroy_all leaves to the client, by the names of ``kms.json``.
    """

    action: Literal["create", "rotate", "disable", "leave", "destroy", "destroy_all", "versions"]
    kek: _Name | None = None
    kek_version: _Name | None = None
    managed: list[str] = []
    region: _Region = DEFAULT_REGION

    @property
    def target(self) -> KekRef | None:
        return _kek(self.kek, self.kek_version)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target is not None) != (self.action in _OF_VERSIONS):
            raise ValueError(f"{', '.join(_OF_VERSIONS)} name a KEK and its version, other actions do not")
        if self.managed and self.action != "destroy_all":
            raise ValueError("only destroy_all leaves out what is managed otherwise")


class Tombstone(_Request, frozen=True, kw_only=True):
    """Asks for a tenant's key of ``version`` to be refused for ever."""

    name: _Name
    version: _Version


class Shred(_Request, frozen=True, kw_only=True):
    """Asks for a tenant to be refused for ever."""

    name: _Name


class Certify(_Request, frozen=True, kw_only=True):
    """Asks for the keeper's signature on what is said of a shredded tenant."""

    statement: _Text


class Report(_Request, frozen=True, kw_only=True):
    """Asks for the keeper's signature on the report of an incident, which may be about several tenants."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Checkpoint(_Request, frozen=True, kw_only=True):
    """Asks for the signature of a checkpoint; without ``statement``, for the key and what was signed last.

    ``log`` tells the platform's logs of several databases apart. ``readmit``: the database was restored, the
    next checkpoint may be any.
    """

    statement: _Text | None = None
    log: _Name | None = None
    readmit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.log is not None) != (self.tenant == PLATFORM):
            raise ValueError("the platform's log is told apart by a name, a tenant's log has none")
        if self.readmit and self.statement is not None:
            raise ValueError("readmit stands alone")


class Grant(_Request, frozen=True, kw_only=True):
    """Asks for a step of break-glass, on ``token``: see module grants. ``reason``: its SHA-256."""

    action: Literal["request", "approve", "deny", "end", "allow", "forbid"]
    token: str
    id: UUID | None = None
    classes: Annotated[list[_Class], Meta(max_length=255)] = []
    minutes: Annotated[int, Meta(ge=1, le=LONGEST_MINUTES)] | None = None
    reason: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    emergency: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name for name in ("id", "classes", "minutes", "reason") if getattr(self, name)}
        if given != _OF_ACTIONS[self.action] or (self.emergency and self.action != "request"):
            raise ValueError("an action has its own members, and no others")


class Settled(_Members, frozen=True, kw_only=True):
    """What became of a lease: rows that were opened; of distinct ones, the digests of those."""

    lease: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    used: Annotated[int, Meta(ge=0, le=MOST_LEASED)]
    seen: Annotated[list[_Digest], Meta(max_length=MOST_LEASED)] = []


class Lease(_Request, frozen=True, kw_only=True):
    """Asks for rows of ``model`` that may be opened under a budget, on ``token``: see module counters."""

    model: UUID
    token: str
    row: _Digest | None = None
    settled: Settled | None = None


class Settle(_Request, frozen=True, kw_only=True):
    """Gives back what a lease left over."""

    settled: Settled


class Usage(_Request, frozen=True, kw_only=True):
    """Asks what a tenant's people have opened under budgets."""


class Logins(_Request, frozen=True, kw_only=True):
    """Asks for the logins of a subject to be ended, the token's or one named; for one to be let in again; for
    a list.
    """

    action: Literal["end", "lift", "list"]
    token: str | None = None
    issuer: _Text | None = None
    subject: _Text | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name for name in ("token", "issuer", "subject") if getattr(self, name) is not None}
        named = {"issuer", "subject"}
        if given not in {"end": ({"token"}, named), "lift": (named,), "list": (set(),)}[self.action]:
            raise ValueError("an action has its own members, and no others")


class Status(_Members, frozen=True, kw_only=True, tag_field="op", tag=str.lower):
    """Asks how the keeper does."""

    tenant = None


Request = (
    Release
    | Cache
    | Provision
    | Derive
    | Rewrap
    | Reseal
    | Kek
    | Tombstone
    | Shred
    | Certify
    | Report
    | Checkpoint
    | Grant
    | Lease
    | Settle
    | Usage
    | Logins
    | Status
)
_REQUESTS: dict[str, type[Request]] = {each.__name__.lower(): each for each in get_args(Request)}
_TOLD = ("Expected", "Object missing", "Invalid UUID", "Invalid base64")  # msgspec's: names and types only


def parse_request(body: bytes) -> Request:
    """Return the request that ``body`` carries. Raises Unsupported."""
    message: Any = None
    try:
        message = parse_json(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Unsupported("the keeper got a frame that is not one JSON object")
    op = message.get("op")
    request = _REQUESTS.get(op) if isinstance(op, str) else None
    if request is None:
        raise Unsupported(
            "the keeper does not know this operation", "database and keeper must be of one version"
        )
    wrong = "a member is null, or not what it must be"
    try:
        parsed = msgspec.convert(message, request)
        if None not in message.values() and str(parsed.tenant) == message.get("tenant", "None"):
            return parsed
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        text = str(error)
        if text.startswith(_TOLD) or type(error.__cause__) is ValueError:
            wrong = text
    raise Unsupported(f"the keeper got a request that it does not know: {wrong}")


def _kek(name: str | None, version: str | None) -> KekRef | None:
    return None if name is None or version is None else KekRef(name, version)
