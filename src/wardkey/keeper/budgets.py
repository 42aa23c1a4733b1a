"""Budgets: how many rows of a table the people of a role may open, as the keeper has it.

``budgets.json`` in the keeper's directory, out of the database's reach::

    {"budgets": [{"tenant": uuid, "role": "VIEWER", "model": uuid, "rows": n, "distinct": bool,
                  "window": seconds}, …]}

Without the file there are none. The keeper reads it again when it was replaced, before the next release or
lease. A file that is damaged or writable by others means that no key is released. What was opened is counted
in module ``counters``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from wardkey_core.errors import KeyRefused
from wardkey_core.wire import parse_json

from wardkey.daemon.files import identity_of, read_guarded, write_atomically
from wardkey.daemon.lines import Line

__all__ = ["BUDGETS_FILE", "MOST_DISTINCT", "Budget", "KeeperBudgets", "read_budgets", "write_budgets"]

BUDGETS_FILE = "budgets.json"
MOST_ROWS = 1_000_000_000
MOST_DISTINCT = 100_000  # rows of which the keeper remembers a digest each
SHORTEST, LONGEST = 60, 366 * 86_400  # seconds of a window

Place = tuple[UUID, str, UUID]
"""Tenant, role and model table."""


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """``rows`` that a subject with ``role`` may open of a model table in ``window`` seconds."""

    tenant: UUID
    role: Literal["SUPER_ADMIN", "ADMIN", "EVALUATOR", "ANALYST", "VIEWER"]
    model: UUID
    rows: Annotated[int, Meta(ge=1, le=MOST_ROWS)]
    distinct: bool
    window: Annotated[int, Meta(ge=SHORTEST, le=LONGEST)]

    def __post_init__(self) -> None:
        if self.distinct and self.rows > MOST_DISTINCT:
            raise ValueError(f"a budget of distinct rows has at most {MOST_DISTINCT:,}")

    @property
    def place(self) -> Place:
        return self.tenant, self.role, self.model


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    budgets: list[Budget]


class KeeperBudgets:
    """``report`` is told when the file cannot be used."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._seen: tuple[int, ...] | None = ()
        self._budgets: Mapping[Place, Budget] | None = None
        self._models: dict[tuple[UUID, str], list[str]] = {}

    def models(self, tenant: UUID, role: str) -> Sequence[str]:
        """Return the model tables of which ``role`` has a budget. Raises KeyRefused."""
        self._current()
        return self._models.get((tenant, role), ())

    def find(self, tenant: UUID, role: str, model: UUID) -> Budget | None:
        """Raises KeyRefused when no budgets can be read."""
        return self._current().get((tenant, role, model))

    def _current(self) -> Mapping[Place, Budget]:
        seen = identity_of(self._path)
        if seen != self._seen:
            self._seen = seen
            self._models = {}
            try:
                self._budgets = read_budgets(self._path)
                for each in self._budgets.values():
                    self._models.setdefault((each.tenant, each.role), []).append(str(each.model))
            except (OSError, ValueError) as error:
                self._budgets = None
                self._report(
                    Line("file_unusable", f"{self._path} cannot be used, so no key is released: {error}")
                )
        if self._budgets is None:
            raise KeyRefused(
                "the keeper cannot read its budgets",
                "correct budgets.json; the keeper's own log says what is wrong",
            )
        return self._budgets


def read_budgets(path: Path) -> dict[Place, Budget]:
    """Return the budgets in ``path``, none without a file. Raises ValueError, OSError."""
    try:
        listed = msgspec.convert(parse_json(read_guarded(path, secret=False)), _Document).budgets
    except FileNotFoundError:
        return {}
    budgets = {each.place: each for each in listed}
    if len(budgets) != len(listed):
        raise ValueError("budgets: a role has one budget of a table")
    return budgets


def write_budgets(path: Path, budgets: Iterable[Budget]) -> None:
    """Replace ``path`` at once; it belongs to whom its directory belongs to. Raises OSError."""
    directory = path.parent.stat()
    document = msgspec.to_builtins(_Document(list(budgets)))
    content = json.dumps(document, indent=1).encode("utf-8")
    write_atomically(path, content + b"\n", owner=(directory.st_uid, directory.st_gid))
