"""Where a batch's time goes: a drain with one worker, every statement timed by asyncpg's own query logger."""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import structlog
from asyncpg.connection import LoggedQuery

from projector import claims, outbox
from projector.batch import BatchResult
from projector.daemon import batch_rules, batch_size
from projector.database import acquire, open_pool
from projector.drain import drain
from projector.projections import load_registry
from tests.bench.contestants import default_settings

CLIENT = "client"
SET_UP = "set-up"  # what the driver asks once for a connection: the types of the parameters
_OTHERS = {"BEGIN": "begin", "COMMIT": "commit", "SAVEPOINT": "savepoints", "RELEASE": "savepoints"}


@dataclass(frozen=True, slots=True)
class Part:
    """Statements of one kind: how many, and their seconds from sending to the decoded answer."""

    kind: str
    statements: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A whole drain: its batches, its seconds, and its parts; `client` is what no statement accounts for."""

    batches: int
    rows: int
    seconds: float
    parts: list[Part]


async def break_down(dsn: str) -> Breakdown:
    """Drains the database with one worker and the default settings."""
    settings, registry = default_settings(dsn), load_registry()
    kinds = {
        claims.CLAIM_FRESH: "claim fresh",
        claims.CLAIM_BACKLOG: "claim",
        claims.FIND_BACKLOG: "sweep",
        outbox.COMPLETE: "settle",
    }
    kinds |= {projection.project: f"project {projection.source_type}" for projection in registry}
    seconds: defaultdict[str, float] = defaultdict(float)
    statements: Counter[str] = Counter()
    batches: list[int] = []

    def on_query(query: LoggedQuery) -> None:
        kind = kinds.get(query.query) or _OTHERS.get(query.query.split(maxsplit=1)[0], SET_UP)
        seconds[kind] += query.elapsed
        statements[kind] += 1

    def on_batch(result: BatchResult, _: float) -> None:
        batches.append(result.claimed)

    pool = await open_pool(settings, 1)
    try:
        async with acquire(pool) as connection:
            connection.add_query_logger(on_query)
        started = time.perf_counter()
        await drain(
            pool, batch_rules(settings, registry), workers=1, new_size=lambda: batch_size(settings),
            on_batch=on_batch, log=structlog.get_logger(),
        )  # fmt: skip
        elapsed = time.perf_counter() - started
        await asyncio.sleep(0)  # the last queries are still to be told
    finally:
        pool.terminate()
    seconds[CLIENT] = elapsed - sum(seconds.values())
    parts = [Part(kind, statements[kind], spent) for kind, spent in seconds.items()]
    parts.sort(key=lambda part: -part.seconds)
    return Breakdown(len(batches), sum(batches), elapsed, parts)
