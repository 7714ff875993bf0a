"""Backfills on a test's database, without the service around them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from projector.backfill import Backfill, BackfillOutcome, Scope
from projector.batch import BatchRules, run_batch
from projector.database import Timeouts
from projector.projections import BUILT_IN
from projector.registry import Projection
from schemas.reports import BackfillMode
from tests.platform_rows import add_event, add_generation, add_org, add_posting, add_session

CONTRACT_ORDER = ["event", "session", "llm_generation", "usage_ledger"]
"""The source types in the order in which a limit is spent."""

LEDGER = next(projection for projection in BUILT_IN if projection.source_type == "usage_ledger")

MISSING, STALE, ALL = BackfillMode.MISSING, BackfillMode.STALE, BackfillMode.ALL


async def run(
    connection: asyncpg.Connection, limit: int = 1000, *, org_id: int | None = None,
    projections: tuple[Projection, ...] = BUILT_IN, mode: BackfillMode = MISSING, created_from: datetime | None = None,
    created_to: datetime | None = None, dry_run: bool = False, late_after: int | None = None, record: Any = None,
) -> BackfillOutcome:  # fmt: skip
    """One call; with `late_after` its time is up after so many slices."""
    slices = 0

    def is_late() -> bool:
        nonlocal slices
        slices += 1
        return late_after is not None and slices > late_after

    async def ignore(_: asyncpg.Connection, __: int) -> None:
        return

    scope = Scope(org_id, projections, created_from, created_to, mode)
    return await Backfill(
        connection, scope, limit, Timeouts(statement=30), is_late, record or ignore, dry_run
    ).run()  # fmt: skip


async def enqueued(connection: asyncpg.Connection, limit: int = 1000, **options: Any) -> dict[str, int]:
    """What one call enqueued, by source type; types without any are left out."""
    outcome = await run(connection, limit, **options)
    return {source_type: rows for source_type, rows in outcome.enqueued.items() if rows}


async def waiting(connection: asyncpg.Connection) -> list[tuple[str, UUID]]:
    """The sources that wait in the outbox, in the order in which they were enqueued."""
    records = await connection.fetch(
        "SELECT source_type, source_id::uuid FROM reporting_outbox WHERE status = 'pending' ORDER BY updated_at, id"
    )
    return [(record["source_type"], record["source_id"]) for record in records]


async def assert_nothing_is_missing(connection: asyncpg.Connection) -> None:
    """All that should have facts has them, and none is older than its source."""
    for mode in (MISSING, STALE):
        assert await enqueued(connection, mode=mode, dry_run=True) == {}, mode


async def drain(connection: asyncpg.Connection, rules: BatchRules) -> None:
    """Projects until nothing is due."""
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


async def add_postings(connection: asyncpg.Connection, rows: int, org_id: int = 1) -> None:
    """So many rows of the ledger."""
    await add_org(connection, org_id)
    await connection.execute(
        "INSERT INTO usage_ledger (org_id, currency, amount, meter_source) SELECT $1, 'USD', 1, 'llm'"
        " FROM generate_series(1, $2)",
        org_id, rows,
    )  # fmt: skip
