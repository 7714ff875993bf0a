"""The brokers do what tests rely on: without this, a test that fails says nothing about the program."""

import asyncio
import ssl
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError, TopicAuthorizationFailedError

from projector.demo.broker import light_broker
from projector.demo.companion import answers
from tests.kafka.apache import OTHER_USER, USER, ApacheBroker, Listener, apache_broker
from tests.kafka.brokers import Broker
from tests.kafka.clients import (
    QUICK_GROUP,
    Operation,
    Resource,
    admin,
    allow,
    consumer,
    create_topic,
    options_for,
    producer,
    read,
    read_all,
    tls_context,
)
from tests.kafka.conftest import MakeTopic
from tests.obstacles import wait_until
from tests.processes import ROOT

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


async def send(count: int, topic: str, **options: Any) -> None:
    async with producer(**options) as client:
        for number in range(count):
            await client.send(topic, key=b"%d" % (number % 10), value=b"%d" % number)


async def test_gives_what_was_produced_in_order_by_key(broker: Broker, topic: MakeTopic) -> None:
    name = await topic(partitions=3)
    await send(300, name, bootstrap_servers=broker.bootstrap)
    records = await read_all(broker.bootstrap, name, 300)
    for key in range(10):
        values = [int(record.value) for record in records if record.key == b"%d" % key]
        assert values == list(range(key, 300, 10))
    assert len({record.partition for record in records}) > 1


async def test_a_group_of_two_shares_the_partitions_and_goes_on_after_its_commits(
    broker: Broker, topic: MakeTopic, prefix: str
) -> None:
    name = await topic(partitions=4)
    options = {"bootstrap_servers": broker.bootstrap, "group_id": prefix + "group", **QUICK_GROUP}
    async with consumer(name, **options) as first:
        async with consumer(name, **options) as second:

            async def shared() -> bool:
                for member in (first, second):  # what drives a rebalance on
                    await member.getmany(timeout_ms=50)
                return len(first.assignment()) == len(second.assignment()) == 2

            await wait_until(shared, 30)
            await send(200, name, bootstrap_servers=broker.bootstrap)
            parts = await asyncio.gather(*(_read_until_silent(member) for member in (first, second)))
            assert sorted(parts[0] + parts[1]) == list(range(200))
            await first.commit()
            await second.commit()

        async def alone() -> bool:
            await first.getmany(timeout_ms=50)
            return len(first.assignment()) == 4

        await wait_until(alone, 30)
        await send(5, name, bootstrap_servers=broker.bootstrap)
        assert [int(record.value) for record in sorted(await read(first, 5), key=lambda r: int(r.value))] == [*range(5)]


async def _read_until_silent(client: Any) -> list[int]:
    values: list[int] = []
    while batches := await client.getmany(timeout_ms=2000):
        values += [int(record.value) for batch in batches.values() for record in batch]
    return values


@pytest.mark.needs("end_offsets")
async def test_tells_the_true_end(broker: Broker, topic: MakeTopic) -> None:
    name = await topic()
    await send(7, name, bootstrap_servers=broker.bootstrap)
    async with consumer(bootstrap_servers=broker.bootstrap) as client:
        partition = TopicPartition(name, 0)
        assert await client.end_offsets([partition]) == {partition: 7}


@pytest.mark.needs("idempotence", "transactions")
async def test_takes_transactions(broker: Broker, topic: MakeTopic, prefix: str) -> None:
    name = await topic()
    async with producer(bootstrap_servers=broker.bootstrap, transactional_id=prefix + "t") as client:
        await client.begin_transaction()
        await client.send(name, b"aborted")
        await client.abort_transaction()
        async with client.transaction():
            await client.send(name, b"committed")
    records = await read_all(broker.bootstrap, name, 1, isolation_level="read_committed")
    assert [record.value for record in records] == [b"committed"]


@pytest.mark.needs("compaction")
async def test_compacts_within_seconds(broker: Broker, topic: MakeTopic) -> None:
    settings = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    name = await topic(settings=settings)

    async def only_newest() -> bool:
        # Each message also closes the segment before it, if it is old enough; open ones are not compacted.
        await send(20, name, bootstrap_servers=broker.bootstrap)
        records = await read_all(broker.bootstrap, name, 1)
        return bool(records[0].offset > 0)

    await wait_until(only_newest, 60)


@pytest.mark.needs("add_partitions")
async def test_adds_partitions(broker: Broker, topic: MakeTopic) -> None:
    name = await topic()
    async with admin(bootstrap_servers=broker.bootstrap) as client:
        await client.create_partitions({name: NewPartitions(3)})

        async def three() -> bool:
            return [len(found["partitions"]) for found in await client.describe_topics([name])] == [3]

        await wait_until(three)


@pytest.mark.needs("group_offsets")
async def test_tells_a_groups_offsets(broker: Broker, topic: MakeTopic, prefix: str) -> None:
    name = await topic()
    await send(3, name, bootstrap_servers=broker.bootstrap)
    async with consumer(name, bootstrap_servers=broker.bootstrap, group_id=prefix + "group") as client:
        await read(client, 3)
        await client.commit()
    async with admin(bootstrap_servers=broker.bootstrap) as client:
        offsets = await client.list_consumer_group_offsets(prefix + "group")
    assert {partition: found.offset for partition, found in offsets.items()} == {TopicPartition(name, 0): 3}


