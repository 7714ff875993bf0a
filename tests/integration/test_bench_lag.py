"""The bench's lag ends when a fact can be seen: what commit timestamps say is compared with looking for the fact."""

import asyncio
import time
from collections.abc import Iterator

import asyncpg
import pytest

from projector.batch import BatchRules
from projector.database import transaction
from projector.projections import llm_generation
from tests.bench.lag import LAG
from tests.bench.live_writers import WRITE_GENERATION, Load, write_live
from tests.bench.parts import make_platform, own_database
from tests.bench.stage import connected, own_server
from tests.obstacles import wait_until

HELD_SECONDS = 0.15
TOLERANCE_SECONDS = 0.05


@pytest.fixture(scope="module")
def bench_server() -> Iterator[str]:
    """A server with the bench's settings."""
    with own_server() as dsn:
        yield dsn


async def seen(connection: asyncpg.Connection, model: str) -> float:
    """Waits until the fact of a model's generation can be seen; gives when that was."""

    async def found() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM fact_llm_generation WHERE model = $1", model))

    await wait_until(found)
    return time.perf_counter()


async def test_commit_timestamps_tell_what_looking_for_the_fact_tells(bench_server: str, rules: BatchRules) -> None:
    async with own_database(bench_server, "projector_bench_lag_test") as dsn:
        await make_platform(dsn, 1)
        async with connected(dsn) as writer, connected(dsn) as projecting, connected(dsn) as reader:
            for number in range(5):
                model = f"row {number}"
                await writer.execute(WRITE_GENERATION, 1, model)
                committed = time.perf_counter()
                looking = asyncio.create_task(seen(reader, model))
                async with transaction(projecting, rules.timeouts):
                    row = await projecting.fetchval("SELECT id::text FROM llm_generations WHERE model = $1", model)
                    await projecting.fetch(llm_generation.PROJECTION.project, [1], [row], False)
                    # The fact is written, and projected_at with it, but nobody else can see it yet.
                    await asyncio.sleep(HELD_SECONDS)
                looked = await looking - committed
                lag = await reader.fetchval(LAG, model)
                assert looked > HELD_SECONDS
                assert lag == pytest.approx(looked, abs=TOLERANCE_SECONDS)


async def test_rows_without_a_fact_have_no_lag_yet(bench_server: str) -> None:
    async with own_database(bench_server, "projector_bench_lag_test") as dsn:
        await make_platform(dsn, 1)
        async with connected(dsn) as connection:
            await connection.execute(WRITE_GENERATION, 1, "waits")
            assert [record["lag"] for record in await connection.fetch(LAG, "waits")] == [None]


async def test_writers_keep_to_their_schedule_however_long_a_row_takes(bench_server: str) -> None:
    load = Load(rate=50, seconds=1, writers=2, orgs=2)
    async with own_database(bench_server, "projector_bench_lag_test") as dsn:
        await make_platform(dsn, 2)
        async with connected(dsn) as connection, asyncio.TaskGroup() as group:
            writing = group.create_task(write_live(dsn, load, "live"))
            await asyncio.sleep(0.3)
            async with connection.transaction():
                await connection.execute("LOCK TABLE llm_generations IN SHARE MODE")
                await asyncio.sleep(0.4)
    written = writing.result()
    assert len(written.late) == load.rows
    # The rows that came due during the lock were written after it, and each tells how late it was.
    assert max(written.late) > 0.3
    assert sum(late > 0.1 for late in written.late) > 10
