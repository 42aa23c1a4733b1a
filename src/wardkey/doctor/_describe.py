"""Relations as the catalog describes them, part by part, and where two descriptions differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ._check import Problem, Server, read

__all__ = ["Parts", "compare", "describe"]


@dataclass(frozen=True, slots=True)
class Part:
    """``creation`` makes it, ``removal`` takes it away; None where no single statement does.

    ``alias``: what it is called besides.
    """

    definition: str
    creation: str | None
    removal: str | None
    alias: str | None


Parts = dict[tuple[str, str], Part]
"""The parts of one relation by kind (trigger, policy, …) and name."""


def describe(
    server: Server, relations: Iterable[int], rename: Callable[[int, str], str] = lambda oid, text: text
) -> dict[int, Parts]:
    """Return the parts of each relation. ``rename`` puts placeholders for what differs and may."""
    array = "'{" + ",".join(map(str, relations)) + "}'::oid[]"
    described: dict[int, Parts] = defaultdict(dict)
    for oid, kind, name, definition, creation, removal, alias in server.rows(
        read("describe").replace("@relations", array)
    ):
        part = Part(rename(oid, definition), creation and rename(oid, creation), removal, alias)
        described[oid][kind, rename(oid, name)] = part
    return described


def compare(
    label: str,
    expected: Mapping[tuple[str, str], Part],
    actual: Mapping[tuple[str, str], Part],
    fix: Callable[[str], str] = lambda creation: creation,
    otherwise: str | None = None,
) -> Iterator[Problem]:
    """Yield what is missing, changed or additional in ``found``.

    ``fix`` puts the names of what was found for placeholders; ``otherwise`` fixes what no statement makes.
    """
    for key in sorted(expected.keys() | actual.keys()):
        wanted, there = expected.get(key), actual.get(key)
        if wanted == there or (wanted and there and wanted.definition == there.definition):
            continue
        kind, name = key
        what = " ".join(filter(None, (kind, name, there.alias if there else None)))
        if wanted is None and there is not None:
            yield Problem(label, f"{what} is additional", _statement(there.removal or otherwise))
        elif wanted is not None:
            removal = there.removal if there is not None and kind not in ("column", "privilege") else None
            lacks_column = there is None and kind == "column"
            creation = fix(wanted.creation) if wanted.creation and not lacks_column else otherwise
            statement = "; ".join(dict.fromkeys(filter(None, (removal, creation))))
            yield Problem(
                label, f"{what} is {'missing' if there is None else 'changed'}", _statement(statement)
            )


def _statement(text: str | None) -> str | None:
    return f"{text};" if text and not text.endswith(";") else text or None
