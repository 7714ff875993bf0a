"""Poison, replays, answers that are lost: good messages go on, nothing is dropped or done twice (promises 2, 3, 7)."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from uuid import uuid4

import asyncpg
import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.kafka.apache import apache_broker
from tests.kafka.attacks import CONSUMER, RELAY, delete_topic, leases, note_leases, publishes_again, writing
from tests.kafka.feeding import Feeding, Sent, message, metric, new_feeding, wait_for_statuses
from tests.kafka.kafka_proxy import KafkaProxy
from tests.obstacles import enqueue_tools, everything, opened, wait_until
from tests.processes import Running

Record = Callable[[str, object], None]

_MISSING = "dead-letter topic takes no messages; see that it is there and may be written to"
_LONGEST_DELAY = 5.0


def _poison(random: Random) -> Sent:
    kinds = [b"\xff\xfe", b"[1, 2]", b"{}", b'{"schema_version": "1.0"}', message(uuid4(), "9.9")[1]]
    return uuid4().bytes, random.choice(kinds)


async def test_poison_amid_good_messages_is_put_aside(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("poison")
    writers = Writers(database, chaos.random("writers beside poison"))
    poison: list[Sent] = []
    async with Fleet(database, tmp_path, **feeding.variables) as fleet:
        await fleet.start(2, *CONSUMER)
        await fleet.start(1, *RELAY)
        async with writing(writers):
            for _ in range(chaos.times(100, 10)):
                some = [_poison(random) for _ in range(random.randrange(20))]
                await feeding.send(some)
                poison += some
        await settled(database)
        letters = await feeding.read(len(poison), f"{feeding.topic}.dlq")
        assert Counter((letter.key, letter.value) for letter in letters) >= Counter(poison)
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0


async def test_without_the_dead_letter_topic_good_messages_go_on_and_poison_waits_for_it(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("missing dead letters")
    writers = Writers(database, chaos.random("writers beside missing dead letters"))
    dead_letters = f"{feeding.topic}.dlq"
    poison = [_poison(random) for _ in range(50)]
    await delete_topic(feeding, dead_letters)
    await feeding.send(poison)
    async with Fleet(database, tmp_path, **feeding.variables) as fleet:
        consumers = await fleet.start(2, *CONSUMER)
        await fleet.start(1, *RELAY)
        async with writing(writers):
            await asyncio.gather(*(consumer.has_logged(_MISSING) for consumer in consumers))
            # Rows are leased: no sweep would find them.
            await publishes_again(consumers[0], "reporting_projector_rows_total")
        await settled(database)
        assert await feeding.committed() == 0
        assert len(consumers[0].logged(_MISSING)) <= 2 * 3
        # Another one reads the same poison again.
        await fleet.kill(consumers[0])
        await feeding.create(dead_letters)
        letters = await feeding.read(len(poison), dead_letters)
        assert Counter((letter.key, letter.value) for letter in letters) == Counter(poison)
        await feeding.has_committed(len(poison) + await _published(fleet))
        assert await fleet.stop_all() == [0] * 2
    assert await verify(database) > 0


async def _published(fleet: Fleet) -> int:
    relay = next(running for running in fleet.running if running.logged("relaying"))
    return int(await metric(relay, "reporting_relay_published_total"))


async def test_a_replay_from_the_start_beside_live_traffic_changes_nothing(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path, record_property: Record
) -> None:
    replayed = chaos.times(100_000, 10_000)
    writers = Writers(database, chaos.random("writers before a replay"))
    async with Fleet(database, tmp_path, **feeding.variables) as fleet, opened(database) as connection:
        await fleet.start(1, *RELAY)
        (live,) = await fleet.start(1, *CONSUMER)
        async with writing(writers):
            await publishes_again(live, "reporting_projector_rows_total")
            await asyncio.sleep(1)
        await settled(database)
        assert await verify(database) > 0
        await _fill(feeding, await _published(fleet), replayed)
        before = await everything(connection)
        (again,) = await fleet.start(1, *CONSUMER, reporting_kafka_group=f"{feeding.group}-again")
        reading = asyncio.create_task(_has_read(again, replayed))
        delays = [await _delay(connection)]
        while not reading.done():
            delays.append(await _delay(connection))
        record_property("messages/s", round(replayed / await reading))
        record_property("live rows and their longest delay", (len(delays), max(delays)))
        # What was there is as it was, projected_at too.
        for old, new in zip(before, await everything(connection), strict=True):
            assert set(old) <= set(new)
        assert await metric(again, "reporting_projector_rows_total") <= len(delays)
        assert await fleet.stop_all() == [0] * 3
    assert max(delays) < _LONGEST_DELAY


async def _fill(feeding: Feeding, there: int, wanted: int) -> None:
    """Repeats the messages of a topic until it holds so many."""
    messages = [(record.key, record.value) for record in await feeding.read(there)]
    for start in range(there, wanted, 5000):
        await feeding.send(itertools.islice(itertools.cycle(messages), min(5000, wanted - start)))


async def _has_read(consumer: Running, count: int) -> float:
    """Waits until a consumer has read so many messages; gives the seconds since it joined the group."""
    await consumer.has_logged("partitions assigned")
    began = time.monotonic()

    async def has() -> bool:
        await asyncio.sleep(0.02)
        return await metric(consumer, "reporting_kafka_messages_total") >= count

    await wait_until(has, 120)
    return time.monotonic() - began


async def _delay(connection: asyncpg.Connection) -> float:
    """Enqueues a row; gives the seconds until it was completed."""
    began = time.monotonic()
    rows = await enqueue_tools(connection, ["live"])
    await wait_for_statuses(connection, rows, "completed")
    return time.monotonic() - began


@pytest.mark.parametrize("idempotence", [True, False])
async def test_answers_that_are_lost_double_messages_only_without_idempotence(
    idempotence: bool, chaos: Chaos, apache_jars: Path, database: str, prefix: str, tmp_path: Path
) -> None:
    random = chaos.random("lost answers")
    wanted = chaos.times(50, 3)
    writers = Writers(database, chaos.random("writers of lost answers"))
    async with KafkaProxy() as proxy:
        advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"}
        with apache_broker(tmp_path / "broker", apache_jars, settings=advertised) as behind:
            proxy.target = int(behind.bootstrap.rpartition(":")[2])
            feeding = new_feeding(f"127.0.0.1:{proxy.port}", database, prefix, idempotence=idempotence)
            await feeding.create()
            await note_leases(database)
            proxy.loses = lambda: random.random() < 0.2
            async with Fleet(database, tmp_path, **feeding.variables) as fleet:
                await fleet.start(2, *CONSUMER)
                await fleet.start(1, *RELAY)
                async with writing(writers):

                    async def lost() -> bool:
                        return proxy.lost >= wanted

                    await wait_until(lost, 60)
                proxy.loses = lambda: False
                await settled(database)
                published = await _all_published(fleet, database)
                in_topic = await feeding.end()
                await feeding.has_committed(in_topic)
                assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0
    assert (in_topic == published) if idempotence else (in_topic > published)


async def _all_published(fleet: Fleet, dsn: str) -> int:
    """Waits until the relay knows that all that it has leased is in the topic; gives how many messages these are."""
    leased = await leases(dsn)

    async def has_published() -> bool:
        return await _published(fleet) >= leased

    await wait_until(has_published)
    return leased
