"""SQLAlchemy 2: what models say of their tables."""

from __future__ import annotations

from .annotations import Plain, Protected, RowRule, Sealed, Shared

__all__ = ["Plain", "Protected", "RowRule", "Sealed", "Shared"]
