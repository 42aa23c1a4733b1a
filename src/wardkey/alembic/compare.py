"""Autogenerate: what models say of wards against the database, and Alembic's own operations made fit for it.

The order of what is written: tables that are not protected yet, as plain ones; then they are protected, what
references after what is referenced; then changes of model tables; then what is dropped. The way back is the
reverse. A foreign key of or to a model table is written for its shape (schema ward_model), from where it
comes into each ward, and a unique key or index of one begins with tenant_id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any, Final, cast

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.util import CommandError, PriorityDispatchResult

from ..sqlalchemy.annotations import Plain, Protected, Sealed, Shared, ward_of
from .operations import (
    ANOTHER_COLUMN,
    FACES_HAVE_IT,
    AddModelColumn,
    AddRowRule,
    AddSealedColumn,
    AddSearch,
    AddUnique,
    ChangeModelType,
    ClassifyColumn,
    ProtectTable,
    SetAudit,
    SetMask,
    ShareTable,
    UnshareTable,
)
from .reflection import SHAPES, Key, Model, Shapes, Wards, normal_expression

__all__ = ["begin", "finish"]

_UNSAID: Final = (
    "is a model table: say which of its columns are Sealed(…), or Protected() in its info, or Plain() if it "
    "is to be an ordinary table again"
)
_NOT_SEALED: Final = f"is Sealed(…), and is in the database unsealed: {ANOTHER_COLUMN}"
_OTHER_TYPE: Final = (
    f"is of another type, and nobody can look whether its sealed values fit: {ANOTHER_COLUMN}"
)
_TYPE_OF_FACES: Final = f"is of another type, and {FACES_HAVE_IT}: {ANOTHER_COLUMN}"


def begin(
    context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Let Alembic see model tables as they were declared, and nothing of wardkey's own or of wards."""
    wards = Wards.of(cast("sa.Connection", context.connection))
    schemas.difference_update(wards.schemas)
    context.inspector = Shapes(context.inspector, wards)
    return PriorityDispatchResult.CONTINUE


