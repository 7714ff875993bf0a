"""The changelog in tests: its topics, publishers inside the test's own process, and what consumers end up with."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from projector.database import Timeouts
from projector.health import Health
from projector.kafka.capture import enable
from projector.kafka.changelog import Changelog
from projector.kafka.changelog_metrics import ChangelogMetrics
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import changelog_topic
from projector.registry import Registry
from schemas.facts import FACT_MODELS, FactKey
from tests.daemons import captured_log
from tests.kafka.clients import consumer, create_topic
from tests.obstacles import wait_until
from tests.roles import PROJECTOR, for_program

DATASETS = sorted(FACT_MODELS)
Held = dict[tuple[int, str], dict[str, Any]]
"""What a consumer of a topic holds: facts by org id and source key."""


async def add_topics(bootstrap: str, prefix: str, datasets: Iterable[str] = DATASETS, **settings: str) -> None:
    """Creates the compacted topics of datasets; settings' names with _ for the dots."""
    chosen = {"cleanup.policy": "compact"} | {name.replace("_", "."): value for name, value in settings.items()}
    for dataset in datasets:
        await create_topic(bootstrap, changelog_topic(prefix, dataset), 3, chosen)


async def capture(dsn: str, registry: Registry) -> None:
    """Switches capturing on."""
    connection = await asyncpg.connect(dsn)
    try:
        await enable(connection, registry, structlog.get_logger())
    finally:
        await connection.close()


def cluster(bootstrap: str, **settings: Any) -> KafkaSettings:
    """Settings for a test's broker, whatever a `.env` here may say."""
    values: dict[str, Any] = {"_env_file": None, "reporting_kafka_bootstrap_servers": bootstrap}
    return KafkaSettings(**(values | settings))


@dataclass
class Publisher:
    """A changelog at work."""

    changelog: Changelog
    task: asyncio.Task[None]
    capture: LogCapture
    prometheus: CollectorRegistry

    @property
    def obstacles(self) -> dict[str, str]:
        """What it tells /readyz."""
        return self.changelog.health.obstacles

    def metric(self, name: str, **labels: str) -> float | None:
        """One value of its metrics."""
        return self.prometheus.get_sample_value(name, labels)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it logged in words that begin so."""
        return [dict(entry) for entry in self.capture.entries if entry["event"].startswith(event)]

    async def has_logged(self, event: str, times: int = 1) -> None:
        """Waits for words in its log."""

        async def found() -> bool:
            assert not self.task.done(), self.task
            return len(self.logged(event)) >= times

        await wait_until(found, 30)


@asynccontextmanager
async def publishing(
    dsn: str, registry: Registry, kafka: KafkaSettings, prefix: str, **fields: Any
) -> AsyncIterator[Publisher]:
    """Publishes as the projector's role, and stops in order at the end."""
    pool = await asyncpg.create_pool(for_program(dsn, PROJECTOR), min_size=1, max_size=1)
    log, captured = captured_log()
    prometheus = CollectorRegistry()
    metrics = ChangelogMetrics((table.dataset for table in registry.tables), prometheus)
    changelog = Changelog(
        pool, registry, prefix, kafka, Timeouts(30), metrics, Health({}), asyncio.Event(), log, **fields
    )
    task = asyncio.create_task(changelog.run())
    try:
        yield Publisher(changelog, task, captured, prometheus)
    finally:
        changelog.stop.set()
        await asyncio.wait_for(asyncio.wait([task]), 20)
        pool.terminate()
        if not task.cancelled():
            task.result()


async def until_published(connection: asyncpg.Connection, seconds: float = 30) -> None:
    """Waits until no change waits."""

    async def none_waits() -> bool:
        return not await connection.fetchval("SELECT EXISTS (SELECT FROM reporting_fact_changes)")

    await wait_until(none_waits, seconds)


async def read_topic(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[ConsumerRecord]:
    """All messages of a topic up to its present end, those of a partition in their order."""
    records: list[ConsumerRecord] = []
    async with consumer(topic, bootstrap_servers=bootstrap, isolation_level=isolation) as client:
        ends = await client.end_offsets(client.assignment())
        async with asyncio.timeout(30):
            while any([await client.position(place) < end for place, end in ends.items()]):
                for batch in (await client.getmany(timeout_ms=100)).values():
                    records += batch
    return records


def version_of(record: ConsumerRecord) -> int:
    """The version that a message's headers tell."""
    return int(dict(record.headers)["version"])


def key_of(record: ConsumerRecord) -> tuple[int, str]:
    """The fact that a message is about."""
    key = FactKey.model_validate_json(record.key)
    return key.org_id, key.source_key


def held(dataset: str, records: Iterable[ConsumerRecord]) -> Held:
    """What a consumer of all messages ends up with; asserts what they must keep to, each and among themselves."""
    facts: Held = {}
    last: dict[bytes, int] = {}
    removed: dict[int, ConsumerRecord] = {}
    for record in records:
        version = version_of(record)
        before = removed.pop(record.partition, None)
        if before is not None:
            assert (record.key, record.value, version) == (before.key, None, version_of(before)), "no tombstone follows"
            continue
        assert record.value is not None, "a tombstone without a message before"
        assert version > last.get(record.key, 0), f"{record.key!r}: version {version} after {last[record.key]}"
        last[record.key] = version
        value = json.loads(record.value)
        assert value["version"] == version
        if value["removed"]:
            removed[record.partition] = record
            facts.pop(key_of(record), None)
        else:
            message = FACT_MODELS[dataset].model_validate_json(record.value)
            assert set(value) == set(message.model_fields_set)
            facts[key_of(record)] = message.model_dump(exclude={"version", "removed"})
    assert not removed
    return facts


async def stored(connection: asyncpg.Connection, table: str) -> Held:
    """The facts of a table."""
    records = await connection.fetch(f"SELECT * FROM {table}")
    return {(record["org_id"], record["source_key"]): dict(record) for record in records}


async def assert_topics_hold_the_facts(
    connection: asyncpg.Connection, registry: Registry, bootstrap: str, prefix: str
) -> Mapping[str, list[ConsumerRecord]]:
    """Reads all topics from the start and compares them with the tables; gives what it has read."""
    read = {}
    for table in registry.tables:
        records = await read_topic(bootstrap, changelog_topic(prefix, table.dataset))
        assert held(table.dataset, records) == await stored(connection, table.name), table.dataset
        read[table.dataset] = records
    return read
