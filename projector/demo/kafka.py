"""Kafka in the demo: a light broker, a relay, and a reader that follows the changelog as an analytical engine would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer
from prometheus_client import CollectorRegistry
from rich.table import Table

from projector.demo.broker import light_broker
from projector.kafka.capture import enable
from projector.kafka.changelog_task import Cluster
from projector.kafka.relay import Relay
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import changelog_topic, changelog_topics, create_missing, outbox_topics
from projector.registry import Registry
from projector.settings import Settings

_PREFIX = "demo.facts"
_PARTITIONS = 4


@dataclass(slots=True)
class DemoKafka:
    """What of Kafka runs beside the daemon.

    Attributes:
        cluster: the light broker, and the changelog's prefix.
        relay: publishes what the application enqueues.
        followed: how many facts the reader knows by now, by dataset; removed ones are gone from it, too.
        messages: how many changelog messages it has read.
    """

    cluster: Cluster
    relay: Relay
    followed: dict[str, set[bytes]] = field(default_factory=dict)
    messages: int = 0

    def introduce(self) -> str:
        """Where the cluster is."""
        kafka = self.cluster.kafka
        return (
            f"Kafka      {kafka.reporting_kafka_bootstrap_servers}   (topics {kafka.reporting_kafka_outbox_topic},"
            f" {self.cluster.prefix}.*; relay metrics http://127.0.0.1:{self.relay.port}/metrics)"
        )

    def as_table(self, daemon: CollectorRegistry) -> Table:
        """The live view, from the metrics that relay and daemon serve."""
        table = Table("kafka", "")
        for name, count in self._counts(daemon).items():
            table.add_row(name, f"{count:,.0f}")
        return table

    def as_line(self, daemon: CollectorRegistry) -> str:
        """The same in one line."""
        return ", ".join(f"{name} {count:,.0f}" for name, count in self._counts(daemon).items())

    def _counts(self, daemon: CollectorRegistry) -> dict[str, float]:
        return {
            "relay published": _total(self.relay.prometheus, "reporting_relay_published_total"),
            "messages consumed": _total(daemon, "reporting_kafka_messages_total"),
            "consumer lag": _total(daemon, "reporting_kafka_consumer_lag"),
            "changelog published": _total(daemon, "reporting_changelog_published_total"),
            "changelog read": float(self.messages),
            "facts in the reader": float(sum(map(len, self.followed.values()))),
        }

    async def has_followed(self, pool: asyncpg.Pool, registry: Registry) -> bool:
        """Whether the reader knows exactly as many facts as the tables hold."""
        for table in registry.tables:
            facts = await pool.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - a name of the registry's
            if len(self.followed.get(table.dataset, ())) != facts:
                return False
        return True


@asynccontextmanager
async def running_kafka(
    folder: Path, settings: Settings, registry: Registry, log: structlog.stdlib.BoundLogger
) -> AsyncIterator[DemoKafka]:
    """Runs broker, relay and reader; the daemon joins them by what it gives.

    Raises:
        LightBrokerError: the broker cannot be started.
    """
    with light_broker(folder) as broker:
        kafka = KafkaSettings(
            reporting_kafka_bootstrap_servers=broker.bootstrap, reporting_kafka_idempotence=False,
            reporting_kafka_session_timeout_secs=1, reporting_kafka_partitions=_PARTITIONS,
            reporting_kafka_replication_factor=1,
        )  # fmt: skip
        datasets = [table.dataset for table in registry.tables]
        await create_missing(kafka, [*outbox_topics(kafka), *changelog_topics(_PREFIX, datasets)])
        topics = {changelog_topic(_PREFIX, dataset): dataset for dataset in datasets}
        await _capture(settings, registry, log)
        relay = Relay(settings, registry, log, kafka=kafka)
        running = DemoKafka(Cluster(kafka, _PREFIX), relay)
        relaying = asyncio.create_task(relay.run())
        reading = asyncio.create_task(_follow(kafka, topics, running))
        try:
            yield running
        finally:
            relay.stop.set()
            reading.cancel()
            await asyncio.gather(relaying, reading, return_exceptions=True)


async def _capture(settings: Settings, registry: Registry, log: structlog.stdlib.BoundLogger) -> None:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        await enable(connection, registry, log)
    finally:
        await connection.close()


async def _follow(kafka: KafkaSettings, topics: dict[str, str], running: DemoKafka) -> None:
    """Keeps the newest version of each fact, and forgets what was removed."""
    versions: dict[tuple[str, bytes], int] = {}
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=kafka.reporting_kafka_bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async for record in consumer:
            running.messages += 1
            dataset, version = topics[record.topic], int(dict(record.headers)["version"])
            if version < versions.get((dataset, record.key), 0):
                continue
            versions[dataset, record.key] = version
            facts = running.followed.setdefault(dataset, set())
            if record.value is None or json.loads(record.value)["removed"]:
                facts.discard(record.key)
            else:
                facts.add(record.key)
    finally:
        await consumer.stop()


def _total(registry: CollectorRegistry, name: str) -> float:
    return sum(sample.value for family in registry.collect() for sample in family.samples if sample.name == name)
