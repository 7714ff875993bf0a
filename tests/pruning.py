"""Pruners at work on a test's database, and rows for them that are as old as a test wants."""

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
from prometheus_client import CollectorRegistry

from projector.database import Timeouts
from projector.metrics import Metrics
from projector.pruner import Pruner
from projector.registry import Registry
from tests.daemons import captured_log
from tests.platform_rows import add_org

RETENTION = 3600.0
OLD = timedelta(seconds=RETENTION + 60)
YOUNG = timedelta(seconds=RETENTION - 60)
BOTTOM = UUID(int=0)


class Clock:
    """Stands still until it is told the time; with `step` it goes on by so many seconds at each look."""

    def __init__(self, step: float = 0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def pruner_on(pool: asyncpg.Pool, registry: Registry, clock: Clock | None = None) -> Pruner:
    """A pruner with slices of ten rows and metrics of its own."""
    log, _ = captured_log()
    metrics = Metrics(registry, CollectorRegistry())
    return Pruner(pool, metrics, Timeouts(30), RETENTION, asyncio.Event(), log, clock or Clock(), slice_rows=10)


def pruned(pruner: Pruner) -> float | None:
    """How many rows its metric tells of."""
    return pruner.metrics.registry.get_sample_value("reporting_outbox_pruned_total")


async def add_rows(
    connection: asyncpg.Connection,
    count: int,
    status: str = "completed",
    created: timedelta = OLD,
    settled: timedelta | None = None,
) -> list[UUID]:
    """Rows that were created and settled some time ago; gives their ids, which rise."""
    await add_org(connection)
    records = await connection.fetch(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, status, created_at, updated_at)"
        " SELECT 1, 'event', gen_random_uuid()::text, 'test', $2, now() - $3::interval, now() - $4::interval"
        " FROM generate_series(1, $1) RETURNING id",
        count, status, created, created if settled is None else settled,
    )  # fmt: skip
    return sorted(record["id"] for record in records)


async def left(connection: asyncpg.Connection) -> list[UUID]:
    """The rows that there still are, by id."""
    return [record["id"] for record in await connection.fetch("SELECT id FROM reporting_outbox ORDER BY id")]
