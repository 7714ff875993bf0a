"""Whether cost is flat: draining, gauges and diagnostics with millions of rows in the outbox, against next to none."""

import time
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Any

import structlog
from rich import box
from rich.console import Console
from rich.table import Table

from projector.batch import BatchResult
from projector.daemon import Daemon
from projector.demo.backlog import write_backlog
from projector.demo.embedded import database_dsn
from projector.demo.seed import seed_platform
from projector.migrate import migrate
from projector.projections import load_registry
from projector.settings import Settings
from projector.sqlfile import load_sql
from tests.bench.flat_reads import SAMPLE, time_reads
from tests.bench.parts import Drained
from tests.bench.stage import SOURCES_SQL, connected
from tests.daemons import captured_log, settings_for

INDEXES = load_sql(__file__, "flat_indexes.sql")
COMPLETED = load_sql(__file__, "flat_completed.sql")
WAITING = load_sql(__file__, "flat_waiting.sql")
PENDING = load_sql(__file__, "flat_pending.sql")
SETTLED = load_sql(__file__, "flat_settled.sql")

_SMALL = "projector_bench_flat_small"
_LARGE = "projector_bench_flat_large"
_ORGS = 4
_SEED = 20260501
_WORKERS = 2
_SAMPLE_INTERVAL_SECONDS = Settings.model_fields["reporting_sample_interval_secs"].default
_FILL_SETTINGS = """
SET session_replication_role = replica;
SET maintenance_work_mem = '1GB';
SET max_parallel_maintenance_workers = 2;
SET synchronous_commit = off
"""


@dataclass(frozen=True, slots=True)
class FlatScale:
    """How much is measured, and what must be reached.

    Attributes:
        completed: completed rows in the large outbox.
        waiting: due rows there, behind the backlog that is drained.
        rounds: how often each outbox is drained, in turn.
        rows: rows that each round drains at least.
        sessions: of the backlog: all rounds together must not come to its end; 52 rows each.
        least_rate: the least that the large outbox's rate may be, as a multiple of the small one's.
        most_reads: how many times as long as on an empty outbox diagnostics may take.
        most_off: how far from the truth, as a share of it, the estimate of what waits may be.
        most_of_the_time: the share of its time that a daemon may spend on samples of the gauges.
    """

    completed: int
    waiting: int
    rounds: int
    rows: int
    sessions: int
    least_rate: float = 0.8
    most_reads: float = 5.0
    most_of_the_time: float = 0.01
    most_off: float = 0.1


@dataclass(slots=True)
class FlatFigures:
    """What was measured; `reads` are milliseconds by what was read and by outbox: empty, large."""

    scale: FlatScale
    environment: dict[str, Any]
    fill_seconds: float = 0.0
    small: list[Drained] = field(default_factory=list)
    large: list[Drained] = field(default_factory=list)
    strangers: int = 0
    pending: int = 0
    pending_told: int = 0
    reads: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The large outbox's rate as a multiple of the small one's, of the medians."""
        return median(one.rate for one in self.large) / median(one.rate for one in self.small)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Each figure with its limit."""
        figures = [("rate with the large outbox / with the small one", self.ratio, self.scale.least_rate, True)]
        for name, times in self.reads.items():
            if name != SAMPLE:
                times_as_long = median(times["large"]) / median(times["empty"])
                figures.append((f"{name}, large outbox / empty one", times_as_long, self.scale.most_reads, False))
        share = median(self.reads[SAMPLE]["large"]) / 1000 / _SAMPLE_INTERVAL_SECONDS
        figures.append(("share of the time that goes to the gauges", share, self.scale.most_of_the_time, False))
        off = abs(self.pending_told - self.pending) / self.pending
        figures.append(("how far the count of what waits is off", off, self.scale.most_off, False))
        return [
            {
                "figure": name, "limit": limit, "measured": round(measured, 4),
                "reached": measured >= limit if at_least else measured <= limit,
            }
            for name, measured, limit, at_least in figures
        ]  # fmt: skip

    @property
    def reached(self) -> bool:
        """Whether all targets were, with the same rows drained of both."""
        return not self.strangers and all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "outbox": {"completed": self.scale.completed, "waiting": self.scale.waiting},
            "fill_seconds": round(self.fill_seconds, 1),
            "rounds": {
                name: [{"rows": one.rows, "seconds": round(one.seconds, 3)} for one in rounds]
                for name, rounds in (("small", self.small), ("large", self.large))
            },
            "rows_drained_that_are_not_in_both": self.strangers,
            "pending": {"told": self.pending_told, "in_truth": self.pending},
            "reads_milliseconds": {
                name: {outbox: [round(value, 2) for value in values] for outbox, values in times.items()}
                for name, times in self.reads.items()
            },
            "targets": self.targets,
        }

    def show(self, console: Console) -> None:
        """Prints the rates, what reads cost, and the targets."""
        held = f"{self.scale.completed:,} completed and {self.scale.waiting:,} waiting rows"
        table = Table(title=f"With {held} (filled in {self.fill_seconds:.0f} s)", box=box.SIMPLE_HEAD)
        table.add_column("", no_wrap=True)
        for heading in ("small or empty", "large"):
            table.add_column(heading, justify="right")
        rates = (f"{median(one.rate for one in rounds):,.0f}" for rounds in (self.small, self.large))
        table.add_row("rows/s drained, 2 workers", *rates)
        for name, times in self.reads.items():
            table.add_row(f"{name}, ms", f"{median(times['empty']):.1f}", f"{median(times['large']):.1f}")
        console.print(table)
        if self.strangers:
            console.print(f"[red]{self.strangers:,} rows were drained of the large outbox that the small one lacks[/]")
        for target in self.targets:
            verdict = "[green]reached[/]" if target["reached"] else "[red]missed[/]"
            console.print(f"{target['figure']} = {target['measured']:.3g}, limit {target['limit']:g}: {verdict}")


