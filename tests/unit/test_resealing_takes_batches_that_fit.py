"""How many blocks a batch of resealing takes: not so many that writers wait, nor so few that it drags on."""

from __future__ import annotations

import pytest

from wardkey.keys.run import BATCH_SECONDS, Throttle, _adapted

ROWS_A_BLOCK = 40


def settled(blocks: int, *, rows_a_block: int, batch_seconds: float, row_seconds: float) -> tuple[int, float]:
    """Return the blocks a batch takes after a while, and how long it lasts."""
    seconds = 0.0
    for _ in range(50):
        rows = blocks * rows_a_block
        seconds = batch_seconds + rows * row_seconds
        blocks = _adapted(blocks, rows, seconds)
    return blocks, seconds


def test_a_batch_lasts_as_long_as_it_should() -> None:
    for row_seconds in (20e-6, 40e-6, 300e-6):
        _, seconds = settled(16, rows_a_block=ROWS_A_BLOCK, batch_seconds=2e-3, row_seconds=row_seconds)
        assert 0.5 * BATCH_SECONDS < seconds < 1.5 * BATCH_SECONDS


def test_a_worker_rests_by_default_so_long_that_few_wait_for_it() -> None:
    assert Throttle().rest(1000, 0.06) == pytest.approx(0.94)
    assert Throttle(rate=2000).rest(1000, 0.08) == pytest.approx(0.42)
    assert Throttle(share=1.0).rest(1000, 0.08) == 0


def test_a_server_that_is_slow_to_answer_gets_no_ever_smaller_batches() -> None:
    blocks, _ = settled(16, rows_a_block=ROWS_A_BLOCK, batch_seconds=2 * BATCH_SECONDS, row_seconds=40e-6)
    assert 1 < blocks <= 16


def test_rows_with_large_values_are_taken_block_by_block() -> None:
    blocks, _ = settled(16, rows_a_block=200, batch_seconds=2e-3, row_seconds=1e-3)
    assert blocks == 1


def test_the_first_old_rows_after_many_new_ones_are_locked_for_a_second_at_most() -> None:
    blocks, _ = settled(16, rows_a_block=0, batch_seconds=2e-3, row_seconds=40e-6)
    assert blocks > 16
    assert blocks * ROWS_A_BLOCK * 40e-6 < 1
