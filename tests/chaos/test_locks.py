"""Somebody holds locks on facts, or statements take too long: rows wait, and none pays (promises 3 and 9)."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.recovery import projects_again
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened

# Rows that were put off come back within half a minute.
_RECOVERS_WITHIN = 45.0
_TOOL_CALLS = "SELECT count(*) FROM fact_tool_call"
_GENERATIONS = "SELECT count(*) FROM fact_llm_generation"

Record = Callable[[str, object], None]


@pytest.mark.parametrize(
    "lock",
    [
        "LOCK TABLE fact_tool_call IN EXCLUSIVE MODE",
        pytest.param("SELECT FROM fact_session FOR UPDATE SKIP LOCKED", marks=pytest.mark.full_only),
    ],
)
async def test_locks_on_facts_that_are_held_for_long_hold_up_no_more_than_they_must(
    chaos: Chaos, database: str, tmp_path: Path, lock: str, record_property: Record
) -> None:
    seconds = chaos.times(40, 2)
    writers = Writers(database, chaos.random(f"writers of {lock}"))
    async with Fleet(database, tmp_path, reporting_projector_limit="20") as fleet, asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        await fleet.start()
        await projects_again(database)
        async with opened(database) as holder, holder.transaction():
            await holder.execute(lock)
            before = [await holder.fetchval(_TOOL_CALLS), await holder.fetchval(_GENERATIONS)]
            await asyncio.sleep(seconds)
            assert not lock.startswith("LOCK") or await holder.fetchval(_TOOL_CALLS) == before[0]
            # Longer than a lock may be waited for: the other projections' rows are projected by now.
            assert seconds < 20 or await holder.fetchval(_GENERATIONS) > before[1]
        released = time.monotonic()
        await projects_again(database)
        record_property("normal again, but for rows that were put off", time.monotonic() - released)
        writers.stop.set()
        await settled(database)
        record_property("all settled", time.monotonic() - released)
        assert await fleet.stop_all() == [0]
    assert time.monotonic() - released < _RECOVERS_WITHIN
    assert await verify(database) > 0


async def test_statements_that_take_too_long_cost_no_row_anything(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Record
) -> None:
    seconds = chaos.times(10, 1)
    writers = Writers(database, chaos.random("writers of slow statements"))
    async with (
        Fleet(database, tmp_path, reporting_projector_limit="20", reporting_statement_timeout_secs="0.2") as fleet,
        asyncio.TaskGroup() as group,
        opened(database) as connection,
    ):
        group.create_task(writers.run())
        await fleet.start()
        await projects_again(database)
        await connection.execute("""
            CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
            CREATE TRIGGER be_slow BEFORE INSERT ON fact_tool_call FOR EACH ROW EXECUTE FUNCTION be_slow();
        """)
        await asyncio.sleep(seconds)
        await connection.execute("DROP FUNCTION be_slow CASCADE")
        released = time.monotonic()
        writers.stop.set()
        if not chaos.full:
            # Half a minute, for which rows are put off, is too long for CI.
            await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() WHERE status = 'pending'")
        await settled(database)
        record_property("all settled", time.monotonic() - released)
        (daemon,) = fleet.running
        assert daemon.logged("batch given up, nothing was changed; trying again")
        assert await fleet.stop_all() == [0]
    assert await verify(database) > 0
