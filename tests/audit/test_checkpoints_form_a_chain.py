"""Checkpoints follow one another, are signed by the key they name, and nothing in them can be altered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.log.canonical import NotCanonical
from wardkey_core.log.checkpoint import BrokenChain, Checkpoint, Signed, fingerprint, sign, verify_chain

from tests.audit.logs import OTHER, Log, make_entry, moment

_LOG = Log.of(3, 3, 7, 12)


def _signed(place: int, **changes: Any) -> Signed:
    """Return checkpoint ``place`` of the log with something else in it, rightly signed."""
    checkpoint = replace(_LOG.checkpoints[place - 1].checkpoint, **changes)
    return Signed(checkpoint, _LOG.key.sign(b"wardkey/1 audit checkpoint\n" + checkpoint.encode()))


def test_a_chain_is_verified_to_its_end() -> None:
    keys = {fingerprint(_LOG.public_key): _LOG.public_key}
    assert verify_chain(_LOG.checkpoints, keys) == _LOG.checkpoints[-1].checkpoint
    assert verify_chain([], keys) is None
    with pytest.raises(BrokenChain, match="checkpoint 1 is signed by a key that is not trusted"):
        verify_chain(_LOG.checkpoints, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 2}, "checkpoint 3 has fewer entries than checkpoint 2"),
        ({"size": 3}, "checkpoints 2 and 3 have as many entries, but not the same"),
        ({"at": moment(1)}, "checkpoint 3 is older than checkpoint 2"),
        ({"settled": moment(1)}, "checkpoint 3 is older than checkpoint 2"),
        ({"settled": None}, "checkpoint 3 is older than checkpoint 2"),
        ({"tenant": OTHER}, "checkpoint 3 is of another tenant"),
        ({"previous": b"\x01" * 32}, "checkpoint 3 was made after another checkpoint 2"),
        ({"number": 4}, "checkpoint 4 stands where checkpoint 3 is due"),
        ({"number": 2}, "checkpoint 2 stands where checkpoint 3 is due"),
        ({"key": b"\x01" * 32}, "checkpoint 3 is signed by a key that is not trusted"),
    ],
)
def test_a_rightly_signed_checkpoint_that_does_not_follow_is_named(
    changes: dict[str, Any], message: str
) -> None:
    chain = [*_LOG.checkpoints[:2], _signed(3, **changes)]
    with pytest.raises(BrokenChain, match=message):
        verify_chain(chain, {fingerprint(_LOG.public_key): _LOG.public_key})


def test_a_missing_first_checkpoint_is_named() -> None:
    with pytest.raises(BrokenChain, match="checkpoint 2 stands where checkpoint 1 is due"):
        verify_chain(_LOG.checkpoints[1:], {fingerprint(_LOG.public_key): _LOG.public_key})


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 4},
        {"root": bytes(32)},
        {"at": moment(9)},
        {"settled": None},
        {"tenant": OTHER},
        {"number": 9},
    ],
    ids=str,
)
def test_the_signature_is_of_all_of_it(changes: dict[str, Any]) -> None:
    signed = _LOG.checkpoints[1]
    assert signed.verified_by(_LOG.public_key)
    assert not replace(signed, checkpoint=replace(signed.checkpoint, **changes)).verified_by(_LOG.public_key)


def test_a_signature_of_another_key_or_purpose_does_not_pass() -> None:
    other, this = Ed25519PrivateKey.generate(), _LOG.checkpoints[0].checkpoint
    message = b"wardkey/1 audit checkpoint\n" + this.encode()
    assert not Signed(this, other.sign(message)).verified_by(_LOG.public_key)
    assert not Signed(this, other.sign(message)).verified_by(other.public_key().public_bytes_raw())
    assert not Signed(this, _LOG.key.sign(this.encode())).verified_by(_LOG.public_key)
    purpose = b"wardkey/1 certificate of destruction\n"
    assert not Signed(this, _LOG.key.sign(purpose + this.encode())).verified_by(_LOG.public_key)
    assert not _LOG.checkpoints[0].verified_by(b"short")


def test_a_clock_set_back_stands_still() -> None:
    log = Log()
    for at, settled in ((moment(50), moment(40)), (moment(20), moment(10)), (moment(30), None)):
        log.append(make_entry(len(log.entries)))
        this = log.seal(at, settled).checkpoint
        assert (this.at, this.settled) == (moment(50), moment(40))
    log.append(make_entry(9))
    assert log.seal(moment(60), moment(55)).checkpoint.at == moment(60)


def test_a_log_that_shrank_or_a_wrong_signer_is_not_signed() -> None:
    arguments: dict[str, Any] = {"tenant": _LOG.tenant, "root": bytes(32), "at": moment(99)}
    last = _LOG.checkpoints[-1].checkpoint
    with pytest.raises(BrokenChain, match="checkpoint 5 has fewer entries"):
        sign(last, size=11, public_key=_LOG.public_key, signer=_LOG.key.sign, **arguments)
    other = Ed25519PrivateKey.generate()
    with pytest.raises(ValueError, match="not of the key that was to sign it"):
        sign(last, size=13, public_key=_LOG.public_key, signer=other.sign, **arguments)


@given(st.sampled_from(_LOG.checkpoints), st.data())
def test_bytes_and_checkpoint_are_one_to_one(signed: Signed, draw: st.DataObject) -> None:
    data = signed.checkpoint.encode()
    assert Checkpoint.decode(data) == signed.checkpoint
    altered = bytearray(data)
    altered[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        read = Checkpoint.decode(bytes(altered))
    except NotCanonical:
        return
    assert read.encode() == bytes(altered) and read != signed.checkpoint


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": 2},
        {"size": -1},
        {"size": True},
        {"size": "3"},
        {"root": "00"},
        {"root": "AB" * 32},
        {"at": "yesterday"},
        {"tenant": "acme"},
        {"number": 0},
        {"number": 2},
        {"previous": "11" * 32},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_not_a_checkpoint_is_refused(document: dict[str, Any]) -> None:
    value = _LOG.checkpoints[0].checkpoint.document() | document if document else document
    with pytest.raises(NotCanonical):
        Checkpoint.from_document(value)