async def test_creating_a_topic_that_is_there_fails(broker: Broker, topic: MakeTopic) -> None:
    name = await topic()
    with pytest.raises(Exception, match=name) as raised:
        await create_topic(broker.bootstrap, name)
    assert type(raised.value).__name__ == "TopicAlreadyExistsError"


async def test_keeps_messages_and_commits_over_a_kill(own_broker: ApacheBroker) -> None:
    options = {"bootstrap_servers": own_broker.bootstrap}
    await create_topic(own_broker.bootstrap, "kept")
    await send(50, "kept", acks="all", **options)
    async with consumer("kept", group_id="group", max_poll_records=20, **options) as client:
        await client.getmany(timeout_ms=10_000)
        await client.commit()
    killed = own_broker.process_id
    await asyncio.to_thread(own_broker.restart)
    assert own_broker.process_id != killed
    async with consumer("kept", group_id="group", **options) as client:
        assert [int(record.value) for record in await read(client, 30)] == list(range(20, 50))
    await asyncio.to_thread(own_broker.shut_down)
    await asyncio.to_thread(own_broker.start)
    assert len(await read_all(own_broker.bootstrap, "kept", 50)) == 50


def test_a_broker_is_gone_with_its_data_and_its_process(apache_jars: Path, tmp_path: Path) -> None:
    with apache_broker(tmp_path / "broker", apache_jars) as gone:
        process = Path(f"/proc/{gone.process_id}")
        assert process.exists()
    assert not process.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("listener", [Listener.SASL, Listener.SASL_TLS])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_lets_in_who_has_the_password(secured: ApacheBroker, listener: Listener, mechanism: str) -> None:
    async with admin(**options_for(secured, listener, mechanism, "admin")) as client:
        assert (await client.describe_cluster())["cluster_id"]


@pytest.mark.parametrize("mechanism", MECHANISMS[:3])
async def test_keeps_out_who_has_a_wrong_password(secured: ApacheBroker, mechanism: str) -> None:
    with pytest.raises((AuthenticationFailedError, KafkaConnectionError)):
        async with admin(**options_for(secured, Listener.SASL, mechanism, password="wrong")):
            pass


async def test_knows_a_user_that_was_added_while_it_ran(secured: ApacheBroker) -> None:
    await asyncio.to_thread(secured.add_scram_user, "carol", "carol-secret")
    options = options_for(secured, Listener.SASL_TLS, "SCRAM-SHA-512", "carol", "carol-secret")
    async with admin(**options) as client:
        assert (await client.describe_cluster())["cluster_id"]


async def test_asks_for_a_clients_certificate(secured: ApacheBroker) -> None:
    options = options_for(secured, Listener.TLS)
    async with admin(**options) as client:
        assert (await client.describe_cluster())["cluster_id"]
    stranger = tls_context(secured, with_client=False)
    assert secured.certificates is not None
    stranger.load_cert_chain(secured.certificates.stranger)
    for context in (tls_context(secured, with_client=False), stranger):
        with pytest.raises(KafkaConnectionError):
            async with admin(**options | {"ssl_context": context}):
                pass


async def test_has_a_certificate_that_strangers_do_not_trust(secured: ApacheBroker) -> None:
    with pytest.raises(KafkaConnectionError):
        async with admin(
            **options_for(secured, Listener.TLS) | {"ssl_context": ssl.create_default_context()},
        ):
            pass


async def test_denies_what_no_acl_allows(secured: ApacheBroker, prefix: str) -> None:
    name = prefix + "guarded"
    await create_topic(secured.bootstrap, name)
    await allow(secured, USER, Resource.TOPIC, name, Operation.WRITE, Operation.DESCRIBE)
    await send(3, name, **options_for(secured, Listener.SASL, "SCRAM-SHA-256", USER))
    for denied in (
        options_for(secured, Listener.SASL, "SCRAM-SHA-256", OTHER_USER),
        options_for(secured, Listener.TLS),
    ):
        async with producer(**denied) as client:
            with pytest.raises(TopicAuthorizationFailedError):
                await client.send_and_wait(name, b"denied")
    assert len(await read_all(secured.bootstrap, name, 3)) == 3


def test_the_light_broker_is_up_at_once_and_gone_at_the_end(tmp_path: Path) -> None:
    started = time.monotonic()
    with light_broker(tmp_path / "light") as light:
        process = Path(f"/proc/{light.process_id}")
        assert time.monotonic() - started < 5
        asyncio.run(_send_and_read(light.bootstrap))
    assert not process.exists()


def test_the_light_broker_ends_with_whom_it_serves_even_if_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from projector.demo.broker import light_broker\n"
        "with light_broker(pathlib.Path(sys.argv[1])) as light: print(light.bootstrap, flush=True); input()"
    )
    with Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as served:
        assert served.stdout is not None
        port = int(served.stdout.readline().rpartition(":")[2])
        assert answers(port)
        served.kill()
    deadline = time.monotonic() + 15
    while answers(port):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.01)


async def _send_and_read(bootstrap: str) -> None:
    await create_topic(bootstrap, "topic", 2)
    await send(20, "topic", bootstrap_servers=bootstrap)
    assert len(await read_all(bootstrap, "topic", 20)) == 20
