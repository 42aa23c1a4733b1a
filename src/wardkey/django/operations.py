"""Operations of migrations for what models do not say; each can be reversed.

They name a table as the model's ``db_table`` does. ``ProtectTable`` and ``ShareTable`` are for tables of
other apps and of RunSQL: those of ``WardModel`` and ``SharedModel`` need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation

from .owner.schema import SchemaEditor

__all__ = ["AddRowRule", "ProtectTable", "RemoveRowRule", "SetAudit", "ShareTable"]


class _TableOperation(Operation):
    reduces_to_sql = True
    reversible = True
    table: str

    def forwards(self, editor: SchemaEditor) -> None:
        raise NotImplementedError

    def backwards(self, editor: SchemaEditor) -> None:
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models stay as they are."""

    def database_forwards(self, app_label: str, editor: Any, from_state: Any, to_state: Any) -> None:
        if router.allow_migrate(editor.connection.alias, app_label):
            editor.protect_pending()
            self.forwards(editor)

    def database_backwards(self, app_label: str, editor: Any, from_state: Any, to_state: Any) -> None:
        if router.allow_migrate(editor.connection.alias, app_label):
            self.backwards(editor)

    def describe(self) -> str:
        return f"{type(self).__name__} on table {self.table}"


class AddRowRule(_TableOperation):
    """Roles see and write only rows of which ``expression``, over plain columns and claims, is true."""

    def __init__(self, table: str, name: str, *, roles: Sequence[str], expression: str) -> None:
        self.table, self.name, self.roles, self.expression = table, name, list(roles), expression

    def forwards(self, editor: SchemaEditor) -> None:
        casts = ("regclass", "text[]")
        editor.call("add_row_rule", self.table, self.roles, self.expression, self.name, types=casts)

    def backwards(self, editor: SchemaEditor) -> None:
        editor.call("drop_row_rule", self.table, self.name)


class RemoveRowRule(AddRowRule):
    """Take a rule away; roles and expression are those it comes back with."""

    def forwards(self, editor: SchemaEditor) -> None:
        super().backwards(editor)

    def backwards(self, editor: SchemaEditor) -> None:
        super().forwards(editor)


class SetAudit(_TableOperation):
    """How reading the table is journalled: row, statement or off, the last two with a reason."""

    def __init__(self, table: str, level: str, reason: str) -> None:
        self.table, self.level, self.reason = table, level, reason

    def forwards(self, editor: SchemaEditor) -> None:
        editor.call("set_audit", self.table, self.level, self.reason)

    def backwards(self, editor: SchemaEditor) -> None:
        editor.call("set_audit", self.table, "row")


class ProtectTable(_TableOperation):
    """Make an empty table a model table. ``seal``: classes by column; ``masks``: of some of these."""

    def __init__(
        self, table: str, seal: Mapping[str, str] | None = None, masks: Mapping[str, str] | None = None
    ) -> None:
        self.table, self.seal, self.masks = table, dict(seal or {}), dict(masks or {})

    def forwards(self, editor: SchemaEditor) -> None:
        editor.protect(self.table, self.seal, self.masks)

    def backwards(self, editor: SchemaEditor) -> None:
        editor.call("unprotect", self.table)


class ShareTable(_TableOperation):
    """Let all tenants read a table."""

    def __init__(self, table: str) -> None:
        self.table = table

    def forwards(self, editor: SchemaEditor) -> None:
        editor.call("share", self.table)

    def backwards(self, editor: SchemaEditor) -> None:
        editor.call("unshare", self.table)
