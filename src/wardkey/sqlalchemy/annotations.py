"""What a model says of its table's place in wards: the type ``Sealed``, and ``info`` of the table.

::

    class Patient(Base):
        __tablename__ = "patients"
        __table_args__ = {"schema": "clinic", "info": {"wardkey": Protected(audit="statement")}}
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        ssn: Mapped[str | None] = mapped_column(Sealed(String(11), classified="identifier", mask="last4"))

A table with a sealed column is protected without being told so. ``wardkey.alembic`` compares these with the
database; in a ward they change nothing but that the table is its face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine, to_instance

from ..errors import Unsupported
from .searching import searching

__all__ = ["Plain", "Protected", "RowRule", "Sealed", "Shared", "ward_of"]


class Sealed(TypeDecorator[Any]):
    """A sealed column that holds values of ``type_``.

    ``classified``: its class, one of ``ward.classes``. ``mask``: how roles see it that see the class masked;
    None: as the class says. ``search``: the kinds by which it is searched, none if empty; None: not said.
    ``normaliser``: what of a text counts for them, as in docs/search.md. ``==``, ``in_``,
    ``startswith``, ``contains``, ``between`` and their like are then looked up as ``find`` does; until the
    search is built they are refused.
    """

    impl = Text
    cache_ok = True

    def __init__(
        self,
        type_: TypeEngine[Any] | type[TypeEngine[Any]] = Text,
        *,
        classified: str = "clinical",
        mask: str | None = None,
        search: Sequence[str] | None = None,
        normaliser: str | None = None,
    ) -> None:
        super().__init__()
        self.type_: TypeEngine[Any] = to_instance(type_)
        self.impl = self.type_  # type: ignore[assignment]  # as TypeDecorator does itself
        self.classified = classified
        self.mask = mask
        self.search = (search,) if isinstance(search, str) else None if search is None else tuple(search)
        self.normaliser = normaliser

    @property
    def comparator_factory(self) -> Any:  # type: ignore[override]  # as TypeDecorator itself
        inner: Any = self.type_.comparator_factory
        return searching(inner) if self.search else super().comparator_factory

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Compare as the type inside does: a date with an interval, say."""
        return self.type_.coerce_compared_value(op, value)

    def __repr__(self) -> str:
        return f"Sealed({self.type_!r}, classified={self.classified!r}, mask={self.mask!r})"


@compiles(Sealed, "postgresql")
def _compile(type_: Sealed, compiler: Any, *, type_expression: Any = None, **options: Any) -> str:
    if isinstance(type_expression, Column):  # of CREATE TABLE or ADD COLUMN, not of CAST
        raise Unsupported(
            "a column of a table that is not protected would not be sealed",
            "make the table with the plain type, then op.protect_table, or use op.add_sealed_column: "
            "alembic revision --autogenerate writes both",
        )
    text: str = compiler.process(type_.type_, **options)
    return text


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule which rows these roles see and write, as ``ward.add_row_rule`` takes it."""

    name: str
    roles: tuple[str, ...]
    expression: str


@dataclass(frozen=True, slots=True)
class Protected:
    """A model table: each tenant has rows of its own. ``audit`` as in ``ward.set_audit``."""

    audit: str = "row"
    audit_reason: str | None = None
    rules: tuple[RowRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Shared:
    """A table that every tenant reads: codes, calendars."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A table that no tenant sees. To be said only where a model table or a shared one becomes such again."""


def ward_of(table: Table) -> Protected | Shared | Plain | None:
    """Return what the model says of its table, None for nothing. Raises TypeError."""
    said = table.info.get("wardkey")
    sealed = any(isinstance(column.type, Sealed) for column in table.columns)
    if said is not None and not isinstance(said, Protected | Shared | Plain):
        raise TypeError(f"info['wardkey'] of {table.fullname} is not Protected, Shared or Plain")
    if sealed and isinstance(said, Shared | Plain):
        raise TypeError(f"{table.fullname} has sealed columns and is said to be {type(said).__name__}")
    return Protected() if sealed and said is None else said
