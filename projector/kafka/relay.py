"""`projector relay`: leases due rows and publishes a message for each; consumers project them (design: feeds)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from projector.batch import BatchResult, BatchRules, Claim
from projector.claims import Backlog, Claimer
from projector.daemon import batch_rules, batch_size, close_on_stop
from projector.database import Timeouts, transaction
from projector.errors import describe, is_database_fault
from projector.feed import Feed
from projector.kafka.client import new_producer
from projector.kafka.errors import describe_kafka
from projector.kafka.metrics import RelayMetrics
from projector.kafka.producer import Producer
from projector.kafka.publish import Message
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import ensure_outbox_topics
from projector.leases import Lease, count_leased, lease, release
from projector.listener import Listener
from projector.passes import add
from projector.process import Process
from projector.worker import Worker

# More leased rows than consumers settle within their lease would come back, and be published again and again.
_MOST_LEASED = 100_000
_COUNT_LEASED_EVERY = 20_000
_FAULTS_UNTIL_NOT_READY = 3


@dataclass(slots=True)
class Publishing:
    """What one of the relay's workers does with due rows: leases them, commits, publishes.

    Attributes:
        producer: of this worker alone.
        topic: where to.
    """

    producer: Producer
    topic: str
    metrics: RelayMetrics
    log: structlog.stdlib.BoundLogger
    _uncounted: int = _COUNT_LEASED_EVERY

    async def batch(self, connection: asyncpg.Connection, rules: BatchRules, limit: int, claim: Claim) -> BatchResult:
        """Publishes up to `limit` due rows, unless so many are leased already that consumers cannot keep up.

        Raises:
            KafkaError: the cluster did not take all of them. They are due again, at once or when the lease is over.
            Exception: a fault of the database; nothing has changed.
        """
        result = BatchResult(limit=limit)
        # Nothing is leased that could not be published.
        await self.producer.ready(self.topic)
        async with transaction(connection, rules.timeouts):
            if await self._is_ahead(connection):
                return result
            groups = await claim(connection, limit)
            leases = await lease(connection, [tid for group in groups for tid in group.tids]) if groups else []
        for group in groups:
            add(result.completed, {group.source_type: len(group)})
        result.claimed = len(leases)
        if leases:
            await self._publish(connection, rules.timeouts, leases, result)
            self._uncounted += len(leases)
        return result

    async def _is_ahead(self, connection: asyncpg.Connection) -> bool:
        if self._uncounted < _COUNT_LEASED_EVERY:
            return False
        is_ahead = await count_leased(connection, _MOST_LEASED) >= _MOST_LEASED
        self._uncounted = _COUNT_LEASED_EVERY if is_ahead else 0
        return is_ahead

    async def _publish(
        self, connection: asyncpg.Connection, timeouts: Timeouts, leases: Sequence[Lease], result: BatchResult
    ) -> None:
        try:
            await self.producer.publish(
                self.topic, (Message(each.key.encode(), each.value.encode()) for each in leases)
            )
        except BaseException:
            self.metrics.failed(result.completed)
            await self._release(connection, timeouts, [each.id for each in leases])
            raise
        self.metrics.published(result.completed)

    async def _release(self, connection: asyncpg.Connection, timeouts: Timeouts, ids: Sequence[UUID]) -> None:
        """Makes rows due again; where that fails too, they are when their lease is over."""
        try:
            async with transaction(connection, timeouts):
                await release(connection, ids)
        except Exception as error:
            if not is_database_fault(error):
                raise
            self.log.warning(
                "rows not released, they come back when their lease is over", rows=len(ids), error=describe(error)
            )


@dataclass(slots=True, kw_only=True)
class Relay(Process):
    """One process of the relay.

    Attributes:
        kafka: the cluster and the topic.
    """

    kafka: KafkaSettings

    async def work(self) -> int:
        """Publishes; gives the exit status."""
        metrics = RelayMetrics(self.registry, self.prometheus)
        connections = self.settings.reporting_projector_workers + 1  # and the listener's
        return await self.with_database(connections, lambda pool: self._relay(pool, metrics))

    async def _relay(self, pool: asyncpg.Pool, metrics: RelayMetrics) -> int:
        self.health.ready("start")
        feed = Feed(self.settings.reporting_projector_interval_secs, time.monotonic)
        backlog = Backlog(time.monotonic)
        numbers = range(self.settings.reporting_projector_workers)
        workers = [
            (f"worker-{number}", self._worker(number, pool, feed, Claimer(backlog), metrics)) for number in numbers
        ]
        helpers = [
            ("wake", close_on_stop(feed, self.stop)),
            ("topics", ensure_outbox_topics(self.kafka, self.stop, self.log)),
        ]
        if self.settings.reporting_listen:
            helpers.append(("listener", Listener(self.settings, pool, feed, self.stop, self.log).run()))
        self.log.info("relaying", workers=len(workers), topic=self.kafka.reporting_kafka_outbox_topic)
        return await self.run_tasks(workers, helpers)

    async def _worker(
        self, number: int, pool: asyncpg.Pool, feed: Feed, claimer: Claimer, metrics: RelayMetrics
    ) -> None:
        log = self.log.bind(worker=number)
        producer = Producer(lambda: new_producer(self.kafka), self.stop)
        publishing = Publishing(producer, self.kafka.reporting_kafka_outbox_topic, metrics, log)

        async def rest() -> bool:
            self._recovered()
            await feed.wait()
            return True

        def on_batch(result: BatchResult, seconds: float) -> None:
            self._recovered()
            feed.found(more=result.full)
            log.debug("published", rows=result.claimed, elapsed_ms=round(seconds * 1000))

        def on_fault(error: Exception, faults: int) -> None:
            metrics.error(type(error).__name__)
            if faults >= _FAULTS_UNTIL_NOT_READY:
                topic = "kafka" if isinstance(error, KafkaError) else "database"
                self.health.not_ready(topic, f"nothing is published: {describe_fault(error)}")

        worker = Worker(
            pool=pool, rules=batch_rules(self.settings, self.registry), size=batch_size(self.settings), stop=self.stop,
            rest=rest, on_batch=on_batch, on_fault=on_fault, log=log, claimer=claimer, batch=publishing.batch,
            is_fault=is_fault, describe=describe_fault,
        )  # fmt: skip
        try:
            await worker.run()
        finally:
            await producer.close()

    def _recovered(self) -> None:
        self.health.ready("database")
        self.health.ready("kafka")


def is_fault(error: BaseException) -> bool:
    """Whether an error comes from the database, the cluster or the way to them."""
    return isinstance(error, KafkaError) or is_database_fault(error)


def describe_fault(error: BaseException) -> str:
    """Such an error in our own words."""
    return describe_kafka(error) if isinstance(error, KafkaError) else describe(error)
