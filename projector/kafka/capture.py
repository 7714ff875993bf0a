"""Captures changes of facts: triggers on the fact tables, put there and taken away by their owner."""

import asyncio
import re
from collections.abc import Iterable

import asyncpg
import structlog

from projector.registry import Registry, Table
from projector.sqlfile import load_sql

CAPTURE = load_sql(__file__, "sql/capture.sql")
CAPTURED = load_sql(__file__, "sql/captured.sql")
WAITING = load_sql(__file__, "sql/waiting.sql")
ADD_PUBLISHER = load_sql(__file__, "sql/add_publisher.sql")

_TRIGGERS = frozenset(re.findall(r"TRIGGER (\w+)", CAPTURE))

# While it waits for a lock others queue behind it: so not for long at once, and again and again.
_LOCK_TIMEOUT = "2s"
_ATTEMPTS = 30
_PAUSE_SECONDS = 1.0

_MOST_COUNTED = 10_000


class CaptureError(Exception):
    """Capturing could not be switched on or off; the message says why, and what to do."""


async def uncaptured(connection: asyncpg.Connection, tables: Iterable[Table]) -> list[Table]:
    """The tables that lack some of the triggers."""
    found = await _triggers(connection)
    return [table for table in tables if found.get(table.name, set()) != _TRIGGERS]


async def is_capturing(connection: asyncpg.Connection) -> bool:
    """Whether changes of any table are captured."""
    return bool(await _triggers(connection))


async def count_waiting(connection: asyncpg.Connection) -> tuple[int, float]:
    """How many changes wait to be published, up to 10,000, and for how long the oldest has, in seconds."""
    record = await connection.fetchrow(WAITING, _MOST_COUNTED)
    assert record is not None
    return record["changes"], record["seconds"]


async def enable(connection: asyncpg.Connection, registry: Registry, log: structlog.stdlib.BoundLogger) -> list[Table]:
    """Captures the changes of all fact tables from now on; gives those whose changes were not captured before.

    Args:
        connection: outside a transaction, of the tables' owner, on a migrated database.
        registry: whose tables.
        log: where it is told what is waited for.

    Raises:
        CaptureError: a table stays locked by others.
        asyncpg.PostgresError: refused, as for want of rights.
    """
    new = await uncaptured(connection, registry.tables)
    for table in new:
        dataset = await connection.fetchval("SELECT quote_literal($1)", table.dataset)
        await _patiently(connection, table.name, CAPTURE.format(table=table.name, dataset=dataset), log)
    await connection.execute(ADD_PUBLISHER)
    return new


async def disable(connection: asyncpg.Connection, log: structlog.stdlib.BoundLogger) -> int:
    """Captures nothing any more, and forgets the changes that wait; gives how many tables were captured before.

    Args:
        connection: outside a transaction, of the tables' owner, on a migrated database.
        log: where it is told what is waited for.

    Raises:
        CaptureError: a table stays locked by others.
        asyncpg.PostgresError: refused, as for want of rights.
    """
    found = await _triggers(connection)
    for table, names in found.items():
        script = "".join(f"DROP TRIGGER IF EXISTS {name} ON {table};" for name in sorted(names))
        await _patiently(connection, table, script, log)
    await _patiently(connection, "reporting_fact_changes", "TRUNCATE reporting_fact_changes", log)
    return len(found)


async def _triggers(connection: asyncpg.Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in await connection.fetch(CAPTURED):
        found.setdefault(record["table_name"], set()).add(record["trigger_name"])
    return found


async def _patiently(
    connection: asyncpg.Connection, table: str, script: str, log: structlog.stdlib.BoundLogger
) -> None:
    """Runs a script that locks a table, as one transaction."""
    for attempt in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await connection.execute(script)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == 0:
                log.info("waiting, a table is locked by others", table=table)
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return
    raise CaptureError(
        f"{table} is locked by others, tried {_ATTEMPTS} times: see pg_locks, end what holds it, and run this again"
    )
