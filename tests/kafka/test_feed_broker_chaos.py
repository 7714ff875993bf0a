"""The cluster dies, is silent or away for long, or loses a topic: it costs lag and nothing else (promises 3, 7, 9)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka.admin import NewPartitions

from tests.chaos.fleet import Fleet
from tests.chaos.recovery import projects_again
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.kafka.apache import ApacheBroker
from tests.kafka.attacks import (
    CONSUMER,
    RELAY,
    cost,
    delete_topic,
    leased,
    leases,
    leases_that_end,
    note_leases,
    publishes_again,
    silent,
    writing,
)
from tests.kafka.clients import admin, create_topic
from tests.kafka.feeding import PARTITIONS, Feeding, new_feeding
from tests.obstacles import opened
from tests.processes import Running

Record = Callable[[str, object], None]

_RECOVERS_WITHIN = 30.0
_GRACE = 25.0  # REPORTING_SHUTDOWN_GRACE_SECS, by default
# What one process may use of a CPU while the cluster is away, and what relays may lease: what was on its way.
_MOST_CPU, _MOST_LEASES = 0.3, 200


@pytest.fixture
async def doomed(chaos_broker: ApacheBroker, database: str, prefix: str) -> Feeding:
    """A topic on a broker that is killed and silenced."""
    made = new_feeding(chaos_broker.bootstrap, database, prefix, idempotence=True)
    await made.create()
    await note_leases(database)
    return made


@contextlib.asynccontextmanager
async def killed(broker: ApacheBroker) -> AsyncIterator[None]:
    """Meanwhile the broker is away, by SIGKILL."""
    await asyncio.to_thread(broker.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.start)


def missing(broker: ApacheBroker, how: str) -> contextlib.AbstractAsyncContextManager[None]:
    """Meanwhile the broker is killed, or silent."""
    return killed(broker) if how == "killed" else silent(broker)


async def test_the_broker_is_killed_and_restarted_under_load(
    chaos: Chaos, chaos_broker: ApacheBroker, doomed: Feeding, database: str, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("broker kills")
    writers = Writers(database, chaos.random("writers of broker kills"))
    took = []
    async with Fleet(database, tmp_path, **doomed.variables) as fleet:
        await fleet.start(2, *CONSUMER)
        (relay,) = await fleet.start(1, *RELAY)
        async with writing(writers):
            for _ in range(chaos.times(10, 1)):
                await publishes_again(relay)
                await asyncio.sleep(random.uniform(0, 0.5))
                async with killed(chaos_broker):
                    await asyncio.sleep(random.uniform(0, 2))
                took.append(await publishes_again(relay) + await projects_again(database, _RECOVERS_WITHIN))
        await settled(database)
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN


@pytest.mark.parametrize("how", ["silent", pytest.param("killed", marks=pytest.mark.full_only)])
async def test_a_broker_that_is_away_costs_lag_and_little_else(
    how: str, chaos: Chaos, chaos_broker: ApacheBroker, doomed: Feeding, database: str, tmp_path: Path,
    record_property: Record,
) -> None:  # fmt: skip
    away = chaos.times(90, 4)  # the session timeout is 1 s
    writers = Writers(database, chaos.random(f"writers of {how}"), Pace(pause=0.05))
    variables = doomed.variables | {"reporting_kafka_sweep_secs": "1"}
    async with Fleet(database, tmp_path, **variables) as fleet, opened(database) as watcher:
        await fleet.start(2, *CONSUMER)
        (relay,) = await fleet.start(1, *RELAY)
        async with writing(writers):
            await publishes_again(relay)
            before, leases_before = cost(fleet.running), await leases(database)
            async with missing(chaos_broker, how):
                await asyncio.sleep(away)
                # The sweep projects what is not leased, and nothing much is.
                swept = await projects_again(database, _RECOVERS_WITHIN)
                used, new_leases = cost(fleet.running).since(before), await leases(database) - leases_before
                held = await leased(watcher)
            took = await publishes_again(relay) + await projects_again(database, _RECOVERS_WITHIN)
        await settled(database)
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0
    record_property("normal again", took)
    record_property("used meanwhile", (used, new_leases, held, swept))
    assert took < _RECOVERS_WITHIN
    assert used.seconds < _MOST_CPU * 3 * (away + 5)
    assert new_leases < _MOST_LEASES


@pytest.mark.parametrize("how", ["killed", pytest.param("silent", marks=pytest.mark.full_only)])
async def test_processes_end_in_order_while_the_broker_is_away(
    how: str, chaos: Chaos, chaos_broker: ApacheBroker, doomed: Feeding, database: str, tmp_path: Path,
    record_property: Record,
) -> None:  # fmt: skip
    random = chaos.random(f"stops while {how}")
    writers = Writers(database, chaos.random(f"writers of stops while {how}"))
    took = []
    async with Fleet(database, tmp_path, **doomed.variables) as fleet, opened(database) as watcher:
        async with writing(writers):
            for _ in range(chaos.times(4, 1)):
                await fleet.start(2, *CONSUMER)
                (relay,) = await fleet.start(1, *RELAY)
                await publishes_again(relay)
                async with missing(chaos_broker, how):
                    await asyncio.sleep(random.uniform(0, 3))
                    began = time.monotonic()
                    assert await fleet.stop_all() == [0] * 3
                    took.append(time.monotonic() - began)
        # What the relay had leased is due again; what it had published waits for consumers.
        await fleet.start(2, *CONSUMER)
        await fleet.start(1, *RELAY)
        await settled(database)
        assert await leased(watcher) == 0
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0
    record_property("ended after", max(took))
    assert max(took) < _GRACE - 5


@pytest.mark.parametrize(
    "partitions",
    [PARTITIONS, *(pytest.param(count, marks=pytest.mark.full_only) for count in (1, 2 * PARTITIONS))],
)
async def test_a_topic_is_deleted_and_made_anew_under_load(
    partitions: int, chaos: Chaos, chaos_broker: ApacheBroker, doomed: Feeding, database: str, tmp_path: Path,
    record_property: Record,
) -> None:  # fmt: skip
    writers = Writers(database, chaos.random(f"writers of {partitions} new partitions"))
    took = []
    async with Fleet(database, tmp_path, **doomed.variables, reporting_sample_interval_secs="0.2") as fleet:
        await fleet.start(2, *CONSUMER)
        (relay,) = await fleet.start(1, *RELAY)
        # What was published, and deleted unread, comes back as its lease ends.
        async with writing(writers), leases_that_end(database):
            for _ in range(chaos.times(3, 1)):
                await publishes_again(relay)
                await delete_topic(doomed, doomed.topic)
                await asyncio.sleep(0.5)
                await create_topic(chaos_broker.bootstrap, doomed.topic, partitions)
                took.append(await publishes_again(relay) + await projects_again(database, _RECOVERS_WITHIN))
            await by_messages(fleet.running[0], fleet.running[1])
            writers.stop.set()
            await settled(database)
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN


async def test_partitions_are_added_under_load(chaos: Chaos, doomed: Feeding, database: str, tmp_path: Path) -> None:
    writers = Writers(database, chaos.random("writers of more partitions"))
    async with (
        Fleet(database, tmp_path, **doomed.variables) as fleet,
        admin(bootstrap_servers=doomed.bootstrap) as client,
    ):
        await fleet.start(2, *CONSUMER)
        (relay,) = await fleet.start(1, *RELAY)
        async with writing(writers):
            for count in range(PARTITIONS + 1, PARTITIONS + 1 + chaos.times(5, 1)):
                await publishes_again(relay)
                await client.create_partitions({doomed.topic: NewPartitions(total_count=count)})
                await publishes_again(relay)
        await settled(database)
        assert await fleet.stop_all() == [0] * 3
    assert await verify(database) > 0


async def by_messages(*consumers: Running) -> None:
    """Waits until consumers read messages that they had not read before."""
    await asyncio.gather(*(publishes_again(consumer, "reporting_kafka_messages_total") for consumer in consumers[:1]))
