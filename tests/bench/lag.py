"""How soon a live row's fact can be seen, and what a daemon costs that has nothing to do.

The daemon is a process of its own, as users start it: two workers, all settings but its HTTP address left alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from rich.console import Console

from projector.migrate import set_notify_trigger
from projector.projections import llm_generation
from projector.sqlfile import load_sql
from tests.bench.idle import Idle, count, difference
from tests.bench.live_writers import Load, Written, write_live
from tests.bench.parts import Spread, at_most, make_platform, new_table, own_database, show_targets
from tests.bench.stage import connected
from tests.processes import Running, started

LAG = load_sql(__file__, "lag.sql")
UNIT_SOURCES = load_sql(__file__, "unit_sources.sql")

_LIVE, _IDLE = "projector_bench_lag", "projector_bench_idle"
_ORGS = 20
_WORKERS = 2
_WAYS = ("polling", "notify")
_LAST_ROWS_SECONDS = 30.0
_LOOK_SECONDS = 0.05
# The plans of a batch (projector/database.py), for a connection that does nothing else.
_UNIT_SETTINGS = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off"
_COUNTED = "SET pg_stat_statements.track = 'none'; CREATE EXTENSION IF NOT EXISTS pg_stat_statements"


@dataclass(frozen=True, slots=True)
class LagScale:
    """How much is measured, and what must be reached.

    Attributes:
        loads: the rates of live rows, each measured once with polling alone and once with NOTIFY.
        unit_rows: how many bare projection transactions give the unit.
        idle_seconds: how long the idle daemon is watched; it has been idle since before the live rows.
        most_median, most_p99: the most that the lag may be, as multiples of the unit.
        most_statements: statements a second that an idle worker may run.
        most_core: the share of a core that the idle process may use.
        most_late: how many seconds a writer may be behind its schedule, else the rate was not that of the load.
    """

    loads: tuple[Load, ...]
    unit_rows: int
    idle_seconds: float
    most_median: float = 5.0
    most_p99: float = 20.0
    most_statements: float = 2.0
    most_core: float = 0.01
    most_late: float = 1.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One load, with one way of waking the workers."""

    way: str
    load: Load
    lag: Spread
    written: Written
    unseen: int

    @property
    def name(self) -> str:
        """For readers."""
        return f"{self.way}, {self.load.rate:,.0f} rows/s"

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "way": self.way,
            "rows_per_second": self.load.rate,
            "writers": self.load.writers,
            "orgs": self.load.orgs,
            "rows": self.load.rows,
            "rows_without_a_fact": self.unseen,
            "lag": self.lag.as_json(),
            "write": Spread(self.written.took).as_json(),
            "behind_schedule": Spread(self.written.late).as_json(),
        }


