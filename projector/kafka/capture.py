"""Captures changes of facts: triggers on the fact tables, put there and taken away by their owner."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import asyncpg
import structlog

from projector.registry import Registry, Table
from projector.sqlfile import load_sql

CAPTURED = load_sql(__file__, "sql/captured.sql")

_LOCK_TIMEOUT = "2s"
_ATTEMPTS = 30
_PAUSE_SECONDS = 1.0

_CALL = "EXECUTE FUNCTION reporting_capture_fact_changes({dataset})"
_NEW = f"REFERENCING NEW TABLE AS changed FOR EACH STATEMENT {_CALL}"
_OLD = f"REFERENCING OLD TABLE AS changed FOR EACH STATEMENT {_CALL}"
# By name; a change of a key is rare, and what the statement's new rows do not tell.
_TRIGGERS = {
    "reporting_changelog_insert": f"AFTER INSERT ON {{table}} {_NEW}",
    "reporting_changelog_update": f"AFTER UPDATE ON {{table}} {_NEW}",
    "reporting_changelog_delete": f"AFTER DELETE ON {{table}} {_OLD}",
    "reporting_changelog_key": (
        "AFTER UPDATE ON {table} FOR EACH ROW"
        f" WHEN ((OLD.org_id, OLD.source_key) IS DISTINCT FROM (NEW.org_id, NEW.source_key)) {_CALL}"
    ),
    "reporting_changelog_truncate": f"BEFORE TRUNCATE ON {{table}} FOR EACH STATEMENT {_CALL}",
}


class CaptureError(Exception):
    """Capturing could not be switched on or off; the message says why, and what to do."""


async def uncaptured(connection: asyncpg.Connection, tables: Iterable[Table]) -> list[Table]:
    """The tables that lack some of the triggers."""
    found = await _triggers(connection)
    return [table for table in tables if found.get(table.name, set()) != set(_TRIGGERS)]


async def is_capturing(connection: asyncpg.Connection) -> bool:
    """Whether changes of any table are captured."""
    return bool(await _triggers(connection))


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
        statements = [
            f"CREATE OR REPLACE TRIGGER {name} "
            + text.format(
                table=table.name, dataset=await connection.fetchval("SELECT quote_literal($1)", table.dataset)
            )
            for name, text in _TRIGGERS.items()
        ]
        await _patiently(connection, f"{table.name} is locked by others", statements, log)
    await connection.execute("INSERT INTO reporting_changelog_publisher DEFAULT VALUES ON CONFLICT DO NOTHING")
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
        statements = [f"DROP TRIGGER IF EXISTS {name} ON {table}" for name in sorted(names)]
        await _patiently(connection, f"{table} is locked by others", statements, log)
    await _patiently(connection, "reporting_fact_changes is locked by others", ["TRUNCATE reporting_fact_changes"], log)
    return len(found)


async def _triggers(connection: asyncpg.Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in await connection.fetch(CAPTURED):
        found.setdefault(record["table_name"], set()).add(record["trigger_name"])
    return found


async def _patiently(
    connection: asyncpg.Connection, obstacle: str, statements: list[str], log: structlog.stdlib.BoundLogger,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:  # fmt: skip
    """Runs statements as one transaction. While it waits for a lock others queue behind it: so not for long at once."""
    for attempt in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                for statement in statements:
                    await connection.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == 0:
                log.info("waiting", why=obstacle)
            await sleep(_PAUSE_SECONDS)
        else:
            return
    raise CaptureError(f"{obstacle}, tried {_ATTEMPTS} times: see pg_locks, end what holds it, and run this again")
