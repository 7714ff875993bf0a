"""The changelog when something breaks: nothing is lost, nothing older lands behind what is newer."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from aiokafka.errors import KafkaError

from projector.database import Timeouts
from projector.demo.companion import free_port
from projector.kafka.changelog_producer import ChangelogProducer
from projector.kafka.changelog_task import Cluster
from projector.kafka.changes import ChangeQueue, Taken
from projector.kafka.topics import changelog_topic
from projector.registry import Registry
from tests.daemons import running, settings_for
from tests.kafka.apache import ApacheBroker
from tests.kafka.brokers import Broker
from tests.kafka.changelogs import (
    add_topics,
    assert_topics_hold_the_facts,
    capture,
    cluster,
    held,
    publishing,
    read_topic,
    stored,
    until_published,
)
from tests.obstacles import wait_until
from tests.platform_rows import add_org, enqueue_generations
from tests.processes import Running, daemon_settings, started
from tests.roles import PROJECTOR, for_program

pytestmark = pytest.mark.needs("transactions")

OLD = "UPDATE reporting_changelog_publisher SET renewed_at = now() - interval '1 minute'"
WRITE = """
INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day, turn_count)
SELECT 1, 'session:' || n, now(), now(), $3 FROM generate_series($1::integer, $2::integer) AS n
ON CONFLICT (org_id, source_key) DO UPDATE SET turn_count = EXCLUDED.turn_count
"""
REMOVE = "DELETE FROM fact_session WHERE source_key = 'session:' || $1::integer"


@pytest.fixture
async def captured(connection: asyncpg.Connection, database: str, registry: Registry) -> asyncpg.Connection:
    """A connection to a database with an org and capturing switched on."""
    await add_org(connection, 1)
    await capture(database, registry)
    return connection


@asynccontextmanager
async def written(dsn: str) -> AsyncIterator[None]:
    """Facts that come, change and go as long as the context lasts."""
    stop = asyncio.Event()

    async def write() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            while not stop.is_set():
                first = random.randrange(300)
                await connection.execute(WRITE, first, first + random.randrange(30), random.randrange(2**40))
                await connection.execute(REMOVE, random.randrange(300))
                await asyncio.sleep(0.002)
        finally:
            await connection.close()

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def by_hand(
    dsn: str, bootstrap: str, prefix: str, *, idempotence: bool = True
) -> AsyncIterator[tuple[ChangeQueue, ChangelogProducer]]:
    """The two halves of a publisher, for a test that is slower than any."""
    pool = await asyncpg.create_pool(for_program(dsn, PROJECTOR), min_size=1, max_size=1)
    kafka = cluster(bootstrap, reporting_kafka_idempotence=idempotence)
    producer = ChangelogProducer(kafka, {"sessions": changelog_topic(prefix, "sessions")}, "changelog-of-" + prefix)
    try:
        yield ChangeQueue(pool, Timeouts(30), {"sessions": "fact_session"}), producer
    finally:
        await producer.drop()
        pool.terminate()


async def take(queue: ChangeQueue) -> Taken:
    taken = await queue.take(["sessions"], 1000)
    assert taken is not None
    return taken


async def test_what_was_published_but_not_settled_is_published_again(
    captured: asyncpg.Connection, database: str, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix, ["sessions"])
    await captured.execute(WRITE, 1, 3, 1)
    async with by_hand(database, broker.bootstrap, prefix) as (queue, producer):
        await take(queue)
        await producer.publish((await take(queue)).facts)
        # It dies here: nothing is settled.
    await captured.execute(OLD)
    await captured.execute(REMOVE, 2)
    async with by_hand(database, broker.bootstrap, prefix) as (queue, producer):
        await take(queue)
        taken = await take(queue)
        assert len(taken.seqs) == 2
        await producer.publish(taken.facts)
    records = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"))
    assert len(records) == 3 + 4
    assert held("sessions", records) == await stored(captured, "fact_session")


async def test_a_publisher_that_was_stopped_publishes_nothing_any_more_once_another_has_begun(
    captured: asyncpg.Connection, database: str, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix, ["sessions"])
    async with AsyncExitStack() as stack:
        stopped_queue, stopped = await stack.enter_async_context(by_hand(database, broker.bootstrap, prefix))
        queue, producer = await stack.enter_async_context(by_hand(database, broker.bootstrap, prefix))
        await take(stopped_queue)
        await stopped.start()
        await captured.execute(WRITE, 1, 3, 1)
        stale = await take(stopped_queue)
        await captured.execute(WRITE, 1, 3, 2)
        await captured.execute(OLD)
        await take(queue)
        await producer.publish((await take(queue)).facts)
        with pytest.raises(KafkaError):
            await stopped.publish(stale.facts)
        assert not stopped.started
        assert await stopped_queue.take(["sessions"], 1) is None
    for isolation in ("read_committed", "read_uncommitted"):
        records = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"), isolation=isolation)
        assert held("sessions", records) == await stored(captured, "fact_session")


@asynccontextmanager
async def two_daemons(database: str, bootstrap: str, prefix: str, folder: Path) -> AsyncIterator[list[Running]]:
    """Two processes, the one that publishes first."""
    settings = daemon_settings(
        database, reporting_changelog_topic_prefix=prefix, reporting_kafka_bootstrap_servers=bootstrap,
        reporting_log_format="json",
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(started("run", folder=folder, **settings))
        await first.has_logged("publishing the changelog")
        second = await stack.enter_async_context(started("run", folder=folder, **settings))
        await second.has_logged("projecting")
        yield [first, second]


async def test_another_process_takes_over_when_one_is_killed(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    async with two_daemons(database, broker.bootstrap, prefix, tmp_path) as (first, second):
        async with written(database):
            await asyncio.sleep(random.uniform(1, 2))  # the instant is any
            assert not second.logged("publishing the changelog")
            first.send(signal.SIGKILL)
            await first.end()
            await second.has_logged("publishing the changelog")
        await until_published(captured)
    await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)


async def test_another_process_takes_over_when_one_is_stopped_and_that_one_does_no_harm_later(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    async with two_daemons(database, broker.bootstrap, prefix, tmp_path) as (first, second):
        async with written(database):
            await asyncio.sleep(random.uniform(1, 2))  # the instant is any
            first.send(signal.SIGSTOP)
            await second.has_logged("publishing the changelog")
            await asyncio.sleep(0.5)
            first.send(signal.SIGCONT)
            await asyncio.sleep(1)
        await until_published(captured)
        second.send(signal.SIGTERM)
        assert await second.end() == 0
        await captured.execute(WRITE, 1, 3, 1)
        await until_published(captured, 5)
        assert len(first.logged("publishing the changelog")) == 2, "it took over from who ended in order, at once"
    for isolation in ("read_committed", "read_uncommitted"):
        records = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"), isolation=isolation)
        assert held("sessions", records) == await stored(captured, "fact_session")
    await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)


async def test_a_broker_that_is_killed_and_comes_back_costs_nothing_but_time(
    captured: asyncpg.Connection, database: str, registry: Registry, own_broker: ApacheBroker, prefix: str
) -> None:
    await add_topics(own_broker.bootstrap, prefix)
    async with publishing(database, registry, cluster(own_broker.bootstrap), prefix) as publisher:
        async with written(database):
            await publisher.has_logged("publishing the changelog")
            await asyncio.sleep(random.uniform(0.5, 1))  # the instant is any
            await asyncio.to_thread(own_broker.kill)
            await publisher.has_logged("changed facts not published", times=3)
            assert "cannot be published" in publisher.obstacles["changelog"]
            assert not await captured.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"
                " AND state LIKE 'idle in transaction%' AND now() - state_change > interval '1 second'",
                PROJECTOR,
            ), "a transaction is left open meanwhile"
            await asyncio.to_thread(own_broker.start)
        await until_published(captured, 60)

        async def no_obstacle() -> bool:
            return publisher.obstacles == {}

        await wait_until(no_obstacle)
    await assert_topics_hold_the_facts(captured, registry, own_broker.bootstrap, prefix)


async def test_projecting_goes_on_while_no_broker_can_be_reached(
    captured: asyncpg.Connection, database: str, registry: Registry, prefix: str
) -> None:
    nowhere = Cluster(cluster(f"127.0.0.1:{free_port()}"), prefix)
    async with running(settings_for(database), registry) as process:
        process.daemon.changelog = nowhere
        await process.daemon.projecting.wait()
        await process.has_logged("changed facts not published, trying again", times=3)
        status, body = await process.get("/readyz")
        assert (status, "cannot be published" in body) == (503, True)
        await enqueue_generations(captured, 3)

        async def all_are_projected() -> bool:
            return bool(
                await captured.fetchval("SELECT count(*) FROM reporting_outbox WHERE status = 'completed'") == 3
            )

        await wait_until(all_are_projected)
        assert await captured.fetchval("SELECT count(*) FROM reporting_fact_changes") > 0
        process.daemon.stop.set()
        async with asyncio.timeout(6):
            assert await asyncio.shield(process.task) == 0


async def test_triggers_that_are_missing_are_told_until_they_are_there(
    connection: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("projector.kafka.changelog._LOOK_SECONDS", 0.2)
    monkeypatch.setattr("projector.kafka.changelog._LARGEST_SHARE", 1.0)
    await add_topics(broker.bootstrap, prefix)
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:
        await publisher.has_logged("the changelog is not complete")
        assert "run `projector changelog enable`" in publisher.obstacles["changelog capture"]
        await capture(database, registry)

        async def no_obstacle() -> bool:
            return publisher.obstacles == {}

        await wait_until(no_obstacle)
        await add_org(connection, 1)
        await connection.execute(WRITE, 1, 1, 1)
        await until_published(connection)


async def test_changes_that_nobody_publishes_are_told(
    captured: asyncpg.Connection, database: str, registry: Registry
) -> None:
    await captured.execute(WRITE, 1, 1, 1)
    await captured.execute(WRITE, 1, 1, 2)
    async with running(settings_for(database), registry) as process:
        await process.has_logged(
            "changes of facts are captured, but this process does not publish them: set"
            " REPORTING_CHANGELOG_TOPIC_PREFIX, or run `projector changelog disable`"
        )
        assert await process.ready()
