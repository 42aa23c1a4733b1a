"""A part of a log proves as much as the whole for what it holds, and says whether its times are complete."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.log import canonical

from tests.audit.logs import Log, make_entry, moment
from wardkey.audit.report import Report
from wardkey.audit.verify import verify

_LOG = Log.of(5, 8, 20, 20, 23)


def _verify(data: bytes, known: int | None = None) -> Report:
    return verify(io.BytesIO(data), known=None if known is None else _LOG.checkpoints[known].checkpoint)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 23), st.integers(0, 23))
def test_any_part_is_sound(one: int, two: int) -> None:
    first, end = sorted((one, two))
    report = _verify(_LOG.export(first, end))
    assert report.ok, report.defect
    assert report.entries == end - first


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 22), st.integers(1, 23), st.data())
def test_a_part_says_truly_where_it_begins(one: int, two: int, draw: st.DataObject) -> None:
    """With another first position, or other hashes around it, the roots do not come out."""
    first, end = min(one, two), max(one, two)
    lines = _LOG.export(first, end)[:-1].split(b"\n")
    header, last = json.loads(lines[0])["wardkey audit export"], json.loads(lines[-1])["end"]
    member = draw.draw(st.sampled_from(["first", "left", "right"]))
    if member == "first":
        other = draw.draw(st.integers(0, 23).filter(lambda number: number != first))
        header |= {"first": other, "left": _left(other, header["left"])}
    else:
        hashes = (header if member == "left" else last)[member]
        if not hashes:
            return
        place = draw.draw(st.integers(0, len(hashes) - 1))
        hashes[place] = draw.draw(st.sampled_from([bytes(32).hex(), *(set(hashes) - {hashes[place]})]))
    lines[0] = canonical.encode({"wardkey audit export": header})
    lines[-1] = canonical.encode({"end": last})
    assert not _verify(b"\n".join(lines) + b"\n").ok


def _left(first: int, true: list[str]) -> list[str]:
    count = first.bit_count()
    return (true + [bytes([place]).hex() * 32 for place in range(32)])[:count]


def test_a_part_between_two_checkpoints_is_complete_for_its_times() -> None:
    """It begins at a checkpoint made before ``from`` and ends at one that was settled at ``to``."""
    whole = _LOG.export(8, 20, from_time=moment(9), to_time=moment(20))
    report = _verify(whole)
    assert report.ok and report.complete_from and report.complete_to
    for first, end, from_time, to_time, complete in (
        (8, 20, moment(8), moment(20), (False, True)),  # what else happened at 8 may stand ahead
        (8, 20, moment(9), moment(21), (True, False)),  # not yet settled
        (9, 20, moment(9), moment(20), (False, True)),  # begins behind a checkpoint
        (9, 20, moment(21), moment(20), (True, True)),
        (8, 19, moment(9), moment(19), (True, False)),  # ends ahead of its checkpoint
        (0, 20, moment(9), moment(20), (True, True)),
        (8, 20, None, None, (False, True)),
    ):
        times = {"from_time": from_time, "to_time": to_time}
        report = _verify(_LOG.export(first, end, **times))
        assert report.ok and (report.complete_from, report.complete_to) == complete, (first, end, times)


def test_without_a_settled_time_no_end_is_complete() -> None:
    log = Log()
    log.append(make_entry(1))
    log.seal(moment(2))
    report = _verify(log.export(to_time=moment(2)))
    assert report.ok and not report.complete_to
    assert _verify(log.export()).complete_to  # as of the newest checkpoint, which the report names


@pytest.mark.parametrize(
    ("first", "end", "known", "told"),
    [
        (0, 23, 4, True),
        (0, 23, 0, True),
        (5, 20, 1, True),
        (8, 20, 1, True),
        (9, 20, 1, None),
        (8, 15, 2, None),
    ],
)
def test_a_known_checkpoint_is_compared_where_the_part_reaches_it(
    first: int, end: int, known: int, told: bool | None
) -> None:
    report = _verify(_LOG.export(first, end), known)
    assert report.ok and report.known is told
    other = Log.of(5, 8, 20, 23)  # of the same entries: the same roots, other signatures
    changed = Log()
    for data in other.entries[:2]:
        changed.append(json.loads(data) | {"subject": "nobody"})
    for number in range(2, 23):
        changed.append(make_entry(number))
        if number + 1 in (5, 8, 20, 23):
            changed.seal(moment(number + 1))
    report = verify(io.BytesIO(changed.export(first, end)), known=_LOG.checkpoints[known].checkpoint)
    if told:
        assert report.defect is not None and report.defect.kind == "fork"


def test_a_part_that_is_asked_for_may_end_before_what_is_known() -> None:
    assert _verify(_LOG.export(0, 8, to_time=moment(8)), known=4).ok
    report = _verify(_LOG.export(0, 8), known=4)
    assert report.defect is not None and report.defect.kind == "cut tail"
