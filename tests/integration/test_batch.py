"""A batch: claim, project, settle, in one transaction (design: promise 1), in a few statements (promise 8)."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.settings import OnSourceGone
from tests.obstacles import enqueue_tools, heard, opened, recorded, set_columns, statuses
from tests.platform_rows import (
    add_event,
    add_generation,
    add_org,
    add_posting,
    add_session,
    enqueue,
    facts,
    outbox_row,
)


async def test_projects_and_completes(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    session = await add_session(connection)
    event = await add_event(connection, session, "tool.completed", {"tool_name": "search", "success": True})
    row = await enqueue(connection, "event", event)
    result = await run_batch(connection, rules, 10)
    assert (result.claimed, result.completed, result.facts) == (1, {"event": 1}, {"tool_calls": 1})
    assert (await outbox_row(connection, row))["status"] == "completed"
    (fact,) = await facts(connection, "fact_tool_call")
    assert (fact["source_key"], fact["tool_status"], fact["success_count"]) == (f"event:{event}", "success", 1)


async def test_an_empty_outbox_gives_an_empty_result(connection: asyncpg.Connection, rules: BatchRules) -> None:
    result = await run_batch(connection, rules, 10)
    assert (result.claimed, result.completed_rows, result.failed, result.delays) == (0, 0, [], [])


async def test_completing_clears_the_traces_of_earlier_failures(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_tools(connection, ["search"], status="failed", attempts=3, last_error="22003", claimed_at=None)
    await run_batch(connection, rules, 10)
    row = await outbox_row(connection, rows[0])
    assert (row["status"], row["last_error"], row["claimed_at"]) == ("completed", None, None)


async def test_a_batch_takes_no_more_rows_than_its_limit(connection: asyncpg.Connection, rules: BatchRules) -> None:
    rows = await enqueue_tools(connection, [f"tool-{number}" for number in range(5)])
    assert (await run_batch(connection, rules, 3)).claimed == 3
    assert await statuses(connection, rows) == ["completed"] * 3 + ["pending"] * 2
    assert (await run_batch(connection, rules, 3)).claimed == 2


async def test_two_rows_of_one_source_are_both_completed_by_one_fact(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    sources = {
        "event": await add_event(connection, session, "tool.completed", {"tool_name": "search"}),
        "session": session,
        "llm_generation": await add_generation(connection),
        "usage_ledger": await add_posting(connection),
    }
    for _ in ("new facts", "facts that are there already"):
        rows = [await enqueue(connection, source_type, source) for source_type, source in sources.items() for _ in "ab"]
        result = await run_batch(connection, rules, 100)
        assert await statuses(connection, rows) == ["completed"] * 8
        assert result.completed == dict.fromkeys(sources, 2)
        assert result.facts == {"tool_calls": 1, "sessions": 1, "llm_generations": 1, "budget_postings": 1}


async def test_unknown_types_and_malformed_ids_fail_alone(connection: asyncpg.Connection, rules: BatchRules) -> None:
    good = await enqueue_tools(connection, ["search", "read"])
    unknown = await enqueue(connection, "weather", uuid4())
    malformed = [
        await enqueue(connection, source_type, text)
        for source_type in ("event", "session", "llm_generation", "usage_ledger")
        for text in ("", "17", f"{{{uuid4()}}}", f"{uuid4()}\n", f" {uuid4()}", f"{uuid4()}0", "x" * 5000)
    ]
    await set_columns(connection, malformed[:1], attempts=4, status="failed")
    result = await run_batch(connection, rules, 100)
    assert await statuses(connection, good) == ["completed"] * 2
    row = await outbox_row(connection, unknown)
    assert (row["status"], row["attempts"]) == ("failed", 1)
    assert row["last_error"] == "unsupported source type: no projection knows it"
    for number, bad in enumerate(malformed):
        row = await outbox_row(connection, bad)
        assert (row["status"], row["attempts"]) == ("failed", 1 if number else 5)
        assert row["last_error"] == "malformed source id: not a UUID"
    outcomes = {outcome.id: (outcome.attempts, outcome.dead) for outcome in result.failed}
    assert outcomes == {unknown: (1, False)} | {
        bad: (1 if number else 5, False) for number, bad in enumerate(malformed)
    }


@pytest.mark.parametrize("write", [str.upper, lambda text: text.replace("-", "")], ids=["capitals", "no hyphens"])
async def test_other_spellings_of_an_id_are_projected(
    connection: asyncpg.Connection, rules: BatchRules, write: Callable[[str], str]
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    rows = [await enqueue(connection, "session", write(str(session))), await enqueue(connection, "session", session)]
    await run_batch(connection, rules, 10)
    assert await statuses(connection, rows) == ["completed"] * 2
    (fact,) = await facts(connection, "fact_session")
    assert fact["source_key"] == f"session:{session}"


async def add_one_of_each_kind(connection: asyncpg.Connection) -> None:
    """Ten outbox rows: each way that a row can go through a batch, but for those that are halved."""
    session = await add_session(connection)

    async def event(event_type: str, **data: object) -> UUID:
        return await add_event(connection, session, event_type, {"turn_id": "turn_1", **data})

    await enqueue(connection, "event", await event("tool.completed", tool_name="search", capability_id="web"))
    await enqueue(connection, "event", await event("turn.completed"))
    await enqueue(connection, "event", await event("turn.sealed"))
    await enqueue(connection, "session", session)
    await enqueue(connection, "llm_generation", await add_generation(connection, session_id=session))
    await enqueue(connection, "usage_ledger", await add_posting(connection, session_id=session))
    await enqueue(connection, "event", uuid4())  # gone
    retried = await enqueue(connection, "llm_generation", await add_generation(connection))
    await set_columns(connection, [retried], status="failed", attempts=2)
    await enqueue(connection, "weather", uuid4())
    await enqueue(connection, "event", "no uuid")


@pytest.mark.parametrize("on_source_gone", list(OnSourceGone))
async def test_a_batch_sends_as_many_statements_for_400_rows_as_for_10(
    connection: asyncpg.Connection, rules: BatchRules, on_source_gone: OnSourceGone
) -> None:
    rules = replace(rules, on_source_gone=on_source_gone)
    await add_org(connection)
    counts = []
    for kinds in (1, 1, 40):  # the first warms the connection up
        for _ in range(kinds):
            await add_one_of_each_kind(connection)
        for repetition in ("first", "again, over the facts of the first time"):
            with recorded(connection) as statements:
                result = await run_batch(connection, rules, 1000)
                await heard()
            assert (result.claimed, len(result.failed)) == (kinds * 10, kinds * 2), repetition
            counts.append(len(statements))
            await connection.execute("UPDATE reporting_outbox SET status = 'pending', next_attempt_at = '2000-01-01'")
            await connection.execute("UPDATE reporting_outbox SET attempts = 0 WHERE attempts <> 2")
        await connection.execute("DELETE FROM reporting_outbox")
    assert counts[2:4] == counts[4:6]
    assert counts[4] <= 30


SESSION_SETTINGS: dict[str, str] = {
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "enable_seqscan": "off",
    "jit_above_cost": "-1",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
}


async def databases_default(connection: asyncpg.Connection, name: str, value: str) -> None:
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1h"),
        ("enable_seqscan", "on"),
    ],
)
async def test_a_batch_runs_under_its_own_settings_whatever_the_databases_defaults_are(
    database: str, connection: asyncpg.Connection, rules: BatchRules, name: str, value: str
) -> None:
    (row,) = await enqueue_tools(connection, ["search"])
    names = ", ".join(f"('{setting}')" for setting in SESSION_SETTINGS)
    await connection.execute(f"""
        CREATE TABLE seen (name text, value text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO seen SELECT name, current_setting(name) FROM (VALUES {names}) AS settings (name);
            RETURN NEW;
        END $$;
        CREATE TRIGGER note BEFORE INSERT ON fact_tool_call FOR EACH ROW EXECUTE FUNCTION note();
    """)
    await databases_default(connection, name, value)
    async with opened(database) as fresh:
        before = await fresh.fetchval("SHOW " + name)
        await run_batch(fresh, rules, 10)
        assert await fresh.fetchval("SHOW " + name) == before == value  # nothing outlives the transaction
    seen = {record["name"]: record["value"] for record in await connection.fetch("SELECT * FROM seen")}
    assert seen == SESSION_SETTINGS
    assert await statuses(connection, [row]) == ["completed"]
