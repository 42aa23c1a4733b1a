"""The access policy of the platform, by default: what a role sees and writes of each class of columns. Pure.

``access`` is none, mask or clear. A cell that is not there is none, without write. SUPER_ADMIN has no cells:
it works for the platform, and sees no tenant's sealed columns. The database has the same default matrix in
``ward_internal.platform_policy``, for people to look at; its backends take this one.
"""

from __future__ import annotations

from .records import Record

__all__ = ["ACCESS", "CLASSES", "DEFAULT", "NOTHING", "ROLES", "Cell", "Policy"]

ROLES = ("ADMIN", "EVALUATOR", "ANALYST", "VIEWER")
ACCESS = ("none", "mask", "clear")
CLASSES = ("identifier", "quasi", "clinical", "note", "financial")


class Cell(Record):
    """What a role may do with the columns of a class."""

    access: str = "none"
    write: bool = False


NOTHING = Cell()
Policy = dict[str, dict[str, Cell]]
"""Cells by role and class."""


def _row(*cells: str, write: bool = False) -> dict[str, Cell]:
    return {name: Cell(access, write) for name, access in zip(CLASSES, cells, strict=True)}


DEFAULT: Policy = {
    "ADMIN": _row("clear", "clear", "clear", "clear", "clear", write=True),
    "EVALUATOR": _row("clear", "clear", "clear", "clear", "clear", write=True),
    "ANALYST": _row("none", "mask", "clear", "none", "none"),
    "VIEWER": _row("clear", "clear", "clear", "none", "none"),
}
