"""The gauges equal the truth, and leases that ran out come back (design: lag, freshness; outbox.md: processing)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from projector.batch import BatchRules, run_batch
from projector.database import Timeouts, open_pool
from projector.metrics import Metrics
from projector.registry import Registry
from projector.sampler import Sampler
from tests.daemons import captured_log, running, settings_for
from tests.obstacles import enqueue_tools, statuses, wait_until
from tests.platform_rows import add_org, add_session, enqueue

CLOSE = 3.0
"""Seconds that may pass between a test's writing and the sample."""


@pytest.fixture
async def sampler(database: str, registry: Registry) -> AsyncIterator[Sampler]:
    """A sampler with nobody beside it who would project what waits."""
    pool = await open_pool(settings_for(database), 1)
    log, _ = captured_log()
    metrics = Metrics(registry, CollectorRegistry())
    yield Sampler(pool, registry, metrics, Timeouts(30), 5, asyncio.Event(), log)
    pool.terminate()


def gauge(sampler: Sampler, name: str, **labels: str) -> float | None:
    return sampler.metrics.registry.get_sample_value(name, labels)


async def enqueue_as(
    connection: asyncpg.Connection, source_type: str, status: str, due: str, claimed: str | None = None
) -> UUID:
    """An outbox row with a status, due at a time that is a SQL expression, perhaps leased since another."""
    row = await enqueue(connection, source_type, uuid4())
    await connection.execute(
        f"UPDATE reporting_outbox SET status = $2, next_attempt_at = {due}, claimed_at = {claimed or 'NULL'}"
        " WHERE id = $1",
        row, status,
    )  # fmt: skip
    return row


async def test_lag_is_the_age_of_the_oldest_due_row_by_source_type(
    connection: asyncpg.Connection, sampler: Sampler
) -> None:
    await add_org(connection)
    await enqueue_as(connection, "event", "pending", "now() - interval '90 s'")
    await enqueue_as(connection, "event", "pending", "now() - interval '30 s'")
    await enqueue_as(connection, "session", "failed", "now() - interval '600 s'")
    await enqueue_as(connection, "session", "pending", "now() + interval '1 h'")
    await enqueue_as(connection, "llm_generation", "pending", "now() + interval '1 h'")
    await enqueue_as(connection, "llm_generation", "failed", "'infinity'")
    await enqueue_as(connection, "usage_ledger", "completed", "now() - interval '1 day'")
    await enqueue_as(connection, "usage_ledger", "processing", "now() - interval '1 day'", "now()")
    await enqueue_as(connection, "weather", "pending", "now() - interval '20 s'")
    await enqueue_as(connection, "tides", "pending", "now() - interval '40 s'")
    await sampler.sample()
    lags = {"event": 90, "session": 600, "llm_generation": 0, "usage_ledger": 0, "other": 40}
    for source_type, lag in lags.items():
        shown = gauge(sampler, "reporting_outbox_lag_seconds", source_type=source_type)
        assert shown == pytest.approx(lag, abs=CLOSE if lag else 0), source_type


async def test_rows_are_counted_by_status_with_dead_letters_apart(
    connection: asyncpg.Connection, sampler: Sampler
) -> None:
    await add_org(connection)
    for status, due, times in (
        ("pending", "now()", 2),
        ("pending", "now() + interval '1 h'", 1),
        ("failed", "now()", 1),
        ("failed", "now() + interval '1 h'", 3),
        ("failed", "'infinity'", 2),
        ("completed", "now()", 5),
    ):
        for _ in range(times):
            await enqueue_as(connection, "event", status, due)
    await enqueue_as(connection, "session", "processing", "now()", "now()")
    state = await sampler.sample()
    truth = {"pending": 3, "processing": 1, "failed": 4, "dead": 2, "completed": 5}
    assert state.rows == truth
    for status, rows in truth.items():
        assert gauge(sampler, "reporting_outbox_rows", status=status) == rows


async def test_gauges_follow_the_outbox_down_again(connection: asyncpg.Connection, sampler: Sampler) -> None:
    await enqueue_tools(connection, ["search"])
    await sampler.sample()
    assert gauge(sampler, "reporting_outbox_rows", status="pending") == 1
    await connection.execute("DELETE FROM reporting_outbox")
    await sampler.sample()
    assert gauge(sampler, "reporting_outbox_rows", status="pending") == 0
    assert gauge(sampler, "reporting_outbox_lag_seconds", source_type="event") == 0


async def test_freshness_is_the_time_since_a_dataset_last_gained_a_fact_in_any_org(
    connection: asyncpg.Connection, rules: BatchRules, sampler: Sampler
) -> None:
    await enqueue_tools(connection, ["search", "read"])
    for org_id in (1, 2):
        await add_org(connection, org_id)
        await enqueue(connection, "session", await add_session(connection, org_id), org_id)
    assert (await run_batch(connection, rules, 10)).completed_rows == 4
    await connection.execute("UPDATE fact_session SET projected_at = now() - org_id * interval '300 s'")
    await connection.execute("UPDATE fact_tool_call SET projected_at = now() + interval '1 h'")
    await sampler.sample()
    fresh = "reporting_dataset_freshness_seconds"
    assert gauge(sampler, fresh, dataset="sessions") == pytest.approx(300, abs=CLOSE)
    assert gauge(sampler, fresh, dataset="tool_calls") == 0  # a clock that was ahead makes no negative age
    assert gauge(sampler, fresh, dataset="turns") is None


async def test_the_sample_tells_when_it_was_taken(connection: asyncpg.Connection, sampler: Sampler) -> None:
    await sampler.sample()
    taken = gauge(sampler, "reporting_outbox_sampled_timestamp_seconds")
    assert taken == pytest.approx((await connection.fetchval("SELECT now()")).timestamp(), abs=CLOSE)


async def test_a_lease_older_than_15_minutes_is_released_and_the_row_projected(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    expired, unmarked, held = await enqueue_tools(connection, ["search", "read", "write"])
    lease = "UPDATE reporting_outbox SET status = 'processing', claimed_at = now() - $2::interval WHERE id = $1"
    await connection.execute(lease, expired, timedelta(minutes=15, seconds=5))
    await connection.execute(lease, held, timedelta(minutes=14))
    await connection.execute(
        "UPDATE reporting_outbox SET status = 'processing', updated_at = now() - interval '1 h' WHERE id = $1", unmarked
    )
    async with running(settings_for(database), registry) as projector:

        async def projected() -> bool:
            return await statuses(connection, [expired, unmarked]) == ["completed"] * 2

        await wait_until(projected)
        assert projector.metric("reporting_outbox_leases_released_total") == 2
    assert await statuses(connection, [held]) == ["processing"]


async def test_a_fault_of_the_database_skips_a_sample_and_ends_nothing(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    async with running(settings_for(database), registry) as projector:
        await wait_until(projector.ready)
        await connection.execute("ALTER TABLE fact_turn RENAME COLUMN projected_at TO elsewhere")
        await projector.has_logged("gauges not sampled, the last values stand")
        await connection.execute("ALTER TABLE fact_turn RENAME COLUMN elsewhere TO projected_at")
        rows = await enqueue_tools(connection, ["search"])

        async def sampled() -> bool:
            return projector.metric("reporting_outbox_rows", status="completed") == len(rows)

        await wait_until(sampled)
    assert projector.task.result() == 0
