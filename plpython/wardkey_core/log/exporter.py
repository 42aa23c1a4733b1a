"""Writes a tenant's log, or a part of it, as the file that anyone can verify (``exportfile``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from .checkpoint import Signed
from .exportfile import Header, Writer
from .source import DamagedLog, Log, Row, Sealed, bytes_of

__all__ = ["Extent", "Period", "export", "find_extent", "pieces", "steps"]

_AT = 2  # place of the time in a Row


@dataclass(frozen=True, slots=True)
class Period:
    """From ``begin``, inclusive, to ``end``, exclusive; None: without bound."""

    begin: datetime | None = None
    end: datetime | None = None

    @property
    def texts(self) -> tuple[str | None, str | None]:
        """The bounds as entries have their times."""
        return _text(self.begin), _text(self.end)


@dataclass(frozen=True, slots=True)
class Extent:
    """What of a log is needed to show it whole for a period.

    ``base``: the last checkpoint made before it, or the one that what was pruned ended with; None: all from
    the first entry on. ``last``: the first one
    that is settled at its end, else the newest; ``open``: nothing in the tree is newer.
    """

    base: Signed | None
    last: Signed | None
    open: bool
    keys: tuple[bytes, ...]

    @property
    def first(self) -> int:
        return self.base.checkpoint.size if self.base else 0

    @property
    def end(self) -> int:
        return self.last.checkpoint.size if self.last else 0


def find_extent(log: Log, period: Period) -> Extent:
    """Raises DamagedLog."""
    begin, end = period.texts
    begins = log.begins()
    base = last = None
    keys: dict[bytes, None] = {}
    is_open = True
    for signed, key in log.checkpoints():
        this = signed.checkpoint
        if (begin is not None and this.at < begin) or 0 < this.size == begins:
            base = signed
            keys.clear()
        last = signed
        keys[key] = None
        if end is not None and this.settled is not None and this.settled >= end:
            is_open = False
            break
    return Extent(base, last, is_open, tuple(keys))


def pieces(log: Log, extent: Extent, period: Period) -> Iterator[Sealed | Signed | Row]:
    """Yield what is sealed, checkpoints in their places, at last rows that no checkpoint covers.

    Raises DamagedLog.
    """
    numbers = range(
        extent.base.checkpoint.number if extent.base else 0,
        extent.last.checkpoint.number + 1 if extent.last else 0,
    )
    checkpoints = (signed for signed, _ in log.checkpoints() if signed.checkpoint.number in numbers)
    waiting = next(checkpoints, None)
    position = extent.first
    for sealed in log.sealed(extent.first, extent.end):
        while waiting is not None and waiting.checkpoint.size <= position:
            yield waiting
            waiting = next(checkpoints, None)
        yield sealed
        position += 1
    if position < extent.end:
        raise DamagedLog(f"the order of the log ends at position {position}, its checkpoints at {extent.end}")
    while waiting is not None:
        yield waiting
        waiting = next(checkpoints, None)
    begin, end = period.texts
    if extent.open:
        for row in _unsealed(log, extent.end):
            if (begin is None or row[_AT] >= begin) and (end is None or row[_AT] < end):
                yield row
    yield from log.strays


def export(log: Log, slug: str, period: Period, stream: BinaryIO) -> dict[str, int]:
    """Write the export to ``stream`` and return how much it holds. Raises DamagedLog."""
    counts = {"entries": 0, "missing": 0, "checkpoints": 0, "unsealed": 0}
    for kind in steps(log, slug, period, stream):
        counts[kind] += 1
    return counts


def steps(log: Log, slug: str | None, period: Period, stream: BinaryIO) -> Iterator[str]:
    """The same, piece by piece: yield the kind of each that was written."""
    extent = find_extent(log, period)
    begin, end = period.texts
    left = log.frontier(extent.first).hashes
    writer = Writer(stream, Header(log.tenant, extent.keys, extent.first, left, slug, begin, end))
    for piece in pieces(log, extent, period):
        if isinstance(piece, Signed):
            writer.checkpoint(piece)
            yield "checkpoints"
        elif isinstance(piece, Sealed):
            writer.entry(None if piece.row is None else bytes_of(piece.row), piece.leaf)
            yield "missing" if piece.row is None else "entries"
        else:
            writer.unsealed(bytes_of(piece))
            yield "unsealed"
    writer.end()


def _unsealed(log: Log, size: int) -> Iterator[Row]:
    """Yield what no checkpoint covers: in the tree already, then what is not even there."""
    yield from (sealed.row for sealed in log.sealed(size, None) if sealed.row is not None)
    yield from log.unsealed()


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
