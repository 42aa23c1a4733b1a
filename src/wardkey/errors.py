"""Exceptions of the client library and the command, one class per SQLSTATE of class WK.

WardError                  sqlstate, message, hint
├── ContextError           who is asking (raised by ward.login and by using a face without it)
│   └── NoContext · InvalidToken · TokenExpired · WrongTenant · TenantNotActive · RoleMayNotWrite ·
│       ContextStale · LoginsEnded
├── SealError              values and their keys
│   └── OpenFailed · KeeperUnavailable · KeeperBusy · KeyRefused · KeyUnknown · CommitmentMismatch ·
│       KeyDestroyed · KeysChanged · RegionRefused · ClassHidden · GrantRefused ·
│       BudgetExhausted
├── AdministrationError    what a DBA or operator asked for
│   └── InvalidSlug · DuplicateTenant · UnknownTenant · UnknownObject · NoPrimaryKey · TypeCannotBeSealed ·
│       SealedIndex · TableInUse · TableNotEmpty · Unsupported · WardNotEmpty · NotConfirmed · NotAllowed ·
│       RotationRunning · KeyInUse · RotationPaused · TenantShredded · OnHold · ChangeRefused ·
│       NotInTheLog · RestoreRefused · NoBaa · InvalidBaa · InvalidRegion ·
│       RuleNamesSealedColumn · RuleCallsFunction · InvalidRowRule · RuleForUnknownRole ·
│       ClaimDoesNotFit · InvalidMeasure · NoGroupFloor · PeriodNotClosed · AlreadyPublished ·
│       NotDelegated · WouldReveal · InvalidCounts · MaskDoesNotFit · InvalidPolicy ·
│       PolicyWidened · InvalidGrant · InvalidBudget · InvalidHoneyRow · InvalidSearch ·
│       SearchNotBuilt · EntryTooLong
├── NeedleRefused          what a search looks for: empty, too short, too long
├── VersionMismatch        extension and Python module differ
├── AuditUnavailable       nobody may log in where reads cannot be journalled
├── DatabaseError          any other error of the database, without values (command only)
├── ServerError            the server, and the way to it
│   └── NotRunning · Unreachable · MissingSoftware · PoolExhausted
├── StreamError            the scribe's replication slot and what comes out of it
│   └── SlotMissing · SlotInUse · SlotMoved · StreamLost · StreamDamaged
├── PublisherError         Kafka, and the publisher that brings the audit log there
└── CacheError             Redis, and the invalidator that tells it which tables were written

The classes of the database's own errors are those of ``wardkey_core.errors``, which alone names SQLSTATEs.
The client library raises other database errors (a unique violation, say) as psycopg does.
"""

from __future__ import annotations

from typing import Any

from wardkey_core.administration import (
    BY_SQLSTATE,
    AdministrationError,
    AlreadyPublished,
    ChangeRefused,
    ClaimDoesNotFit,
    DuplicateTenant,
    EntryTooLong,
    InvalidBaa,
    InvalidBudget,
    InvalidCounts,
    InvalidGrant,
    InvalidHoneyRow,
    InvalidIncident,
    InvalidMeasure,
    InvalidPolicy,
    InvalidRegion,
    InvalidRowRule,
    InvalidSearch,
    InvalidSlug,
    KeyInUse,
    MaskDoesNotFit,
    NoBaa,
    NoGroupFloor,
    NoPrimaryKey,
    NotAllowed,
    NotConfirmed,
    NotDelegated,
    NotInTheLog,
    OnHold,
    PeriodNotClosed,
    PolicyWidened,
    RestoreRefused,
    RotationPaused,
    RotationRunning,
    RuleCallsFunction,
    RuleForUnknownRole,
    RuleNamesSealedColumn,
    SealedIndex,
    SearchNotBuilt,
    TableInUse,
    TableNotEmpty,
    TenantShredded,
    TypeCannotBeSealed,
    UnknownObject,
    UnknownTenant,
    Unsupported,
    WardNotEmpty,
    WouldReveal,
)
from wardkey_core.errors import (
    AuditUnavailable,
    BudgetExhausted,
    ClassHidden,
    CommitmentMismatch,
    ContextError,
    ContextStale,
    GrantRefused,
    InvalidToken,
    KeeperBusy,
    KeeperUnavailable,
    KeyDestroyed,
    KeyRefused,
    KeysChanged,
    KeyUnknown,
    LoginsEnded,
    NeedleRefused,
    NoContext,
    OpenFailed,
    RegionRefused,
    RoleMayNotWrite,
    SealError,
    TenantNotActive,
    TokenExpired,
    VersionMismatch,
    WardError,
    WrongTenant,
)

