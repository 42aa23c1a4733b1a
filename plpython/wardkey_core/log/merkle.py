"""Merkle trees (RFC 6962 §2.1, RFC 9162 §2.1): leaf = SHA-256(0x00 ‖ bytes), node = SHA-256(0x01 ‖ l ‖ r).

The unit is the *compact range*: the hashes of the perfect subtrees that make up the leaves from ``begin`` to
before ``end``, from left to right; there is one such set for a begin and an end, of at most 2·log2(end)
hashes.

* From 0 on it is the frontier of a tree: enough to append to it and to tell its root.
* What a partial export lacks on its left and on its right are two of them; together with its own leaves they
  give the root, and only where begin and end are the true ones.

Proofs are lists of roots of ranges: ``inclusion_ranges`` and ``consistency_ranges`` say which, ``collect``
makes them in one pass over the leaves with little memory, ``includes`` and ``extends`` check them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

__all__ = [
    "EMPTY",
    "Range",
    "collect",
    "consistency_ranges",
    "extends",
    "includes",
    "inclusion_ranges",
    "leaf_hash",
    "node_hash",
]

EMPTY = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Range:
    """A compact range: empty, or of the given hashes. Raises ValueError where those do not fit."""

    __slots__ = ("_levels", "begin", "end", "hashes")

    def __init__(self, begin: int = 0, end: int | None = None, hashes: Sequence[bytes] = ()) -> None:
        self.begin, self.end = begin, begin if end is None else end
        if begin < 0 or self.end < begin:
            raise ValueError("a range begins at 0 or later and ends where it begins or later")
        self._levels = _levels(begin, self.end)
        self.hashes = list(hashes)
        if len(self.hashes) != len(self._levels) or any(len(digest) != 32 for digest in self.hashes):
            raise ValueError(f"a range from {begin} to {self.end} has {len(self._levels)} hashes of 32 bytes")

    def append(self, leaf: bytes) -> None:
        """Append a leaf, by its hash."""
        self.push(0, leaf)

    def push(self, level: int, digest: bytes) -> None:
        """Append a perfect subtree of 2^level leaves, by its hash."""
        levels, hashes, start = self._levels, self.hashes, self.end
        if start & ((1 << level) - 1):
            raise ValueError(f"no subtree of {1 << level} leaves begins at {start}")
        self.end = start + (1 << level)
        while levels and levels[-1] == level and start >> level & 1:
            digest = sha256(b"\x01" + hashes.pop() + digest).digest()
            levels.pop()
            start -= 1 << level
            level += 1
        levels.append(level)
        hashes.append(digest)

    def nodes(self) -> Iterable[tuple[int, bytes]]:
        """Yield (level, hash) from left to right, as ``push`` and ``collect`` take them."""
        return zip(self._levels, self.hashes, strict=True)

    def extend(self, other: Range) -> None:
        """Append a range that begins where this one ends."""
        if other.begin != self.end:
            raise ValueError(
                f"a range that begins at {other.begin} does not follow one that ends at {self.end}"
            )
        for level, digest in other.nodes():
            self.push(level, digest)

    def copy(self) -> Range:
        return Range(self.begin, self.end, self.hashes)

    def root(self) -> bytes:
        """Return the root of the tree that these leaves alone would make."""
        if not self.hashes:
            return EMPTY
        digest = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            digest = node_hash(left, digest)
        return digest


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges whose roots prove leaf ``index`` of a tree of ``size``: PATH of RFC 6962 §2.1.1."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    return path[::-1]


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """Return the ranges whose roots prove that a tree of ``new`` leaves extends one of ``old``: §2.1.2.

    None are needed where ``old`` is 0 or ``new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not extend one of {old}")
    path, begin, end = [], 0, new
    while 0 < old < end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((begin, middle))
            begin = middle
    if begin:
        path.append((begin, end))
    return path[::-1]


def collect(wanted: Sequence[tuple[int, int]], nodes: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """Return the roots of ``wanted`` ranges, none of which overlap.

    ``nodes``: (level, hash) of perfect subtrees from position 0 on without a gap, mostly leaves: level 0.
    None may reach over the edge of a wanted range. Raises ValueError where it does or they end too early.
    """
    ranges = {span: Range(span[0]) for span in wanted}
    waiting = iter(sorted(wanted))
    span, position = next(waiting, None), 0
    for level, digest in nodes:
        if span is None:
            break
        if position >= span[0]:
            ranges[span].push(level, digest)
        position += 1 << level
        if position >= span[1]:
            if ranges[span].end != span[1]:
                break
            span = next(waiting, None)
        elif ranges[span].end != max(position, span[0]):
            break
    if span is not None:
        raise ValueError(f"the hashes do not give the range from {span[0]} to {span[1]}")
    return [ranges[span].root() for span in wanted]


def includes(size: int, root: bytes, index: int, leaf: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether ``path`` proves that ``leaf`` (a hash) is at ``index`` of the tree: RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    place, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            digest = node_hash(sibling, digest)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and digest == root


def extends(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether ``path`` proves that the new tree begins with the old one: RFC 9162 §2.1.4.2."""
    if not 0 <= old <= new or len(path) != len(consistency_ranges(old, new)):
        return False
    if old == 0:
        return old_root == EMPTY and (new > 0 or new_root == EMPTY)
    if old == new:
        return old_root == new_root
    hashes = list(path)
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = hashes.pop(0) if place else old_root  # a perfect old tree is its own first hash
    for sibling in hashes:
        if place & 1 or place == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _levels(begin: int, end: int) -> list[int]:
    """Return log2 of the sizes of the perfect subtrees that make up the range."""
    levels = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        levels.append(level)
        begin += 1 << level
    return levels


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (2 or more)."""
    return 1 << (size - 1).bit_length() - 1