def finish(
    context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Write what is left to write. Raises CommandError where a model contradicts the database."""
    upgrade.ops[:] = _Comparison(context, schemas).order(upgrade.ops)
    return PriorityDispatchResult.CONTINUE


class _Comparison:
    def __init__(self, context: AutogenContext, schemas: set[str | None]) -> None:
        self.connection = cast("sa.Connection", context.connection)
        self.wards: Wards = context.inspector.wards  # type: ignore[attr-defined]
        self.faults: list[str] = []
        self.tables: dict[Key, sa.Table] = {}  # those in sight, what is referenced first
        default = self.connection.dialect.default_schema_name
        for table in context.sorted_tables:
            schema = None if table.schema == default else table.schema
            if schema in schemas and context.run_object_filters(table, table.name, "table", False, None):
                self.tables[schema, table.name] = table

    def order(self, operations: Iterable[MigrateOperation]) -> list[MigrateOperation]:
        plain: list[MigrateOperation] = []
        changed: list[MigrateOperation] = []
        dropped: dict[Key, ops.DropTableOp] = {}
        for one in operations:
            if isinstance(one, ops.DropTableOp):
                dropped[_key(one)] = one
            elif isinstance(one, ops.ModifyTableOps) and _key(one) in self.wards.models:
                one.ops = [part for change in one.ops for part in self._of_model(change)]
                changed.append(one)
            else:
                if isinstance(one, ops.CreateTableOp):
                    one.columns = [self._plain(part) for part in one.columns]
                    one.info.pop("wardkey", None)
                for part in getattr(one, "ops", ()):
                    self._reference_shape(part, self.wards.models)
                plain.append(one)
        added = {(_key(one), one.column_name) for one in _parts(changed) if isinstance(one, AddSealedColumn)}
        protected: list[MigrateOperation] = []
        for key, table in self.tables.items():
            said = ward_of(table)
            if key in self.wards.models:
                changed += self._compare(key, table, said, self.wards.models[key], added)
            elif isinstance(said, Protected):
                protected += self._protect(key, table, said)
            elif isinstance(said, Shared) and key not in self.wards.shares:
                protected.append(ShareTable(key[1], schema=key[0]))
            elif isinstance(said, Plain) and key in self.wards.shares:
                changed.append(UnshareTable(key[1], schema=key[0]))
            elif said is None and key in self.wards.shares:
                self._fault(
                    key, "is shared: say Shared() in its info, or Plain() if no tenant is to see it any more"
                )
        if self.faults:
            raise CommandError("the models contradict the database:\n" + "\n".join(self.faults))
        changed = [one for one in changed if not (isinstance(one, ops.ModifyTableOps) and one.is_empty())]
        return [*plain, *protected, *changed, *self._drop(dropped)]

    def _fault(self, key: Key, text: str, column: str | None = None) -> None:
        self.faults.append(".".join(filter(None, (*key, column))) + " " + text)

    def _protect(self, key: Key, table: sa.Table, said: Protected) -> Iterator[MigrateOperation]:
        schema, name = key
        sealed = {one.name: one.type for one in table.columns if isinstance(one.type, Sealed)}
        yield ProtectTable(
            name,
            {column: type_.classified for column, type_ in sealed.items()},
            masks={column: type_.mask for column, type_ in sealed.items() if type_.mask} or None,
            audit=said.audit,
            audit_reason=said.audit_reason,
            schema=schema,
        )
        for column, type_ in sealed.items():
            yield from self._compare_searches(key, column, type_, None)
        for rule in said.rules:
            yield _add_rule(key, rule.name, rule.roles, rule.expression)

    def _compare_searches(
        self, key: Key, column: str, wanted: Sealed, model: Model | None
    ) -> Iterator[MigrateOperation]:
        """Yield what brings the searches of a column to what its type says, if it says something."""
        if wanted.search is None:
            return
        searches = model.searches if model else {}
        present = {kind: facts for (name, kind), facts in searches.items() if name == column}
        kept = {
            kind
            for kind, (normaliser, _) in present.items()
            if kind in wanted.search and wanted.normaliser in (None, normaliser)
        }
        for kind in sorted(present.keys() - kept):
            yield _add_search(key, column, [kind], *present[kind]).reverse()
        if added := [kind for kind in wanted.search if kind not in kept]:
            yield _add_search(key, column, added, wanted.normaliser)

    def _compare(
        self, key: Key, table: sa.Table, said: Any, model: Model, added: set[tuple[Key, str]]
    ) -> Iterator[MigrateOperation]:
        """Yield what brings a model table to what its model says."""
        schema, name = key
        if isinstance(said, Plain):
            yield from self._unprotect(key, model)
            return
        if not isinstance(said, Protected):
            self._fault(key, _UNSAID)
            return
        for column in table.columns:
            wanted, present = column.type, model.sealed.get(column.name)
            if not isinstance(wanted, Sealed):
                if present is not None:
                    self._fault(key, f"is sealed: say Sealed(…, classified={present!r})", column.name)
            elif present is None:
                if (key, column.name) not in added:
                    self._fault(key, _NOT_SEALED, column.name)
            else:
                mask = model.masks.get(column.name)
                if wanted.classified != present:
                    yield ClassifyColumn(
                        name, column.name, wanted.classified, schema=schema, existing=present
                    )
                if wanted.mask != mask:
                    yield SetMask(name, column.name, wanted.mask, schema=schema, existing=mask)
                yield from self._compare_searches(key, column.name, wanted, model)
        existing = (model.audit, model.audit_reason)
        if (said.audit, said.audit_reason) != existing:
            yield SetAudit(name, said.audit, reason=said.audit_reason, schema=schema, existing=existing)
        yield from self._compare_rules(key, model, said)

    def _compare_rules(self, key: Key, model: Model, said: Protected) -> Iterator[MigrateOperation]:
        wanted = {
            rule.name: (frozenset(rule.roles), normal_expression(self.connection, model, rule.expression))
            for rule in said.rules
        }
        present = {name: (frozenset(roles), text) for name, (roles, text) in model.rules.items()}
        for name in sorted(present):
            if present[name] != wanted.get(name):
                yield _add_rule(key, name, *model.rules[name]).reverse()
        for rule in said.rules:
            if wanted[rule.name] != present.get(rule.name):
                yield _add_rule(key, rule.name, rule.roles, rule.expression)

    def _unprotect(self, key: Key, model: Model) -> Iterator[MigrateOperation]:
        schema, name = key
        for rule, (roles, expression) in sorted(model.rules.items()):
            yield _add_rule(key, rule, roles, expression).reverse()
        for (column, kind), facts in sorted(model.searches.items()):
            yield _add_search(key, column, [kind], *facts).reverse()
        for unique, (columns, normaliser) in sorted(model.uniques.items()):
            yield _add_unique(key, unique, columns, normaliser).reverse()
        yield ProtectTable(
            name,
            dict(model.sealed),
            masks=dict(model.masks) or None,
            audit=model.audit,
            audit_reason=model.audit_reason,
            schema=schema,
        ).reverse()

    def _drop(self, dropped: dict[Key, ops.DropTableOp]) -> Iterator[MigrateOperation]:
        """Yield what drops tables, those that reference others first; no table is protected by then."""
        needs: dict[Key, set[Key]] = {}
        for key, operation in dropped.items():
            made = cast(ops.CreateTableOp, operation._reverse)
            keys = [part for part in made.columns if isinstance(part, sa.ForeignKeyConstraint)]
            needs[key] = {_target(part) for part in keys} & dropped.keys() - {key}
            kept = {other: model for other, model in self.wards.models.items() if other not in dropped}
            unique = self.wards.models[key].uniques if key in self.wards.models else {}
            made.columns = [  # op.add_unique makes what is unique over sealed columns
                _for_shape(part, kept)
                for part in made.columns
                if not (isinstance(part, sa.UniqueConstraint) and part.name in unique)
            ]
        order = [*TopologicalSorter(needs).static_order()][::-1]
        for key in order:
            if key in self.wards.models:
                yield from self._unprotect(key, self.wards.models[key])
            elif key in self.wards.shares:
                yield UnshareTable(key[1], schema=key[0])
        yield from (dropped[key] for key in order)

    def _plain(self, part: Any) -> Any:
        """Return a part of CREATE TABLE without annotation, and for the shapes of what it references."""
        if isinstance(part, sa.Column) and isinstance(part.type, Sealed):
            part = part._copy()
            part.type = part.type.type_
        return _for_shape(part, self.wards.models)

    def _of_model(self, one: MigrateOperation) -> Iterator[MigrateOperation]:
        """Yield what a change of a model table takes; one of Alembic's own operations, or several."""
        key = _key(one)
        model = self.wards.models[key]
        match one:
            case ops.AddColumnOp() if isinstance(one.column.type, Sealed):
                yield from _add_sealed(key, one.column, self.connection.dialect)
            case ops.AddColumnOp():
                yield AddModelColumn(one.table_name, one.column, schema=one.schema)
            case ops.DropColumnOp():
                column, name = one.to_column(), one.column_name
                if (sealed := model.sealed.get(name)) is not None:
                    column.type = Sealed(column.type, classified=sealed, mask=model.masks.get(name))
                    made = [*_add_sealed(key, column, self.connection.dialect)]
                    made += [
                        _add_search(key, name, [kind], *facts)
                        for (of, kind), facts in model.searches.items()
                        if of == name
                    ]
                    yield from (operation.reverse() for operation in reversed(made))
                else:
                    yield AddModelColumn(one.table_name, column, schema=one.schema).reverse()
            case ops.AlterColumnOp() if one.column_name in model.sealed:
                if one.modify_type is not None:
                    self._fault(key, _OTHER_TYPE, one.column_name)
                elif one.modify_server_default is not False:
                    yield ops.AlterColumnOp(
                        model.shape, one.column_name, schema=SHAPES, existing_type=one.existing_type,
                        modify_server_default=one.modify_server_default,
                        existing_server_default=one.existing_server_default,
                    )  # fmt: skip
                    one.modify_server_default = False
                if one.has_changes():
                    yield one
            case ops.AlterColumnOp() if one.modify_type is not None:
                if self.wards.has_tenants:
                    self._fault(key, _TYPE_OF_FACES, one.column_name)
                    return
                yield ChangeModelType(
                    one.table_name, one.column_name, one.modify_type,
                    schema=one.schema, existing=one.existing_type,
                )  # fmt: skip
                one.modify_type, one.existing_type = None, one.modify_type
                if one.has_changes():
                    yield one
            case ops.CreateForeignKeyOp() | ops.DropConstraintOp(constraint_type="foreignkey"):
                self._reference_shape(one, {**self.wards.models, **self._to_be_protected()})
                yield one
            case ops.CreateUniqueConstraintOp() if self._seals(key, one.columns):
                unique = None if one.constraint_name is None else str(one.constraint_name)
                yield AddUnique(one.table_name, [*one.columns], unique, schema=one.schema)
            case ops.DropConstraintOp() if (unique := str(one.constraint_name)) in model.uniques:
                yield _add_unique(key, unique, *model.uniques[unique]).reverse()
            case ops.DropConstraintOp(constraint_type="unique") | ops.DropIndexOp():
                _begin_with_tenant(one._reverse)
                yield one
            case _:
                _begin_with_tenant(one)
                yield one

    def _seals(self, key: Key, columns: Iterable[str]) -> bool:
        sealed = {one.name for one in self.tables[key].columns if isinstance(one.type, Sealed)}
        return bool(set(columns) & {*sealed, *self.wards.models[key].sealed})

    def _to_be_protected(self) -> dict[Key, Model]:
        shapes = {key: "__".join((key[0] or "public", key[1])) for key in self.tables}
        return {
            key: Model(shapes[key], {}, {}, "row", None, {}, {}, {})
            for key, table in self.tables.items()
            if isinstance(ward_of(table), Protected)
        }

    def _reference_shape(self, one: Any, models: Mapping[Key, Model]) -> None:
        """Have a foreign key stand between shapes, where its tables are model tables."""
        if isinstance(one, ops.CreateForeignKeyOp):
            if model := models.get((one.kw.get("referent_schema"), one.referent_table)):
                one.kw["referent_schema"], one.referent_table = SHAPES, model.shape
            if model := self.wards.models.get((one.kw.get("source_schema"), one.source_table)):
                one.kw["source_schema"], one.source_table = SHAPES, model.shape
        elif isinstance(one, ops.DropConstraintOp) and one.constraint_type == "foreignkey":
            self._reference_shape(one._reverse, models)
            if model := self.wards.models.get(_key(one)):
                one.schema, one.table_name = SHAPES, model.shape


def _key(one: Any) -> Key:
    if isinstance(one, ops.CreateForeignKeyOp):
        return one.kw.get("source_schema"), one.source_table
    return one.schema, one.table_name


def _parts(operations: Iterable[MigrateOperation]) -> Iterator[Any]:
    for one in operations:
        yield from one.ops if isinstance(one, ops.OpContainer) else (one,)


def _add_rule(key: Key, name: str, roles: Iterable[str], expression: str) -> AddRowRule:
    return AddRowRule(key[1], list(roles), expression, name, schema=key[0])


def _add_search(
    key: Key, column: str, kinds: list[str], normaliser: str | None, step: float | None = None
) -> AddSearch:
    return AddSearch(key[1], column, kinds, normaliser=normaliser, step=step, schema=key[0])


def _add_unique(key: Key, name: str, columns: Iterable[str], normaliser: str) -> AddUnique:
    return AddUnique(key[1], [*columns], name, normaliser=normaliser, schema=key[0])


def _default(column: sa.Column[Any], dialect: sa.Dialect) -> str | None:
    default = column.server_default
    if not isinstance(default, sa.DefaultClause):
        return None
    if isinstance(default.arg, str):
        return str(sa.literal(default.arg).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return str(default.arg.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _add_sealed(key: Key, column: sa.Column[Any], dialect: sa.Dialect) -> Iterator[MigrateOperation]:
    schema, name = key
    type_: Sealed = column.type  # type: ignore[assignment]
    yield AddSealedColumn(
        name, column.name, type_.type_, classified=type_.classified, mask=type_.mask, schema=schema,
        server_default=_default(column, dialect),
    )  # fmt: skip
    if type_.search:
        yield _add_search(key, column.name, list(type_.search), type_.normaliser)
    if not column.nullable or column.comment:
        yield ops.AlterColumnOp(
            name, column.name, schema=schema, existing_type=type_.type_, existing_nullable=True,
            modify_nullable=None if column.nullable else False, modify_comment=column.comment or False,
        )  # fmt: skip


def _begin_with_tenant(one: Any) -> None:
    """Have a unique key, or an index that can, begin with tenant_id, as those of a partitioned table do."""
    is_index = isinstance(one, ops.CreateIndexOp) and one.kw.get("postgresql_using", "btree") == "btree"
    if is_index or isinstance(one, ops.CreateUniqueConstraintOp):
        one.columns = ["tenant_id", *one.columns]


def _target(key: sa.ForeignKeyConstraint) -> Key:
    schema, _, name = key.elements[0].target_fullname.rpartition(".")[0].rpartition(".")
    return schema or None, name


def _for_shape(part: Any, models: Mapping[Key, Model]) -> Any:
    """Return a foreign key for the shape of what it references, any other part as it is."""
    if not isinstance(part, sa.ForeignKeyConstraint) or (model := models.get(_target(part))) is None:
        return part
    return sa.ForeignKeyConstraint(
        part.column_keys,
        [f"{SHAPES}.{model.shape}.{one.target_fullname.rpartition('.')[2]}" for one in part.elements],
        name=part.name, onupdate=part.onupdate, ondelete=part.ondelete, deferrable=part.deferrable,
        initially=part.initially, match=part.match, **part.dialect_kwargs,
    )  # fmt: skip
