"""Samples the gauges: beside the workers, and never for more than a twentieth of the time."""

import asyncio
import time
from dataclasses import dataclass

import asyncpg
import structlog

from projector.database import Timeouts, acquire, transaction
from projector.diagnostics import OutboxState, read_freshness, read_outbox
from projector.errors import describe, is_database_fault
from projector.metrics import OutboxGauges
from projector.outbox import release_expired
from projector.registry import Registry
from projector.worker import wait_for

_LARGEST_SHARE = 0.05


@dataclass(slots=True)
class Sampler:
    """Reads the outbox and the datasets' freshness, and releases leases that ran out.

    Attributes:
        interval: seconds between two samples; longer where a sample is costly.
        releases: whether it also releases leases; if not, it only reads.
    """

    pool: asyncpg.Pool
    registry: Registry
    metrics: OutboxGauges
    timeouts: Timeouts
    interval: float
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    releases: bool = True

    async def run(self) -> None:
        """Samples until `stop` is set. A fault of the database skips a sample."""
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                await self.sample()
            except Exception as error:
                if not is_database_fault(error):
                    raise
                self.log.warning("gauges not sampled, the last values stand", error=describe(error))
            cost = time.monotonic() - started
            await wait_for(self.stop.wait(), max(self.interval, cost / _LARGEST_SHARE))

    async def sample(self) -> OutboxState:
        """Takes one sample and shows it."""
        async with acquire(self.pool) as connection, transaction(connection, self.timeouts):
            released = await release_expired(connection) if self.releases else 0
            state = await read_outbox(connection)
            fresh = await read_freshness(connection, self.registry.tables)
        if released:
            self.metrics.released(released)
            self.log.info("leases of another program ran out, rows released", rows=released)
        self.metrics.outbox(state.rows, state.lag_seconds, state.at.timestamp())
        self.metrics.freshness({dataset: max((state.at - at).total_seconds(), 0.0) for dataset, at in fresh.items()})
        return state
