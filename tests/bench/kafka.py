"""What spreading the work over Kafka costs: relay, consumers and lag, beside polling in the same run."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from rich.console import Console

from tests.bench.kafka_backlog import Projected, Spent, project_all, relay_all
from tests.bench.kafka_broker import BenchBroker, bench_broker
from tests.bench.kafka_live import measure_live
from tests.bench.lag import LiveRun, require_commit_timestamps
from tests.bench.live_writers import Load
from tests.bench.parts import Spread, at_least, at_most, new_table, show_targets
from tests.bench.stage import Facts, Stage, count_completed, read_facts

_ORGS = 20


@dataclass(frozen=True, slots=True)
class KafkaScale:
    """How much is measured, and what must be reached.

    Attributes:
        sessions: of the backlog, 52 rows each; fewer rows than a relay leases before consumers have settled some.
        rounds: how often each way drains it.
        loads: the rates of live rows.
        unit_rows: how many bare projection transactions give the unit of the lags.
        least_consumed: the least rate of the consumers, as a multiple of the poll feed's.
        most_late: how many seconds a writer may be behind its schedule, else the rate was not that of the load.
    """

    sessions: int
    rounds: int
    loads: tuple[Load, ...]
    unit_rows: int
    least_consumed: float = 0.7
    most_late: float = 1.0


@dataclass(slots=True)
class KafkaFigures:
    """What was measured: the backlog in each round, and live rows; the unit of the lags is the median of `bare`."""

    scale: KafkaScale
    environment: dict[str, Any]
    broker: str = ""
    rows: int = 0
    polled: list[Projected] = field(default_factory=list)
    relayed: list[Spent] = field(default_factory=list)
    consumed: list[Projected] = field(default_factory=list)
    live: list[LiveRun] = field(default_factory=list)
    bare: Spread = field(default_factory=lambda: Spread([]))
    faults: list[str] = field(default_factory=list)

    @property
    def ways(self) -> dict[str, list[Spent]]:
        """What each way of working on the backlog took, round by round."""
        return {
            "poll": [one.spent for one in self.polled],
            "relay": self.relayed,
            "consume": [one.spent for one in self.consumed],
        }

    def rate(self, way: str) -> float:
        """Rows a second, of the median round."""
        return self.rows / median(spent.seconds for spent in self.ways[way])

    @property
    def join_seconds(self) -> float:
        """From when a daemon's workers run to the start of the first batch, of the median round."""
        return median(one.waited for one in self.consumed)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached."""
        scale = self.scale
        found = [at_least("consume / poll, rows/s", self.rate("consume") / self.rate("poll"), scale.least_consumed)]
        for run in self.live:
            found += [
                at_most(f"rows without a fact, {run.name}", run.unseen, 0),
                at_most(f"writers behind schedule, {run.name}, s", max(run.written.late), scale.most_late),
            ]
        return found

    @property
    def reached(self) -> bool:
        """Whether all targets were, and both feeds gave the same facts."""
        return not self.faults and all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "broker": self.broker,
            "rows": self.rows,
            "backlog": {
                way: {
                    "rows_per_second": round(self.rate(way)),
                    "ratio_to_poll": round(self.rate(way) / self.rate("poll"), 3),
                    "rounds": [spent.as_json() for spent in rounds],
                }
                for way, rounds in self.ways.items()
            },
            "join_seconds": [round(one.waited, 3) for one in self.consumed],
            "unit_ms": round(self.bare.median * 1000, 3),
            "live": [run.as_json() for run in self.live],
            "targets": self.targets,
            "faults": self.faults,
        }

    def show(self, console: Console) -> None:
        """Prints rates, lags and the targets."""
        table = new_table(
            f"A backlog of {self.rows:,} rows on {self.broker}; to join the group took {self.join_seconds:.1f} s",
            "", "seconds", "rows/s", "/ poll", "processor s: ours", "the broker's",
        )  # fmt: skip
        for way, rounds in self.ways.items():
            table.add_row(
                way, f"{self.rows / self.rate(way):.2f}", f"{self.rate(way):,.0f}",
                f"{self.rate(way) / self.rate('poll'):.2f}", f"{median(spent.client for spent in rounds):.2f}",
                f"{median(spent.broker for spent in rounds):.2f}",
            )  # fmt: skip
        console.print(table)
        unit = self.bare.median
        table = new_table(
            f"Lag of live rows; the unit, one bare projection transaction, is {unit * 1000:.2f} ms",
            "way, rate", "rows", "median ms", "p99 ms", "max ms", "median / unit", "p99 / unit",
        )  # fmt: skip
        for run in self.live:
            table.add_row(
                run.name, f"{run.load.rows:,}", *run.lag.milliseconds,
                f"{run.lag.median / unit:.1f}", f"{run.lag.p99 / unit:.1f}",
            )  # fmt: skip
        console.print(table)
        show_targets(self.targets, console)
        for fault in self.faults:
            console.print(f"[red]{fault}[/]")


async def measure_kafka(dsn: str, scale: KafkaScale, environment: dict[str, Any], console: Console) -> KafkaFigures:
    """Lets relay and consumers work on a backlog and on live rows, and a daemon that polls on copies of the same.

    Raises:
        RuntimeError: the server keeps no commit timestamps, which tell when a fact could be seen.
    """
    await require_commit_timestamps(dsn)
    figures = KafkaFigures(scale, environment)
    with TemporaryDirectory(prefix="projector-bench-") as folder, bench_broker(Path(folder)) as broker:
        figures.broker = broker.name
        await _measure_backlog(dsn, figures, broker, console)
        figures.live, figures.bare = await measure_live(dsn, scale.loads, scale.unit_rows, broker, console)
    return figures


async def _measure_backlog(dsn: str, figures: KafkaFigures, broker: BenchBroker, console: Console) -> None:
    stage = Stage(dsn)
    try:
        figures.rows = (await stage.build(figures.scale.sessions, structlog.get_logger())).rows
        expected: Facts = {}
        for number in range(figures.scale.rounds):
            # Each round begins with the other feed.
            for feed in ("poll", "kafka") if number % 2 == 0 else ("kafka", "poll"):
                async with stage.copy() as copy:
                    await _drain(copy, feed, figures, broker)
                    facts = await read_facts(copy)
                    expected = expected or facts
                    if facts != expected:
                        figures.faults.append(f"{feed} gave other facts than the first run")
                    if await count_completed(copy) != figures.rows:
                        figures.faults.append(f"{feed} did not complete exactly the {figures.rows} rows")
            took = ", ".join(f"{way} {rounds[-1].seconds:.2f} s" for way, rounds in figures.ways.items())
            console.print(f"kafka: round {number + 1}: {figures.rows:,} rows: {took}")
    finally:
        await stage.remove()


async def _drain(dsn: str, feed: str, figures: KafkaFigures, broker: BenchBroker) -> None:
    if feed == "poll":
        figures.polled.append(await project_all(dsn, None, figures.rows, broker))
        return
    kafka = await broker.new_topic()
    figures.relayed.append(await relay_all(dsn, kafka, figures.rows, broker))
    figures.consumed.append(await project_all(dsn, kafka, figures.rows, broker))


FULL = KafkaScale(1_500, 3, (Load(200, 6, 2, _ORGS), Load(2000, 6, 4, _ORGS)), unit_rows=200)
# So few rows are over before they are spread.
QUICK = KafkaScale(60, 1, (Load(100, 0.5, 2, _ORGS),), unit_rows=50, least_consumed=0.02, most_late=10)