@dataclass(slots=True)
class LagFigures:
    """What was measured; the unit is the median of `bare`."""

    scale: LagScale
    environment: dict[str, Any]
    bare: Spread = field(default_factory=lambda: Spread([]))
    bare_durable: Spread = field(default_factory=lambda: Spread([]))
    runs: list[LiveRun] = field(default_factory=list)
    idle: Idle | None = None

    @property
    def unit(self) -> float:
        """Seconds of one bare projection transaction of one row."""
        return self.bare.median

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached: with polling alone, NOTIFY is an option."""
        scale, found = self.scale, []
        for run in self.runs:
            if run.way == "polling":
                found += [
                    at_most(f"median lag / unit, {run.name}", run.lag.median / self.unit, scale.most_median),
                    at_most(f"p99 lag / unit, {run.name}", run.lag.p99 / self.unit, scale.most_p99),
                ]
            found += [
                at_most(f"rows without a fact, {run.name}", run.unseen, 0),
                at_most(f"writers behind schedule, {run.name}, s", max(run.written.late), scale.most_late),
            ]
        if self.idle:
            found.append(at_most("idle daemon, share of a core", self.idle.daemon_core, scale.most_core))
            if (statements := self.idle.statements_per_worker) is not None:
                found.append(at_most("idle daemon, statements/s/worker", statements, scale.most_statements))
        return found

    @property
    def reached(self) -> bool:
        """Whether all targets were."""
        return all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "unit_ms": round(self.unit * 1000, 3),
            "bare_transaction": self.bare.as_json(),
            "bare_transaction_that_waits_for_the_disk": self.bare_durable.as_json(),
            "live": [run.as_json() for run in self.runs],
            "idle": self.idle and self.idle.as_json(),
            "targets": self.targets,
        }

    def show(self, console: Console) -> None:
        """Prints the lags, what an idle daemon costs, and the targets."""
        table = new_table(
            f"Lag of live rows; the unit, one bare projection transaction, is {self.unit * 1000:.2f} ms "
            f"({self.bare_durable.median * 1000:.2f} ms where it waits for the disk)",
            "way, rate", "rows", "median ms", "p99 ms", "max ms", "median / unit", "p99 / unit", "write, median ms",
        )  # fmt: skip
        for run in self.runs:
            table.add_row(
                run.name, f"{run.load.rows:,}", *run.lag.milliseconds,
                f"{run.lag.median / self.unit:.1f}", f"{run.lag.p99 / self.unit:.1f}",
                f"{Spread(run.written.took).median * 1000:.2f}",
            )  # fmt: skip
        console.print(table)
        if self.idle:
            _show_idle(self.idle, console)
        show_targets(self.targets, console)


def _show_idle(idle: Idle, console: Console) -> None:
    statements = idle.statements_per_worker
    backends = idle.backend_seconds
    console.print(
        f"After {idle.quiet_seconds:.0f} s without a row, in a second: "
        + ("statements not counted" if statements is None else f"{statements * idle.workers:.1f} statements")
        + f", {idle.transactions / idle.seconds:.1f} transactions, {idle.daemon_core * 1000:.1f} ms of the daemon's "
        + "processor time, "
        + ("its backends' unknown" if backends is None else f"{backends / idle.seconds * 1000:.1f} ms of its backends'")
    )


async def measure_lag(dsn: str, scale: LagScale, environment: dict[str, Any], console: Console) -> LagFigures:
    """Lets live rows come to a running daemon, while another has nothing to do.

    Raises:
        RuntimeError: the server keeps no commit timestamps, which tell when a fact could be seen.
    """
    await require_commit_timestamps(dsn)
    with TemporaryDirectory(prefix="projector-bench-") as folder:
        async with own_database(dsn, _LIVE) as live, own_database(dsn, _IDLE) as idle:
            for database in (live, idle):
                await make_platform(database, _ORGS)
            counts = await _count_statements(live)
            async with _daemon(idle, Path(folder)) as resting:
                quiet_since = time.perf_counter()
                figures = LagFigures(scale, environment)
                await _measure_live(live, Path(folder), figures, console)
                figures.idle = await _watch(live if counts else dsn, resting, quiet_since, scale.idle_seconds)
    return figures


async def require_commit_timestamps(dsn: str) -> None:
    """Raises RuntimeError where the server keeps no commit timestamps."""
    async with connected(dsn) as connection:
        if await connection.fetchval("SHOW track_commit_timestamp") != "on":
            raise RuntimeError("lags are read from commit timestamps: set track_commit_timestamp = on, and restart")


async def _count_statements(observer: str) -> bool:
    """Has the idle daemon's statements counted, read from `observer`; False where the server has not the means."""
    async with connected(observer) as connection:
        if "pg_stat_statements" not in await connection.fetchval("SHOW shared_preload_libraries"):
            return False
        await connection.execute(_COUNTED)
        for setting in ("pg_stat_statements.track = 'top'", "compute_query_id = 'on'"):
            await connection.execute(f"ALTER DATABASE {_IDLE} SET {setting}")
    return True


@asynccontextmanager
async def _daemon(dsn: str, folder: Path) -> AsyncIterator[Running]:
    """A daemon as users start it, from when it works and listens."""
    settings = {"database_url": dsn, "reporting_http_host": "127.0.0.1", "reporting_http_port": "0"}
    async with started("run", folder=folder, **settings) as process:
        await process.has_logged("projecting")
        await process.has_logged("listening for wake-ups")
        yield process


