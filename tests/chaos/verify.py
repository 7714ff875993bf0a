"""What must hold when all has settled, whatever happened before (design: promises 1, 2, 3 and 9)."""

import asyncio
import time
from collections.abc import Collection
from uuid import UUID

import asyncpg

from projector.database import APPLICATION_NAME
from tests.oracle import differences, expected_facts, read_facts, read_sources

_UNSETTLED = """
    SELECT count(*) FROM reporting_outbox
    WHERE status IN ('pending', 'processing') OR (status = 'failed' AND next_attempt_at < 'infinity')
"""
_NOT_COMPLETED = "SELECT id, status, attempts, last_error FROM reporting_outbox WHERE status <> 'completed'"
# A fault of the moment uses up no attempt: a completed row was tried once.
_MARKED = """
    SELECT id, attempts, last_error FROM reporting_outbox
    WHERE status = 'completed' AND (attempts > 0 OR last_error IS NOT NULL OR claimed_at IS NOT NULL)
"""
_IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1 AND state LIKE 'idle in transaction%'
"""


async def settled(dsn: str, seconds: float = 60) -> float:
    """Waits until every outbox row is completed or dead; gives the seconds that took. Survives a restarting server."""
    began = time.monotonic()
    left: object = "unknown"
    while time.monotonic() - began < seconds:
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
            try:
                left = await connection.fetchval(_UNSETTLED)
            finally:
                await connection.close()
            if left == 0:
                return time.monotonic() - began
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            left = type(error).__name__
        await asyncio.sleep(0.05)
    raise AssertionError(f"after {seconds} s not settled: {left} rows")


async def verify(dsn: str, dead: Collection[UUID] = (), *, attempts_used: bool = False) -> int:
    """Compares everything with the truth; gives how many outbox rows there are.

    Args:
        dsn: of the database; nobody writes to it any more.
        dead: the rows that the case planted as such.
        attempts_used: whether completed rows may have failed before.

    Raises:
        AssertionError: naming what differs.
    """
    connection = await asyncpg.connect(dsn)
    try:
        left = {record["id"]: dict(record) for record in await connection.fetch(_NOT_COMPLETED)}
        wrong = [f"not completed: {row}" for row_id, row in left.items() if row_id not in set(dead)]
        wrong += [f"should be a dead letter: {row_id}" for row_id in dead if row_id not in left]
        if not attempts_used:
            wrong += [f"completed, but marked: {dict(record)}" for record in await connection.fetch(_MARKED)]
        if open_transactions := await connection.fetchval(_IN_TRANSACTION, APPLICATION_NAME):
            wrong.append(f"{open_transactions} transactions were left open")
        wrong += differences(expected_facts(await read_sources(connection)), await read_facts(connection))
        assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong[:20])
        return int(await connection.fetchval("SELECT count(*) FROM reporting_outbox"))
    finally:
        await connection.close()
