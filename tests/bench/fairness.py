"""Whether one org's backlog delays others: the same rows of 19 orgs, drained alone, and beside one org's many."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

import structlog
from rich.console import Console

from projector.batch import BatchResult
from projector.daemon import batch_rules, batch_size
from projector.database import open_pool
from projector.drain import DrainResult, drain
from projector.projections import load_registry
from projector.sqlfile import load_sql
from tests.bench.contestants import default_settings
from tests.bench.lag import LAG, require_commit_timestamps
from tests.bench.live_writers import WRITE_GENERATION
from tests.bench.parts import Spread, at_most, make_platform, new_table, own_database, show_targets
from tests.bench.stage import connected

WRITE_BACKLOG_OF_ORGS = load_sql(__file__, "write_backlog_of_orgs.sql")
SEEN_AFTER = load_sql(__file__, "seen_after.sql")

_CROWD, _ALONE = "projector_bench_fairness", "projector_bench_fairness_alone"
_BIG_ORG = 1
_FIRST_OTHER, _OTHERS = 2, 19
_LIVE_ORG = 21
_WORKERS = 2
_LIVE_EVERY_SECONDS = 0.05
# Live rows end while this share of the big backlog is still to come: each has the backlog beside it all its time.
_LIVE_UNTIL_DRAINED = 0.9
# All of the big org's rows became due before any other's: in the order of time alone the others would come last.
_BIG_DUE_AGO, _OTHERS_DUE_AGO = (7200.0, 3600.0), (3600.0, 600.0)


@dataclass(frozen=True, slots=True)
class FairnessScale:
    """How much is measured, and what must be reached.

    Attributes:
        big_rows: the big org's backlog.
        other_rows: that of the 19 others together.
        rounds: how often these are drained alone.
        most_ratio: how many times as long as alone they may wait.
    """

    big_rows: int
    other_rows: int
    rounds: int
    most_ratio: float = 3.0


@dataclass(slots=True)
class FairnessFigures:
    """What was measured: seconds from the beginning of the drain until the others' facts could be seen."""

    scale: FairnessScale
    environment: dict[str, Any]
    alone: list[Spread] = field(default_factory=list)
    alone_seconds: list[float] = field(default_factory=list)
    beside: Spread | None = None
    beside_seconds: float = 0.0
    live: Spread | None = None

    @property
    def median_alone(self) -> float:
        """The median wait of the others' rows alone, in the middle round."""
        return median(spread.median for spread in self.alone)

    @property
    def p99_alone(self) -> float:
        """The p99 of the same."""
        return median(spread.p99 for spread in self.alone)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached."""
        if self.beside is None:
            return []
        return [
            at_most("others' median beside the big org / alone", self.beside.median / self.median_alone,
                    self.scale.most_ratio),
            at_most("others' p99 beside the big org / alone", self.beside.p99 / self.p99_alone, self.scale.most_ratio),
        ]  # fmt: skip

    @property
    def reached(self) -> bool:
        """Whether all targets were."""
        return self.beside is not None and all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "big_org_rows": self.scale.big_rows,
            "others": _OTHERS,
            "others_rows": self.scale.other_rows,
            "alone": [spread.as_json() for spread in self.alone],
            "alone_drain_seconds": [round(seconds, 3) for seconds in self.alone_seconds],
            "beside_the_big_org": self.beside and self.beside.as_json(),
            "beside_drain_seconds": round(self.beside_seconds, 3),
            "live_rows_of_a_small_org": self.live and self.live.as_json(),
            "targets": self.targets,
        }

    def show(self, console: Console) -> None:
        """Prints how long the others' rows and the live ones waited, and the targets."""
        table = new_table(
            f"{self.scale.other_rows:,} rows of {_OTHERS} orgs, alone and beside {self.scale.big_rows:,} of one org",
            "rows", "drain, s", "median ms", "p99 ms", "max ms",
        )  # fmt: skip
        for number, spread in enumerate(self.alone):
            seconds = self.alone_seconds[number]
            table.add_row(f"others alone, round {number + 1}", f"{seconds:.2f}", *spread.milliseconds)
        if self.beside:
            table.add_row("others beside the big org", f"{self.beside_seconds:.2f}", *self.beside.milliseconds)
        if self.live:
            table.add_row(f"{len(self.live.seconds)} live rows of a small org", "", *self.live.milliseconds)
        console.print(table)
        show_targets(self.targets, console)


