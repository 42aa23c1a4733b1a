"""Alembic: operations that protect tables, and autogenerate that sees wards.

``import wardkey.alembic`` in ``env.py`` is all there is to do: it adds ``op.protect_table`` and the others of
``operations``, and a plugin of autogenerate that compares models with the database.
"""

from __future__ import annotations

import sys

from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority

from . import operations
from .compare import begin, finish

__all__ = ["operations", "setup"]


def setup(plugin: Plugin) -> None:
    """Register the comparators, as Alembic asks its plugins to."""
    add = plugin.add_autogenerate_comparator
    add(begin, "schema", "wardkey begin", qualifier="postgresql", priority=DispatchPriority.FIRST)
    add(finish, "schema", "wardkey finish", qualifier="postgresql", priority=DispatchPriority.LAST)


# below alembic.autogenerate, all of which runs unless an env.py says otherwise
Plugin.setup_plugin_from_module(sys.modules[__name__], "alembic.autogenerate.wardkey")
