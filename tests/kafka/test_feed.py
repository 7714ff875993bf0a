"""Relay and consumers: what goes through Kafka is projected as what is polled; nothing depends on it (promise 7)."""

import asyncio
import json
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import uuid4

import asyncpg

from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.kafka.feeding import Feeding, message, metric, readiness, wait_for_statuses, write
from tests.obstacles import (
    enqueue_tools,
    gate,
    open_gate,
    opened,
    refuse_by_check,
    set_columns,
    statuses,
    wait_until,
)  # fmt: skip
from tests.platform_rows import add_org
from tests.processes import started


async def test_what_relays_publish_consumers_project(
    feeding: Feeding, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    writers = Writers(database, Random(1))
    async with (
        feeding.relay(tmp_path) as relay,
        feeding.consumers(tmp_path) as first,
        feeding.consumers(tmp_path) as other,
    ):
        await write(writers, 500)
        await settled(database)
        rows = await connection.fetchval("SELECT count(*) FROM reporting_outbox")
        # All of them came by messages, each was read once, and offsets were committed behind them.
        assert await metric(relay, "reporting_relay_published_total") == rows
        assert (
            await metric(first, "reporting_projector_rows_total")
            + await metric(other, "reporting_projector_rows_total")
            == rows
        )
        await feeding.has_committed(rows)
        assert await metric(first, "reporting_kafka_consumer_lag") == 0
        assert await metric(first, "reporting_kafka_rebalances_total") >= 2
        assert await metric(relay, "reporting_relay_failed_total") == 0
        for running in (relay, first, other):
            running.send(signal.SIGTERM)
        assert [await running.end(10) for running in (relay, first, other)] == [0, 0, 0]
    assert await verify(database) == rows


async def test_all_messages_of_a_source_stay_in_one_partition(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await enqueue_tools(connection, [f"tool {number}" for number in range(20)])
    await connection.execute(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
        " SELECT org_id, source_type, source_id, 'late ' || n, reason FROM reporting_outbox, generate_series(1, 4) AS n"
    )
    async with feeding.relay(tmp_path):
        records = await feeding.read(100)
    places: dict[bytes | None, set[int]] = {}
    for record in records:
        places.setdefault(record.key, set()).add(record.partition)
    assert len(places) == 20
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len({record.partition for record in records}) > 1


async def test_offsets_are_committed_after_the_database(
    feeding: Feeding, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with gate(database, "fact_tool_call") as keeper:
        rows = await enqueue_tools(connection, ["tool"])
        await feeding.send(message(row) for row in rows)
        async with feeding.consumers(tmp_path) as consumer:
            await wait_until_waiting(keeper)
            assert await feeding.committed() == 0
            consumer.send(signal.SIGKILL)
            await consumer.end()
        await open_gate(keeper)
    async with feeding.consumers(tmp_path):
        # The message of the batch that was cut off comes again.
        await wait_for_statuses(connection, rows, "completed")
        await feeding.has_committed(1)


async def test_nothing_is_read_twice_when_partitions_go_to_others(feeding: Feeding, tmp_path: Path) -> None:
    # So long that a busy machine makes no member look dead; whoever dies has its last messages read again.
    calm = {"reporting_kafka_session_timeout_secs": "10"}
    enough = asyncio.Event()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while not enough.is_set():
            await feeding.send(message(uuid4()) for _ in range(10))
            sent += 10

    async with feeding.consumers(tmp_path, **calm) as first:
        sending = asyncio.create_task(send())
        async with feeding.consumers(tmp_path, **calm) as other:

            async def other_has_read() -> bool:
                return await metric(other, "reporting_kafka_messages_total") > 100

            await wait_until(other_has_read, 30)
            enough.set()
            await sending
            await feeding.has_committed(sent)
            read = [await metric(running, "reporting_kafka_messages_total") for running in (first, other)]
            assert sum(read) == sent


async def test_rows_that_another_holds_are_claimed_again(
    feeding: Feeding, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    held, free = rows = await enqueue_tools(connection, ["held", "free"])
    async with opened(database) as other, feeding.consumers(tmp_path):
        # As another relay's claim does that meets a row when it has just been leased.
        async with other.transaction():
            await other.fetch("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", held)
            await feeding.send(message(row) for row in rows)
            await wait_for_statuses(connection, [free], "completed")
            await feeding.has_committed(len(rows))
            assert await statuses(connection, [held]) == ["pending"]
        await wait_for_statuses(connection, [held], "completed")


async def test_messages_that_cannot_be_read_are_dead_letters_with_a_reason(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    rows = await enqueue_tools(connection, ["before", "after"])
    unread = [(b"k", b"\xff\xfe"), (None, b"[1, 2]"), (b"k", b'{"schema_version": "1.0"}'), message(uuid4(), "2.0")]
    ignored = [(b"tombstone", None), message(uuid4()), message(rows[0])]
    await feeding.send([message(rows[0]), *unread, *ignored, message(rows[1])])
    async with feeding.consumers(tmp_path) as consumer:
        await wait_for_statuses(connection, rows, "completed")
        await feeding.has_committed(2 + len(unread) + len(ignored))
        letters = await feeding.read(len(unread), f"{feeding.topic}.dlq")
        assert await metric(consumer, "reporting_kafka_dead_letters_total") == len(unread)
        assert len(consumer.logged("message cannot be read, put into the dead-letter topic")) == len(unread)
    assert sorted((letter.key or b"", letter.value) for letter in letters) == sorted(
        (key or b"", value) for key, value in unread
    )
    reasons = {letter.value: dict(letter.headers)["dead-letter-reason"].decode() for letter in letters}
    assert reasons[unread[0][1]] == "not_json"
    assert reasons[unread[3][1]] == "unknown_version"
    assert all(dict(letter.headers)["dead-letter-topic"] == feeding.topic.encode() for letter in letters)


async def test_a_replay_from_the_start_changes_nothing(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    rows = await enqueue_tools(connection, [f"tool {number}" for number in range(50)])
    async with feeding.relay(tmp_path), feeding.consumers(tmp_path):
        await wait_for_statuses(connection, rows, "completed")
    before = await connection.fetch("SELECT * FROM fact_tool_call ORDER BY source_key")
    again = f"{feeding.topic}-again"
    async with feeding.consumers(tmp_path, reporting_kafka_group=again) as consumer:
        await replace(feeding, variables={**feeding.variables, "reporting_kafka_group": again}).has_committed(len(rows))
        assert await metric(consumer, "reporting_kafka_messages_total") == len(rows)
        assert await metric(consumer, "reporting_projector_rows_total") == 0
    assert await connection.fetch("SELECT * FROM fact_tool_call ORDER BY source_key") == before


async def test_failed_rows_are_tried_again_through_the_outbox_alone(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await refuse_by_check(connection, "fact_tool_call", "tool_name = 'bad'")
    bad, good = rows = await enqueue_tools(connection, ["bad", "good"])
    async with feeding.relay(tmp_path), feeding.consumers(tmp_path):
        await wait_for_statuses(connection, [good], "completed")
        await wait_for_statuses(connection, [bad], "failed")
        # The same messages once more, and others behind them: only a row's own backoff makes it due.
        extra = await enqueue_tools(connection, ["other"])
        await feeding.send([message(row) for row in rows] * 3)
        await feeding.has_committed(len(rows) * 4 + len(extra))
        assert await connection.fetchval("SELECT attempts FROM reporting_outbox WHERE id = $1", bad) == 1
        await connection.execute("ALTER TABLE fact_tool_call DROP CONSTRAINT refused")
        await set_columns(connection, [bad], next_attempt_at=await connection.fetchval("SELECT now()"))
        await wait_for_statuses(connection, [bad], "completed")


async def test_rows_whose_messages_are_lost_come_back_when_their_lease_ends(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    rows = await enqueue_tools(connection, ["tool", "other"])
    async with feeding.relay(tmp_path):
        await feeding.read(len(rows))
    assert await statuses(connection, rows) == ["processing"] * 2
    elsewhere = f"{feeding.topic}-elsewhere"
    await feeding.create(elsewhere)
    moved = {"reporting_kafka_outbox_topic": elsewhere, "reporting_sample_interval_secs": "0.1"}
    async with feeding.consumers(tmp_path, **moved), feeding.relay(tmp_path, **moved):
        await connection.execute("UPDATE reporting_outbox SET claimed_at = now() - interval '16 minutes'")
        await wait_for_statuses(connection, rows, "completed")


async def test_the_sweep_projects_where_no_relay_runs(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with feeding.consumers(tmp_path, reporting_kafka_sweep_secs="0.2"):
        rows = await enqueue_tools(connection, ["tool"])
        await wait_for_statuses(connection, rows, "completed")


async def test_without_a_cluster_the_sweep_projects_and_a_relay_leases_nothing(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    away = feeding.variables | {"reporting_kafka_bootstrap_servers": "127.0.0.1:1", "reporting_kafka_sweep_secs": "0.2"}
    rows = await enqueue_tools(connection, ["tool"])
    async with started("relay", folder=tmp_path, **away) as relay:

        async def is_not_ready() -> bool:
            return "kafka" in json.loads(await readiness(relay))["obstacles"]

        await relay.has_logged("relaying")
        await wait_until(is_not_ready)
        assert await statuses(connection, rows) == ["pending"]
        async with started("run", "--feed", "kafka", folder=tmp_path, **away) as daemon:
            await wait_for_statuses(connection, rows, "completed")
            await daemon.has_logged("messages not read, trying again; rows are found by the sweep meanwhile")
            for running in (relay, daemon):
                running.send(signal.SIGTERM)
            assert [await running.end(10) for running in (relay, daemon)] == [0, 0]


async def test_a_relay_leases_no_more_than_consumers_will_settle(
    feeding: Feeding, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await add_org(connection)
    await connection.execute(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, reason)"
        " SELECT 1, 'event', gen_random_uuid()::text, 'event_projection' FROM generate_series(1, 150000)"
    )
    async with feeding.relay(tmp_path):

        async def leased() -> int:
            return int(await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE status = 'processing'"))

        async def many() -> bool:
            return await leased() >= 100_000

        await wait_until(many, 60)
        assert await leased() < 150_000
        async with feeding.consumers(tmp_path), feeding.consumers(tmp_path):
            # As they settle what was published, the rest is published too.
            assert await settled(feeding.variables["database_url"], 60) > 0


async def wait_until_waiting(keeper: asyncpg.Connection) -> None:
    """Waits until somebody stands at the gate."""

    async def waits() -> bool:
        return bool(await keeper.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

    await wait_until(waits)
