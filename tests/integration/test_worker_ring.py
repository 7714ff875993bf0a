"""A worker goes around the ring of orgs, and its batches grow while there are orgs that it did not come to."""

import asyncio

import asyncpg
import pytest
import structlog

from projector.batch import BatchResult, BatchRules
from projector.worker import BatchSize, Worker
from tests.platform_rows import add_generation, add_org, enqueue


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def enqueue_rows(connection: asyncpg.Connection, org_id: int, rows: int) -> None:
    await add_org(connection, org_id)
    for _ in range(rows):
        await enqueue(connection, "llm_generation", await add_generation(connection, org_id), org_id)


async def work(database: str, rules: BatchRules, start: int, batches: int, most: int = 1000) -> list[BatchResult]:
    """So many batches of one worker, the first of `start` rows and none of more than `most`."""
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
            pool=pool, rules=rules, size=BatchSize(start=start, limit=most, slow_seconds=0), stop=stop,
            rest=nothing_is_due, on_batch=count, on_fault=give_up, log=structlog.get_logger(),
        ).run()  # fmt: skip
    return done


async def test_an_org_behind_others_with_backlogs_has_its_turn(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for org_id, rows in ((1, 60), (2, 60), (3, 1)):
        await enqueue_rows(connection, org_id, rows)
    await work(database, rules, start=8, batches=2, most=8)
    waiting = await connection.fetch("SELECT DISTINCT org_id FROM reporting_outbox WHERE status = 'pending'")
    assert {record["org_id"] for record in waiting} == {1, 2}


async def test_batches_grow_while_there_are_orgs_that_none_came_to(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for org_id in range(1, 30):
        await enqueue_rows(connection, org_id, 1)
    done = await work(database, rules, start=8, batches=4)
    assert [result.limit for result in done] == [8, 16, 32, 64]
    assert [result.claimed for result in done] == [2, 4, 8, 15]
    assert [result.full for result in done] == [True, True, True, False]


async def test_two_workers_have_a_ring_each(database: str, connection: asyncpg.Connection, rules: BatchRules) -> None:
    for org_id in (1, 2, 3):
        await enqueue_rows(connection, org_id, 20)
    first = await work(database, rules, start=8, batches=1)
    second = await work(database, rules, start=8, batches=1)
    assert first[0].claimed == second[0].claimed == 8
    settled = await connection.fetch(
        "SELECT org_id, count(*) FROM reporting_outbox WHERE status = 'completed' GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(record) for record in settled] == [(1, 8), (2, 8)]
