"""The proof of an entry can be checked alone, tells nothing of others, and holds for nothing else."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.log.canonical import NotCanonical
from wardkey_core.log.checkpoint import fingerprint

from tests.audit.logs import OTHER, Log, make_entry, moment
from tests.vectors import check_audit
from wardkey.audit.prove import NotProven, Proof, prove

_LOG = Log.of(5, 8, 20, 23)


def _prove(position: int, first: int = 0, end: int | None = None) -> Proof:
    return prove(io.BytesIO(_LOG.export(first, end)), str(1000 + position))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 22), st.integers(0, 22), st.integers(0, 23))
def test_every_entry_of_every_export_is_proven(position: int, first: int, end: int) -> None:
    first, end = min(first, position), max(end, position + 1)
    data = _prove(position, first, end).encode()
    proof = Proof.decode(data)
    assert proof.check({fingerprint(_LOG.public_key)}) == make_entry(position)
    assert proof.position == position
    assert f"entry {1000 + position} of" in check_audit.check_proof(data)


def test_a_proof_tells_nothing_of_other_entries() -> None:
    text = _prove(12).encode().decode()
    assert text.count("patients") == 1 and '"1013"' not in text
    assert len(text) < 2500


def test_a_proof_holds_for_nothing_else() -> None:
    proof, other = _prove(12), _prove(13)
    for wrong in (
        replace(proof, entry=other.entry),
        replace(proof, position=13),
        replace(proof, position=44),
        replace(proof, path=other.path),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=[*proof.path, bytes(32)]),
        replace(proof, signed=_LOG.checkpoints[-1]),
        replace(proof, signed=replace(proof.signed, signature=bytes(64))),
        replace(proof, public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw()),
        replace(proof, entry=proof.entry.replace(_LOG.tenant.encode(), OTHER.encode())),
        replace(proof, entry=proof.entry.replace(b":", b": ")),
    ):
        with pytest.raises(NotProven):
            wrong.check()
    with pytest.raises(NotProven, match="not one you trust"):
        proof.check({bytes(32)})


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_change_of_a_byte_passes_unnoticed(chance: random.Random) -> None:
    data = bytearray(_prove(12).encode())
    place = chance.randrange(len(data))
    if chance.randrange(2):
        data[place] ^= 1 << chance.randrange(8)
    else:
        del data[place : place + chance.choice([1, 64])]
    with pytest.raises((NotCanonical, NotProven)):
        Proof.decode(bytes(data)).check()


def test_what_is_not_sealed_or_not_there_is_not_proven() -> None:
    unsealed = json.dumps(make_entry(30), sort_keys=True, separators=(",", ":")).encode()
    export = _LOG.export(unsealed=[unsealed])
    for entry in ("1030", "9999", ""):
        with pytest.raises(NotProven, match="no checkpoint of the export covers"):
            prove(io.BytesIO(export), entry)


@pytest.mark.parametrize("place", range(0, 30, 3))
def test_an_export_that_was_changed_proves_nothing_it_should_not(place: int) -> None:
    lines = _LOG.export()[:-1].split(b"\n")
    if place >= len(lines):
        return
    lines[place] = lines[place].replace(b"2", b"3").replace(b"jane", b"john").replace(b"A", b"B")
    for position in range(23):
        try:
            proof = prove(io.BytesIO(b"\n".join(lines) + b"\n"), str(1000 + position))
        except NotProven:
            continue
        assert proof.check({fingerprint(_LOG.public_key)}) == make_entry(position)


def test_an_entry_of_another_tenant_is_not_proven_for_this_one() -> None:
    log = Log()
    log.append(make_entry(1, tenant=OTHER))
    log.seal(moment(2))
    with pytest.raises(NotProven, match="of different tenants"):
        prove(io.BytesIO(log.export()), "1001")


def test_an_export_that_is_not_whole_is_said_to_be() -> None:
    with pytest.raises(NotProven, match="not whole"):
        prove(io.BytesIO(_LOG.export()[:-5]), "1001")
    with pytest.raises(NotProven, match="not that of an audit export"):
        prove(io.BytesIO(b"hello\n"), "1001")


def test_the_first_checkpoint_that_covers_it_is_taken() -> None:
    assert [_prove(position).signed.checkpoint.number for position in (0, 4, 5, 8, 22)] == [1, 1, 2, 3, 4]
    log = Log.of(23)
    log.seal(moment(50))
    assert prove(io.BytesIO(log.export(3, 9)), "1005").signed.checkpoint.number == 1
