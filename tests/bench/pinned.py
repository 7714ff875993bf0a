"""Whether a long transaction elsewhere, which keeps vacuum from removing dead rows, slows the projector down."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from rich.console import Console

from projector.sqlfile import load_sql
from tests.bench.load import WRITE, platform, projecting, writing
from tests.bench.parts import Drained
from tests.bench.pinned_figures import PinnedFigures
from tests.bench.stage import connected
from tests.bench.watch import Watch, Window
from tests.platform_rows import add_org

_COUNT_ORG_FACTS = load_sql(__file__, "count_org_facts.sql")

_DATABASE = "projector_bench_pinned"
_FIRST_BACKLOG_ORG = 101
_LOOK_SECONDS = 0.02
_REST_SECONDS = 1.0
_LONGEST_DRAIN_SECONDS = 60.0


async def measure_pinned(server: str, figures: PinnedFigures, console: Console) -> None:
    """Measures without a pin, then under it for long, then without it again; fills `figures` as it goes."""
    scale = figures.scale
    async with (
        platform(server, _DATABASE) as dsn,
        connected(dsn) as connection,
        projecting(dsn) as daemon,
        writing(dsn, scale.rows_per_second) as writer,
    ):
        watch = Watch(connection, writer, daemon, figures.samples, counts_completed=False)
        backlogs = _Backlogs(watch, scale.backlog_rows, scale.rounds, figures.draining_seconds)
        console.print(f"pinned: {scale.rows_per_second} rows/s, without a pin")
        await watch.over(scale.warm_seconds)
        figures.before = await _window(watch, scale.window_seconds)
        figures.drained_before = await backlogs.drain()
        # What died before the pin is gone; what is dead at its end has died under it.
        await connection.execute("VACUUM reporting_outbox")
        console.print(f"pinned: a long transaction has begun, {scale.seconds / 60:g} minutes under it")
        async with _pin(dsn):
            pinned = await watch.sample()
            figures.pinned_at_seconds = pinned.seconds
            while watch.samples[-1].seconds - pinned.seconds < scale.seconds - scale.window_seconds / 2:
                figures.under.append(await _window(watch, scale.window_seconds))
            figures.settled_under_pin = figures.samples[-1].projected - pinned.projected
            figures.dead_under_pin = figures.samples[-1].dead - pinned.dead
            figures.drained_under = await backlogs.drain()
        figures.released_at_seconds = figures.samples[-1].seconds
        console.print("pinned: it has ended; the same backlog once more after a vacuum")
        await connection.execute("VACUUM reporting_outbox")
        await watch.over(scale.warm_seconds)
        figures.drained_after = await backlogs.drain()


async def _window(watch: Watch, seconds: float) -> Window:
    taken = await watch.over(seconds)
    return Window(taken[0], taken[-1])


@asynccontextmanager
async def _pin(dsn: str) -> AsyncIterator[None]:
    """A transaction that does nothing more, but whose snapshot stays: no row that dies meanwhile is removed."""
    async with connected(dsn) as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.fetchval("SELECT pg_current_xact_id()")
        yield
        await connection.execute("ROLLBACK")


@dataclass(slots=True)
class _Backlogs:
    """Backlogs of the same size, each of an org of its own, beside the steady load."""

    watch: Watch
    rows: int
    rounds: int
    spans: list[tuple[float, float]]
    _orgs: Iterator[int] = field(default_factory=lambda: count(_FIRST_BACKLOG_ORG))

    async def drain(self) -> list[Drained]:
        """Enqueues one after the other, and tells how fast each is drained; none comes after one that is not."""
        await self.watch.connection.execute("CHECKPOINT")
        begin = await self.watch.sample()
        drained: list[Drained] = []
        while len(drained) < self.rounds and all(one.rows == self.rows for one in drained):
            drained.append(await self._drain_one())
            await asyncio.sleep(_REST_SECONDS)
        end = await self.watch.sample()
        self.spans.append((begin.seconds, end.seconds))
        return drained

    async def _drain_one(self) -> Drained:
        connection = self.watch.connection
        org_id = await add_org(connection, next(self._orgs))
        await connection.execute(WRITE, org_id, self.rows)
        self.watch.writer.written += self.rows
        started = time.perf_counter()
        facts, seconds = 0, 0.0
        while facts < self.rows and seconds < _LONGEST_DRAIN_SECONDS:
            await asyncio.sleep(_LOOK_SECONDS)
            facts = await connection.fetchval(_COUNT_ORG_FACTS, org_id)
            seconds = time.perf_counter() - started
        return Drained(facts, seconds)
