"""Missing topics are created as they must be, those that are there stay as they are."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, KafkaConnectionError

from projector.demo.companion import free_port
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import (
    Topic,
    changelog_topics,
    create_missing,
    ensure_outbox_topics,
    ensure_topics,
    outbox_topics,
)
from tests.daemons import captured_log
from tests.kafka.brokers import Broker
from tests.kafka.clients import admin, create_topic
from tests.obstacles import wait_until


def settings_for(bootstrap: str, **values: Any) -> KafkaSettings:
    named: dict[str, Any] = {"bootstrap_servers": bootstrap, "partitions": 3} | values
    return KafkaSettings(**{f"reporting_kafka_{name}": value for name, value in named.items()})


async def found(bootstrap: str, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Partitions and cleanup policy of the topics that are there, by name."""
    async with admin(bootstrap_servers=bootstrap) as client:
        there = {each["topic"]: len(each["partitions"]) for each in await client.describe_topics()}
        names = [name for name in names if name in there]
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": ""}) for name in names]
        policies: dict[str, str] = {}
        for reply in await client.describe_configs(asked) if asked else []:
            policies |= {resource[3]: resource[4][0][1] for resource in reply.resources}
    return {name: (there[name], policies[name]) for name in names}


@pytest.mark.needs("compaction")
async def test_creates_what_is_missing_and_changes_nothing_that_is_there(broker: Broker, prefix: str) -> None:
    settings = settings_for(broker.bootstrap, outbox_topic=prefix + "outbox")
    topics = [*outbox_topics(settings), *changelog_topics(prefix + "facts.", ["turns", "runs"])]
    await create_topic(broker.bootstrap, prefix + "facts.runs", 1, {"cleanup.policy": "delete"})
    created = await create_missing(settings, topics)
    assert sorted(created) == [prefix + "facts.turns", prefix + "outbox", prefix + "outbox.dlq"]
    names = [topic.name for topic in topics]

    async def seen() -> bool:  # a broker learns of new topics a moment later
        return len(await found(broker.bootstrap, names)) == len(names)

    await wait_until(seen)
    assert await found(broker.bootstrap, names) == {
        prefix + "outbox": (3, "delete"), prefix + "outbox.dlq": (3, "delete"),
        prefix + "facts.turns": (3, "compact"), prefix + "facts.runs": (1, "delete"),
    }  # fmt: skip
    assert await create_missing(settings, topics) == []


async def test_several_at_once_do_not_disturb_each_other(broker: Broker, prefix: str) -> None:
    settings = settings_for(broker.bootstrap)
    topics = [Topic(f"{prefix}{number}", "delete") for number in range(3)]
    created = await asyncio.gather(*(create_missing(settings, topics) for _ in range(3)))
    assert sorted(name for names in created for name in names) == [topic.name for topic in topics]


@pytest.mark.needs("compaction")
async def test_a_refusal_is_raised(broker: Broker, prefix: str) -> None:
    settings = settings_for(broker.bootstrap, replication_factor=5)
    with pytest.raises(InvalidReplicationFactorError):
        await create_missing(settings, [Topic(prefix + "topic", "delete")])


async def test_programs_create_only_where_the_settings_ask_for_it(broker: Broker, prefix: str) -> None:
    log, _ = captured_log()
    topics = [Topic(prefix + "topic", "delete")]
    assert await ensure_topics(settings_for(broker.bootstrap), topics, log)
    assert await found(broker.bootstrap, [prefix + "topic"]) == {}
    assert await ensure_topics(settings_for(broker.bootstrap, create_topics=True), topics, log)

    async def seen() -> bool:
        return list(await found(broker.bootstrap, [prefix + "topic"])) == [prefix + "topic"]

    await wait_until(seen)


async def test_a_program_goes_on_while_the_cluster_is_away() -> None:
    log, capture = captured_log()
    settings = settings_for(f"127.0.0.1:{free_port()}", create_topics=True)
    with pytest.raises(KafkaConnectionError):
        await create_missing(settings, [])
    stop = asyncio.Event()
    task = asyncio.create_task(ensure_outbox_topics(settings, stop, log))

    async def tried_twice() -> bool:
        return len(capture.entries) >= 2

    await wait_until(tried_twice, 20)
    assert not task.done()
    assert "topics not created" in capture.entries[0]["event"]
    stop.set()
    await asyncio.wait_for(task, 15)
