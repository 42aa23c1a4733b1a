"""What kind of table a Django model has. Marks a migration keeps: bases of a model are part of its state."""

from __future__ import annotations

from typing import Any

__all__ = ["Shared", "Ward", "is_shared", "is_ward"]


class Ward:
    """Base of a model whose table is protected: each tenant has rows of its own."""


class Shared:
    """Base of a model whose table all tenants read and none writes: codes, calendars, price lists."""


def is_ward(model: Any) -> bool:
    """Whether the table of ``model``, or of what made it for a many-to-many field, is protected."""
    return issubclass(model._meta.auto_created or model, Ward)


def is_shared(model: Any) -> bool:
    return issubclass(model, Shared)