__all__ = [
    "AdministrationError",
    "AlreadyPublished",
    "AuditUnavailable",
    "BudgetExhausted",
    "ChangeRefused",
    "ClaimDoesNotFit",
    "ClassHidden",
    "CommitmentMismatch",
    "ContextError",
    "ContextStale",
    "DatabaseError",
    "DuplicateTenant",
    "EntryTooLong",
    "GrantRefused",
    "InvalidBaa",
    "InvalidBudget",
    "InvalidCounts",
    "InvalidGrant",
    "InvalidHoneyRow",
    "InvalidIncident",
    "InvalidMeasure",
    "InvalidPolicy",
    "InvalidRegion",
    "InvalidRowRule",
    "InvalidSearch",
    "InvalidSlug",
    "InvalidToken",
    "KeeperBusy",
    "KeeperUnavailable",
    "KeyDestroyed",
    "KeyInUse",
    "KeyRefused",
    "KeyUnknown",
    "KeysChanged",
    "LoginsEnded",
    "MaskDoesNotFit",
    "MissingSoftware",
    "NeedleRefused",
    "NoBaa",
    "NoContext",
    "NoGroupFloor",
    "NoPrimaryKey",
    "NotAllowed",
    "NotConfirmed",
    "NotDelegated",
    "NotInTheLog",
    "NotRunning",
    "OnHold",
    "OpenFailed",
    "PeriodNotClosed",
    "PolicyWidened",
    "PoolExhausted",
    "PublisherError",
    "RegionRefused",
    "RestoreRefused",
    "RoleMayNotWrite",
    "RotationPaused",
    "RotationRunning",
    "RuleCallsFunction",
    "RuleForUnknownRole",
    "RuleNamesSealedColumn",
    "SealError",
    "SealedIndex",
    "SearchNotBuilt",
    "ServerError",
    "SlotInUse",
    "SlotMissing",
    "SlotMoved",
    "StreamDamaged",
    "StreamError",
    "StreamLost",
    "TableInUse",
    "TableNotEmpty",
    "TenantNotActive",
    "TenantShredded",
    "TokenExpired",
    "TypeCannotBeSealed",
    "UnknownObject",
    "UnknownTenant",
    "Unreachable",
    "Unsupported",
    "VersionMismatch",
    "WardError",
    "WardNotEmpty",
    "WouldReveal",
    "WrongTenant",
    "from_psycopg",
    "ward_error",
]


class DatabaseError(WardError):
    """An error of the database that is not wardkey's own."""

    def __init__(self, sqlstate: str | None, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.sqlstate = sqlstate or ""


class ServerError(WardError):
    """The server cannot be used as was asked, or not from here."""

    sqlstate = ""
    exit_code = 1


class NotRunning(ServerError):
    default_message = "the embedded server is not running"
    default_hint = "start it with: wardkey up"
    exit_code = 3


class Unreachable(ServerError):
    default_message = "the server cannot be reached"
    default_hint = "check host, port and password of the DSN"
    exit_code = 3


class MissingSoftware(ServerError):
    default_message = "something the server needs is not installed"


class PoolExhausted(ServerError):
    default_message = "no connection became free in time"
    default_hint = (
        "give transactions back sooner, or raise max_per_tenant, max_size or timeout of wardkey.Wards"
    )


class StreamError(WardError):
    """The audit stream cannot be read."""

    sqlstate = ""


class SlotMissing(StreamError):
    default_message = "the replication slot does not exist"


class SlotInUse(StreamError):
    """Another process reads the slot; ``pid`` is its walsender's, None if that ended meanwhile."""

    default_hint = "a slot has one reader: end the other one, or wait until the server sees that it is gone"

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class SlotMoved(StreamError):
    """The slot does not go on where its reader left off: something between is lost, or it is another's."""


class StreamLost(StreamError):
    default_message = "the connection to the audit stream is lost"
    default_hint = "connect again; the stream goes on after the last confirmed position"


class StreamDamaged(StreamError):
    default_message = "the audit stream is not what pgoutput version 1 sends"


class PublisherError(WardError):
    """Kafka cannot be reached, or does not do what was asked."""

    sqlstate = ""


class CacheError(WardError):
    """Redis cannot be used as it is, or what is to be cached cannot be."""

    sqlstate = ""


def ward_error(error: Any) -> WardError | None:
    """Return the wardkey exception for a psycopg error of class WK, None for any other error."""
    diagnostics = getattr(error, "diag", None)
    cls = BY_SQLSTATE.get(getattr(error, "sqlstate", None) or "")
    if cls is None or diagnostics is None:
        return None
    return cls(diagnostics.message_primary, diagnostics.message_hint or "")


def from_psycopg(error: Any) -> WardError:
    """Return a wardkey exception for any psycopg error: message and hint, never detail or statement."""
    if (own := ward_error(error)) is not None:
        return own
    diagnostics, sqlstate = getattr(error, "diag", None), getattr(error, "sqlstate", None)
    if diagnostics is not None and diagnostics.message_primary:
        return DatabaseError(sqlstate, diagnostics.message_primary, diagnostics.message_hint)
    if type(error).__name__ in ("OperationalError", "ConnectionTimeout"):
        return Unreachable("; ".join(line.strip() for line in str(error).splitlines() if line.strip()))
    if type(error).__name__ == "ProgrammingError" and sqlstate is None:
        return Unreachable(
            "the DSN is not valid", "host=… port=… dbname=… user=…, or postgresql://user@host/dbname"
        )
    return DatabaseError(sqlstate, f"the database client reported {type(error).__name__}")
