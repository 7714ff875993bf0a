"""Members of the group come, go, die and stand still, so do relays and database: no row pays (promises 1, 3, 9)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

from projector.database import APPLICATION_NAME
from tests.chaos.fleet import Fleet
from tests.chaos.frozen import freeze, freeze_in_batch, thaw
from tests.chaos.recovery import projects_again
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.kafka.attacks import CONSUMER, RELAY, leased, leases_that_end, publishes_again, writing
from tests.kafka.brokers import Broker
from tests.kafka.feeding import Feeding, metric, new_feeding
from tests.obstacles import opened, wait_until
from tests.processes import Running

Record = Callable[[str, object], None]

_SESSION_SECONDS = 1.0
_SERVING = "serving /metrics, /livez and /readyz"
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
# Leases are given back by the sampler.
_OFTEN = {"reporting_sample_interval_secs": "0.2"}


async def test_members_join_leave_and_die_under_load_and_relays_too(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("members")
    writers = Writers(database, chaos.random("writers of members"))
    cut = 0
    async with (
        Fleet(database, tmp_path, **feeding.variables, **_OFTEN) as consumers,
        Fleet(database, tmp_path, **feeding.variables, **_OFTEN) as relays,
        leases_that_end(database),
    ):
        await consumers.start(3, *CONSUMER)
        await relays.start(2, *RELAY)
        async with writing(writers):
            for number in range(chaos.times(40, 2)):
                await asyncio.sleep(random.uniform(0, 1))
                victim = random.choice(consumers.running)
                if number % 2:
                    assert await consumers.stop(victim) == 0
                else:
                    await consumers.kill(victim)
                await consumers.start(1, *CONSUMER)
                if number % 4 == 1:
                    cut += await _kill_with_leases(relays, database, random)
                    await relays.start(1, *RELAY)
            await publishes_again(random.choice(consumers.running), "reporting_kafka_messages_total")
        await settled(database)
        assert await consumers.stop_all() == [0] * 3
        assert await relays.stop_all() == [0] * 2
    assert await verify(database) > 0
    assert cut > 0, "no relay was killed between lease and publish"


async def _kill_with_leases(relays: Fleet, dsn: str, random: Random) -> int:
    """Kills a relay just after a lease was committed; gives how many rows were leased and not published by then."""
    async with opened(dsn) as watcher:

        async def has_leased() -> bool:
            await asyncio.sleep(random.uniform(0, 0.01))
            freeze(relays.running)
            if await leased(watcher):
                return True
            thaw(relays.running)
            return False

        await wait_until(has_leased, 60)
        held = await leased(watcher)
        victim = random.choice(relays.running)
        await relays.kill(victim)
        thaw(relays.running)
    return held


async def test_a_consumer_that_stands_still_in_a_batch_loses_its_partitions_and_does_no_harm_later(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("still consumers")
    writers = Writers(database, chaos.random("writers of still consumers"), Pace(pause=0.02))
    async with Fleet(database, tmp_path, **feeding.variables) as fleet, opened(database) as watcher:
        await fleet.start(1, *RELAY)
        (still,) = await fleet.start(1, *CONSUMER)
        async with writing(writers):
            for _ in range(chaos.times(8, 1)):
                await publishes_again(still, "reporting_kafka_messages_total")
                (other,) = await fleet.start(1, *CONSUMER)
                await other.has_logged("partitions assigned")
                await freeze_in_batch([still], watcher, random)
                rebalances = await metric(other, "reporting_kafka_rebalances_total")
                await _rebalanced(other, rebalances)
                await publishes_again(other, "reporting_kafka_messages_total")
                await asyncio.sleep(random.uniform(0, _SESSION_SECONDS))
                thaw([still])
                await publishes_again(still, "reporting_kafka_messages_total")
                assert await fleet.stop(other) == 0
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    assert await verify(database) > 0


async def _rebalanced(running: Running, before: float) -> None:
    async def more() -> bool:
        return await metric(running, "reporting_kafka_rebalances_total") > before

    await wait_until(more, 60)


async def test_the_database_crashes_and_loses_backends_while_consumers_hold_messages(
    chaos: Chaos, broker: Broker, prefix: str, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("database of consumers")
    took, published = [], 0
    async with ChaosServer() as server:
        feeding = new_feeding(broker.bootstrap, server.dsn, prefix, idempotence="idempotence" in broker.abilities)
        await feeding.create()
        writers = Writers(server.dsn, chaos.random("writers of the database of consumers"))
        # Small batches, so that there are many; what is written meanwhile is left to the sweep.
        limits = {"reporting_projector_limit": "10", "reporting_projector_max_limit": "10"}
        variables = feeding.variables | limits | {"reporting_kafka_sweep_secs": "1"}
        async with Fleet(server.dsn, tmp_path, **variables) as fleet, writing(writers):
            for _ in range(chaos.times(10, 1)):
                published += await _publish(fleet, chaos.times(2000, 500))
                await fleet.start(2, *CONSUMER)
                for _ in range(chaos.times(20, 8)):
                    await asyncio.sleep(random.expovariate(10))
                    await _terminate_some(server.dsn, random)
                await server.down()
                await asyncio.sleep(random.uniform(0, 0.5))
                await server.up()
                took.append(await projects_again(server.dsn))
                # No lease ends in this time: each row comes of its message, however often its batch was given up.
                await feeding.has_committed(published, 60)
                assert await fleet.stop_all() == [0, 0]
            writers.stop.set()
            await fleet.start(1, *CONSUMER)
            await settled(server.dsn)
            assert await fleet.stop_all() == [0]
        assert writers.faults > 0
        assert await verify(server.dsn) > 0
    record_property("normal again", max(took))


async def _publish(fleet: Fleet, rows: int) -> int:
    """A relay publishes so many rows at least, and ends; gives how many."""
    (relay,) = await fleet.start(1, *RELAY)
    count = 0.0

    async def enough() -> bool:
        nonlocal count
        count = await metric(relay, "reporting_relay_published_total")
        return count >= rows

    await wait_until(enough, 120)
    assert await fleet.stop(relay) == 0
    return int(count)


async def _terminate_some(dsn: str, random: Random) -> None:
    async with opened(dsn) as killer:
        backends = [record["pid"] for record in await killer.fetch(_BACKENDS, APPLICATION_NAME)]
        for backend in random.sample(backends, min(2, len(backends))):
            await killer.fetchval("SELECT pg_terminate_backend($1)", backend)


async def test_daemons_that_poll_beside_relays_and_consumers_do_no_harm(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("both feeds")
    writers = Writers(database, chaos.random("writers of both feeds"))
    async with Fleet(database, tmp_path, **feeding.variables, **_OFTEN) as fleet, leases_that_end(database):
        (relay,) = await fleet.start(1, *RELAY)
        (consumer,) = await fleet.start(1, *CONSUMER)
        async with writing(writers):
            for _ in range(chaos.times(10, 1)):
                (polling,) = await fleet.start(1)
                await publishes_again(polling, "reporting_projector_rows_total")
                await publishes_again(relay)
                await publishes_again(consumer, "reporting_kafka_messages_total")
                await asyncio.sleep(random.uniform(0, 0.5))
                assert await fleet.stop(polling) == 0
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    assert await verify(database) > 0


async def test_stops_at_any_moment_leave_rows_due_or_published_and_offsets_committed(
    chaos: Chaos, feeding: Feeding, database: str, tmp_path: Path
) -> None:
    random = chaos.random("stops at any moment")
    writers = Writers(database, chaos.random("writers of stops at any moment"))
    async with Fleet(database, tmp_path, **feeding.variables) as fleet:
        async with writing(writers):
            for _ in range(chaos.times(25, 2)):
                await fleet.start(2, *CONSUMER, projecting=False)
                await fleet.start(1, *RELAY, projecting=False)
                # Before this line a signal ends a process at once.
                await asyncio.gather(*(running.has_logged(_SERVING) for running in fleet.running))
                await asyncio.sleep(random.uniform(0, 1.5))
                assert await fleet.stop_all() == [0] * 3
        # No lease ends in this time: what relays had leased they have published, or given back.
        await fleet.start(1, *CONSUMER)
        await fleet.start(1, *RELAY)
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    rows = await verify(database)
    # Some messages may have been published again, but none is left unread.
    assert await feeding.committed() == await feeding.end() >= rows
