"""The changelog: what capturing costs a drain, what publishing beside it does, and facts a second published."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from projector.database import Timeouts, open_pool
from projector.health import Health
from projector.kafka.capture import enable
from projector.kafka.changelog import Changelog
from projector.kafka.changelog_metrics import ChangelogMetrics
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import changelog_topic
from projector.projections import load_registry
from tests.bench.contestants import Projector, default_settings
from tests.bench.kafka_broker import BenchBroker, bench_broker
from tests.bench.stage import Stage, connected
from tests.kafka.clients import create_topic

DRAIN = Projector("b2", "projector, 2 workers", workers=2)
PREFIX = "bench.facts"


@dataclass(frozen=True, slots=True)
class ChangelogScale:
    """How much is measured, and what is asked for.

    Attributes:
        sessions: of the backlog, about 52 rows each.
        rounds: each with capturing and without.
        least_captured: the least speed of a drain with capturing, as a part of that without.
    """

    sessions: int
    rounds: int
    least_captured: float = 0.8


@dataclass(slots=True)
class ChangelogFigures:
    """Seconds of each drain, and of publishing what it wrote.

    Attributes:
        plain: drains without capturing.
        captured: drains with it; nothing is published meanwhile.
        beside: drains with it, while the same process publishes.
        facts: how many were published after a drain, in `publishing` seconds, connecting included.
    """

    scale: ChangelogScale
    rows: int
    environment: dict[str, Any]
    broker: str
    plain: list[float] = field(default_factory=list)
    captured: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    facts: int = 0
    publishing: list[float] = field(default_factory=list)

    def ratio(self, seconds: list[float]) -> float:
        """The speed of such drains, as a part of that without capturing: the median over the rounds."""
        return median(plain / other for plain, other in zip(self.plain, seconds, strict=True))

    @property
    def reached(self) -> bool:
        """Whether capturing slows a drain no more than it may."""
        return self.ratio(self.captured) >= self.scale.least_captured

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment, "broker": self.broker, "rows": self.rows, "plain_seconds": self.plain,
            "captured_seconds": self.captured, "captured_ratio": round(self.ratio(self.captured), 3),
            "beside_seconds": self.beside, "beside_ratio": round(self.ratio(self.beside), 3),
            "facts": self.facts, "publishing_seconds": self.publishing,
        }  # fmt: skip

    def show(self, console: Console) -> None:
        """Prints them."""
        table = Table(title=f"changelog: a drain of {self.rows:,} rows by two workers, {self.broker} beside")
        for name in ("capturing", "rows/s", "x off", "at least"):
            table.add_column(name, justify="left" if name == "capturing" else "right")
        shown = (("off", self.plain), ("on", self.captured), ("on, published meanwhile", self.beside))
        for name, seconds in shown:
            least = f"{self.scale.least_captured}" if seconds is self.captured else ""
            table.add_row(name, f"{self.rows / median(seconds):,.0f}", f"{self.ratio(seconds):.2f}", least)
        console.print(table)
        rate = self.facts / median(self.publishing)
        console.print(f"changelog: {rate:,.0f} facts/s published after a drain, connecting included")


async def measure_changelog(
    dsn: str, scale: ChangelogScale, environment: dict[str, Any], console: Console
) -> ChangelogFigures:
    """Drains copies of one backlog without capturing and with it, in turns, and publishes what was captured.

    Args:
        dsn: a superuser's, of the server to measure on.
        scale: how much.
        environment: what it is measured on, for the results.
        console: where progress is told.
    """
    stage = Stage(dsn)
    try:
        with TemporaryDirectory(prefix="projector-bench-") as folder, bench_broker(Path(folder)) as broker:
            for topic in (changelog_topic(PREFIX, table.dataset) for table in load_registry().tables):
                await create_topic(broker.bootstrap, topic, partitions=6, settings={"cleanup.policy": "compact"})
            backlog = await stage.build(scale.sessions, structlog.get_logger())
            figures = ChangelogFigures(scale, backlog.rows, environment, broker.name)
            async with stage.copy() as copy:
                await DRAIN.run(copy, backlog.rows)  # warms up
            ways = (_drain_plain, _drain_captured, _drain_beside)
            for number in range(scale.rounds):
                # Each round begins with another one, so that none is always the first.
                first = number % len(ways)
                for way in (*ways[first:], *ways[:first]):
                    async with stage.copy() as copy:
                        await way(copy, figures, broker)
                took = ", ".join(
                    f"{seconds[-1]:.2f} s" for seconds in (figures.plain, figures.captured, figures.beside)
                )
                console.print(f"changelog: round {number + 1}: off, on, publishing meanwhile: {took}")
            return figures
    finally:
        await stage.remove()


async def _drain_plain(dsn: str, figures: ChangelogFigures, _: BenchBroker) -> None:
    figures.plain.append(await DRAIN.run(dsn, figures.rows))


async def _drain_captured(dsn: str, figures: ChangelogFigures, broker: BenchBroker) -> None:
    await _capture(dsn)
    figures.captured.append(await DRAIN.run(dsn, figures.rows))
    started = time.perf_counter()
    async with _publishing(dsn, broker) as published, connected(dsn) as connection:
        while await connection.fetchval("SELECT EXISTS (SELECT FROM reporting_fact_changes)"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        figures.publishing.append(time.perf_counter() - started)
        figures.facts = published()


async def _drain_beside(dsn: str, figures: ChangelogFigures, broker: BenchBroker) -> None:
    await _capture(dsn)
    async with _publishing(dsn, broker):
        await asyncio.sleep(2)  # it has connected by then, or the figure is too good
        figures.beside.append(await DRAIN.run(dsn, figures.rows))


async def _capture(dsn: str) -> None:
    async with connected(dsn) as connection:
        await enable(connection, load_registry(), structlog.get_logger())


@asynccontextmanager
async def _publishing(dsn: str, broker: BenchBroker) -> AsyncIterator[Callable[[], int]]:
    """Publishes beside; gives what tells how many facts were."""
    registry, prometheus, stop = load_registry(), CollectorRegistry(), asyncio.Event()
    kafka = KafkaSettings.model_construct(
        reporting_kafka_bootstrap_servers=broker.bootstrap, reporting_kafka_idempotence=broker.idempotence
    )
    datasets = [table.dataset for table in registry.tables]
    metrics = ChangelogMetrics(datasets, prometheus)
    pool = await open_pool(default_settings(dsn), 1)
    changelog = Changelog(
        pool, registry, PREFIX, kafka, Timeouts(60), metrics, Health({}), stop, structlog.get_logger()
    )
    task = asyncio.create_task(changelog.run())
    try:
        yield lambda: _published(prometheus, datasets)
    finally:
        stop.set()
        await task
        pool.terminate()


def _published(prometheus: CollectorRegistry, datasets: Iterable[str]) -> int:
    name = "reporting_changelog_published_total"
    return int(sum(prometheus.get_sample_value(name, {"dataset": dataset}) or 0 for dataset in datasets))


FULL = ChangelogScale(1000, 4)
QUICK = ChangelogScale(100, 1, least_captured=0.1)
