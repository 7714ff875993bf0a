"""How often sweeps come, and how batches grow with what is known of a backlog (design: promise 8)."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest
import structlog

from projector.batch import BatchResult, BatchRules
from projector.claims import Backlog, Claimer
from projector.worker import BatchSize, Worker
from tests.platform_rows import add_generation, add_org, enqueue


def seconds_of(costs: list[float]) -> Iterator[float]:
    """A clock that goes on by these costs, one at each second look: at the end of each sweep."""
    now = 0.0
    yield now
    for cost in costs:
        yield now
        now += cost
        yield now


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 1.0), (0.01, 1.0), (0.2, 10.0)])
async def test_sweeps_take_a_fiftieth_of_the_time_at_the_most(
    connection: asyncpg.Connection, cost: float, pause: float
) -> None:
    ticks = seconds_of([cost])
    now = [0.0]

    def clock() -> float:
        now[0] = next(ticks, now[0])
        return now[0]

    backlog = Backlog(clock)
    await backlog.sweep(connection)
    now[0] = cost + pause - 0.01
    assert not backlog.sweep_is_due
    now[0] = cost + pause + 0.01
    assert backlog.sweep_is_due


class CostlyClock:
    """Seconds that pass while something looks at the database: `step` at each second look."""

    def __init__(self) -> None:
        self.now, self.step, self.looks = 1000.0, 0.0, 0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks % 2 == 0:
            self.now += self.step
        return self.now


async def test_a_look_at_the_whole_last_minute_counts_as_part_of_the_sweep(connection: asyncpg.Connection) -> None:
    clock = CostlyClock()
    backlog = Backlog(clock)
    await backlog.sweep(connection)
    clock.looks, clock.step = 0, 0.2
    await backlog.claim_fresh(connection, 10)
    clock.step = 0
    clock.now += 10.7
    assert not backlog.sweep_is_due
    clock.now += 0.4
    assert backlog.sweep_is_due


async def work(database: str, rules: BatchRules, start: int, batches: int) -> list[BatchResult]:
    """So many batches of one worker, the first of `start` rows."""
    stop = asyncio.Event()
    done: list[BatchResult] = []

    def count(result: BatchResult, _: float) -> None:
        done.append(result)
        if len(done) == batches:
            stop.set()

    def give_up(error: Exception, _: int) -> None:
        raise error

    async def nothing_is_due() -> bool:
        return False

    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        await Worker(
            pool=pool, rules=rules, size=BatchSize(start=start, limit=1000, slow_seconds=0), stop=stop,
            rest=nothing_is_due, on_batch=count, on_fault=give_up, log=structlog.get_logger(),
            claimer=Claimer(Backlog(lambda: 0.0, exact=True)),
        ).run()  # fmt: skip
    return done


async def test_batches_grow_while_there_are_orgs_that_none_came_to(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for org_id in range(1, 30):
        await add_org(connection, org_id)
        await enqueue(connection, "llm_generation", await add_generation(connection, org_id), org_id)
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() - interval '2 minutes'")
    done = await work(database, rules, start=8, batches=3)
    assert [result.limit for result in done] == [8, 16, 32]
    assert [result.full for result in done] == [True, True, False]
    assert sum(result.claimed for result in done) == 29
