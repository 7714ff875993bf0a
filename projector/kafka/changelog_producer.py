"""The changelog's producer: transactional where the cluster can do that, and made anew after each failure."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from projector.kafka.changes import FactNow
from projector.kafka.client import new_producer
from projector.kafka.publish import publish
from projector.kafka.settings import KafkaSettings

_STOP_SECONDS = 2.0


@dataclass(slots=True)
class ChangelogProducer:
    """Publishes facts, what is given at once as one transaction.

    Attributes:
        topics: the topics' names by dataset.
        transactional_id: whoever starts with the same one fences the others; not used without idempotence.
        datasets: those whose topics are there and may be written, as far as is known; none before the start.
    """

    settings: KafkaSettings
    topics: Mapping[str, str]
    transactional_id: str
    datasets: frozenset[str] = frozenset()
    _producer: AIOKafkaProducer | None = None
    _stopping: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def started(self) -> bool:
        """Whether it can publish."""
        return self._producer is not None

    @property
    def missing(self) -> list[str]:
        """The topics that are not there or may not be written."""
        return sorted(topic for dataset, topic in self.topics.items() if dataset not in self.datasets)

    async def start(self) -> None:
        """Connects, fences whoever published before, and finds out which topics are there.

        Raises:
            aiokafka.errors.KafkaError: the cluster cannot be reached, or refuses.
        """
        transactional = self.settings.reporting_kafka_idempotence
        if self._stopping and not transactional:
            # Nothing else keeps what the one before still sends from landing behind what this one will send.
            await asyncio.wait(self._stopping)
        producer = new_producer(self.settings, transactional_id=self.transactional_id if transactional else None)
        self._producer = producer
        try:
            await producer.start()
            await self.look_for_topics()
        except BaseException:
            await self.drop()
            raise

    async def look_for_topics(self) -> None:
        """Finds out which topics are there.

        Raises:
            aiokafka.errors.KafkaError: the cluster does not answer.
        """
        assert self._producer is not None
        there = (await self._producer.client.fetch_all_metadata()).topics()
        self.datasets = frozenset(dataset for dataset, topic in self.topics.items() if topic in there)

    def refused(self, error: TopicAuthorizationFailedError) -> None:
        """Leaves out the topics that an error names, until they are looked for again."""
        named = error.args[0] if error.args else ()
        names = {named} if isinstance(named, str) else set(named)
        self.datasets = frozenset(dataset for dataset in self.datasets if self.topics[dataset] not in names)

    async def publish(self, facts: Mapping[str, Sequence[FactNow]]) -> None:
        """Publishes facts by dataset, those of a key in their order; starts where it is not started.

        Raises:
            aiokafka.errors.KafkaError: some or all did not get through, or it is not known. With a transaction, what
                did is only seen by consumers that do not ask for committed messages alone.
        """
        if self._producer is None:
            await self.start()
        producer = self._producer
        assert producer is not None
        try:
            if self.settings.reporting_kafka_idempotence:
                await producer.begin_transaction()
            sent = [
                publish(producer, self.topics[dataset], (message for fact in some for message in fact.messages))
                for dataset, some in facts.items()
            ]
            for outcome in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome  # noqa: TRY301 - the others have ended too
            if self.settings.reporting_kafka_idempotence:
                await producer.commit_transaction()
        except BaseException:
            # A message that was refused leaves a gap in the numbers that brokers count: it cannot go on. What it has
            # begun ends when the next one starts.
            await self.drop()
            raise

    async def drop(self) -> None:
        """Gives up the connections. Where brokers are away this goes on in the background."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        task = asyncio.create_task(_stop(producer), name="changelog-producer-stop")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        await asyncio.wait({task}, timeout=_STOP_SECONDS)


async def _stop(producer: AIOKafkaProducer) -> None:
    # Whatever it was about was told already, when it happened.
    with suppress(KafkaError, OSError):
        await producer.stop()
