"""Each step of a rotation, and what the worker remembers of it."""

from __future__ import annotations

from wardkey.keys.rotation import (
    LONGEST_WAIT,
    Batch,
    Facts,
    Failed,
    Fence,
    Finished,
    Paused,
    Position,
    Reseal,
    Retire,
    Wait,
    next_step,
)

ROTATED = Facts({1: "decrypt-only", 2: "active"}, ("a", "b"))
PASSED = Position().after_batch("a", Batch()).after_batch("b", Batch())


def test_nothing_is_left_when_no_version_is_decrypt_only():
    for states in ({1: "active"}, {1: "retired", 2: "active"}, {1: "destroyed", 2: "active"}):
        assert next_step(Facts(states, ("a",)), Position()) == Finished()


def test_tables_are_passed_over_block_by_block():
    position = Position()
    assert next_step(ROTATED, position) == Reseal("a", 0)
    position = position.after_batch("a", Batch(next_block=64))
    assert next_step(ROTATED, position) == Reseal("a", 64)
    position = position.after_batch("a", Batch())
    assert next_step(ROTATED, position) == Reseal("b", 0)
    assert next_step(ROTATED, position.after_batch("b", Batch())) == Retire()


def test_table_that_went_is_not_asked_for_and_one_that_came_is():
    position = Position().after_batch("a", Batch(next_block=64))
    assert next_step(Facts(ROTATED.states, ("b", "c")), position) == Reseal("b", 0)
    assert next_step(Facts(ROTATED.states, ("a", "b", "c")), PASSED) == Reseal("c", 0)


def test_ward_without_sealed_columns_retires_at_once():
    assert next_step(Facts(ROTATED.states, ()), Position()) == Retire()


def test_pause_comes_first():
    assert next_step(Facts(ROTATED.states, ROTATED.tables, paused=True), PASSED) == Paused()


def test_older_transactions_are_waited_for_longer_and_longer():
    facts, position, waited = Facts(ROTATED.states, ROTATED.tables, older=1), PASSED, []
    for _ in range(8):
        step = next_step(facts, position)
        assert isinstance(step, Wait)
        waited.append(step.seconds)
        position = position.after_wait()
    assert waited[:3] == [0.2, 0.4, 0.8]
    assert waited[-1] == LONGEST_WAIT
    assert next_step(ROTATED, position) == Retire()


def test_held_rows_are_passed_over_again():
    position = Position().after_batch("a", Batch(held=3)).after_batch("b", Batch())
    assert isinstance(next_step(ROTATED, position), Wait)
    assert next_step(ROTATED, position.after_wait()) == Reseal("a", 0)


def test_values_that_do_not_open_are_counted_in_a_pass_of_their_own():
    position = Position().after_batch("a", Batch(moved=9, failed=2)).after_batch("b", Batch())
    assert next_step(ROTATED, position) == Fence()


def test_values_that_do_not_open_end_it():
    position = Position().after_batch("a", Batch(failed=2)).after_batch("b", Batch(failed=1))
    assert next_step(ROTATED, position) == Failed(3)


def test_refused_retirement_means_another_pass():
    assert next_step(ROTATED, PASSED.after_wait().another_pass()) == Reseal("a", 0)


def test_transactions_that_run_are_noted_first_and_again_after_another_rotation():
    unfenced = Facts(ROTATED.states, ROTATED.tables, fenced=False)
    assert next_step(unfenced, Position()) == Fence()
    assert next_step(unfenced, PASSED) == Fence()
    assert next_step(ROTATED, PASSED.another_pass()) == Reseal("a", 0)


def test_wait_is_short_again_when_something_moved():
    position = Position(waits=9).after_batch("a", Batch(held=1, moved=5)).after_batch("b", Batch())
    assert next_step(ROTATED, position) == Wait("other transactions hold rows", 0.2)