async def measure_flat(dsn: str, scale: FlatScale, environment: dict[str, Any], console: Console) -> FlatFigures:
    """Drains one backlog, slice by slice in turn, of an outbox with it alone and of one with millions of rows more."""
    figures = FlatFigures(scale, environment)
    small, large = database_dsn(dsn, _SMALL), database_dsn(dsn, _LARGE)
    try:
        await _build_small(dsn, figures)
        await _build_large(dsn, figures)
        console.print(f"flat: {scale.completed + scale.waiting:,} rows written in {figures.fill_seconds:.0f} s")
        await _time_reads(large, "large", figures)
        figures.pending = await _count(large, PENDING)
        contestants = [(small, figures.small), (large, figures.large)]
        for number in range(scale.rounds):
            for of, rounds in contestants if number % 2 == 0 else reversed(contestants):
                rounds.append(await _drain(of, scale.rows))
            rates = f"{figures.small[-1].rate:,.0f} and {figures.large[-1].rate:,.0f} rows/s"
            console.print(f"flat: round {number + 1}: {rates}")
        figures.strangers = await _count(large, SETTLED)
        return figures
    finally:
        await _drop(dsn)


async def _drop(dsn: str) -> None:
    async with connected(dsn) as admin:
        for name in (_SMALL, _LARGE):
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _build_small(dsn: str, figures: FlatFigures) -> None:
    """The platform with a backlog, an hour older than it is written; times the reads before, of an empty outbox."""
    await _drop(dsn)
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE DATABASE {_SMALL}")
    small = database_dsn(dsn, _SMALL)
    async with connected(small) as connection:
        await connection.execute(SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate(connection, structlog.get_logger())
        await seed_platform(connection, Random(_SEED), _ORGS)
        await connection.execute("VACUUM (ANALYZE)")
        await _time_reads(small, "empty", figures)
        await write_backlog(connection, figures.scale.sessions)
        # What waits behind it in the large outbox is to be younger, yet not of the last minute.
        await connection.execute("UPDATE reporting_outbox SET next_attempt_at = next_attempt_at - interval '1 hour'")
        await connection.execute("VACUUM (FULL) reporting_outbox")
        await connection.execute("VACUUM (ANALYZE)")


async def _build_large(dsn: str, figures: FlatFigures) -> None:
    """A copy of the small one with so many rows more; indexes are built after them, all is vacuumed and analyzed."""
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE DATABASE {_LARGE} TEMPLATE {_SMALL}")
    started = time.perf_counter()
    async with connected(database_dsn(dsn, _LARGE)) as connection:
        await connection.execute(_FILL_SETTINGS)
        indexes = await connection.fetch(INDEXES)
        for index in indexes:
            await connection.execute(index["drop_it"])
        await connection.execute(COMPLETED, figures.scale.completed)
        await connection.execute(WAITING, figures.scale.waiting)
        for index in indexes:
            await connection.execute(index["build_it"])
        await connection.execute("VACUUM (ANALYZE) reporting_outbox")
    figures.fill_seconds = time.perf_counter() - started


async def _drain(dsn: str, rows: int) -> Drained:
    """Lets a daemon drain so many rows, and at least the batch under way; nothing is left to write back before."""
    async with connected(dsn) as connection:
        await connection.execute("CHECKPOINT")
    log, _ = captured_log()
    drained = Drained(0, 0.0)
    # Gauges have their own figures here: with their default interval they would fall into some rounds alone.
    settings = settings_for(dsn, reporting_projector_workers=_WORKERS, reporting_sample_interval_secs=3600)

    def count(result: BatchResult, _: float) -> None:
        if daemon.stop.is_set():
            return
        drained.rows += result.completed_rows
        drained.seconds = time.perf_counter() - started
        if drained.rows >= rows:
            daemon.stop.set()

    daemon = Daemon(settings, load_registry(), log, on_batch=count)
    started = time.perf_counter()
    if await daemon.run() != 0 or drained.rows < rows:
        raise RuntimeError(f"of {rows} rows {drained.rows} were completed")
    return drained


async def _time_reads(dsn: str, outbox: str, figures: FlatFigures) -> None:
    times, figures.pending_told = await time_reads(dsn)
    for name, spent in times.items():
        figures.reads.setdefault(name, {})[outbox] = spent


async def _count(dsn: str, statement: str) -> int:
    async with connected(dsn) as connection:
        return int(await connection.fetchval(statement))


FULL = FlatScale(completed=5_000_000, waiting=1_000_000, rounds=3, rows=40_000, sessions=3_000)
QUICK = FlatScale(completed=20_000, waiting=5_000, rounds=1, rows=2_000, sessions=200, least_rate=0.2, most_reads=20)
