"""Whether more workers are ever slower, how much they are in each other's way, and how much memory a daemon takes."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import psutil
import structlog
from rich import box
from rich.console import Console
from rich.table import Table

from projector.sqlfile import load_sql
from tests.bench.stage import Facts, Stage, connected, count_completed, read_facts
from tests.processes import Running, started

LOCKS = load_sql(__file__, "scaling_locks.sql")
CONTENTION = load_sql(__file__, "scaling_contention.sql")
POSTPONE = load_sql(__file__, "scaling_postpone.sql")
RETURN = load_sql(__file__, "scaling_return.sql")

_LOOK_SECONDS = 0.02
_IDLE_SECONDS = 2.0
_STATISTICS_SECONDS = 0.3
_MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class ScalingScale:
    """How much is measured, and what must be reached.

    Attributes:
        sessions: of the backlog, 52 rows each.
        rounds: how often each team drains it; its best round counts, as others on the machine only ever add.
        teams: processes, and workers in each; from the fewest to the most.
        least_rate: the least that a team's rate may be, as a multiple of the best rate of those before it.
        most_megabytes: the most memory that a daemon may take.
    """

    sessions: int
    rounds: int
    teams: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (1, 4), (2, 2), (1, 8))
    least_rate: float = 0.9
    most_megabytes: float = 120


@dataclass(slots=True)
class Run:
    """One team's work on the backlog.

    Attributes:
        seconds: from when its first connection was busy until the last no longer was.
        looks: how often connections that were busy were seen; `waiting`, those that waited for a lock.
        rows_read: in the indexes of due rows.
        deadlocks: as the server counts them.
        rollbacks: transactions given up.
    """

    seconds: float
    looks: int
    waiting: int
    rows_read: int
    deadlocks: int
    rollbacks: int

    @property
    def waits(self) -> float:
        """The share of the connections' busy time that went to waits for locks."""
        return self.waiting / max(self.looks, 1)


@dataclass(slots=True)
class Team:
    """So many processes with so many workers each."""

    processes: int
    workers: int
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As in results: `2 processes, 2 workers each`."""
        each = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return each if self.processes == 1 else f"{self.processes} processes, {each} each"

    @property
    def best(self) -> Run:
        """Its quickest run."""
        return min(self.runs, key=lambda run: run.seconds)


@dataclass(slots=True)
class ScalingFigures:
    """What was measured; memory in megabytes."""

    scale: ScalingScale
    environment: dict[str, Any]
    rows: int = 0
    teams: list[Team] = field(default_factory=list)
    idle_megabytes: float = 0.0
    peak_megabytes: float = 0.0
    faults: list[str] = field(default_factory=list)

    def rate(self, team: Team) -> float:
        """Rows a second."""
        return self.rows / team.best.seconds

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Each figure with its limit."""
        found = []
        for number, team in enumerate(self.teams[1:], start=1):
            ratio = self.rate(team) / max(self.rate(smaller) for smaller in self.teams[:number])
            found.append(_target(f"{team.name} / the best with fewer", self.scale.least_rate, ratio, at_least=True))
        most = self.scale.most_megabytes
        return [*found, _target("a daemon's memory while it drains, MB", most, self.peak_megabytes, at_least=False)]

    @property
    def reached(self) -> bool:
        """Whether all targets were, and every team gave the same facts."""
        return not self.faults and all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "rows": self.rows,
            "teams": [
                {
                    "processes": team.processes,
                    "workers": team.workers,
                    "rows_per_second": round(self.rate(team)),
                    "rounds": [
                        {
                            "seconds": round(run.seconds, 3),
                            "share_of_time_waiting_for_locks": round(run.waits, 4),
                            "rows_read_by_claims": run.rows_read,
                            "deadlocks": run.deadlocks,
                            "rollbacks": run.rollbacks,
                        }
                        for run in team.runs
                    ],
                }
                for team in self.teams
            ],
            "daemon_megabytes": {"idle": round(self.idle_megabytes, 1), "peak": round(self.peak_megabytes, 1)},
            "targets": self.targets,
            "faults": self.faults,
        }

    def show(self, console: Console) -> None:
        """Prints the teams, the daemon's memory, and the targets."""
        table = Table(title=f"More workers on a backlog of {self.rows:,} rows", box=box.SIMPLE_HEAD)
        table.add_column("team", no_wrap=True)
        for heading in ("rows/s", "waits for locks", "read for a row", "deadlocks", "rollbacks"):
            table.add_column(heading, justify="right")
        for team in self.teams:
            run = team.best
            table.add_row(
                team.name, f"{self.rate(team):,.0f}", f"{run.waits:.1%}", f"{run.rows_read / self.rows:.2f}",
                str(run.deadlocks), str(run.rollbacks),
            )  # fmt: skip
        console.print(table)
        console.print(f"A daemon's memory: {self.idle_megabytes:.0f} MB idle, {self.peak_megabytes:.0f} MB at the most")
        for target in self.targets:
            verdict = "[green]reached[/]" if target["reached"] else "[red]missed[/]"
            console.print(f"{target['figure']} = {target['measured']:.2f}, limit {target['limit']:g}: {verdict}")
        for fault in self.faults:
            console.print(f"[red]{fault}[/]")


