"""What the tests of relay and consumers share: topics, settings of processes, what stands in a topic."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
from aiokafka import ConsumerRecord, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.writers import Writers
from tests.kafka.clients import admin, consumer, create_topic, producer, read_all
from tests.obstacles import wait_until
from tests.processes import Running, daemon_settings, started

PARTITIONS = 4
_SERVING = "serving /metrics, /livez and /readyz"

Sent = tuple[bytes | None, bytes | None]
"""Key and value."""


@dataclass(frozen=True)
class Feeding:
    """A topic of outbox messages with its dead letters, and a group that reads it.

    Attributes:
        bootstrap: the broker.
        topic: named at random.
        variables: of the processes: this broker, this topic, a group of their own; no sweep within a test's time.
    """

    bootstrap: str
    topic: str
    variables: dict[str, str]

    @property
    def group(self) -> str:
        """The group's name."""
        return self.variables["reporting_kafka_group"]

    @asynccontextmanager
    async def relay(self, folder: Path, **variables: str) -> AsyncIterator[Running]:
        """A relay at work."""
        async with started("relay", folder=folder, **self.variables | variables) as running:
            await running.has_logged("relaying")
            yield running

    @asynccontextmanager
    async def consumers(self, folder: Path, **variables: str) -> AsyncIterator[Running]:
        """A daemon at work that has joined the group."""
        async with started("run", "--feed", "kafka", folder=folder, **self.variables | variables) as running:
            await running.has_logged("partitions assigned")
            yield running

    async def create(self, topic: str | None = None) -> None:
        """Creates the topic and its dead letters, or another topic."""
        for name in [self.topic, f"{self.topic}.dlq"] if topic is None else [topic]:
            await create_topic(self.bootstrap, name, PARTITIONS)

    async def send(self, messages: Iterable[Sent]) -> None:
        """Puts messages into the topic."""
        async with producer(bootstrap_servers=self.bootstrap, linger_ms=5) as client:
            await asyncio.gather(*[await client.send(self.topic, value, key=key) for key, value in messages])

    async def read(self, count: int, topic: str | None = None) -> list[ConsumerRecord[bytes | None, bytes | None]]:
        """The first so many messages of the topic, or of another one; waits until they are there."""
        return await read_all(self.bootstrap, topic or self.topic, count)

    async def committed(self) -> int:
        """How many messages of the topic the group has committed."""
        async with admin(bootstrap_servers=self.bootstrap) as client:
            offsets = await client.list_consumer_group_offsets(
                self.group, partitions=[TopicPartition(self.topic, number) for number in range(PARTITIONS)]
            )
        return sum(max(offset.offset, 0) for offset in offsets.values())

    async def end(self) -> int:
        """How many messages the topic has held in all."""
        places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        async with consumer(bootstrap_servers=self.bootstrap) as client:
            return sum((await client.end_offsets(places)).values())

    async def has_committed(self, count: int, seconds: float = 30) -> None:
        """Waits until the group has committed so many messages."""

        async def enough() -> bool:
            return await self.committed() >= count

        await wait_until(enough, seconds)


def new_feeding(bootstrap: str, dsn: str, prefix: str, *, idempotence: bool) -> Feeding:
    """A topic and a group whose names begin with the prefix, not created yet."""
    name = f"{prefix}outbox"
    variables = daemon_settings(
        dsn,
        reporting_kafka_bootstrap_servers=bootstrap,
        reporting_kafka_idempotence=str(idempotence),
        reporting_kafka_outbox_topic=name,
        reporting_kafka_group=name,
        reporting_kafka_session_timeout_secs="1",
        reporting_kafka_sweep_secs="3600",
    )
    return Feeding(bootstrap, name, variables)


def message(row: UUID, version: str = "1.0") -> Sent:
    """A message about an outbox row, as a relay writes it."""
    value = (
        f'{{"schema_version":"{version}","id":"{row}","org_id":1,"source_type":"event","source_id":"{row}",'
        '"source_version":"","reason":"event_projection","created_at":"2026-05-06T10:00:00+00:00"}'
    )
    return str(row).encode(), value.encode()


async def metric(running: Running, name: str, **labels: str) -> float:
    """The sum of a metric's values with these labels, as its process serves it."""
    text = await _get(running, "metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def readiness(running: Running) -> str:
    """What a process answers to /readyz."""
    return await _get(running, "readyz")


async def _get(running: Running, path: str) -> str:
    port = running.logged(_SERVING)[0]["port"]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/{path}") as response:
        return await response.text()


async def wait_for_statuses(connection: asyncpg.Connection, rows: Sequence[UUID], status: str) -> None:
    """Waits until all of some rows have a status."""

    async def have() -> bool:
        count = await connection.fetchval(
            "SELECT count(*) FROM reporting_outbox WHERE id = ANY ($1) AND status = $2", list(rows), status
        )
        return bool(count == len(rows))

    await wait_until(have, 30)


async def write(writers: Writers, transactions: int) -> None:
    """Lets writers write until so many transactions are committed."""

    async def enough() -> bool:
        return writers.committed >= transactions

    async with asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        await wait_until(enough, 60)
        writers.stop.set()
