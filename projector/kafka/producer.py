"""A producer that is made anew after it has failed."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from projector.kafka.publish import Message, publish

# Longer than one request of the client may take.
_START_SECONDS = 15.0
_STOP_SECONDS = 5.0


class Producer:
    """Publishes messages; connects when it is first needed, and again after a failure.

    A producer that has failed may be of no use any more: an idempotent one cannot tell what got through.
    """

    def __init__(self, new: Callable[[], AIOKafkaProducer], start_seconds: float = _START_SECONDS) -> None:
        """Args: new: makes a producer, not started; start_seconds: the longest that its start may take."""
        self._new, self._start_seconds = new, start_seconds
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
            await _give_up(producer)

    async def _started(self) -> AIOKafkaProducer:
        if self._current is None:
            producer = self._new()
            try:
                # After a refused token, the client would try without end.
                await asyncio.wait_for(producer.start(), self._start_seconds)
            except TimeoutError:
                await _give_up(producer)
                raise KafkaTimeoutError from None
            except BaseException:
                await _give_up(producer)
                raise
            self._current = producer
        return self._current


async def _give_up(producer: AIOKafkaProducer) -> None:
    with suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _STOP_SECONDS)
