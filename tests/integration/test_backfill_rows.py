"""The outbox rows that a backfill writes, and those that it leaves alone (contract: outbox.md)."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import backfill as module
from projector.batch import BatchRules, run_batch
from projector.projections import BUILT_IN
from tests.backfills import (
    LEDGER,
    add_one_of_each,
    add_postings,
    drain,
    enqueued,
    run,
)
from tests.obstacles import opened, set_columns
from tests.platform_rows import (
    EPOCH,
    add_event,
    add_generation,
    add_org,
    add_posting,
    add_session,
    enqueue,
    outbox_row,
)


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.mark.parametrize("projection", BUILT_IN, ids=lambda projection: projection.name)
async def test_rows_have_the_contracts_reason_and_version(connection: asyncpg.Connection, projection: Any) -> None:
    made = await add_one_of_each(connection)
    await run(connection, projections=(projection,))
    (row,) = await connection.fetch("SELECT * FROM reporting_outbox")
    source = str(made[projection.source_type])
    assert (row["org_id"], row["source_type"], row["source_id"], row["reason"], row["status"]) == (
        1, projection.source_type, source, projection.reason, "pending",
    )  # fmt: skip
    if not projection.versioned:
        assert row["source_version"] == source


@pytest.mark.parametrize(
    ("microseconds", "version"),
    [
        (0, "2026-05-06T10:00:00Z"),
        (120_000, "2026-05-06T10:00:00.120Z"),
        (123_000, "2026-05-06T10:00:00.123Z"),
        (123_456, "2026-05-06T10:00:00.123456Z"),
        (1, "2026-05-06T10:00:00.000001Z"),
        (100, "2026-05-06T10:00:00.000100Z"),
        (999_999, "2026-05-06T10:00:00.999999Z"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
async def test_a_sessions_version_is_written_as_short_as_is_exact(
    connection: asyncpg.Connection, microseconds: int, version: str, zone: str
) -> None:
    await add_org(connection)
    await connection.execute(f"SET timezone = '{zone}'")
    moment = datetime(2026, 5, 6, 10, 0, 0, microseconds, tzinfo=UTC)
    await add_session(connection, updated_at=moment)
    await run(connection)
    assert await connection.fetchval("SELECT source_version FROM reporting_outbox") == version


async def add_row(connection: asyncpg.Connection, source: UUID, version: str, **columns: Any) -> UUID:
    """An outbox row of a session as a backfill would have written it, but for its version."""
    row: UUID = await connection.fetchval(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
        " VALUES (1, 'session', $1, $2, 'session_snapshot') RETURNING id",
        str(source), version,
    )  # fmt: skip
    if columns:
        await set_columns(connection, [row], **columns)
    return row


async def pending_versions(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT source_version FROM reporting_outbox WHERE status = 'pending'")
    return [row["source_version"] for row in rows]


async def test_a_session_that_was_enqueued_before_keeps_its_newest_version(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    versions = ("2026-05-06T10:00:00+00:00", "2026-05-06T12:00:00+00:00", "2026-05-06T11:00:00+00:00")
    for version in versions:  # the newest is the one that was written last, whatever its text says
        await connection.execute(
            "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
            " VALUES (1, 'session', $1, $2, 'session_snapshot')",
            str(session), version,
        )  # fmt: skip
    await drain(connection, rules)
    await connection.execute("DELETE FROM fact_session")
    assert await enqueued(connection) == {"session": 1}
    pending = await connection.fetch("SELECT source_version FROM reporting_outbox WHERE status = 'pending'")
    assert [record["source_version"] for record in pending] == [versions[-1]]
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 3


async def test_the_newest_version_is_that_of_the_row_made_last_whatever_its_id(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    session = await add_session(connection)
    for version, hours in (("newest", 2), ("older", 1)):  # ids rise, moments fall
        await add_row(connection, session, version, status="completed", created_at=EPOCH + timedelta(hours=hours))
    await run(connection)
    assert await pending_versions(connection) == ["newest"]


async def test_of_rows_of_the_same_moment_the_one_with_the_greater_id_has_the_newest_version(
    connection: asyncpg.Connection,
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    for version in ("z", "a", "m"):
        await add_row(connection, session, version, status="completed", created_at=EPOCH)
    assert await enqueued(connection) == {"session": 1}
    assert await pending_versions(connection) == ["m"]


async def test_a_row_for_another_reason_lends_no_version(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    session = await add_session(connection)
    await add_row(connection, session, "ours", status="completed")
    await add_row(connection, session, "theirs", status="completed", reason="rebuild")
    await run(connection)
    assert await pending_versions(connection) == ["ours"]


async def test_late_usage_in_the_outbox_does_not_lend_its_version(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    generation = await add_generation(connection)
    for version in (f"{generation}", f"{generation}:late_usage"):
        await connection.execute(
            "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
            " VALUES (1, 'llm_generation', $1, $2, 'llm_generation_projection')",
            str(generation), version,
        )  # fmt: skip
    await drain(connection, rules)
    await connection.execute("DELETE FROM fact_llm_generation")
    await run(connection)
    pending = await connection.fetch("SELECT source_version FROM reporting_outbox WHERE status = 'pending'")
    assert [record["source_version"] for record in pending] == [str(generation)]


async def test_rows_that_wait_are_neither_counted_nor_use_up_the_limit(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    session = await add_session(connection)
    events = [await add_event(connection, session, "tool.completed") for _ in range(9)]
    for event, status in zip(events[:6], ("pending", "failed", "processing") * 2, strict=True):
        row = await enqueue(connection, "event", event)
        await connection.execute("UPDATE reporting_outbox SET status = $2 WHERE id = $1", row, status)
    rows = await connection.fetch("SELECT * FROM reporting_outbox ORDER BY id")
    assert await enqueued(connection, 2) == {"event": 2}
    assert await enqueued(connection, 2) == {"event": 1, "session": 1}
    assert await enqueued(connection, 2) == {}
    assert await connection.fetch("SELECT * FROM reporting_outbox ORDER BY id LIMIT 6") == rows


async def test_a_source_waits_if_any_of_its_rows_does(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    session = await add_session(connection)
    await add_row(connection, session, "one", status="completed")
    await add_row(connection, session, "two", reason="rebuild")
    assert await enqueued(connection) == {}


async def test_a_row_of_another_type_or_org_with_the_same_source_id_is_another_source(
    connection: asyncpg.Connection,
) -> None:
    await add_org(connection)
    await add_org(connection, 2)
    session = await add_session(connection)
    await enqueue(connection, "event", session)
    await enqueue(connection, "session", session, org_id=2)
    assert await enqueued(connection) == {"session": 1}


async def test_a_completed_row_becomes_pending_and_due_with_all_attempts_before_it(
    connection: asyncpg.Connection,
) -> None:
    await add_org(connection)
    source = await add_posting(connection)
    row: UUID = await connection.fetchval(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason, status, attempts,"
        " last_error, next_attempt_at) VALUES (1, 'usage_ledger', $1, $1, 'budget_posting_projection', 'completed', 7,"
        " 'old', 'infinity') RETURNING id",
        str(source),
    )
    assert await enqueued(connection) == {"usage_ledger": 1}
    record = await outbox_row(connection, row)
    assert (record["status"], record["attempts"], record["last_error"]) == ("pending", 0, None)
    assert record["next_attempt_at"] <= await connection.fetchval("SELECT now()")
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 1


async def test_a_row_made_pending_again_is_as_if_new_and_behind_live_ones(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    source = await add_posting(connection)
    row = await enqueue(connection, "usage_ledger", source, version=str(source))
    await set_columns(
        connection,
        [row],
        status="completed",
        reason=LEDGER.reason,
        claimed_at=EPOCH,
        updated_at=EPOCH,
        last_error="old",
    )
    assert await enqueued(connection) == {"usage_ledger": 1}
    record = await outbox_row(connection, row)
    now = await connection.fetchval("SELECT now()")
    assert (record["claimed_at"], record["last_error"]) == (None, None)
    assert now - record["updated_at"] < timedelta(seconds=5)
    assert timedelta(seconds=69) < now - record["next_attempt_at"] < timedelta(seconds=75)


async def test_sources_enqueued_together_are_claimed_oldest_first(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    made = {hour: await add_posting(connection, created_at=EPOCH + timedelta(hours=hour)) for hour in (3, 1, 4, 2)}
    await run(connection)
    rows = await connection.fetch("SELECT source_id FROM reporting_outbox ORDER BY next_attempt_at, id")
    assert [row["source_id"] for row in rows] == [str(made[hour]) for hour in (1, 2, 3, 4)]


async def test_what_is_projected_while_a_backfill_looks_is_not_enqueued_again(
    database: str, connection: asyncpg.Connection, rules: BatchRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_org(connection)
    await enqueue(connection, "usage_ledger", await add_posting(connection))
    original = module.Backfill._enqueue  # noqa: SLF001 - the moment between looking and enqueuing

    async def project_first(self: module.Backfill, *arguments: Any) -> int:
        async with opened(database) as worker:
            await run_batch(worker, rules, 10)
        return await original(self, *arguments)

    monkeypatch.setattr(module.Backfill, "_enqueue", project_first)
    assert await enqueued(connection) == {}
    assert await connection.fetchval("SELECT array_agg(status) FROM reporting_outbox") == ["completed"]


async def test_a_backlog_of_a_backfill_does_not_delay_live_rows(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 3000)
    await run(connection, 3000)
    live = await add_posting(connection)
    row = await enqueue(connection, "usage_ledger", live)
    await add_postings(connection, 3000)
    await run(connection, 3000)  # enqueued after the live row, and still behind it
    await run_batch(connection, rules, 100)
    assert (await outbox_row(connection, row))["status"] == "completed"


async def test_an_unknown_uuid_is_no_trouble(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    await enqueue(connection, "usage_ledger", uuid4())
    assert await enqueued(connection) == {}
