"""A backlog through Kafka and by polling: the relay publishes all of it, then a daemon's consumers project it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from projector.batch import BatchResult
from projector.daemon import Daemon
from projector.kafka.relay import Relay
from projector.kafka.settings import KafkaSettings
from projector.process import Process
from projector.projections import load_registry
from projector.settings import Settings
from tests.bench.contestants import default_settings
from tests.bench.kafka_broker import BenchBroker
from tests.bench.stage import connected
from tests.obstacles import wait_until

_LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What some work took, in seconds.

    Attributes:
        seconds: by the clock.
        client: processor time of the process that did it.
        broker: processor time of the broker.
    """

    seconds: float
    client: float
    broker: float

    def as_json(self) -> dict[str, float]:
        """For keeping."""
        return {
            "seconds": round(self.seconds, 3),
            "client_processor_seconds": round(self.client, 2),
            "broker_processor_seconds": round(self.broker, 2),
        }


@dataclass(frozen=True, slots=True)
class Projected:
    """A daemon's work on a backlog: from the start of its first batch to its last commit; `waited`: for that start."""

    spent: Spent
    waited: float


async def relay_all(dsn: str, kafka: KafkaSettings, rows: int, broker: BenchBroker) -> Spent:
    """Has a relay publish all due rows, with the defaults of its settings; from when its workers run."""
    relay = Relay(_settings(dsn), load_registry(), structlog.get_logger(), kafka=kafka)

    async def all_published() -> bool:
        samples = (sample for family in relay.prometheus.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == "reporting_relay_published_total") >= rows

    async with _at_work(relay):
        return await _measured(lambda: wait_until(all_published, _LONGEST_SECONDS), broker)


async def project_all(dsn: str, kafka: KafkaSettings | None, rows: int, broker: BenchBroker) -> Projected:
    """Has a daemon project a backlog that it polls for, or that messages name, with the defaults of its settings."""
    completed = 0
    first, last = float("inf"), 0.0
    done = asyncio.Event()

    def on_batch(result: BatchResult, seconds: float) -> None:
        nonlocal completed, first, last
        last = time.perf_counter()
        first = min(first, last - seconds)
        completed += result.completed_rows
        if completed >= rows:
            done.set()

    async with connected(dsn) as connection:
        # A relay has written every row: what follows pays for full pages as after any checkpoint, as polling does.
        await connection.execute("CHECKPOINT")
    daemon = Daemon(_settings(dsn), load_registry(), structlog.get_logger(), kafka=kafka, on_batch=on_batch)
    async with _at_work(daemon):
        began = time.perf_counter()
        whole = await _measured(lambda: asyncio.wait_for(done.wait(), _LONGEST_SECONDS), broker)
    return Projected(Spent(last - first, whole.client, whole.broker), first - began)


@asynccontextmanager
async def _at_work(process: Process) -> AsyncIterator[None]:
    """Runs a program in this process, from when its workers run; at the end it is stopped in order."""
    task = asyncio.create_task(process.run())
    try:
        working = asyncio.create_task(process.projecting.wait())
        await asyncio.wait({task, working}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        process.stop.set()
        working.cancel()
        if status := await task:
            raise RuntimeError(f"the program ended with status {status}")


async def _measured(work: Callable[[], Awaitable[object]], broker: BenchBroker) -> Spent:
    began, client, brokers = time.perf_counter(), time.process_time(), broker.processor_seconds()
    await work()
    return Spent(
        time.perf_counter() - began, time.process_time() - client, broker.processor_seconds() - brokers
    )  # fmt: skip


def _settings(dsn: str) -> Settings:
    return default_settings(dsn).model_copy(update={"reporting_http_host": "127.0.0.1", "reporting_http_port": 0})
