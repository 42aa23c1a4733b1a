"""Operations of migrations for what models do not say; each can be reversed.

They name a table as the model's ``db_table`` does. ``ProtectTable`` and ``ShareTable`` are for tables of
other apps and of RunSQL: those of ``WardModel`` and ``SharedModel`` need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation

__all__ = ["AddRowRule", "ProtectTable", "RemoveRowRule", "SetAudit", "ShareTable"]

_Calls = list[tuple[Any, ...]]  # functions of schema ward, with what they are given after the table


class _TableOperation(Operation):
    reduces_to_sql = reversible = True

    def __init__(self, table: str, calls: _Calls, reverse: _Calls) -> None:
        self.table, self.calls, self.reverse = table, calls, reverse

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models stay as they are."""

    def database_forwards(self, app_label: str, editor: Any, from_state: Any, to_state: Any) -> None:
        self._call(app_label, editor, self.calls)

    def database_backwards(self, app_label: str, editor: Any, from_state: Any, to_state: Any) -> None:
        self._call(app_label, editor, self.reverse)

    def describe(self) -> str:
        return f"{type(self).__name__} on table {self.table}"

    def _call(self, app_label: str, editor: Any, calls: _Calls) -> None:
        if router.allow_migrate(editor.connection.alias, app_label):
            editor.protect_pending()
            for function, *arguments in calls:
                editor.call(function, self.table, *arguments)


class AddRowRule(_TableOperation):
    """Roles see and write only rows of which ``expression``, over plain columns and claims, is true."""

    def __init__(self, table: str, name: str, *, roles: Sequence[str], expression: str) -> None:
        rule = ("add_row_rule", list(roles), expression, name)
        super().__init__(table, [rule], [("drop_row_rule", name)])


class RemoveRowRule(AddRowRule):
    """Take a rule away; roles and expression are those it comes back with."""

    def __init__(self, table: str, name: str, *, roles: Sequence[str], expression: str) -> None:
        super().__init__(table, name, roles=roles, expression=expression)
        self.calls, self.reverse = self.reverse, self.calls


class SetAudit(_TableOperation):
    """How reading the table is journalled: row, statement or off, the last two with a reason."""

    def __init__(self, table: str, level: str, reason: str) -> None:
        super().__init__(table, [("set_audit", level, reason)], [("set_audit", "row")])


class ProtectTable(_TableOperation):
    """Make an empty table a model table. ``seal``: classes by column; ``masks``: of some of these."""

    def __init__(
        self, table: str, seal: Mapping[str, str] | None = None, masks: Mapping[str, str] | None = None
    ) -> None:
        protect = ("protect", dict(seal or {}))
        super().__init__(
            table, [protect, *(("set_mask", *one) for one in (masks or {}).items())], [("unprotect",)]
        )


class ShareTable(_TableOperation):
    """Let all tenants read a table."""

    def __init__(self, table: str) -> None:
        super().__init__(table, [("share",)], [("unshare",)])
