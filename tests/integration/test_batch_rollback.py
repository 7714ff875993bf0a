"""A batch that does not end leaves every row as it was, for another worker to take at once (design: promises 1, 9)."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from projector import outbox
from projector.batch import BatchResult, BatchRules, run_batch
from projector.claims import claim
from projector.errors import ErrorKind, classify, is_database_fault
from tests.obstacles import (
    enqueue_tools,
    everything,
    gate,
    open_gate,
    opened,
    set_columns,
    statuses,
    tool_names,
    wait_until_blocked,
)
from tests.platform_rows import add_generation, enqueue

NAMES = ["one", "two", "three"]


async def enqueue_mixed(connection: asyncpg.Connection) -> list[UUID]:
    """Rows of two types, fresh and failed before, and one that cannot be projected."""
    rows = await enqueue_tools(connection, NAMES)
    await set_columns(connection, rows[:1], status="failed", attempts=3, last_error="22003")
    rows.append(await enqueue(connection, "llm_generation", await add_generation(connection)))
    rows.append(await enqueue(connection, "weather", "17"))
    return rows


async def assert_taken_at_once(dsn: str, rules: BatchRules, rows: list[UUID]) -> None:
    """Another worker finds all rows due and settles them."""
    async with opened(dsn) as other:
        result = await run_batch(other, rules, 100)
        assert (result.claimed, result.completed_rows) == (len(rows), len(rows) - 1)
        assert await statuses(other, rows) == ["completed"] * 4 + ["failed"]
        assert await tool_names(other) == sorted(NAMES)


class MistakeError(Exception):
    """A mistake of the program."""


async def test_a_mistake_after_settling_leaves_everything_as_it_was(
    database: str, connection: asyncpg.Connection, rules: BatchRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = await enqueue_mixed(connection)
    before = await everything(connection)
    complete = outbox.complete

    async def complete_and_err(
        connection: asyncpg.Connection, tids: Sequence[outbox.Tid], bounds: Sequence[float], *, keep: bool
    ) -> list[outbox.Delays]:
        await complete(connection, tids, bounds, keep=keep)
        raise MistakeError

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "complete", complete_and_err)
        with pytest.raises(MistakeError):
            await run_batch(connection, rules, 100)
    assert not connection.is_in_transaction()
    assert await everything(connection) == before
    await assert_taken_at_once(database, rules, rows)


PLACES = {
    "before the first fact": ("fact_tool_call", "INSERT"),
    "after the first facts": ("fact_llm_generation", "INSERT"),
    "while settling": ("reporting_outbox", "UPDATE"),
}
places = pytest.mark.parametrize(("table", "event"), PLACES.values(), ids=list(PLACES))


async def start_at_gate(
    keeper: asyncpg.Connection, connection: asyncpg.Connection, rules: BatchRules
) -> "asyncio.Task[BatchResult]":
    batch = asyncio.create_task(run_batch(connection, rules, 100))
    await wait_until_blocked(keeper, connection.get_server_pid())
    return batch


@places
async def test_a_killed_backend_leaves_everything_as_it_was(
    database: str, connection: asyncpg.Connection, rules: BatchRules, table: str, event: str
) -> None:
    rows = await enqueue_mixed(connection)
    before = await everything(connection)
    async with gate(database, table, event) as keeper, opened(database) as victim:
        batch = await start_at_gate(keeper, victim, rules)
        await keeper.fetchval("SELECT pg_terminate_backend($1, 15000)", victim.get_server_pid())
        with pytest.raises(Exception, match=r".") as caught:
            await batch
        assert classify(caught.value) is ErrorKind.TRANSIENT
        assert is_database_fault(caught.value)
    assert await everything(connection) == before
    await assert_taken_at_once(database, rules, rows)


@places
async def test_a_cancelled_batch_leaves_everything_as_it_was_and_its_connection_usable(
    database: str, connection: asyncpg.Connection, rules: BatchRules, table: str, event: str
) -> None:
    rows = await enqueue_mixed(connection)
    before = await everything(connection)
    async with gate(database, table, event) as keeper, opened(database) as worker:
        batch = await start_at_gate(keeper, worker, rules)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert await everything(connection) == before
        await open_gate(keeper)
        if not worker.is_closed():
            assert not worker.is_in_transaction()
            assert await worker.fetchval("SELECT 1") == 1
    await assert_taken_at_once(database, rules, rows)


@places
async def test_a_row_stays_locked_until_the_commit_and_is_freed_by_it(
    database: str, connection: asyncpg.Connection, rules: BatchRules, table: str, event: str
) -> None:
    rows = await enqueue_mixed(connection)
    async with gate(database, table, event) as keeper, opened(database) as worker:
        batch = await start_at_gate(keeper, worker, rules)
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            assert await claim(connection, 100) == []
        assert set(await statuses(connection, rows)) == {"pending", "failed"}
        assert await tool_names(connection) == []
        await open_gate(keeper)
        assert (await batch).completed_rows == 4
    assert await tool_names(connection) == sorted(NAMES)
