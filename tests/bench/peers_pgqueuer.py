"""The projecting as jobs on pgqueuer, with what its pages on performance recommend.

They recommend larger batches for short jobs, a connection for the worker that is no pool's, an unlogged table for the
log of what is done, settings for autovacuum, and `synchronous_commit = off`; all are taken. Jobs beyond those at work
wait inside the worker (`max_concurrent_tasks` would make it pause a tenth of a second whenever that many are claimed),
so how many run at once is how many hands there are. Tried: 1, 2, 3, 4, 6, 8 and 16 hands, in 1, 2 and 3 processes;
batches of 10 to 1,000; a pool for the worker.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from projector.sqlfile import load_sql
from tests.bench.hands import NO_WAIT, Row, open_hands
from tests.bench.stage import connected

HANDS = 2
_BATCH = 500
# How long an empty queue is left alone while the last jobs are still at work; the default of 30 s would be timed too.
_IDLE = timedelta(milliseconds=20)
_ENTRYPOINT = "project"
_UNLOGGED_LOG = "ALTER TABLE pgqueuer_log SET UNLOGGED"  # what `pgq durability balanced` does to it


class PgQueuerJobs:
    """One entry point; a job's payload is the outbox row as JSON."""

    name = "pgqueuer"
    tables = ("pgqueuer", "pgqueuer_log")
    left = load_sql(__file__, "peers/pgqueuer_left.sql")

    async def enqueue(self, dsn: str, rows: Sequence[Row]) -> None:
        """Installs the tables, and enqueues a job for each row in one statement."""
        async with connected(dsn) as connection:
            queries = Queries.from_asyncpg_connection(connection)
            await queries.install()
            await connection.execute(_UNLOGGED_LOG)
            await queries.optimize_autovacuum()
            payloads: list[bytes | None] = [json.dumps(row).encode() for row in rows]
            await queries.enqueue([_ENTRYPOINT] * len(rows), payloads, [0] * len(rows))

    async def work(self, dsn: str, start: Callable[[], Awaitable[None]]) -> None:
        """Connects, awaits `start`, and works until no job is left."""
        connection = await asyncpg.connect(dsn, server_settings=NO_WAIT)
        async with open_hands(dsn, HANDS) as hands:
            manager = QueueManager(Queries(AsyncpgDriver(connection)))

            @manager.entrypoint(_ENTRYPOINT)
            async def project(job: Job) -> None:
                org_id, source_type, source_id = json.loads(job.payload or b"")
                await hands.project(org_id, source_type, source_id)

            await start()
            await manager.run(batch_size=_BATCH, mode=QueueExecutionMode.drain, dequeue_timeout=_IDLE)
        await connection.close()
