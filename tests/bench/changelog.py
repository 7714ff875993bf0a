"""The changelog: what capturing costs a drain, and how many facts a second are published.

A part without a broker measures capturing alone; with one, what it takes to publish all that was captured.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from rich.console import Console

from projector.database import Timeouts, open_pool
from projector.health import Health
from projector.kafka.capture import enable
from projector.kafka.changelog import Changelog
from projector.kafka.changelog_metrics import ChangelogMetrics
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import changelog_topic
from projector.logs import configure_logs
from projector.projections import load_registry
from tests.bench.contestants import Projector, default_settings
from tests.bench.stage import Stage, connected

DRAIN = Projector("b2", "projector, 2 workers", workers=2)
PREFIX = "bench.facts"


@dataclass(frozen=True, slots=True)
class ChangelogScale:
    """How much is measured: sessions of the backlog, about 52 rows each; rounds, each with capturing and without."""

    sessions: int
    rounds: int


@dataclass(slots=True)
class ChangelogFigures:
    """Seconds of each drain, and of publishing what it wrote.

    Attributes:
        plain: drains without capturing.
        captured: drains with it; nothing is published meanwhile.
        beside: drains with it, while the same process publishes.
        facts: how many were published after a drain, in `publishing` seconds.
    """

    rows: int
    environment: dict[str, Any]
    plain: list[float] = field(default_factory=list)
    captured: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    facts: int = 0
    publishing: list[float] = field(default_factory=list)

    def ratio(self, seconds: list[float]) -> float:
        """The speed of such drains, as a part of that without capturing: the median over the rounds."""
        return median(plain / other for plain, other in zip(self.plain, seconds, strict=True))

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment, "rows": self.rows, "plain_seconds": self.plain,
            "captured_seconds": self.captured, "captured_ratio": round(self.ratio(self.captured), 3),
            "beside_seconds": self.beside, "beside_ratio": round(self.ratio(self.beside), 3) if self.beside else None,
            "facts": self.facts, "publishing_seconds": self.publishing,
        }  # fmt: skip

    def show(self, console: Console) -> None:
        """Prints them."""
        shown = (("capturing off", self.plain), ("on", self.captured), ("on, publishing beside", self.beside))
        for name, seconds in shown:
            if seconds:
                rate, ratio = self.rows / median(seconds), self.ratio(seconds)
                console.print(f"drain, {name}: {rate:,.0f} rows/s, {ratio:.3f} of that without")
        if self.publishing:
            console.print(f"published after it: {self.facts / median(self.publishing):,.0f} facts/s")


async def measure_changelog(
    dsn: str, scale: ChangelogScale, environment: dict[str, Any], console: Console, bootstrap: str | None = None
) -> ChangelogFigures:
    """Drains copies of one backlog without capturing and with it, in turns, and publishes what was captured.

    Args:
        dsn: a superuser's, of the server to measure on.
        scale: how much.
        environment: what it is measured on, for the results.
        console: where progress is told.
        bootstrap: a broker with the topics; None: nothing is published.
    """
    stage = Stage(dsn)
    try:
        backlog = await stage.build(scale.sessions, configure_logs("console", "warning"))
        figures = ChangelogFigures(backlog.rows, environment)
        async with stage.copy() as copy:
            await DRAIN.run(copy, backlog.rows)  # warms up
        ways = [_drain_plain, _drain_captured, *([_drain_beside] if bootstrap else [])]
        for number in range(scale.rounds):
            # Each round begins with another one, so that none is always the first.
            first = number % len(ways)
            for way in (*ways[first:], *ways[:first]):
                async with stage.copy() as copy:
                    await way(copy, figures, bootstrap)
            console.print(f"round {number + 1}: {figures.plain[-1]:.2f} s off, {figures.captured[-1]:.2f} s on")
        return figures
    finally:
        await stage.remove()


async def _drain_plain(dsn: str, figures: ChangelogFigures, _: str | None) -> None:
    figures.plain.append(await DRAIN.run(dsn, figures.rows))


async def _drain_captured(dsn: str, figures: ChangelogFigures, bootstrap: str | None) -> None:
    await _capture(dsn)
    figures.captured.append(await DRAIN.run(dsn, figures.rows))
    if bootstrap is None:
        return
    async with _publishing(dsn, bootstrap) as published, connected(dsn) as connection:
        while not published():  # noqa: ASYNC110 - as the next one
            await asyncio.sleep(0.01)
        before, started = published(), time.perf_counter()
        while await connection.fetchval("SELECT EXISTS (SELECT FROM reporting_fact_changes)"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        figures.publishing.append(time.perf_counter() - started)
        figures.facts = published() - before


async def _drain_beside(dsn: str, figures: ChangelogFigures, bootstrap: str | None) -> None:
    assert bootstrap is not None
    await _capture(dsn)
    async with _publishing(dsn, bootstrap):
        await asyncio.sleep(2)  # it has connected by then, or the figure is too good
        figures.beside.append(await DRAIN.run(dsn, figures.rows))


async def _capture(dsn: str) -> None:
    async with connected(dsn) as connection:
        await enable(connection, load_registry(), structlog.get_logger())


@asynccontextmanager
async def _publishing(dsn: str, bootstrap: str) -> AsyncIterator[Callable[[], int]]:
    """Publishes beside; gives what tells how many facts were."""
    registry, prometheus, stop = load_registry(), CollectorRegistry(), asyncio.Event()
    kafka = KafkaSettings(_env_file=None, reporting_kafka_bootstrap_servers=bootstrap)  # type: ignore[call-arg]
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


def topics() -> list[str]:
    """The topics that a broker must have."""
    return [changelog_topic(PREFIX, table.dataset) for table in load_registry().tables]


FULL = ChangelogScale(1000, 7)
QUICK = ChangelogScale(100, 1)
