"""What is in some rows' way for long holds up the rows of other projections no longer than it must (promise 3)."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
import structlog

from projector.batch import BatchResult, BatchRules, run_batch
from projector.claims import Backlog, Claimer
from projector.database import Timeouts, open_pool
from projector.worker import BatchSize, Worker, isolating
from tests.daemons import settings_for
from tests.obstacles import enqueue_tools, opened, recorded, refuse_by_check, statuses
from tests.platform_rows import add_generation, enqueue, enqueue_generations, outbox_row

_QUICK = Timeouts(statement=30, lock=0.02)


@pytest.fixture
def quick(rules: BatchRules) -> BatchRules:
    return replace(rules, timeouts=_QUICK)


async def test_when_all_rows_of_a_projection_wait_a_batch_gives_up_telling_them_apart(
    database: str, connection: asyncpg.Connection, quick: BatchRules
) -> None:
    blocked = await enqueue_tools(connection, [f"tool {number}" for number in range(100)])
    other = await enqueue(connection, "llm_generation", await add_generation(connection))
    rules = replace(isolating(quick), timeouts=_QUICK)
    async with opened(database) as holder, holder.transaction(), opened(database) as worker:
        await holder.execute("LOCK TABLE fact_tool_call IN EXCLUSIVE MODE")
        with recorded(worker) as statements:
            result = await run_batch(worker, rules, 200)
            await asyncio.sleep(0)
    tried = sum("fact_tool_call" in statement for statement in statements)
    assert 12 <= tried <= 24
    assert result.contended == result.postponed == {"event": 100}
    assert await statuses(connection, [other, *blocked[:1]]) == ["completed", "pending"]
    assert (await outbox_row(connection, blocked[0]))["attempts"] == 0


async def test_after_one_lock_timeout_a_worker_tells_the_rows_apart_and_goes_on_doing_so(
    database: str, connection: asyncpg.Connection, quick: BatchRules
) -> None:
    blocked = await enqueue_tools(connection, ["one", "two", "three", "four"])
    other = await enqueue(connection, "llm_generation", await add_generation(connection))
    pool = await open_pool(settings_for(database), 1)
    faults: list[Exception] = []
    batches: list[BatchResult] = []

    async def rest() -> bool:
        return False

    worker = Worker(
        pool=pool, rules=quick, size=BatchSize(3, 3, 1.0), stop=asyncio.Event(), rest=rest,
        on_batch=lambda result, _: batches.append(result), on_fault=lambda error, _: faults.append(error),
        log=structlog.get_logger(), claimer=Claimer(Backlog(lambda: 0.0, exact=True)),
    )  # fmt: skip
    try:
        async with opened(database) as holder, holder.transaction():
            await holder.execute("LOCK TABLE fact_tool_call IN EXCLUSIVE MODE")
            await worker.run()
    finally:
        pool.terminate()
    assert len(faults) == 1
    assert sum(batch.claimed for batch in batches) == 5
    assert await statuses(connection, [other, *blocked]) == ["completed"] + ["pending"] * 4


async def test_what_is_in_the_way_of_one_projection_is_not_taken_for_the_error_of_another(
    database: str, connection: asyncpg.Connection, quick: BatchRules
) -> None:
    blocked = await enqueue_generations(connection, 100)
    tools = await enqueue_tools(connection, ["good", "bad", "good", "good"])
    await refuse_by_check(connection, "fact_tool_call", "tool_name = 'bad'")
    rules = replace(isolating(quick), timeouts=_QUICK)
    async with opened(database) as holder, holder.transaction(), opened(database) as worker:
        await holder.execute("LOCK TABLE fact_llm_generation IN EXCLUSIVE MODE")
        result = await run_batch(worker, rules, 200)
    assert result.contended == {"llm_generation": 100}
    assert await statuses(connection, tools) == ["completed", "failed", "completed", "completed"]
    assert set(await statuses(connection, blocked)) == {"pending"}


async def test_rows_that_are_put_off_together_come_back_apart(
    database: str, connection: asyncpg.Connection, quick: BatchRules
) -> None:
    await enqueue_generations(connection, 100)
    rules = replace(isolating(quick), timeouts=_QUICK)
    async with opened(database) as holder, holder.transaction(), opened(database) as worker:
        await holder.execute("LOCK TABLE fact_llm_generation IN EXCLUSIVE MODE")
        await run_batch(worker, rules, 200)
    (pauses,) = await connection.fetch(
        "SELECT min(next_attempt_at - updated_at), max(next_attempt_at - updated_at), count(DISTINCT next_attempt_at)"
        " FROM reporting_outbox"
    )
    assert timedelta(seconds=15) <= pauses[0] < pauses[1] <= timedelta(seconds=30)
    assert pauses[2] > 90
