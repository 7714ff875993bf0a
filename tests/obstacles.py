"""What tests put in a batch's way, behind the program's back, and how they watch it from a second connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import asyncpg

from tests.platform_rows import add_event, add_org, add_session, enqueue

GATE = 4711
"""The advisory lock that a gate's keeper holds."""


@asynccontextmanager
async def opened(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A further connection, closed at the end even where its server process is gone."""
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        connection.terminate()


async def wait_until(condition: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    """Waits for a condition of the database; fails where it does not come."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come"
        await asyncio.sleep(0.005)


async def wait_until_blocked(watcher: asyncpg.Connection, process_id: int) -> None:
    """Waits until a server process waits for somebody's lock."""

    async def blocked() -> bool:
        return bool(await watcher.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", process_id))

    await wait_until(blocked)


async def wait_until_blocking(watcher: asyncpg.Connection, process_id: int) -> None:
    """Waits until somebody waits for a lock that a server process holds."""

    async def blocking() -> bool:
        return bool(
            await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND $1 = ANY (pg_blocking_pids(pid))",
                process_id,
            )
        )

    await wait_until(blocking)


@asynccontextmanager
async def gate(
    dsn: str, table: str, event: str = "INSERT", condition: str = "true"
) -> AsyncIterator[asyncpg.Connection]:
    """Whoever writes such rows to a table waits, as if something slow went on there, until `open_gate`.

    Gives the keeper: a connection of its own that may also be used to watch.
    """
    async with opened(dsn) as keeper:
        await keeper.execute(f"""
            CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_advisory_xact_lock_shared({GATE});
                RETURN NEW;
            END $$;
            CREATE TRIGGER wait_at_gate BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition})
                EXECUTE FUNCTION wait_at_gate();
        """)
        await keeper.fetchval("SELECT pg_advisory_lock($1)", GATE)
        yield keeper


async def open_gate(keeper: asyncpg.Connection) -> None:
    """Lets those who wait pass, and all who come later."""
    await keeper.fetchval("SELECT pg_advisory_unlock($1)", GATE)


async def refuse_by_check(connection: asyncpg.Connection, table: str, condition: str) -> None:
    """A constraint refuses facts that meet a condition on their columns."""
    await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK (NOT ({condition}))")


async def refuse_by_trigger(
    connection: asyncpg.Connection, table: str, condition: str, *, raising: str = "RAISE EXCEPTION 'refused'"
) -> None:
    """A trigger refuses facts that meet a condition on NEW."""
    await _create_refusal(connection, raising)
    await connection.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({condition})"
        " EXECUTE FUNCTION refuse()"
    )


async def refuse_at_commit(connection: asyncpg.Connection, table: str, condition: str) -> None:
    """A constraint trigger, deferred to the commit, refuses facts that meet a condition on NEW."""
    await _create_refusal(connection, "RAISE EXCEPTION 'refused'")
    await connection.execute(
        f"CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
    )


async def _create_refusal(connection: asyncpg.Connection, raising: str) -> None:
    await connection.execute(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raising}; RETURN NEW; END $$"
    )


@contextmanager
def recorded(connection: asyncpg.Connection) -> Iterator[list[str]]:
    """The statements that a connection sends meanwhile, in order. Await `heard` before reading them."""
    statements: list[str] = []

    def note(record: Any) -> None:
        statements.append(record.query)

    connection.add_query_logger(note)
    try:
        yield statements
    finally:
        connection.remove_query_logger(note)


async def heard() -> None:
    """Lets the driver hand over what it has recorded."""
    await asyncio.sleep(0)


async def enqueue_tools(connection: asyncpg.Connection, names: list[str], **columns: Any) -> list[UUID]:
    """Tool calls of one session, named so, with an outbox row each, due in this order; gives the rows."""
    await add_org(connection)
    session = await add_session(connection)
    rows = []
    for name in names:
        event = await add_event(connection, session, "tool.completed", {"tool_name": name, "success": True})
        rows.append(await enqueue(connection, "event", event))
    if columns:
        await set_columns(connection, rows, **columns)
    return rows


async def set_columns(connection: asyncpg.Connection, rows: list[UUID], **columns: Any) -> None:
    """Sets columns of outbox rows."""
    assignments = ", ".join(f"{name} = ${number}" for number, name in enumerate(columns, 2))
    await connection.execute(
        f"UPDATE reporting_outbox SET {assignments} WHERE id = ANY ($1::uuid[])", rows, *columns.values()
    )


async def statuses(connection: asyncpg.Connection, rows: list[UUID]) -> list[str]:
    """The statuses of outbox rows, in the given order."""
    records = await connection.fetch("SELECT id, status FROM reporting_outbox WHERE id = ANY ($1::uuid[])", rows)
    found = {record["id"]: record["status"] for record in records}
    return [found[row] for row in rows]


async def tool_names(connection: asyncpg.Connection) -> list[str]:
    """The names of the tool calls that have a fact, sorted."""
    records = await connection.fetch('SELECT tool_name FROM fact_tool_call ORDER BY tool_name COLLATE "C"')
    return [record["tool_name"] for record in records]


async def everything(connection: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    """Every outbox row and fact, as they are."""
    tables = ("reporting_outbox", "fact_tool_call", "fact_turn", "fact_session", "fact_llm_generation")
    return [await connection.fetch(f"SELECT * FROM {table} AS t ORDER BY t") for table in tables]