async def measure_fairness(
    dsn: str, scale: FairnessScale, environment: dict[str, Any], console: Console
) -> FairnessFigures:
    """Drains the others' rows alone, on copies; then adds the big org's, and drains all while live rows come.

    Raises:
        RuntimeError: the server keeps no commit timestamps, or a drain left something.
    """
    await require_commit_timestamps(dsn)
    figures = FairnessFigures(scale, environment)
    async with own_database(dsn, _CROWD) as crowd:
        await make_platform(crowd, _LIVE_ORG)
        await _add_backlog(crowd, _FIRST_OTHER, _OTHERS, scale.other_rows, "others", _OTHERS_DUE_AGO)
        for _ in range(scale.rounds):
            async with own_database(dsn, _ALONE, template=_CROWD) as alone:
                spread, seconds = await _drain_others(alone, scale.other_rows)
                figures.alone.append(spread)
                figures.alone_seconds.append(seconds)
        console.print(f"fairness: alone, the others' rows wait {figures.median_alone:.2f} s in the median")
        await _add_backlog(crowd, _BIG_ORG, 1, scale.big_rows, "big", _BIG_DUE_AGO)
        drained = _Drained(round((scale.big_rows + scale.other_rows) * _LIVE_UNTIL_DRAINED))
        async with asyncio.TaskGroup() as group:
            live = group.create_task(_write_live(crowd, drained.enough))
            figures.beside, figures.beside_seconds = await _drain_others(
                crowd, scale.big_rows + scale.other_rows, drained
            )
        # Where the backlog was so small that it ended with one batch, a live row may have come behind that.
        await _drain(crowd, drained)
        figures.live = await _read_live(crowd, live.result())
    return figures


async def _add_backlog(
    dsn: str, first_org: int, orgs: int, rows: int, model: str, due_ago: tuple[float, float]
) -> None:
    async with connected(dsn) as connection:
        # Without foreign keys' triggers: what is written is right, and it takes half the time.
        await connection.execute("SET session_replication_role = 'replica'")
        await connection.execute(WRITE_BACKLOG_OF_ORGS, first_org, orgs, rows, model, *due_ago)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")


@dataclass(slots=True)
class _Drained:
    """Counts what a drain has completed; `enough` is set at so many rows."""

    until: int
    rows: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def on_batch(self, result: BatchResult, _: float) -> None:
        self.rows += result.completed_rows
        if self.rows >= self.until:
            self.enough.set()


async def _drain_others(dsn: str, rows: int, drained: _Drained | None = None) -> tuple[Spread, float]:
    """Drains all; gives how long the others' facts took to be seen, and the seconds of the whole."""
    async with connected(dsn) as connection:
        began: datetime = await connection.fetchval("SELECT clock_timestamp()")
        result = await _drain(dsn, drained or _Drained(rows))
        if result.completed < rows:
            raise RuntimeError(f"of {rows} rows {result.completed} were completed, {result.failed} failed")
        return Spread([record["lag"] for record in await connection.fetch(SEEN_AFTER, "others", began)]), result.seconds


async def _drain(dsn: str, drained: _Drained) -> DrainResult:
    settings = default_settings(dsn)
    pool = await open_pool(settings, _WORKERS)
    try:
        return await drain(
            pool, batch_rules(settings, load_registry()), workers=_WORKERS, new_size=lambda: batch_size(settings),
            on_batch=drained.on_batch, log=structlog.get_logger(),
        )  # fmt: skip
    finally:
        # A drain that failed has no more batches to tell of.
        drained.enough.set()
        pool.terminate()


async def _write_live(dsn: str, enough: asyncio.Event) -> int:
    """Writes a row every so often, each at its time, until it is enough; gives how many."""
    rows, start = 0, time.perf_counter()
    async with connected(dsn) as connection:
        while not enough.is_set():
            await connection.execute(WRITE_GENERATION, _LIVE_ORG, "live")
            rows += 1
            await asyncio.sleep(start + rows * _LIVE_EVERY_SECONDS - time.perf_counter())
    return rows


async def _read_live(dsn: str, rows: int) -> Spread | None:
    """How long live rows waited for their facts; None where they were too few to tell."""
    async with connected(dsn) as connection:
        lags = [record["lag"] for record in await connection.fetch(LAG, "live")]
    if len(lags) != rows or None in lags:
        raise RuntimeError(f"{rows} live rows were written, not all have a fact")
    return Spread(lags) if rows > 1 else None


FULL = FairnessScale(475_000, 25_000, rounds=3)
# So small a backlog is gone in a few batches, and the first ones are the slowest.
QUICK = FairnessScale(9_500, 500, rounds=1, most_ratio=30)