@asynccontextmanager
async def for_bare_transactions(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that plans as a batch does."""
    async with connected(dsn) as connection:
        await connection.execute(_UNIT_SETTINGS)
        yield connection


async def measure_bare(connection: asyncpg.Connection, rows: int, bare: Spread, bare_durable: Spread) -> None:
    """Projects generations one at a time, by the projector's own statement: waiting for the disk and not, in turn."""
    sources = [record["id"] for record in await connection.fetch(UNIT_SOURCES, 2 * rows)]
    for number, row in enumerate(sources):
        synchronous, spread = (("off", bare), ("on", bare_durable))[number % 2]
        await connection.execute(f"SET synchronous_commit = {synchronous}")
        spread.seconds.append(await _bare_transaction(connection, row))


async def _bare_transaction(connection: asyncpg.Connection, generation: str) -> float:
    began = time.perf_counter()
    await connection.execute("BEGIN")
    await connection.fetch(llm_generation.PROJECTION.project, [1], [generation], False)
    await connection.execute("COMMIT")
    return time.perf_counter() - began


async def _measure_live(dsn: str, folder: Path, figures: LagFigures, console: Console) -> None:
    """Each load, each way; before each and at the end, a part of the bare transactions, as a machine's pace varies."""
    loads = figures.scale.loads
    bare_rows = figures.scale.unit_rows // (len(loads) * len(_WAYS) + 1)
    async with _daemon(dsn, folder), connected(dsn) as connection, for_bare_transactions(dsn) as bare:
        await run_live(connection, dsn, "warm-up", Load(loads[0].rate, 1, loads[0].writers, _ORGS))
        for way in _WAYS:
            await set_notify_trigger(connection, wanted=way == "notify")
            for load in loads:
                await measure_bare(bare, bare_rows, figures.bare, figures.bare_durable)
                run = await run_live(connection, dsn, way, load)
                figures.runs.append(run)
                console.print(f"lag: {run.name}: median {run.lag.median * 1000:.1f} ms")
        await measure_bare(bare, bare_rows, figures.bare, figures.bare_durable)


async def run_live(connection: asyncpg.Connection, dsn: str, way: str, load: Load) -> LiveRun:
    """Writes a load, and waits until it is projected, though not for ever."""
    model = f"{way} {load.rate:g}"
    written = await write_live(dsn, load, model)
    deadline = time.perf_counter() + _LAST_ROWS_SECONDS
    while True:
        lags = [record["lag"] for record in await connection.fetch(LAG, model)]
        seen = [lag for lag in lags if lag is not None]
        if len(seen) == load.rows or time.perf_counter() > deadline:
            return LiveRun(way, load, Spread(seen), written, load.rows - len(seen))
        await asyncio.sleep(_LOOK_SECONDS)


async def _watch(observer: str, daemon: Running, quiet_since: float, seconds: float) -> Idle:
    """Watches a daemon that has nothing to do, from a connection to another database."""
    async with connected(observer) as connection:
        began = time.perf_counter()
        before = await count(connection, _IDLE, daemon.process.pid)
        await asyncio.sleep(seconds)
        after = await count(connection, _IDLE, daemon.process.pid)
        elapsed = time.perf_counter() - began
    return difference(before, after, quiet=began - quiet_since, seconds=elapsed, workers=_WORKERS)


FULL = LagScale((Load(200, 12, 2, _ORGS), Load(2000, 12, 4, _ORGS)), unit_rows=500, idle_seconds=12)
# So short a quiet has hardly slowed the polling down, and so few rows have hardly a p99.
QUICK = LagScale(
    (Load(100, 0.5, 2, _ORGS),), unit_rows=50, idle_seconds=1,
    most_median=200, most_p99=1000, most_statements=1000, most_core=1, most_late=10,
)  # fmt: skip
