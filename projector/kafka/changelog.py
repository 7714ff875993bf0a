"""Publishes changed facts to Kafka, one compacted topic a dataset: a helper task beside the workers.

At-least-once, in the order of versions for each key: a change leaves the database only when the cluster has its facts,
and one process at a time publishes. Where one was stopped in the midst and another has taken over, the transactional
producer that the other started fences whatever the first still sends.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
import structlog
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from projector.database import Timeouts, acquire, transaction
from projector.errors import describe, is_database_fault
from projector.health import Health
from projector.kafka.capture import count_waiting, uncaptured
from projector.kafka.changelog_metrics import ChangelogMetrics
from projector.kafka.changelog_producer import ChangelogProducer
from projector.kafka.changes import LEASE_SECONDS, MOST_FACTS, ChangeQueue, FactNow, Taken
from projector.kafka.errors import describe_kafka
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import changelog_topic, changelog_topics, ensure_topics, transactional_id
from projector.registry import Registry
from projector.worker import Backoff, wait_for

# Less than the lease: who has not come through by then stops, before another may begin.
_PUBLISH_SECONDS = LEASE_SECONDS - 2
_IDLE_SECONDS = 0.5
_STANDBY_SECONDS = 1.0
_LOOK_SECONDS = 10.0
_TOPICS_SECONDS = 30.0
_LARGEST_SHARE = 0.05
_RELEASE_SECONDS = 2.0
_FAULTS_UNTIL_NOT_READY = 3


@dataclass(slots=True)
class Changelog:
    """Publishes until `stop` is set; stands by where another process does.

    Attributes:
        prefix: what the topics' names begin with.
        facts: how many facts the next batch may be about; halved by failures.
    """

    pool: asyncpg.Pool
    registry: Registry
    prefix: str
    kafka: KafkaSettings
    timeouts: Timeouts
    metrics: ChangelogMetrics
    health: Health
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    clock: Callable[[], float] = time.monotonic
    facts: int = MOST_FACTS
    _look_at: float = float("-inf")
    _topics_at: float = float("-inf")
    _backoff: Backoff = field(default_factory=Backoff)
    _faults: Backoff = field(default_factory=Backoff)
    _queue: ChangeQueue = field(init=False)
    _producer: ChangelogProducer = field(init=False)

    def __post_init__(self) -> None:
        tables = {table.dataset: table.name for table in self.registry.tables}
        topics = {dataset: changelog_topic(self.prefix, dataset) for dataset in tables}
        self._queue = ChangeQueue(self.pool, self.timeouts, tables, self.clock)
        self._producer = ChangelogProducer(self.kafka, topics, transactional_id=transactional_id(self.prefix))

    async def run(self) -> None:
        """Publishes until `stop` is set. No fault ends it, neither of the database nor of the cluster."""
        try:
            while not self.stop.is_set():
                await wait_for(self.stop.wait(), await self._turn())
        finally:
            # A daemon cancels its helpers once its workers have ended; the lease is given back all the same.
            leaving = asyncio.create_task(self._leave())
            try:
                await asyncio.shield(leaving)
            except asyncio.CancelledError:
                await leaving
                raise

    async def _turn(self) -> float:
        """One look at the queue, and what follows from it; gives for how long to rest, in seconds."""
        try:
            await self._look_around()
            taken = await self._queue.take(self._producer.datasets, self.facts)
        except Exception as error:
            if not is_database_fault(error):
                raise
            self._queue.failed()
            pause = self._faults.next()
            self.log.warning(
                "changed facts not read, trying again", error=describe(error), pause_seconds=round(pause, 3)
            )
            return pause
        self._faults.reset()
        if taken is None:
            await self._producer.drop()
            self._recovered()
            return _STANDBY_SECONDS
        if taken.fresh:
            await self._producer.drop()
        try:
            async with asyncio.timeout(self._queue.renewed_at + _PUBLISH_SECONDS - self.clock()):
                if not self._producer.started:
                    await self._begin()
                    return 0.0
                await self._look_for_topics()
                await self._publish(taken)
        except Exception as error:  # noqa: BLE001 - whatever a client of the cluster raises, projecting goes on
            return await self._failed(error)
        self._recovered()
        self._queue.published(taken)
        self.facts = min(self.facts * 2, MOST_FACTS)
        return 0.0 if taken.seqs else _IDLE_SECONDS

    async def _begin(self) -> None:
        await ensure_topics(
            self.kafka, changelog_topics(self.prefix, (table.dataset for table in self.registry.tables)), self.log
        )
        await self._producer.start()
        self.log.info("publishing the changelog", prefix=self.prefix)
        self._topics_at = float("-inf")

    async def _publish(self, taken: Taken) -> None:
        if not taken.facts:
            return
        try:
            await self._publish_together(taken.facts)
        except MessageSizeTooLargeError:
            for dataset, facts in taken.facts.items():
                await self._publish_what_fits(dataset, facts)

    async def _publish_together(self, facts: Mapping[str, Sequence[FactNow]]) -> None:
        await self._producer.publish(facts)
        for dataset, some in facts.items():
            self.metrics.published(dataset, len(some))

    async def _publish_what_fits(self, dataset: str, facts: Sequence[FactNow]) -> None:
        """Publishes the small ones, then halves of the large ones, until those that are too large stand alone."""
        try:
            await self._publish_together({dataset: facts})
        except MessageSizeTooLargeError:
            if len(facts) == 1:
                self._tell_oversized(dataset, facts[0])
                return
            half = max(fact.size for fact in facts) // 2
            small = [fact for fact in facts if fact.size <= half] or facts[: len(facts) // 2]
            kept = set(map(id, small))
            await self._publish_what_fits(dataset, small)
            await self._publish_what_fits(dataset, [fact for fact in facts if id(fact) not in kept])

    def _tell_oversized(self, dataset: str, fact: FactNow) -> None:
        self.metrics.oversized(dataset)
        self.log.error(
            "a fact is larger than its topic takes and was not published: raise the topic's max.message.bytes, then run"
            " `projector changelog snapshot`",
            dataset=dataset, org_id=fact.org_id, source_key=fact.source_key, bytes=fact.size,
        )  # fmt: skip

    async def _failed(self, error: Exception) -> float:
        self._queue.failed()
        self.metrics.failed()
        self.facts = max(self.facts // 2, 1)
        pause = self._backoff.next()
        words = describe_kafka(error)
        if isinstance(error, TopicAuthorizationFailedError):
            self._producer.refused(error)
        if self._backoff.faults >= _FAULTS_UNTIL_NOT_READY:
            self.health.not_ready("changelog", f"changed facts wait, they cannot be published: {words}")
        self.log.warning(
            "changed facts not published, trying again", error=words, pause_seconds=round(pause, 3),
            faults=self._backoff.faults,
        )  # fmt: skip
        await self._producer.drop()
        return pause

    def _recovered(self) -> None:
        self._backoff.reset()
        self.health.ready("changelog")

    async def _look_around(self) -> None:
        """Now and then: whether changes are captured, how many wait, which topics are there."""
        started = self.clock()
        if started < self._look_at:
            return
        async with acquire(self.pool) as connection, transaction(connection, self.timeouts):
            missing = await uncaptured(connection, self.registry.tables)
            self.metrics.waiting(*await count_waiting(connection))
        now = self.clock()
        self._look_at = now + max(_LOOK_SECONDS, (now - started) / _LARGEST_SHARE)
        tables = ", ".join(table.name for table in missing)
        words = f"changes of {tables} are not captured: run `projector changelog enable`" if missing else ""
        self._tell("changelog capture", words)

    async def _look_for_topics(self) -> None:
        now = self.clock()
        if now < self._topics_at:
            return
        self._topics_at = now + _TOPICS_SECONDS
        await self._producer.look_for_topics()
        missing = ", ".join(self._producer.missing)
        words = f"topics are missing, or must not be seen: {missing}; their facts wait, see `projector kafka check`"
        self._tell("changelog topics", words if missing else "")

    def _tell(self, topic: str, words: str) -> None:
        if words == self.health.obstacles.get(topic, ""):
            return
        if words:
            self.health.not_ready(topic, words)
            self.log.error("the changelog is not complete", why=words)
        else:
            self.health.ready(topic)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._queue.release()
        except Exception as error:
            if not is_database_fault(error):
                raise
            self.log.info("the changelog's lease is left to run out", error=describe(error))
        await self._producer.drop()
