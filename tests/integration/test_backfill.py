"""Backfill: what is missing is found and enqueued, once, within the limit, in order (contract: http.md, outbox.md)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import backfill as module
from projector.backfill import BackfillBusyError, alone
from projector.batch import BatchRules, run_batch
from projector.projections import BUILT_IN
from tests.backfills import ALL, STALE, assert_nothing_is_missing, enqueued, run, waiting
from tests.obstacles import opened, wait_until_blocking
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
from tests.scenes import SCENES, Scene, add_cast, assert_facts_follow

CONTRACT_ORDER = ["event", "session", "llm_generation", "usage_ledger"]


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def drain(connection: asyncpg.Connection, rules: BatchRules) -> None:
    while (await run_batch(connection, rules, 10_000)).claimed:
        pass


async def add_one_of_each(connection: asyncpg.Connection, org_id: int = 1, **columns: Any) -> dict[str, UUID]:
    """One source of each type, by type."""
    await add_org(connection, org_id)
    session = await add_session(connection, org_id, **columns)
    return {
        "session": session,
        "event": await add_event(connection, session, "tool.completed", {"tool_name": "search"}, **columns),
        "llm_generation": await add_generation(connection, org_id, session_id=session, **columns),
        "usage_ledger": await add_posting(connection, org_id, **columns),
    }


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_a_source_without_facts_is_enqueued_projected_and_not_missing_any_more(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    source = await scene.write(connection, await add_cast(connection))
    await run(connection)
    assert (scene.source_type, source) in await waiting(connection)
    await drain(connection, rules)
    await assert_facts_follow(connection)
    await assert_nothing_is_missing(connection)


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_each_fact_that_is_lost_makes_its_source_missing(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    source = await scene.write(connection, await add_cast(connection))
    await run(connection)
    await drain(connection, rules)
    for table in scene.tables:
        facts = await connection.fetch(
            f"SELECT source_key FROM {table} WHERE source_key LIKE $1", f"{scene.source_type}:{source}%"
        )
        assert facts
        for fact in facts:
            await connection.execute(f"DELETE FROM {table} WHERE source_key = $1", fact["source_key"])
            assert await enqueued(connection) == {scene.source_type: 1}, fact["source_key"]
            assert await waiting(connection) == [(scene.source_type, source)]
            await drain(connection, rules)
            await assert_facts_follow(connection)


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("turn.sealed", {"turn_id": "t"}),
        ("message.user", {"capability_id": "web"}),
        ("capability.usage", {"records": "none"}),
        ("capability.usage", {"records": [{"capability_id": "", "usage_kind": "exposed"}]}),
        ("capability.usage", {"records": [{"capability_id": "web", "usage_kind": "odd"}, 7, None, []]}),
        ("output.message.replaced", {"guardrail_capability_id": 7}),
        ("output.message.replaced", {}),
    ],
    ids=str,
)
async def test_an_event_that_gives_no_fact_is_never_missing(
    connection: asyncpg.Connection, event_type: str, data: dict[str, Any]
) -> None:
    await add_org(connection)
    await add_event(connection, await add_session(connection), event_type, data)
    assert await enqueued(connection) == {"session": 1}


async def test_the_limit_is_spent_in_the_contracts_order_oldest_first(connection: asyncpg.Connection) -> None:
    made = [await add_one_of_each(connection, created_at=EPOCH + timedelta(hours=hour)) for hour in (3, 1, 2)]
    by_age = [made[1], made[2], made[0]]
    expected = [(source_type, sources[source_type]) for source_type in CONTRACT_ORDER for sources in by_age]
    for done in range(1, 13):
        assert (await run(connection, 1)).rows == 1
        assert await waiting(connection) == expected[:done]
    assert (await run(connection, 1)).rows == 0


async def test_sources_of_the_same_moment_are_told_apart(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    sessions = {await add_session(connection, created_at=EPOCH) for _ in range(25)}
    while await enqueued(connection, 4):
        await drain(connection, rules)
    assert await connection.fetchval("SELECT count(*) FROM fact_session") == len(sessions)


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


async def test_a_backfill_of_one_org_leaves_all_others_alone(connection: asyncpg.Connection) -> None:
    await add_one_of_each(connection, 1)
    made = await add_one_of_each(connection, 2)
    assert await enqueued(connection, org_id=2) == dict.fromkeys(CONTRACT_ORDER, 1)
    assert await connection.fetchval("SELECT array_agg(DISTINCT org_id) FROM reporting_outbox") == [2]
    assert {source for _, source in await waiting(connection)} == set(made.values())
    assert await enqueued(connection, org_id=3) == {}
    assert await enqueued(connection) == dict.fromkeys(CONTRACT_ORDER, 1)


async def test_only_the_named_source_types_are_enqueued(connection: asyncpg.Connection) -> None:
    await add_one_of_each(connection)
    for projection in reversed(BUILT_IN):
        assert await enqueued(connection, projections=(projection,)) == {projection.source_type: 1}


async def test_a_range_is_of_created_at_its_end_excluded(connection: asyncpg.Connection) -> None:
    made = [await add_one_of_each(connection, created_at=EPOCH + timedelta(hours=hour)) for hour in range(4)]
    hours = [EPOCH + timedelta(hours=hour) for hour in range(4)]
    await run(connection, created_from=hours[1], created_to=hours[3])
    assert {source for _, source in await waiting(connection)} == {*made[1].values(), *made[2].values()}
    await run(connection, created_from=hours[3])
    assert {source for _, source in await waiting(connection)} >= set(made[3].values())
    await run(connection, created_to=hours[1])
    assert len(await waiting(connection)) == 16


@pytest.mark.parametrize(
    "scene", [scene for scene in SCENES if scene.source_type in {"session", "llm_generation"}], ids=str
)
async def test_a_source_that_changed_without_a_word_is_stale_but_not_missing(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(connection)
    source = await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await scene.change(connection, cast, source)
    found = await enqueued(connection, mode=STALE)
    assert found[scene.source_type] == 1
    await drain(connection, rules)
    await assert_facts_follow(connection)
    await assert_nothing_is_missing(connection)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE agents SET name = 'other'",
        "UPDATE harnesses SET name = 'other'",
        "UPDATE sessions SET status = 'finished', finished_at = now()",
        "UPDATE sessions SET capabilities = '[]'",
        "DELETE FROM agent_capabilities",
        "DELETE FROM harness_capabilities",
    ],
)
async def test_whatever_a_sessions_facts_follow_makes_them_stale(
    connection: asyncpg.Connection, rules: BatchRules, change: str
) -> None:
    cast = await add_cast(connection)
    scene = next(scene for scene in SCENES if scene.source_type == "session")
    await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await connection.execute(change)
    assert await enqueued(connection, dry_run=True) == {}
    assert await enqueued(connection, mode=STALE) == {"session": 1}
    await drain(connection, rules)
    await assert_facts_follow(connection)


async def test_a_capability_that_is_configured_anew_is_missing(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    cast = await add_cast(connection)
    scene = next(scene for scene in SCENES if scene.source_type == "session")
    await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await connection.execute("INSERT INTO agent_capabilities VALUES ($1, 'browser')", cast.agent)
    assert await enqueued(connection) == {"session": 1}
    await drain(connection, rules)
    await assert_facts_follow(connection)


async def test_all_sources_are_enqueued_once_and_then_no_more(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for _ in range(5):
        await add_one_of_each(connection)
    await run(connection)
    await drain(connection, rules)
    total = 0
    while found := await enqueued(connection, 3, mode=ALL):
        total += sum(found.values())
        await drain(connection, rules)
        assert total <= 20
    assert total == 20
    assert sum((await enqueued(connection, mode=ALL)).values()) == 20  # a new backfill


@pytest.mark.parametrize("mode", ["missing", "stale", "all"])
async def test_a_dry_run_counts_up_to_the_limit_and_changes_nothing(connection: asyncpg.Connection, mode: Any) -> None:
    for _ in range(3):
        await add_one_of_each(connection)
    for _ in range(2):
        assert await enqueued(connection, mode=mode, dry_run=True) == dict.fromkeys(CONTRACT_ORDER, 3)
        assert await enqueued(connection, 4, mode=mode, dry_run=True) == {"event": 3, "session": 1}
    for table in ("reporting_outbox", "reporting_backfill_progress"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert await enqueued(connection, mode=mode) == dict.fromkeys(CONTRACT_ORDER, 3)
    assert await enqueued(connection, mode=mode, dry_run=True) == {}


async def add_postings(connection: asyncpg.Connection, rows: int, org_id: int = 1) -> None:
    await add_org(connection, org_id)
    await connection.execute(
        "INSERT INTO usage_ledger (org_id, currency, amount, meter_source) SELECT $1, 'USD', 1, 'llm'"
        " FROM generate_series(1, $2)",
        org_id, rows,
    )  # fmt: skip


LEDGER = next(projection for projection in BUILT_IN if projection.source_type == "usage_ledger")


async def test_calls_go_on_where_the_one_before_ended_and_look_at_nothing_twice(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 10_500)
    looked_at = []
    for _ in range(5):
        outcome = await run(connection, 2000, projections=(LEDGER,))
        assert outcome.rows == 2000
        looked_at.append(outcome.looked_at)
        await drain(connection, rules)
    assert looked_at == [2000] * 5
    assert (await run(connection, 2000, projections=(LEDGER,))).rows == 500
    await drain(connection, rules)
    assert (await run(connection, 2000, projections=(LEDGER,))).rows == 0
    assert await connection.fetchval("SELECT count(*) FROM reporting_backfill_progress") == 0
    await assert_nothing_is_missing(connection)


async def test_a_slice_that_the_limit_cuts_is_looked_at_again(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 1500)
    for _ in range(5):
        assert (await run(connection, 300, projections=(LEDGER,))).rows == 300
        await drain(connection, rules)
    assert (await run(connection, 300, projections=(LEDGER,))).rows == 0


async def test_slices_whose_rows_all_wait_are_passed_over(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 5000)
    assert (await run(connection, 4900, projections=(LEDGER,))).rows == 4900
    await connection.execute("DELETE FROM reporting_backfill_progress")
    assert (await run(connection, 1000, projections=(LEDGER,))).rows == 100
    assert (await run(connection, 1000, projections=(LEDGER,))).rows == 0


async def test_what_comes_to_be_missing_behind_a_backfill_is_found_by_its_last_call(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 12_000)
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 11_000
    await drain(connection, rules)
    first = await connection.fetchval("SELECT min(source_key) FROM fact_budget_posting")
    await connection.execute("DELETE FROM fact_budget_posting WHERE source_key = $1", first)
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 1001
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 0


async def test_a_call_whose_time_is_up_says_so_and_the_next_one_goes_on(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 8000)
    await connection.execute(
        "INSERT INTO fact_budget_posting (org_id, source_key, created_at, time_bucket_day)"
        " SELECT 1, 'usage_ledger:' || id, now(), now() FROM (SELECT id FROM usage_ledger ORDER BY id LIMIT 7000) AS l"
    )
    first = await run(connection, 1000, projections=(LEDGER,), late_after=2)
    assert (first.rows, first.complete, first.looked_at) == (0, False, 3000)
    second = await run(connection, 1000, projections=(LEDGER,))
    assert (second.rows, second.complete) == (1000, True)
    assert second.looked_at <= 6000


async def test_a_forgotten_backfill_begins_anew(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 3000)
    await run(connection, 1000, projections=(LEDGER,))
    await connection.execute("UPDATE reporting_backfill_progress SET updated_at = now() - interval '61 minutes'")
    await connection.execute("DELETE FROM reporting_outbox")
    assert (await run(connection, 3000, projections=(LEDGER,))).rows == 3000


async def test_progress_of_others_that_is_forgotten_is_removed(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 10)
    await connection.execute(
        "INSERT INTO reporting_backfill_progress VALUES ('old', '{}', now() - interval '61 minutes'),"
        " ('new', '{}', now())"
    )
    await run(connection)
    scopes = await connection.fetch("SELECT scope FROM reporting_backfill_progress")
    assert "old" not in {record["scope"] for record in scopes}
    assert "new" in {record["scope"] for record in scopes}


async def test_a_slice_is_enqueued_noted_and_recorded_together_or_not_at_all(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 2500)
    told: list[int] = []

    async def fail_at_last(_: asyncpg.Connection, rows: int) -> None:
        told.append(rows)
        if len(told) == 2:
            raise ConnectionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGEST_SLICE", 1000)
        with pytest.raises(ConnectionError):
            await run(connection, 2500, projections=(LEDGER,), record=fail_at_last)
    assert told == [1000, 2000]
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 1000
    assert (await run(connection, 2500, projections=(LEDGER,))).rows == 1500


async def test_two_backfills_of_one_org_are_not_at_work_at_once(database: str, connection: asyncpg.Connection) -> None:
    async with opened(database) as other:
        async with alone(connection, 1):
            with pytest.raises(BackfillBusyError):
                async with alone(other, 1):
                    pass
            async with alone(other, 2), alone(connection, None):
                with pytest.raises(BackfillBusyError):
                    async with alone(other, None):
                        pass
        async with alone(other, 1):
            pass
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_backfill_of_all_orgs_holds_the_lock_that_the_platform_knows(
    database: str, connection: asyncpg.Connection
) -> None:
    async with opened(database) as platform:
        assert await platform.fetchval("SELECT pg_try_advisory_lock(7311142587303228529)")
        with pytest.raises(BackfillBusyError):
            async with alone(connection, None):
                pass
        async with alone(connection, 1):
            pass


async def test_the_application_may_enqueue_a_source_while_a_backfill_does(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    source = str(await add_posting(connection))
    async with opened(database) as application:
        transaction = application.transaction()
        await transaction.start()
        await application.execute(
            "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
            " VALUES (1, 'usage_ledger', $1, $1, 'budget_posting_projection')",
            source,
        )
        call = asyncio.create_task(enqueued(connection))
        await wait_until_blocking(application, application.get_server_pid())
        await transaction.commit()
        assert await call == {}
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 1


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
