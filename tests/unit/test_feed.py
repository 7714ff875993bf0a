"""Pacing: quick under load, next to nothing when idle, and wake-ups that are never lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from projector.feed import Feed

LONGEST = 5.0
SOON = 2.0
"""Seconds within which what must happen at once has to happen: far below the pauses of `quiet_feed`."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quiet_feed(clock: Clock) -> Feed:
    """A feed that has seen no rows for so long that a pause lasts a minute."""
    feed = Feed(60.0, clock)
    clock.now += 10_000
    return feed


async def soon(awaitable: Awaitable[None]) -> None:
    await asyncio.wait_for(awaitable, SOON)


async def paused(wait: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """A worker that rests; everything else has had its turn."""

    async def rest() -> None:
        await wait()

    task = asyncio.create_task(rest())
    await settle()
    return task


async def settle() -> None:
    """Lets all tasks run as far as they come."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_pause_after_rows_is_milliseconds(clock: Clock) -> None:
    feed = Feed(LONGEST, clock)
    clock.now += 100
    feed.found(more=False)
    assert 0 < feed.pause() <= 0.005


@pytest.mark.parametrize("quiet", [0.1, 1, 10, 40])
def test_a_pause_lasts_a_tenth_of_the_quiet_before_it(clock: Clock, quiet: float) -> None:
    feed = Feed(LONGEST, clock)
    clock.now += quiet
    assert feed.pause() == pytest.approx(quiet / 10)


@pytest.mark.parametrize("quiet", [51, 1e6])
def test_no_pause_is_longer_than_the_longest(clock: Clock, quiet: float) -> None:
    feed = Feed(LONGEST, clock)
    clock.now += quiet
    assert feed.pause() == LONGEST


def test_the_longest_pause_wins_where_it_is_shorter_than_the_shortest(clock: Clock) -> None:
    assert Feed(0.001, clock).pause() == 0.001


def test_an_idle_hour_costs_one_look_per_longest_pause(clock: Clock) -> None:
    feed = Feed(LONGEST, clock)
    looks, end = 0, clock.now + 3600
    while clock.now < end:
        clock.now += feed.pause()
        looks += 1
    assert looks < 3600 / LONGEST + 100


async def test_a_pause_ends_by_itself(clock: Clock) -> None:
    feed = Feed(0.01, clock)
    clock.now += 10_000
    await soon(feed.wait())


async def test_a_wake_up_ends_the_pause(clock: Clock) -> None:
    feed = quiet_feed(clock)
    worker = await paused(feed.wait)
    assert not worker.done()
    feed.wake()
    await soon(worker)


async def test_a_wake_up_that_comes_before_the_pause_counts_once(clock: Clock) -> None:
    feed = quiet_feed(clock)
    feed.wake()
    feed.wake()
    await soon(feed.wait())
    worker = await paused(feed.wait)
    assert not worker.done()
    feed.close()
    await soon(worker)


async def test_idle_workers_take_turns_so_that_one_looks(clock: Clock) -> None:
    feed = quiet_feed(clock)
    workers = [await paused(feed.wait) for _ in range(3)]
    for woken in (1, 2, 3):
        feed.wake()
        await settle()
        assert sum(worker.done() for worker in workers) == woken


@pytest.mark.parametrize("more", [False, True])
async def test_rows_end_a_pause_that_began_in_the_quiet_before_them(clock: Clock, more: bool) -> None:
    feed = quiet_feed(clock)
    worker = await paused(feed.wait)
    feed.found(more=more)
    await soon(worker)
    await soon(feed.wait())  # and the next ones are short


async def test_a_full_batch_calls_another_worker_in(clock: Clock) -> None:
    feed = Feed(60.0, clock)
    feed.found(more=True)
    clock.now += 10_000
    await soon(feed.wait())


async def test_closing_ends_all_pauses_for_good(clock: Clock) -> None:
    feed = quiet_feed(clock)
    workers = [await paused(feed.wait) for _ in range(3)]
    feed.close()
    await soon(asyncio.gather(*workers))  # type: ignore[arg-type]
    for _ in range(3):
        await soon(feed.wait())
