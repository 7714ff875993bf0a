"""Live rows in an open loop: each row has its time in advance, however long those before it took."""

import asyncio
import time
from dataclasses import dataclass, field

from projector.sqlfile import load_sql
from tests.bench.stage import connected

WRITE_GENERATION = load_sql(__file__, "write_generation.sql")


@dataclass(frozen=True, slots=True)
class Load:
    """So many rows a second for so many seconds, from several connections in turn, to several orgs in turn."""

    rate: float
    seconds: float
    writers: int
    orgs: int

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return round(self.rate * self.seconds)


@dataclass(slots=True)
class Written:
    """What writing took, for each row: the transaction, and how late it ended after its time; in seconds."""

    took: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


async def write_live(dsn: str, load: Load, model: str) -> Written:
    """Writes generations to organizations 1 to `load.orgs`, each with its outbox row a transaction of its own."""
    written = Written()
    ready = asyncio.Barrier(load.writers)
    async with asyncio.TaskGroup() as group:
        for number in range(load.writers):
            group.create_task(_write(dsn, load, model, number, ready, written))
    return written


async def _write(dsn: str, load: Load, model: str, first: int, ready: asyncio.Barrier, written: Written) -> None:
    async with connected(dsn) as connection:
        statement = await connection.prepare(WRITE_GENERATION)
        await ready.wait()
        start = time.perf_counter()
        for number in range(first, load.rows, load.writers):
            due = start + number / load.rate
            await asyncio.sleep(due - time.perf_counter())
            sent = time.perf_counter()
            await statement.fetch(1 + number % load.orgs, model)
            answered = time.perf_counter()
            written.took.append(answered - sent)
            written.late.append(answered - due)
