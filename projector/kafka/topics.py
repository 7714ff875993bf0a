"""The topics: what they are called, how they must be, and how those that are missing are created."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from projector.kafka.client import new_admin
from projector.kafka.errors import describe_kafka
from projector.kafka.settings import KafkaSettings
from projector.worker import Backoff, wait_for

_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be.

    Attributes:
        cleanup: `delete`: messages go when they are old; `compact`: the last one of each key stays.
    """

    name: str
    cleanup: Literal["delete", "compact"]


def changelog_topic(prefix: str, dataset: str) -> str:
    """The topic of a dataset's facts: `prefix.dataset`, whether or not the prefix ends in a dot."""
    return f"{prefix.removesuffix('.')}.{dataset}"


def transactional_id(prefix: str) -> str:
    """What the changelog's producers call themselves, so that one fences the other."""
    return changelog_topic(prefix, "changelog")


def dead_letter_topic(settings: KafkaSettings) -> str:
    """The topic of messages that cannot be read."""
    return f"{settings.reporting_kafka_outbox_topic}.dlq"


def outbox_topics(settings: KafkaSettings) -> list[Topic]:
    """The topics of relays and consumers."""
    return [Topic(settings.reporting_kafka_outbox_topic, "delete"), Topic(dead_letter_topic(settings), "delete")]


def changelog_topics(prefix: str, datasets: Iterable[str]) -> list[Topic]:
    """The topics of the facts, one for each dataset."""
    return [Topic(changelog_topic(prefix, dataset), "compact") for dataset in datasets]


async def create_missing(settings: KafkaSettings, topics: Sequence[Topic]) -> list[str]:
    """Creates those topics that are not there, gives their names. Those that are there are never changed.

    Args:
        settings: the cluster, and the partitions and replicas of new topics.
        topics: what there should be.

    Raises:
        aiokafka.errors.KafkaError: the cluster cannot be reached, or refuses one; others may have been created.
    """
    admin = new_admin(settings)
    try:
        await admin.start()
        there = await _there(admin, [topic.name for topic in topics])
        missing = [topic for topic in topics if topic.name not in there]
        return await _create(admin, settings, missing) if missing else []
    finally:
        await admin.close()


async def ensure_topics(settings: KafkaSettings, topics: Sequence[Topic], log: structlog.stdlib.BoundLogger) -> bool:
    """Creates missing topics where the settings ask for it; gives whether that is done with.

    What stands in the way is only logged: who needs a topic says so itself, and goes on without.
    """
    if not settings.reporting_kafka_create_topics:
        return True
    try:
        created = await create_missing(settings, topics)
    except KafkaError as error:
        log.warning("topics not created, if any are missing", error=describe_kafka(error))
        return False
    if created:
        log.info("topics created", topics=created)
    return True


async def ensure_outbox_topics(settings: KafkaSettings, stop: asyncio.Event, log: structlog.stdlib.BoundLogger) -> None:
    """A helper task beside workers: as `ensure_topics`, again until it is done with; then waits for `stop`."""
    backoff = Backoff()
    while not stop.is_set() and not await ensure_topics(settings, outbox_topics(settings), log):
        await wait_for(stop.wait(), backoff.next())
    await stop.wait()


async def _there(admin: AIOKafkaAdminClient, names: list[str]) -> set[str]:
    # Asked about topics by name, a cluster may create them itself, with settings of its own.
    described = await admin.describe_topics(None)
    return {topic["topic"] for topic in described} & set(names)


async def _create(admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: Sequence[Topic]) -> list[str]:
    factor = settings.reporting_kafka_replication_factor
    new = [
        NewTopic(
            topic.name, settings.reporting_kafka_partitions, factor,
            # The client takes a factor of -1 only beside assignments, of which none are sent.
            replica_assignments={} if factor == -1 else None,
            topic_configs={"cleanup.policy": topic.cleanup},
        )
        for topic in topics
    ]  # fmt: skip
    reply = await admin.create_topics(new, timeout_ms=_TIMEOUT_MS)
    created, errors = [], []
    for name, code, *_ in reply.topic_errors:
        if not code:
            created.append(name)
        elif for_code(code) is not TopicAlreadyExistsError:  # another process was first
            errors.append(for_code(code)(name))
    if errors:
        raise errors[0]
    return created
