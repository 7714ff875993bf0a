"""A producer that is made anew after it has failed."""

import asyncio
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from projector.kafka.patience import Endings, within
from projector.kafka.publish import Message, publish

# Longer than one request of the client may take; after a refused token it would try without end.
_READY_SECONDS = 15.0
# An idempotent producer by itself tries for ever. Meanwhile what it publishes is leased, and nobody else's.
_PUBLISH_SECONDS = 30.0


class Producer:
    """Publishes messages; connects when it is first needed, and again after a failure.

    A producer that has failed may be of no use any more: an idempotent one cannot tell what got through.
    """

    def __init__(
        self, new: Callable[[], AIOKafkaProducer], stop: asyncio.Event, ready_seconds: float = _READY_SECONDS
    ) -> None:
        """Prepares it.

        Args:
            new: makes a producer, not started.
            stop: set when there is only time for what is on its way.
            ready_seconds: the longest that it may take to connect.
        """
        self._new, self._stop, self._ready_seconds = new, stop, ready_seconds
        self._current: AIOKafkaProducer | None = None
        self._endings = Endings()

    async def ready(self, topic: str) -> None:
        """Sees that the cluster can be reached and has the topic.

        Raises:
            aiokafka.errors.KafkaError: it cannot, or has not.
        """
        try:
            await within(self._ready_seconds, self._stop, self._partitions_for(topic))
        except KafkaError:
            await self.close()
            raise

    async def publish(self, topic: str, messages: Iterable[Message]) -> int:
        """Publishes messages and waits until the cluster has them, half a minute at the most; gives how many.

        Raises:
            aiokafka.errors.KafkaError: some did not get through; others may have.
        """
        try:
            return await within(_PUBLISH_SECONDS, self._stop, self._publish(topic, messages))
        except KafkaError:
            await self.close()
            raise

    async def close(self) -> None:
        """Lets go of the connections; what is still on its way is given up."""
        producer, self._current = self._current, None
        if producer is not None:
            await self._endings.end(producer.stop())

    async def _partitions_for(self, topic: str) -> None:
        await (await self._started()).partitions_for(topic)

    async def _publish(self, topic: str, messages: Iterable[Message]) -> int:
        return await publish(await self._started(), topic, messages)

    async def _started(self) -> AIOKafkaProducer:
        if self._current is None:
            producer = self._new()
            try:
                await producer.start()
            except BaseException:
                await self._endings.end(producer.stop())
                raise
            self._current = producer
        return self._current