def _target(figure: str, limit: float, measured: float, *, at_least: bool) -> dict[str, Any]:
    reached = measured >= limit if at_least else measured <= limit
    return {"figure": figure, "limit": limit, "measured": round(measured, 3), "reached": reached}


async def measure_scaling(
    dsn: str, scale: ScalingScale, environment: dict[str, Any], console: Console
) -> ScalingFigures:
    """Lets teams of processes drain copies of one backlog, then a daemon with its default settings."""
    figures = ScalingFigures(scale, environment, teams=[Team(*team) for team in scale.teams])
    stage = Stage(dsn)
    try:
        figures.rows = (await stage.build(scale.sessions, structlog.get_logger())).rows
        expected: Facts | None = None
        for number in range(scale.rounds):
            for team in figures.teams if number % 2 == 0 else reversed(figures.teams):
                async with stage.copy() as copy:
                    team.runs.append(await _drain(copy, team))
                    console.print(f"scaling: {team.name}: {figures.rows:,} rows in {team.runs[-1].seconds:.2f} s")
                    if await count_completed(copy) != figures.rows:
                        figures.faults.append(f"{team.name} did not complete all rows")
                    if number == 0:
                        facts = await read_facts(copy)
                        expected = expected or facts
                        if facts != expected:
                            figures.faults.append(f"{team.name} gave other facts than {figures.teams[0].name}")
        async with stage.copy() as copy:
            await _weigh(copy, figures)
        return figures
    finally:
        await stage.remove()


async def _drain(dsn: str, team: Team) -> Run:
    """Runs `projector drain` in each of the team's processes at once, and watches their connections."""
    with TemporaryDirectory() as folder:
        async with connected(dsn) as watcher, AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(
                    started(
                        "drain",
                        folder=Path(folder),
                        database_url=dsn,
                        reporting_log_level="warning",
                        reporting_projector_workers=str(team.workers),
                    )
                )
                for _ in range(team.processes)
            ]
            seconds, looks, waiting = await _watch(watcher, processes)
            for process in processes:
                if await process.end() != 0:
                    raise RuntimeError(f"`projector drain` failed: {process.text()}")
            await asyncio.sleep(_STATISTICS_SECONDS)
            seen = await watcher.fetchrow(CONTENTION)
            assert seen is not None
            return Run(seconds, looks, waiting, **seen)


async def _watch(watcher: asyncpg.Connection, processes: list[Running]) -> tuple[float, int, int]:
    """Looks at the projector's connections until all processes have ended: seconds, looks, and looks at waits."""
    first = last = 0.0
    looks = waiting = 0
    while any(process.process.returncode is None for process in processes):
        seen = await watcher.fetchrow(LOCKS)
        assert seen is not None
        if seen["busy"]:
            last = time.perf_counter()
            first = first or last
            looks += seen["busy"]
            waiting += seen["waiting"]
        await asyncio.sleep(_LOOK_SECONDS)
    return last - first, looks, waiting


async def _weigh(dsn: str, figures: ScalingFigures) -> None:
    """Reads the memory of `projector run` with its default settings: idle, and at the most while it drains."""
    async with connected(dsn) as connection:
        await connection.execute(POSTPONE)
    with TemporaryDirectory() as folder:
        async with (
            connected(dsn) as connection,
            started(
                "run", folder=Path(folder), database_url=dsn, reporting_http_host="127.0.0.1", reporting_http_port="0",
            ) as daemon,
        ):  # fmt: skip
            await asyncio.sleep(_IDLE_SECONDS)
            process = psutil.Process(daemon.process.pid)
            figures.idle_megabytes = process.memory_info().rss / _MEGABYTE
            await connection.execute(RETURN)
            while await connection.fetchval("SELECT EXISTS (SELECT FROM reporting_outbox WHERE status = 'pending')"):
                figures.peak_megabytes = max(figures.peak_megabytes, process.memory_info().rss / _MEGABYTE)
                await asyncio.sleep(_LOOK_SECONDS)
            process.terminate()
            if await daemon.end() != 0:
                raise RuntimeError(f"`projector run` failed: {daemon.text()}")


FULL = ScalingScale(sessions=1_500, rounds=2)
QUICK = ScalingScale(sessions=60, rounds=1, teams=((1, 1), (1, 4), (2, 2)), least_rate=0.1, most_megabytes=300)
