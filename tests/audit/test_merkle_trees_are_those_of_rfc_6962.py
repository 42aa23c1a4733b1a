"""Roots, proofs and compact ranges are those of RFC 6962: its vectors, and a naive reading of its text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.log import merkle
from wardkey_core.log.merkle import Range, collect, consistency_ranges, extends, includes, inclusion_ranges

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "audit.json").read_text())["rfc6962"]


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d" % number) for number in range(count)]


# RFC 6962 §2.1, word for word, over leaf hashes.


def naive_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return _sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = naive_split(len(leaves))
    return _sha(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:]))


def naive_split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = naive_split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_proof(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = naive_split(len(leaves))
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def _nodes(leaves: list[bytes]) -> list[tuple[int, bytes]]:
    return [(0, leaf) for leaf in leaves]


def _range(leaves: list[bytes], begin: int, end: int) -> Range:
    made = Range(begin)
    for leaf in leaves[begin:end]:
        made.append(leaf)
    return made


def test_roots_are_those_published() -> None:
    tree = Range()
    assert tree.root().hex() == _VECTORS["roots"][0]
    for leaf, root in zip(_VECTORS["leaves"], _VECTORS["roots"][1:], strict=True):
        tree.append(merkle.leaf_hash(bytes.fromhex(leaf)))
        assert tree.root().hex() == root


@pytest.mark.parametrize("vector", _VECTORS["inclusion"], ids=str)
def test_inclusion_proofs_are_those_published(vector: dict[str, object]) -> None:
    index, size = int(str(vector["index"])), int(str(vector["size"]))
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in _VECTORS["leaves"]][:size]
    path = collect(inclusion_ranges(index, size), _nodes(leaves))
    assert [digest.hex() for digest in path] == vector["path"]
    assert includes(size, bytes.fromhex(_VECTORS["roots"][size]), index, leaves[index], path)


@pytest.mark.parametrize("vector", _VECTORS["consistency"], ids=str)
def test_consistency_proofs_are_those_published(vector: dict[str, object]) -> None:
    old, new = int(str(vector["old"])), int(str(vector["new"]))
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in _VECTORS["leaves"]][:new]
    path = collect(consistency_ranges(old, new), _nodes(leaves))
    assert [digest.hex() for digest in path] == vector["path"]
    roots = [bytes.fromhex(_VECTORS["roots"][size]) for size in (old, new)]
    assert extends(old, roots[0], new, roots[1], path)


def test_every_proof_of_every_small_tree() -> None:
    """Each proof is the RFC's, and holds for its own place, leaf, size and root and for no other."""
    everything = _leaves(34)
    roots = [naive_root(everything[:size]) for size in range(35)]
    for size in range(1, 34):
        leaves = everything[:size]
        for index in range(size):
            path = collect(inclusion_ranges(index, size), _nodes(leaves))
            assert path == naive_path(index, leaves)
            assert includes(size, roots[size], index, leaves[index], path)
            for place in {-1, 0, size - 1, size, index - 1, index + 1, index ^ 2} - {index}:
                assert not includes(size, roots[size], place, leaves[index], path)
            assert not includes(size, roots[size], index, everything[index + 1], path)
            assert not includes(size, roots[size + 1], index, leaves[index], path)
            assert not includes(size, roots[size], index, leaves[index], [*path, roots[size]])
            assert not includes(size, roots[size], index, leaves[index], [roots[size], *path])
            for place in range(len(path)):
                assert not includes(size, roots[size], index, leaves[index], path[:place] + path[place + 1 :])
                wrong = [*path[:place], roots[0], *path[place + 1 :]]
                assert not includes(size, roots[size], index, leaves[index], wrong)
        for old in range(1, size + 1):
            path = collect(consistency_ranges(old, size), _nodes(leaves))
            assert path == naive_proof(old, leaves)
            assert extends(old, roots[old], size, roots[size], path)
            assert not extends(old, roots[old - 1], size, roots[size], path)
            assert not extends(old, roots[old], size, roots[size + 1], path)
            assert not extends(old - 1, roots[old], size, roots[size], path)
            assert not extends(old, roots[old], size, roots[size], [*path, roots[size]])
            for place in range(len(path)):
                assert not extends(old, roots[old], size, roots[size], path[:place] + path[place + 1 :])
                wrong = [*path[:place], roots[0], *path[place + 1 :]]
                assert not extends(old, roots[old], size, roots[size], wrong)


def test_the_empty_tree_is_extended_by_all_and_by_nothing_else() -> None:
    root = naive_root(_leaves(3))
    assert extends(0, merkle.EMPTY, 3, root, []) and extends(0, merkle.EMPTY, 0, merkle.EMPTY, [])
    assert not extends(0, root, 3, root, [])
    assert not extends(0, merkle.EMPTY, 0, root, [])
    assert not extends(0, merkle.EMPTY, 3, root, [root])
    assert not extends(3, root, 0, merkle.EMPTY, [])


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_ranges_joined_are_the_range_of_all(a: int, b: int, c: int) -> None:
    begin, middle, end = sorted((a, b, c))
    leaves = _leaves(end)
    whole, joined = _range(leaves, begin, end), _range(leaves, begin, middle)
    joined.extend(_range(leaves, middle, end))
    assert joined.hashes == whole.hashes and (joined.begin, joined.end) == (begin, end)
    assert Range(begin, end, whole.hashes).hashes == whole.hashes
    left = _range(leaves, 0, begin)
    left.extend(joined)
    assert left.root() == naive_root(leaves)
    assert len(whole.hashes) <= 2 * max(end, 1).bit_length()


@given(st.integers(1, 200), st.data())
def test_a_proof_can_be_made_of_the_pieces_that_a_partial_export_has(size: int, data: st.DataObject) -> None:
    leaves = _leaves(size)
    index = data.draw(st.integers(0, size - 1))
    first, last = data.draw(st.integers(0, index)), data.draw(st.integers(index + 1, size))
    nodes = [
        *_range(leaves, 0, first).nodes(),
        *_nodes(leaves[first:last]),
        *_range(leaves, last, size).nodes(),
    ]
    assert collect(inclusion_ranges(index, size), nodes) == naive_path(index, leaves)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_another_beginning_gives_another_root(count: int, first: int, claimed: int) -> None:
    """The size and root that a checkpoint signs bind at which positions the entries of an export are."""
    size = max(first, claimed) + count
    leaves = _leaves(size)
    tree = _range(leaves, 0, claimed)
    for leaf in leaves[first : first + count]:
        tree.append(leaf)
    tree.extend(_range(leaves, claimed + count, size))
    assert (tree.root() == naive_root(leaves)) == (first == claimed)


def test_hashes_that_do_not_fit_are_refused() -> None:
    hashes = _leaves(4)
    for arguments in ((0, 3, hashes[:1]), (0, 3, hashes[:3]), (3, 2, []), (-1, 0, []), (0, 1, [b"short"])):
        with pytest.raises(ValueError, match="a range"):
            Range(*arguments)
    with pytest.raises(ValueError, match="does not follow"):
        Range(0, 1, hashes[:1]).extend(Range(2, 3, hashes[:1]))
    with pytest.raises(ValueError, match="no subtree of 2 leaves begins at 1"):
        Range(0, 1, hashes[:1]).push(1, hashes[0])
    for nodes in ([], _nodes(hashes[:3]), [(2, hashes[0])], [(0, hashes[0]), (1, hashes[1])]):
        with pytest.raises(ValueError, match="do not give the range"):
            collect([(0, 1), (2, 4)], nodes)
