"""Operations of Alembic that are calls of functions of schema ward.

Fields without a default are positional arguments of ``op.…``, the others are named. Those that begin with
``existing`` serve the way back; revisions do not have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type, renderers
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine, to_instance

from ..errors import Unsupported

__all__ = [
    "AddModelColumn",
    "AddRowRule",
    "AddSealedColumn",
    "AddSearch",
    "AddUnique",
    "ChangeModelType",
    "ClassifyColumn",
    "DropModelColumn",
    "DropRowRule",
    "DropSearch",
    "DropUnique",
    "ProtectTable",
    "SetAudit",
    "SetMask",
    "ShareTable",
    "UnprotectTable",
    "UnshareTable",
    "WardOperation",
]

ANOTHER_COLUMN = "add another column, and copy through each face"
FACES_HAVE_IT = "there are tenants, whose faces have it"

Call = tuple[str, *tuple[Any, ...]]  # a function of schema ward, and its arguments after the table


@dataclass(frozen=True, kw_only=True)
class WardOperation(MigrateOperation):
    """An operation on one table."""

    operation: ClassVar[str]
    table_name: str = field(kw_only=False)
    schema: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        raise NotImplementedError

    def statements(self, table: str, dialect: sa.Dialect) -> Iterator[sa.Executable]:
        for function, *arguments in self.calls(dialect):
            relation = sa.cast(sa.literal(table, sa.Text), postgresql.REGCLASS)
            yield sa.select(getattr(sa.func.ward, function)(relation, *arguments))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """As ``alembic check`` prints it."""
        return (self.operation, *(getattr(self, shown.name) for shown in _shown(self)))

    @classmethod
    def run(cls, operations: Operations, *args: Any, **named: Any) -> None:
        operations.invoke(cls(*args, **named))


def _shown(operation: WardOperation) -> list[Any]:
    shown = [one for one in fields(operation) if not one.name.startswith("existing")]
    return sorted(shown, key=lambda one: one.kw_only)


@Operations.implementation_for(WardOperation)
def _run(operations: Operations, operation: WardOperation) -> None:
    dialect = operations.get_context().dialect
    names = (name for name in (operation.schema, operation.table_name) if name)
    table = ".".join(map(dialect.identifier_preparer.quote, names))
    for statement in operation.statements(table, dialect):
        operations.execute(statement)


@renderers.dispatch_for(WardOperation)
def _render(context: AutogenContext, operation: WardOperation) -> str:
    parts = []
    for shown in _shown(operation):
        value = getattr(operation, shown.name)
        if shown.default is not MISSING and value == shown.default:
            continue
        text = _repr_type(value, context) if isinstance(value, TypeEngine) else repr(value)
        parts.append(f"{shown.name}={text}" if shown.kw_only else text)
    return f"op.{operation.operation}({', '.join(parts)})"


def _register(operation: type[WardOperation]) -> type[WardOperation]:
    return Operations.register_operation(operation.operation, "run")(operation)


def _known(existing: MigrateOperation | None) -> MigrateOperation:
    if existing is None:
        raise ValueError("what was there before is not known")
    return existing


def _text(value: str | None) -> Any:
    return sa.null() if value is None else sa.literal(value, sa.Text)


@_register
@dataclass(frozen=True, kw_only=True)
class ProtectTable(WardOperation):
    """``op.protect_table``: an empty table becomes a model table, with the columns of ``seal`` sealed.

    ``seal``: columns and their classes, or columns, which are then of class clinical; ``masks``: those of
    columns that have one of their own.
    """

    operation = "protect_table"
    seal: Mapping[str, str] | Sequence[str] = field(default=(), kw_only=False)
    masks: Mapping[str, str] | None = None
    audit: str = "row"
    audit_reason: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        seal = self.seal if isinstance(self.seal, Mapping) else dict.fromkeys(self.seal, "clinical")
        text = sa.cast(_text(json.dumps(dict(seal))), postgresql.JSONB)
        yield "protect", text, _text(self.audit), _text(self.audit_reason)
        for column, mask in (self.masks or {}).items():
            yield "set_mask", _text(column), _text(mask)

    def reverse(self) -> UnprotectTable:
        return UnprotectTable(self.table_name, schema=self.schema, existing=self)


@_register
@dataclass(frozen=True, kw_only=True)
class UnprotectTable(WardOperation):
    """``op.unprotect_table``: a model table without rows becomes an ordinary one again."""

    operation = "unprotect_table"
    existing: ProtectTable | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield ("unprotect",)

    def reverse(self) -> ProtectTable:
        return self.existing or ProtectTable(self.table_name, schema=self.schema)


@_register
@dataclass(frozen=True, kw_only=True)
class ShareTable(WardOperation):
    """``op.share_table``: every tenant reads the table."""

    operation = "share_table"

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield ("share",)

    def reverse(self) -> UnshareTable:
        return UnshareTable(self.table_name, schema=self.schema)


@_register
@dataclass(frozen=True, kw_only=True)
class UnshareTable(WardOperation):
    """``op.unshare_table``: no tenant sees the table any more."""

    operation = "unshare_table"

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield ("unshare",)

    def reverse(self) -> ShareTable:
        return ShareTable(self.table_name, schema=self.schema)


@_register
@dataclass(frozen=True, kw_only=True)
class AddSealedColumn(WardOperation):
    """``op.add_sealed_column``: a sealed column, NULL in the rows there are.

    ``server_default``: an SQL expression for new rows.
    """

    operation = "add_sealed_column"
    column_name: str = field(kw_only=False)
    type_: TypeEngine[Any] | type[TypeEngine[Any]] = field(kw_only=False)
    classified: str = "clinical"
    mask: str | None = None
    server_default: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        made = to_instance(self.type_).compile(dialect)
        parts = (self.column_name, made, self.server_default, self.classified)
        yield "add_sealed_column", *map(_text, parts)
        if self.mask is not None:
            yield "set_mask", _text(self.column_name), _text(self.mask)

    def reverse(self) -> DropModelColumn:
        return DropModelColumn(self.table_name, self.column_name, schema=self.schema, existing=self)


class AddModelColumn(ops.AddColumnOp):
    """``op.add_column`` of a model table."""

    def reverse(self) -> DropModelColumn:  # type: ignore[override]  # the way back is no DropColumnOp
        return DropModelColumn(self.table_name, self.column.name, schema=self.schema, existing=self)


@_register
@dataclass(frozen=True, kw_only=True)
class DropModelColumn(WardOperation):
    """``op.drop_model_column``: a column of a model table goes, CASCADE: faces are remade without it."""

    operation = "drop_model_column"
    column_name: str = field(kw_only=False)
    existing: AddModelColumn | AddSealedColumn | None = None

    def statements(self, table: str, dialect: sa.Dialect) -> Iterator[sa.Executable]:
        column = dialect.identifier_preparer.quote(self.column_name)
        yield sa.text(f"alter table {table} drop column {column} cascade")

    def reverse(self) -> MigrateOperation:
        return _known(self.existing)


@_register
@dataclass(frozen=True, kw_only=True)
class ChangeModelType(WardOperation):
    """``op.change_model_type``: a column that is not sealed gets another type, while there are no tenants.

    Raises Unsupported where there are: their faces have the column's type.
    """

    operation = "change_model_type"
    column_name: str = field(kw_only=False)
    type_: TypeEngine[Any] | type[TypeEngine[Any]] = field(kw_only=False)
    existing: TypeEngine[Any] | type[TypeEngine[Any]] | None = None

    def statements(self, table: str, dialect: sa.Dialect) -> Iterator[sa.Executable]:
        column = dialect.identifier_preparer.quote(self.column_name)
        made = to_instance(self.type_).compile(dialect)
        yield sa.text(f"alter table {table} alter column {column} type {made}")

    def reverse(self) -> ChangeModelType:
        if self.existing is None:
            raise ValueError("what was there before is not known")
        return ChangeModelType(
            self.table_name, self.column_name, self.existing, schema=self.schema, existing=self.type_
        )


@Operations.implementation_for(ChangeModelType)
def _change_type(operations: Operations, operation: ChangeModelType) -> None:
    try:
        _run(operations, operation)
    except sa.exc.NotSupportedError:
        name = ".".join(filter(None, (operation.schema, operation.table_name, operation.column_name)))
        failure = Unsupported(f"{name} keeps its type: {FACES_HAVE_IT}", ANOTHER_COLUMN)
    else:
        return
    raise failure


@_register
@dataclass(frozen=True, kw_only=True)
class ClassifyColumn(WardOperation):
    """``op.classify_column``: the sealed column is of another class."""

    operation = "classify_column"
    column_name: str = field(kw_only=False)
    classified: str = field(kw_only=False)
    existing: str = "clinical"

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "classify", _text(self.column_name), _text(self.classified)

    def reverse(self) -> ClassifyColumn:
        return ClassifyColumn(
            self.table_name, self.column_name, self.existing,
            schema=self.schema, existing=self.classified,
        )  # fmt: skip


@_register
@dataclass(frozen=True, kw_only=True)
class SetMask(WardOperation):
    """``op.set_mask``: how roles see the column that see its class masked; None: as the class says."""

    operation = "set_mask"
    column_name: str = field(kw_only=False)
    mask: str | None = field(kw_only=False)
    existing: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "set_mask", _text(self.column_name), _text(self.mask)

    def reverse(self) -> SetMask:
        return SetMask(
            self.table_name, self.column_name, self.existing,
            schema=self.schema, existing=self.mask,
        )  # fmt: skip


@_register
@dataclass(frozen=True, kw_only=True)
class AddSearch(WardOperation):
    """``op.add_search``: the sealed column is searched by these kinds, once rows that are there are resealed.

    ``normaliser``: what of a text counts; ``step``: the unit of a range of numbers; ``accept_leakage``: why
    tokens may tell the values of a type that has few.
    """

    operation = "add_search"
    column_name: str = field(kw_only=False)
    kinds: Sequence[str] = field(kw_only=False)
    normaliser: str | None = None
    step: float | None = None
    accept_leakage: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        kinds = postgresql.array([_text(kind) for kind in self.kinds])
        step = sa.cast(sa.null() if self.step is None else sa.literal(str(self.step)), sa.Numeric)
        accepted = _text(self.accept_leakage)
        yield "add_search", _text(self.column_name), kinds, _text(self.normaliser), step, accepted

    def reverse(self) -> DropSearch:
        return DropSearch(self.table_name, self.column_name, self.kinds, schema=self.schema, existing=self)


@_register
@dataclass(frozen=True, kw_only=True)
class DropSearch(WardOperation):
    """``op.drop_search``: the column is not searched by these kinds any more; their tokens go."""

    operation = "drop_search"
    column_name: str = field(kw_only=False)
    kinds: Sequence[str] = field(kw_only=False)
    existing: AddSearch | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "drop_search", _text(self.column_name), postgresql.array([_text(kind) for kind in self.kinds])

    def reverse(self) -> MigrateOperation:
        return _known(self.existing)


@_register
@dataclass(frozen=True, kw_only=True)
class AddUnique(WardOperation):
    """``op.add_unique``: columns, some of them sealed, are unique together, once rows there are resealed.

    ``normaliser``: what of a text counts; ``accept_leakage``: why tokens may tell the values of a type that
    has few.
    """

    operation = "add_unique"
    columns: Sequence[str] = field(kw_only=False)
    name: str | None = field(kw_only=False, default=None)
    normaliser: str | None = None
    accept_leakage: str | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        columns = postgresql.array([_text(name) for name in self.columns])
        yield "add_unique", columns, _text(self.name), _text(self.normaliser), _text(self.accept_leakage)

    def reverse(self) -> MigrateOperation:
        if self.name is None:
            return _known(None)
        return DropUnique(self.table_name, self.name, schema=self.schema, existing=self)


@_register
@dataclass(frozen=True, kw_only=True)
class DropUnique(WardOperation):
    """``op.drop_unique``: sealed columns are not unique any more; their tokens go."""

    operation = "drop_unique"
    name: str = field(kw_only=False)
    existing: AddUnique | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "drop_unique", _text(self.name)

    def reverse(self) -> MigrateOperation:
        return _known(self.existing)


@_register
@dataclass(frozen=True, kw_only=True)
class SetAudit(WardOperation):
    """``op.set_audit``: how reading the table is journalled."""

    operation = "set_audit"
    level: str = field(kw_only=False)
    reason: str | None = None
    existing: tuple[str, str | None] = ("row", None)

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "set_audit", _text(self.level), _text(self.reason)

    def reverse(self) -> SetAudit:
        level, reason = self.existing
        now = (self.level, self.reason)
        return SetAudit(self.table_name, level, reason=reason, schema=self.schema, existing=now)


@_register
@dataclass(frozen=True, kw_only=True)
class AddRowRule(WardOperation):
    """``op.add_row_rule``: which rows these roles see and write."""

    operation = "add_row_rule"
    roles: Sequence[str] = field(kw_only=False)
    expression: str = field(kw_only=False)
    name: str = field(kw_only=False)

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        roles = postgresql.array([_text(role) for role in self.roles])
        yield "add_row_rule", roles, _text(self.expression), _text(self.name)

    def reverse(self) -> DropRowRule:
        return DropRowRule(self.table_name, self.name, schema=self.schema, existing=self)


@_register
@dataclass(frozen=True, kw_only=True)
class DropRowRule(WardOperation):
    """``op.drop_row_rule``: the rule of this name goes."""

    operation = "drop_row_rule"
    name: str = field(kw_only=False)
    existing: AddRowRule | None = None

    def calls(self, dialect: sa.Dialect) -> Iterator[Call]:
        yield "drop_row_rule", _text(self.name)

    def reverse(self) -> MigrateOperation:
        return _known(self.existing)
