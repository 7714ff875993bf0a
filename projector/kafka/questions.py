"""Questions to a cluster whose answers tell whether we may do something, while nothing is done.

They are about partitions, members and producers that do not exist: brokers look at rights first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest, InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

_NO_PARTITION = 2**31 - 1
_NO_PRODUCER = 2**62
_GROUP, _TRANSACTION = 0, 1
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.5
_KEY = b"projector-kafka-check"


async def patiently(question: Callable[[], Awaitable[type[KafkaError]]]) -> type[KafkaError]:
    """Asks again while the cluster is busy with itself, as when its first group makes it create a topic of its own."""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            error = await question()
        except KafkaError as raised:
            error = type(raised)
        if error is IncompatibleBrokerVersion:
            raise IncompatibleBrokerVersion
        if not error.retriable or error is UnknownTopicOrPartitionError or not attempts_left:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return error


async def ask(client: AIOKafkaClient, request: object) -> Any:  # noqa: ANN401 - aiokafka has no types
    """What some broker answers.

    Raises:
        aiokafka.errors.KafkaError: none does.
    """
    return await client.send(client.get_random_node(), request)


async def may_read(client: AIOKafkaClient, topic: str) -> type[KafkaError]:
    """Whether a topic may be read: the error that a broker answers with."""
    reply = await ask(client, FetchRequest(0, 0, 1, 0, [(topic, [(_NO_PARTITION, 0, 1)])]))
    return _error_of(reply.topics)


async def may_write(client: AIOKafkaClient, topic: str) -> type[KafkaError]:
    """Whether a topic may be written to."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1024,
    )  # fmt: skip
    builder.append(0, None, _KEY, None, [])
    reply = await ask(client, ProduceRequest(None, -1, 5000, [(topic, [(_NO_PARTITION, bytes(builder.build()))])]))
    return _error_of(reply.topics)


def _error_of(topics: Sequence[Any]) -> type[KafkaError]:
    """The error about the one partition that was asked for. Some brokers leave out what is not there."""
    codes = [code for _, partitions in topics for _, code, *_ in partitions]
    error: type[KafkaError] = for_code(codes[0]) if codes else UnknownTopicOrPartitionError
    return error


async def may_join(client: AIOKafkaClient, group: str) -> type[KafkaError]:
    """Whether a group may be joined."""
    node = await client.coordinator_lookup(_GROUP, group)
    reply = await client.send(node, HeartbeatRequest(group, 0, _KEY.decode()))
    error: type[KafkaError] = for_code(reply.error_code)
    return error


async def may_be_idempotent(client: AIOKafkaClient) -> type[KafkaError]:
    """Whether an idempotent producer may start."""
    reply = await ask(client, InitProducerIdRequest(None, 60_000))
    error: type[KafkaError] = for_code(reply.error_code)
    return error


async def may_use_transactional_id(client: AIOKafkaClient, transactional_id: str) -> type[KafkaError]:
    """Whether a transactional id may be used; who uses it meanwhile is not fenced."""
    node = await client.coordinator_lookup(_TRANSACTION, transactional_id)
    reply = await client.send(node, EndTxnRequest(transactional_id, _NO_PRODUCER, 0, False))
    error: type[KafkaError] = for_code(reply.error_code)
    return error
