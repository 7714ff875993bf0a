"""Clocks that differ, jump and go back: what is due is decided by the database's clock alone (contract: outbox.md)."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from tests.chaos.probes import metrics
from tests.chaos.recovery import projects_again
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.clocks import set_clock, shift_clock
from tests.obstacles import opened, set_columns, statuses, wait_until
from tests.platform_rows import add_event, add_session, enqueue
from tests.processes import Running, daemon_settings, started

_HOUR = 3600.0
_AT_ONCE = 5.0
_SAMPLE_SECONDS = "0.2"
# Samples that are costly, on a busy machine, are taken less often.
_SAMPLED_WITHIN = 30.0
_MODULE = "tests.chaos.shifted"

Record = Callable[[str, object], None]


async def test_the_clock_of_the_process_is_off_and_jumps_and_nothing_changes(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("the clock of the process")
    clock = tmp_path / "clock"
    clock.write_text(str(_HOUR), encoding="ascii")
    settings = daemon_settings(database, clock_file=str(clock), reporting_sample_interval_secs=_SAMPLE_SECONDS)
    writers = Writers(database, chaos.random("writers of the clock of the process"))
    took = []
    async with (
        started("run", folder=tmp_path, module=_MODULE, **settings) as daemon,
        opened(database) as connection,
        asyncio.TaskGroup() as group,
    ):
        await daemon.has_logged("projecting")
        (said,) = daemon.logged("projecting")
        assert datetime.fromisoformat(said["timestamp"]).timestamp() - time.time() > _HOUR / 2
        group.create_task(writers.run())
        await projects_again(database)
        for offset in [-_HOUR, _HOUR, *(random.uniform(-_HOUR, _HOUR) for _ in range(chaos.times(8, 0)))]:
            clock.write_text(str(offset), encoding="ascii")
            took.append(await _only_what_is_due_is_projected(connection))
            sampled = await _gauges_are_right(connection, daemon)
            rows = sampled["reporting_projection_delay_seconds_count", "event"]
            assert 0 < sampled["reporting_projection_delay_seconds_sum", "event"] < rows * _AT_ONCE
        await _all_settle(connection, database, writers)
        daemon.process.terminate()
        assert await daemon.end() == 0
    record_property("longest delay", max(took))
    assert await verify(database) > 0


async def test_the_clock_of_the_database_jumps_and_it_alone_decides_what_is_due(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("the clock of the database")
    async with opened(database) as connection:
        await shift_clock(connection)
        await set_clock(connection, _HOUR)
    settings = daemon_settings(database, reporting_sample_interval_secs=_SAMPLE_SECONDS)
    writers = Writers(database, chaos.random("writers of the clock of the database"))
    took = []
    async with (
        started("run", folder=tmp_path, **settings) as daemon,
        opened(database) as connection,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        await projects_again(database)
        for seconds in [0.0, _HOUR, -_HOUR, *(random.uniform(-_HOUR, _HOUR) for _ in range(chaos.times(8, 0)))]:
            await set_clock(connection, seconds)
            took.append(await _only_what_is_due_is_projected(connection))
            await _gauges_are_right(connection, daemon)
        # What came before the clock went back waits until it has come round again.
        await set_clock(connection, 3 * _HOUR)
        await _all_settle(connection, database, writers)
        daemon.process.terminate()
        assert await daemon.end() == 0
    record_property("longest delay", max(took))
    assert await verify(database) > 0


async def _only_what_is_due_is_projected(connection: asyncpg.Connection) -> float:
    """What is due by the database's clock is projected, what is due in half an hour is not; gives the delay."""
    session = await add_session(connection)
    async with connection.transaction():
        later = await _enqueue_tool(connection, session)
        half_an_hour = await connection.fetchval("SELECT now() + interval '30 minutes'")
        await set_columns(connection, [later], next_attempt_at=half_an_hour)
    due = await _enqueue_tool(connection, session)
    await enqueue(connection, "session", session)
    began = time.monotonic()

    async def completed() -> bool:
        return await statuses(connection, [due]) == ["completed"]

    await wait_until(completed, _AT_ONCE)
    took = time.monotonic() - began
    assert await statuses(connection, [later]) == ["pending"]
    return took


async def _enqueue_tool(connection: asyncpg.Connection, session: UUID) -> UUID:
    event = await add_event(connection, session, "tool.completed", {"tool_name": "search", "success": True})
    return await enqueue(connection, "event", event)


async def _gauges_are_right(connection: asyncpg.Connection, daemon: Running) -> dict[tuple[str, ...], float]:
    """Once sampled anew, what the gauges tell is what the database's clock tells."""
    now: datetime = await connection.fetchval("SELECT now()")
    sampled: dict[tuple[str, ...], float] = {}

    async def sampled_anew() -> bool:
        nonlocal sampled
        sampled = await metrics(daemon)
        lag = max(value for (name, *_), value in sampled.items() if name == "reporting_outbox_lag_seconds")
        # What waited when the clock went forward has been due for as long, until it is projected.
        age = sampled["reporting_outbox_sampled_timestamp_seconds",] - now.timestamp()
        return 0 <= age < _SAMPLED_WITHIN and lag < _AT_ONCE

    await wait_until(sampled_anew, _SAMPLED_WITHIN)
    assert 0 <= sampled["reporting_dataset_freshness_seconds", "tool_calls"] < _AT_ONCE
    return sampled


async def _all_settle(connection: asyncpg.Connection, dsn: str, writers: Writers) -> None:
    """When no more comes, and what was to wait may go, all is settled."""
    writers.stop.set()
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() WHERE status = 'pending'")
    await settled(dsn)
