"""Which entry is the first that is not as it was sealed, or comes twice."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["Difference", "Ids", "first_difference"]


class Difference(NamedTuple):
    """``place``: of the entry found, from 0. ``number``: how many were deleted; where a moved one belongs."""

    kind: Literal["edited", "deleted", "inserted", "reordered", "duplicate"]
    place: int
    number: int = 0


def first_difference(stored: Sequence[bytes], sealed: Sequence[bytes]) -> Difference | None:
    """Compare a block of entries with what was sealed, and say how the first that differs came about."""
    pairs = enumerate(zip(stored, sealed, strict=False))
    index = next((index for index, (this, due) in pairs if this != due), min(len(stored), len(sealed)))
    if index == len(stored):
        return Difference("deleted", index, len(sealed) - index) if index < len(sealed) else None
    this, elsewhere = stored[index], _index(sealed, stored[index], index + 1)
    due_comes = index < len(sealed) and sealed[index] in stored[index + 1 :]
    if this in stored[:index]:
        return Difference("duplicate", index)
    if elsewhere and due_comes:
        return Difference("reordered", index, elsewhere)
    if elsewhere:
        return Difference("deleted", index, elsewhere - index)
    if due_comes or index == len(sealed):
        return Difference("inserted", index)
    return Difference("edited", index)


def _index(hashes: Sequence[bytes], wanted: bytes, start: int) -> int:
    """Return where ``wanted`` is, at ``start`` (1 or more) or behind; 0: nowhere."""
    return next((index for index in range(start, len(hashes)) if hashes[index] == wanted), 0)


class Ids:
    """The ids of the entries seen, in their order, in 8 bytes each; 0 for an entry that has none."""

    _BUCKET = 100_000  # ids in a set at a time: 10 MB

    def __init__(self) -> None:
        self._ids = array("Q")
        self.append = self._ids.append
        self.index_of = self._ids.index

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, place: int) -> int:
        return self._ids[place]

    def first_repeated(self) -> int | None:
        """Return the first place of an id that was seen before. Takes another 8 bytes each meanwhile."""
        buckets = [array("Q") for _ in range(len(self._ids) // self._BUCKET + 1)]
        for number in self._ids:
            buckets[number % len(buckets)].append(number)
        repeated: list[int] = []
        for bucket in buckets:
            seen = {0}
            for number in bucket:
                if number in seen and number:
                    repeated.append(self._ids.index(number, self._ids.index(number) + 1))
                    break
                seen.add(number)
        return min(repeated, default=None)
