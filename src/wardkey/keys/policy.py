"""What is due, and why. Pure: what the registry says of a tenant in, a list of things to do out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from wardkey_core.wire import DEFAULT_REGION

__all__ = ["Due", "Key", "Policy", "TenantKeys", "destroyable", "due", "kek_in_use_since"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Rows of ``ward_internal.settings``.

    ``cryptoperiod``: a data key seals no longer than that (NIST SP 800-57: a year or two at most).
    ``most_fields``: nor more than these, half of what AES-GCM's random nonces allow under one key.
    ``kek_cryptoperiod``: the same for KEKs. ``grace``: a retired key can be readmitted for that long.
    """

    cryptoperiod: timedelta = timedelta(days=365)
    kek_cryptoperiod: timedelta = timedelta(days=365)
    most_fields: int = 2**31
    grace: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Key:
    """A row of ``ward_internal.tenant_keys``, without the wrapped key."""

    version: int
    state: str
    kek: str
    kek_version: str
    created_at: datetime
    wrapped_at: datetime
    reason: str = ""
    replaced_at: datetime | None = None
    retired_at: datetime | None = None
    destroyed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """A tenant's keys; those of the master secret have no slug.

    ``fields``: about how many are sealed. ``request``: the reason of the tenant's open request, if any.
    ``held``: its audit log is under legal hold, and has values that only its keys open. ``begun``: a
    rotation, or the move of a column to another class, is not finished.
    """

    id: UUID
    slug: str | None
    keys: Sequence[Key]
    mode: str = "envelope"
    status: str = "active"
    fields: int = 0
    request: str | None = None
    paused: bool = False
    held: bool = False
    begun: bool = False
    region: str = DEFAULT_REGION

    @property
    def active(self) -> Key | None:
        return next((key for key in self.keys if key.state == "active"), None)

    @property
    def is_rotating(self) -> bool:
        """Whether rows may be under a former version, which is then not retired yet, or class."""
        return self.slug is not None and (self.begun or any(key.state == "decrypt-only" for key in self.keys))


@dataclass(frozen=True, slots=True)
class Due:
    """One thing to do. ``action``: rewrap, rotate, reseal or destroy."""

    action: str
    reason: str
    version: int | None = None


def due(tenant: TenantKeys, policy: Policy, now: datetime) -> list[Due]:
    """Return what is due, in the order in which to do it: a new data key is then under a new KEK at once."""
    pending: list[Due] = []
    active = tenant.active
    if active and tenant.mode != "derived" and now - kek_in_use_since(tenant.keys) >= policy.kek_cryptoperiod:
        pending.append(Due("rewrap", f"the KEK is older than {policy.kek_cryptoperiod.days} days"))
    if tenant.is_rotating:
        if not tenant.paused:
            pending.append(Due("reseal", "a rotation is not finished"))
    elif active and (reason := _why_rotate(tenant, active, policy, now)):
        pending.append(Due("rotate", reason, active.version))
    pending += [
        Due("destroy", f"retired for {policy.grace.days} days", key.version)
        for key in destroyable(tenant.keys, policy, now)
        if not tenant.held
    ]
    return pending


def destroyable(keys: Sequence[Key], policy: Policy, now: datetime) -> list[Key]:
    """Return the retired versions whose grace is over."""
    return [
        key
        for key in keys
        if key.state == "retired" and key.retired_at is not None and now - key.retired_at >= policy.grace
    ]


def kek_in_use_since(keys: Sequence[Key]) -> datetime:
    """Return when the KEK version of the active key was first used for this tenant.

    That is not when the active key was wrapped: a data key may be made under a KEK that is old already.
    """
    active = next(key for key in keys if key.state == "active")
    current = (active.kek, active.kek_version)
    return min(key.wrapped_at for key in keys if (key.kek, key.kek_version) == current)


def _why_rotate(tenant: TenantKeys, active: Key, policy: Policy, now: datetime) -> str | None:
    if tenant.request is not None:
        return f"requested: {tenant.request}"
    if now - active.created_at >= policy.cryptoperiod:
        return f"the key is older than {policy.cryptoperiod.days} days"
    if tenant.fields >= policy.most_fields:
        return f"the key has sealed {policy.most_fields} fields"
    return None
