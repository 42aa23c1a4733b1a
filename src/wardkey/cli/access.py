"""``wardkey access``: who may see what. A file for each of its groups."""

from __future__ import annotations

import click

from . import _access_break_glass as break_glass
from . import _access_budgets as budgets
from . import _access_measures as measures
from . import _access_policy as policy
from . import _access_rules as rules
from ._access_review import review

__all__ = ["access"]


@click.group()
def access() -> None:
    """Say who may see what: classes, policy, row rules, budgets, break-glass, measures."""


_GROUPS = (policy, break_glass, budgets, measures, rules)

for _command in (*(command for group in _GROUPS for command in group.COMMANDS), review):
    access.add_command(_command)
