"""ATTACKS 60: refusals are events once a minute and kind, with a count; so are values that do not open."""

from __future__ import annotations

import pytest
from wardkey_core.errors import InvalidToken, NoContext, OpenFailed
from wardkey_core.journal_reader import Event
from wardkey_pg import tally
from wardkey_pg.sealing import open_slowly

from tests.support.backend import Backend

COLUMN, ROW = bytes(16), b"row"


def refuse(backend: Backend, times: int, error: type[NoContext] | type[InvalidToken] = NoContext) -> None:
    for _ in range(times):
        backend.session.report_refusal(error())


def events(backend: Backend, operation: str = "refusal") -> list[int | None]:
    """The counts of the events so far; None: one of its own."""
    events = [one for one in backend.journalled() if isinstance(one, Event) and one.operation == operation]
    return [(one.detail or {}).get("count") for one in events]


def test_the_first_is_written_and_the_others_are_counted(backend: Backend) -> None:
    refuse(backend, 1000)
    assert events(backend) == [None]
    backend.clock.now += 61
    refuse(backend, 1)
    assert events(backend) == [None, 999, None]


@pytest.mark.parametrize("end", ["transaction", "backend"])
def test_what_was_counted_is_written_in_the_end(backend: Backend, end: str) -> None:
    refuse(backend, 5)
    if end == "transaction":
        backend.begin()
        assert events(backend) == [None]  # the window goes on
        backend.clock.now += 61
        backend.begin()
    else:
        backend.exit()
    assert events(backend) == [None, 4]


def test_kinds_are_counted_apart_and_bounded(backend: Backend) -> None:
    refuse(backend, 3)
    refuse(backend, 3, InvalidToken)
    backend.session.login(backend.token())
    refuse(backend, 3)  # of this login
    backend.exit()
    assert events(backend) == [None, None, None, 2, 2, 2]
    for number in range(500):
        backend.session.report_often("refusal", {"n": number}, {"n": number})
    assert len(backend.session._tally._windows) <= tally._MOST_KINDS


def test_rubbish_is_named_row_by_row_for_a_while(backend: Backend) -> None:
    backend.session.login(backend.token())
    for number in range(1000):
        with pytest.raises(OpenFailed):
            open_slowly(backend.session, b"rubbish", COLUMN, bytes([number % 256]))
    backend.exit()
    assert events(backend, "tampered") == [None] * 20 + [980]


def test_nothing_is_written_when_nothing_was_counted(backend: Backend) -> None:
    refuse(backend, 1)
    backend.exit()
    assert events(backend) == [None]
