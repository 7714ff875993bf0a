"""Batches beside other writers: no row is held twice, no change is lost that comes meanwhile (promises 2, 3)."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from tests.claimed import claim_ids, complete_ids
from tests.obstacles import enqueue_tools, gate, open_gate, opened, statuses, wait_until_blocked, wait_until_blocking
from tests.platform_rows import add_generation, add_org, add_session, enqueue, facts, outbox_row

# As the application writes it: completed rows become pending, failed ones due; contract: outbox.md.
ENQUEUE_AGAIN = """
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
SELECT org_id, source_type, source_id, source_version, reason FROM reporting_outbox WHERE id = $1
ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
SET status = 'pending', next_attempt_at = now(), updated_at = now()
WHERE reporting_outbox.status IN ('completed', 'failed')
"""


@pytest.mark.parametrize("gated", [("FACT", "INSERT"), ("reporting_outbox", "UPDATE")], ids=["projecting", "settling"])
@pytest.mark.parametrize("kind", ["session", "llm_generation"])
async def test_a_source_that_changes_and_is_enqueued_again_under_a_claim_is_projected_again(
    database: str, connection: asyncpg.Connection, rules: BatchRules, kind: str, gated: tuple[str, str]
) -> None:
    await add_org(connection)
    if kind == "session":
        source, table, change = await add_session(connection), "fact_session", "sessions SET total_input_tokens = 7"
    else:
        source, table = await add_generation(connection), "fact_llm_generation"
        change = "llm_generations SET input_tokens = 7"
    row = await enqueue(connection, kind, source)

    async def change_and_enqueue() -> None:
        async with opened(database) as application, application.transaction():
            await application.execute(f"UPDATE {change}")
            await application.execute(ENQUEUE_AGAIN, row)

    async with gate(database, gated[0].replace("FACT", table), gated[1]) as keeper, opened(database) as worker:
        batch = asyncio.create_task(run_batch(worker, rules, 10))
        await wait_until_blocked(keeper, worker.get_server_pid())
        changing = asyncio.create_task(change_and_enqueue())
        await wait_until_blocking(keeper, worker.get_server_pid())
        await open_gate(keeper)
        assert (await batch).completed == {kind: 1}
        await changing
        assert (await outbox_row(connection, row))["status"] == "pending"
        assert (await run_batch(worker, rules, 10)).completed == {kind: 1}
    (fact,) = await facts(connection, table)
    assert fact["input_tokens"] == 7


async def test_a_row_that_is_enqueued_again_after_its_batch_is_due_at_once(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    (row,) = await enqueue_tools(connection, ["search"])
    await run_batch(connection, rules, 10)
    await connection.execute(ENQUEUE_AGAIN, row)
    assert (await run_batch(connection, rules, 10)).completed == {"event": 1}


async def test_two_workers_never_hold_the_same_row(database: str, connection: asyncpg.Connection) -> None:
    rows = await enqueue_tools(connection, [f"tool-{number}" for number in range(10)])
    async with opened(database, lock_timeout="5s") as first, opened(database, lock_timeout="5s") as second:
        async with first.transaction(), second.transaction():
            held = [await claim_ids(worker, 6) for worker in (first, second)]
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '2s'")
                assert await claim_ids(connection, 10) == []
        assert sorted(held[0] + held[1]) == sorted(rows)
        assert [len(ids) for ids in held] == [6, 4]


async def test_a_row_that_was_settled_meanwhile_is_not_claimed(database: str, connection: asyncpg.Connection) -> None:
    rows = await enqueue_tools(connection, ["one", "two", "three"])
    async with opened(database) as first, opened(database) as second:
        async with first.transaction():
            assert await claim_ids(first, 1) == rows[:1]
            await complete_ids(first, rows[:1], [1.0])
        async with second.transaction():
            assert await claim_ids(second, 1) == rows[1:2]


async def test_many_workers_complete_each_row_once(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_tools(connection, [f"tool-{number}" for number in range(150)])
    await connection.execute("""
        CREATE TABLE settled (id uuid);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO settled VALUES (NEW.id); RETURN NEW; END $$;
        CREATE TRIGGER note BEFORE UPDATE ON reporting_outbox FOR EACH ROW EXECUTE FUNCTION note();
    """)

    async def work() -> int:
        claimed = 0
        async with opened(database) as worker:
            while result := await run_batch(worker, rules, 7):
                if not result.claimed:
                    return claimed
                claimed += result.claimed
        raise AssertionError

    assert sum(await asyncio.gather(*(work() for _ in range(5)))) == 150
    assert sorted(record["id"] for record in await connection.fetch("SELECT id FROM settled")) == sorted(rows)
    assert set(await statuses(connection, rows)) == {"completed"}


async def test_workers_that_project_the_same_sources_in_other_orders_do_not_deadlock(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await enqueue_tools(connection, [f"tool-{number}" for number in range(40)])
    await run_batch(connection, rules, 100)
    order = await connection.fetch("SELECT source_id FROM reporting_outbox ORDER BY id")
    again: list[UUID] = []
    for _ in range(4):
        again += [await enqueue(connection, "event", record["source_id"]) for record in order]
        order.reverse()

    async def work() -> None:
        async with opened(database, deadlock_timeout="10ms") as worker:
            while (await run_batch(worker, rules, 40)).claimed:
                pass

    await asyncio.gather(*(work() for _ in range(4)))
    assert set(await statuses(connection, again)) == {"completed"}
