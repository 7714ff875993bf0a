"""An older projector: leases rows by `processing`, then projects and settles one after another (contract: outbox.md).

A process of its own: `python -m tests.chaos.older_program`, with DATABASE_URL. It never ends by itself, and what it has
leased when it dies stays in `processing`. Each row's facts are one commit and its settling is another.
"""

import asyncio
import os
from contextlib import suppress

import asyncpg

from projector.projections import load_registry
from projector.registry import Registry

APPLICATION_NAME = "older-projector"
_LEASE = """
    UPDATE reporting_outbox
    SET status = 'processing', claimed_at = now(), updated_at = now()
    WHERE id IN (
        SELECT id FROM reporting_outbox
        WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
        ORDER BY next_attempt_at, id
        LIMIT 50
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id, org_id, source_type, source_id
"""
_SETTLE = """
    UPDATE reporting_outbox
    SET status = 'completed', last_error = NULL, claimed_at = NULL, updated_at = now()
    WHERE id = $1 AND status = 'processing'
"""
_IDLE_SECONDS = 0.005


async def work(dsn: str) -> None:
    """Leases, projects and settles until the process is killed."""
    registry = load_registry()
    connection = await asyncpg.connect(dsn, server_settings={"application_name": APPLICATION_NAME})
    while True:
        rows = await connection.fetch(_LEASE)
        for row in rows:
            await _project_one(connection, registry, row)
            await connection.execute(_SETTLE, row["id"])
        if not rows:
            await asyncio.sleep(_IDLE_SECONDS)


async def _project_one(connection: asyncpg.Connection, registry: Registry, row: asyncpg.Record) -> None:
    """Projects one row; again where another program was in its way."""
    projection = registry.get(row["source_type"])
    assert projection is not None
    while True:
        with suppress(asyncpg.DeadlockDetectedError):
            async with connection.transaction():
                outcome = await connection.fetch(projection.project, [row["org_id"]], [row["source_id"]], False)
                existing = [record for record in outcome if record["outcome"] == "existing"]
                if existing:
                    org_ids = [record["org_id"] for record in existing]
                    source_ids = [record["source_id"] for record in existing]
                    await connection.fetch(projection.project, org_ids, source_ids, True)
            return


if __name__ == "__main__":
    asyncio.run(work(os.environ["DATABASE_URL"]))
