"""What is found while files are read; these look at no statement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._rule import Hit, Rules

__all__ = ["IGNORE_OF_NOTHING", "IGNORE_WITHOUT_REASON", "RULES", "UNPARSABLE"]

RULES = Rules()


def _nothing(*_: Any) -> Iterator[Hit]:
    yield from ()


for _id in ("WL001", "WL002", "WL003"):
    RULES.rule(_id)(_nothing)
UNPARSABLE, IGNORE_WITHOUT_REASON, IGNORE_OF_NOTHING = RULES
