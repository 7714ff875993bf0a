"""How batches grow and shrink, and how long the pauses after faults are."""

import asyncio
import time

import pytest

from projector.worker import Backoff, BatchSize, PlanAge, wait_for

QUICK, SLOW = 0.1, 1.5


@pytest.fixture
def size() -> BatchSize:
    return BatchSize(start=500, limit=2000, slow_seconds=1.0)


def test_the_first_batch_has_the_starting_size(size: BatchSize) -> None:
    assert size.rows == 500


def test_full_batches_double_up_to_the_limit(size: BatchSize) -> None:
    sizes = []
    for _ in range(4):
        size.succeeded(QUICK, full=True)
        sizes.append(size.rows)
    assert sizes == [1000, 2000, 2000, 2000]


def test_a_limit_that_is_no_power_of_two_is_kept() -> None:
    size = BatchSize(start=500, limit=1999, slow_seconds=1.0)
    for _ in range(5):
        size.succeeded(QUICK, full=True)
    assert size.rows == 1999


def test_a_batch_that_is_not_full_returns_to_the_start(size: BatchSize) -> None:
    size.succeeded(QUICK, full=True)
    size.succeeded(QUICK, full=False)
    assert size.rows == 500


def test_a_slow_batch_makes_the_next_half_as_large(size: BatchSize) -> None:
    size.succeeded(SLOW, full=True)
    assert size.rows == 250
    size.succeeded(SLOW, full=True)
    assert size.rows == 125


def test_without_a_threshold_no_batch_is_slow() -> None:
    size = BatchSize(start=500, limit=2000, slow_seconds=0)
    size.succeeded(1e9, full=True)
    assert size.rows == 1000


def test_a_batch_given_up_makes_the_next_half_as_large_down_to_one_row(size: BatchSize) -> None:
    size.failed()
    assert size.rows == 250
    for _ in range(20):
        size.failed()
    assert size.rows == 1
    size.succeeded(SLOW, full=True)
    assert size.rows == 1


def test_small_batches_grow_again_once_they_succeed(size: BatchSize) -> None:
    for _ in range(9):
        size.failed()
    for _ in range(11):
        size.succeeded(QUICK, full=True)
    assert size.rows == 2000


def test_pauses_after_faults_double_with_jitter_up_to_a_limit() -> None:
    for _ in range(200):
        backoff = Backoff()
        for fault in range(10):
            longest = min(0.1 * 2**fault, 5)
            assert longest / 2 <= backoff.next() <= longest


def test_pauses_differ_so_that_processes_do_not_come_back_together() -> None:
    assert len({Backoff().next() for _ in range(50)}) > 40


def test_pauses_keep_their_limit_through_any_number_of_faults() -> None:
    backoff = Backoff(faults=100_000)
    assert backoff.next() <= 5
    assert backoff.faults == 100_001


def test_a_success_makes_pauses_short_again() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1


def test_plans_are_made_anew_when_the_rows_projected_with_them_are_four_times_as_many() -> None:
    plans = PlanAge(made_at=0.0)
    renewed = []
    for rows in range(100, 3300, 100):
        plans.used(100)
        if plans.is_old(now=0.0):
            renewed.append(rows)
    assert renewed == [200, 800, 3200]


def test_plans_in_use_are_made_anew_after_some_seconds_and_idle_ones_are_left_alone() -> None:
    plans = PlanAge(made_at=100.0)
    plans.used(1)
    assert not plans.is_old(now=104.0)
    assert plans.is_old(now=106.0)
    assert not plans.is_old(now=10_000.0)  # nothing was projected since


async def test_waiting_ends_with_what_is_waited_for() -> None:
    event = asyncio.Event()
    event.set()
    await asyncio.wait_for(wait_for(event.wait(), 60), 2)


async def test_waiting_ends_when_the_time_is_up() -> None:
    started = time.monotonic()
    await wait_for(asyncio.Event().wait(), 0.05)
    assert 0.04 <= time.monotonic() - started < 2
