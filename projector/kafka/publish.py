"""Publishes messages in batches, one stretch for each partition, and waits until the cluster has all of them."""

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: key and value as they go over the wire (value None: the key is removed), headers by name."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


async def publish(producer: AIOKafkaProducer, topic: str, messages: Iterable[Message]) -> int:
    """Publishes messages, those of one key in their order and to one partition; gives how many.

    Args:
        producer: started.
        topic: must exist.
        messages: none larger than the producer's batches.

    Raises:
        aiokafka.errors.KafkaError: some did not get through; others may have.
    """
    partitions = sorted(await producer.partitions_for(topic))
    by_partition: dict[int, list[Message]] = {}
    count = 0
    for message in messages:
        # Not Kafka's own hash, which costs Python more than all the rest; who reads does not need to know it.
        partition = partitions[zlib.crc32(message.key) % len(partitions)]
        by_partition.setdefault(partition, []).append(message)
        count += 1
    sent = [_publish_to(producer, topic, partition, some) for partition, some in by_partition.items()]
    # All of them end before the first error is told: what is still on its way belongs to nobody.
    for outcome in await asyncio.gather(*sent, return_exceptions=True):
        if outcome is not None:
            raise outcome
    return count


async def _publish_to(producer: AIOKafkaProducer, topic: str, partition: int, messages: Sequence[Message]) -> None:
    delivered: list[asyncio.Future[object]] = []
    batch: BatchBuilder | None = None
    try:
        for message in messages:
            if batch is None or not _append(batch, message):
                if batch is not None:
                    delivered.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                _append(batch, message)
        if batch is not None:
            delivered.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*delivered)
    finally:
        # Where this is given up, the producer is stopped, which waits for what is still wanted.
        for future in delivered:
            future.cancel()


def _append(batch: BatchBuilder, message: Message) -> bool:
    """Adds a message; gives whether it found room."""
    headers = list(message.headers)
    return batch.append(key=message.key, value=message.value, timestamp=None, headers=headers) is not None
