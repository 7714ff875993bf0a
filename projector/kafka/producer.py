"""A producer that is made anew after it has failed."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from projector.kafka.publish import Message, publish

_STOP_SECONDS = 5.0


class Producer:
    """Publishes messages; connects when it is first needed, and again after a failure.

    A producer that has failed may be of no use any more: an idempotent one cannot tell what got through.
    """

    def __init__(self, new: Callable[[], AIOKafkaProducer]) -> None:
        """Args: new: makes a producer, not started."""
        self._new = new
        self._current: AIOKafkaProducer | None = None

    async def ready(self, topic: str) -> None:
        """Sees that the cluster can be reached and has the topic.

        Raises:
            aiokafka.errors.KafkaError: it cannot, or has not.
        """
        try:
            await (await self._started()).partitions_for(topic)
        except KafkaError:
            await self.close()
            raise

    async def publish(self, topic: str, messages: Iterable[Message]) -> int:
        """Publishes messages and waits until the cluster has them; gives how many.

        Raises:
            aiokafka.errors.KafkaError: some did not get through; others may have.
        """
        try:
            return await publish(await self._started(), topic, messages)
        except KafkaError:
            await self.close()
            raise

    async def close(self) -> None:
        """Lets go of the connections; what is still on its way is given up after some seconds."""
        producer, self._current = self._current, None
        if producer is not None:
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(producer.stop(), _STOP_SECONDS)

    async def _started(self) -> AIOKafkaProducer:
        if self._current is None:
            producer = self._new()
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._current = producer
        return self._current
