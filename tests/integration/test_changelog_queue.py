"""The changelog's queue: one process takes at a time, versions grow, and a look costs what waits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog

from projector.database import Timeouts, transaction
from projector.kafka import changes
from projector.kafka.capture import count_waiting, enable
from projector.kafka.changes import ChangeQueue, Taken
from projector.kafka.snapshot import Snapshot
from projector.registry import Registry, Table
from tests.obstacles import opened, wait_until
from tests.plans import explain
from tests.platform_rows import add_org
from tests.roles import PROJECTOR, for_program

SESSIONS = {"sessions": "fact_session", "turns": "fact_turn"}
ALL = tuple(SESSIONS)
ADD = """
INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day)
SELECT 1, 'session:' || n, now(), now() FROM generate_series($1::integer, $2::integer) AS n
"""
ENQUEUE = """
INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
SELECT 'sessions', ARRAY[1], ARRAY['session:' || n] FROM generate_series($1::integer, $2::integer) AS n
"""
OLD = "UPDATE reporting_changelog_publisher SET renewed_at = now() - interval '1 minute'"


class FakeClock:
    """Monotonic seconds that stand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(for_program(database, PROJECTOR), min_size=1, max_size=4)
    yield pool
    pool.terminate()


@pytest.fixture
async def captured(connection: asyncpg.Connection, registry: Registry) -> asyncpg.Connection:
    await add_org(connection, 1)
    await enable(connection, registry, structlog.get_logger())
    return connection


def new_queue(pool: asyncpg.Pool, clock: FakeClock | None = None) -> ChangeQueue:
    return ChangeQueue(pool, Timeouts(30), SESSIONS, clock or FakeClock())


async def holding(pool: asyncpg.Pool, clock: FakeClock | None = None) -> ChangeQueue:
    """A queue that holds the lease."""
    queue = new_queue(pool, clock)
    assert await queue.take((), 1) == Taken(fresh=True)
    return queue


async def taken_by(queue: ChangeQueue, most: int = 100_000) -> Taken:
    taken = await queue.take(ALL, most)
    assert taken is not None
    return taken


def keys(taken: Taken) -> list[str]:
    return [fact.source_key for facts in taken.facts.values() for fact in facts]


def version(taken: Taken) -> int:
    messages = [message for facts in taken.facts.values() for fact in facts for message in fact.messages]
    (number,) = {int(dict(message.headers)["version"]) for message in messages}
    return number


async def test_one_process_takes_until_it_is_silent_for_too_long(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    clock = FakeClock()
    first, second = new_queue(pool, clock), new_queue(pool)
    assert await first.take(ALL, 1) == Taken(fresh=True)
    assert await second.take(ALL, 1) is None
    assert await first.take(ALL, 1) == Taken(fresh=False)
    await captured.execute(OLD)
    assert await second.take(ALL, 1) == Taken(fresh=True)
    clock.now += changes.LEASE_SECONDS
    assert await first.take(ALL, 1) is None
    assert await first.take(ALL, 1) is None
    assert await second.take(ALL, 1) == Taken(fresh=False)


async def test_a_process_that_ends_lets_another_take_at_once(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    first, second = await holding(pool), new_queue(pool)
    await captured.execute(ADD, 1, 2)
    first.published(await taken_by(first))
    await first.release()
    assert await count_waiting(captured) == (0, 0)
    assert await second.take(ALL, 1) == Taken(fresh=True)
    await first.release()
    assert await second.take(ALL, 1) == Taken(fresh=False), "it took another's lease from it"


async def test_a_process_that_hangs_in_the_midst_of_a_look_keeps_nobody_waiting(
    captured: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, other = await holding(pool), new_queue(pool)
    await captured.execute(ADD, 1, 2)
    hanging.published(await taken_by(hanging))
    await captured.execute(ADD, 3, 4)
    reached = asyncio.Event()

    read = ChangeQueue._read  # noqa: SLF001 - what happens between two of its statements

    async def hang(queue: ChangeQueue, *found: Any) -> Any:
        if queue is hanging:
            reached.set()
            await asyncio.Event().wait()
        return await read(queue, *found)

    monkeypatch.setattr(ChangeQueue, "_read", hang)
    look = asyncio.create_task(taken_by(hanging))
    await reached.wait()
    await captured.execute(OLD)
    async with asyncio.timeout(5):
        assert await other.take(ALL, 1) == Taken(fresh=True)
        taken = await taken_by(other)
        other.published(taken)
        assert sorted(keys(taken)) == ["session:3", "session:4"]
        assert keys(await taken_by(other)) == []
    look.cancel()
    await asyncio.wait({look})


async def test_what_was_read_before_another_took_over_gets_no_version(
    captured: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = await holding(pool), new_queue(pool)
    await captured.execute(ADD, 1, 1)
    read = ChangeQueue._read  # noqa: SLF001 - what happens between two of its statements

    async def read_slowly(queue: ChangeQueue, *found: Any) -> Any:
        records = await read(queue, *found)
        if queue is slow:
            await captured.execute(OLD)
            assert await other.take(ALL, 1) == Taken(fresh=True)
        return records

    monkeypatch.setattr(ChangeQueue, "_read", read_slowly)
    assert await slow.take(ALL, 100) is None
    assert keys(await taken_by(other)) == ["session:1"]


async def test_a_clock_that_went_back_keeps_nobody_waiting(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    ahead = "SET holder = $1, renewed_at = now() + interval '1 day', version = 1::bigint << 62"
    await captured.execute(f"UPDATE reporting_changelog_publisher {ahead}", uuid4())
    queue = await holding(pool)
    await captured.execute(ADD, 1, 1)
    assert version(await taken_by(queue)) > 2**62


async def test_a_holder_that_has_nothing_to_do_keeps_its_lease(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    clock = FakeClock()
    queue = await holding(pool, clock)
    await captured.execute(OLD)
    clock.now += changes.LEASE_SECONDS / 2
    await taken_by(queue)
    assert await captured.fetchval("SELECT now() - renewed_at < interval '9 second' FROM reporting_changelog_publisher")


async def test_an_idle_look_writes_nothing(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    queue = await holding(pool)
    before = await captured.fetchrow("SELECT * FROM reporting_changelog_publisher")
    await taken_by(queue)
    assert await captured.fetchrow("SELECT * FROM reporting_changelog_publisher") == before


async def test_what_was_taken_is_there_until_it_is_published(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    queue = await holding(pool)
    await captured.execute(ADD, 1, 2)
    first = await taken_by(queue)
    again = await taken_by(queue)
    assert sorted(keys(first)) == sorted(keys(again)) == ["session:1", "session:2"]
    assert version(again) > version(first)
    queue.published(again)
    assert keys(await taken_by(queue)) == []
    assert await count_waiting(captured) == (0, 0)


async def test_a_fact_is_read_as_it_is_and_not_as_it_was_when_it_changed(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    await captured.execute(ADD, 1, 1)
    await captured.execute("UPDATE fact_session SET turn_count = 1")
    await captured.execute("UPDATE fact_session SET turn_count = 2")
    taken = await taken_by(queue)
    assert len(taken.seqs) == 3
    (fact,) = taken.facts["sessions"]
    assert b'"turn_count":2,' in (fact.messages[0].value or b"")


async def test_no_more_changes_are_added_once_there_are_facts_enough(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    for start in (1, 11, 21):
        await captured.execute(ADD, start, start + 9)
    sizes = []
    for _ in range(4):
        taken = await taken_by(queue, 15)
        sizes.append(len(keys(taken)))
        queue.published(taken)
    assert sizes == [20, 10, 0, 0]


async def test_datasets_that_cannot_be_published_wait_for_themselves_alone(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    await captured.execute(ADD.replace("fact_session", "fact_turn"), 1, 1)
    await captured.execute(ADD, 1, 1)
    taken = await queue.take(["sessions"], 100)
    assert taken is not None
    assert set(taken.facts) == {"sessions"}
    queue.published(taken)
    assert await queue.take(["sessions"], 100) == Taken(fresh=False)
    assert set((await taken_by(queue)).facts) == {"turns"}


async def test_what_is_committed_late_is_found_at_once_or_by_the_next_look_from_the_bottom(
    captured: asyncpg.Connection, database: str, pool: asyncpg.Pool
) -> None:
    clock = FakeClock()
    queue = await holding(pool, clock)
    async with opened(database) as late:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(ENQUEUE, 1, 1)
        await captured.execute(ENQUEUE, 1001, 3500)
        while (taken := await taken_by(queue)).seqs:
            assert "session:1" not in keys(taken)
            queue.published(taken)
        recent = late.transaction()
        await transaction.commit()
        assert keys(await taken_by(queue)) == [], "far below the last look"
        await recent.start()
        await late.execute(ENQUEUE, 2, 2)
        await captured.execute(ENQUEUE, 4000, 4000)
        queue.published(await taken_by(queue))
        await recent.commit()
        taken = await taken_by(queue)
        assert keys(taken) == ["session:2"], "just below the last look"
        queue.published(taken)
    clock.now += 11
    taken = await taken_by(queue)
    assert keys(taken) == ["session:1"]
    queue.published(taken)
    assert await taken_by(queue) == Taken(fresh=False)
    assert await count_waiting(captured) == (0, 0)


async def test_a_failure_is_followed_by_a_look_from_the_bottom(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    await captured.execute(ENQUEUE, 1, 2)
    # As after transactions that were rolled back.
    sequence = "pg_get_serial_sequence('reporting_fact_changes', 'seq')"
    await captured.execute(f"SELECT setval({sequence}, nextval({sequence}) + 5000)")
    await captured.execute(ENQUEUE, 3, 4)
    taken = await taken_by(queue)
    assert len(keys(taken)) == 4
    queue.failed()
    assert keys(await taken_by(queue)) == keys(taken)


async def test_all_is_taken_from_a_backlog_in_the_order_of_its_changes(
    captured: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    await captured.execute(ENQUEUE, 1, 5000)
    seqs: list[int] = []
    while (taken := await taken_by(queue)).seqs:
        queue.published(taken)
        seqs += taken.seqs
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 5000


async def test_dead_changes_that_an_old_transaction_keeps_are_not_walked_by_each_look(
    captured: asyncpg.Connection, database: str, pool: asyncpg.Pool
) -> None:
    queue = await holding(pool)
    async with opened(database) as old, old.transaction(isolation="repeatable_read"):
        await old.fetch("SELECT 1 FROM organizations")
        await captured.execute(ENQUEUE, 1, 30_000)
        while (taken := await taken_by(queue)).seqs:
            queue.published(taken)
        await captured.execute(ENQUEUE, 1, 1)
        (seq,) = (await taken_by(queue)).seqs
        near, bottom = await pages_read(captured, seq - 1000), await pages_read(captured, 0)
        assert bottom > 100, "the old transaction keeps nothing"
        assert near < bottom / 5


async def pages_read(connection: asyncpg.Connection, after: int) -> int:
    """How many pages a look at the changes behind a seq reads."""
    async with transaction(connection, Timeouts(30)):
        await connection.execute(f"PREPARE take AS {changes.TAKE}")
        plan = await explain(connection, "take", [after, ["sessions"], 1000, 8000])
        await connection.execute("DEALLOCATE take")
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_a_snapshot_enqueues_every_fact_once_in_slices(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    await captured.execute(ADD, 1, 25)
    await captured.execute("DELETE FROM reporting_fact_changes")
    queue = await holding(pool)
    published: list[int] = []
    snapshot = asyncio.create_task(
        Snapshot(pool, Timeouts(30), Table("sessions", "fact_session"), published.append, slice_facts=10).run()
    )
    seen: list[str] = []
    sizes = []
    while not snapshot.done():
        taken = await taken_by(queue, 1)
        seen += keys(taken)
        if taken.seqs:
            sizes.append(len(keys(taken)))
        queue.published(taken)
        await asyncio.sleep(0)
    assert await snapshot == sum(published) == 25
    assert sizes == [10, 10, 5]
    assert sorted(seen) == sorted(f"session:{number}" for number in range(1, 26))


async def test_a_snapshot_does_not_run_ahead_of_who_publishes(captured: asyncpg.Connection, pool: asyncpg.Pool) -> None:
    await captured.execute(ADD, 1, 100)
    await captured.execute("DELETE FROM reporting_fact_changes")
    snapshot = asyncio.create_task(
        Snapshot(pool, Timeouts(30), Table("sessions", "fact_session"), lambda _: None, slice_facts=1).run()
    )
    try:

        async def fifty_wait() -> bool:
            return (await count_waiting(captured))[0] == 50

        await wait_until(fifty_wait)
        await asyncio.sleep(0.5)  # what it must not do takes it a few milliseconds
        assert (await count_waiting(captured))[0] == 50
    finally:
        snapshot.cancel()
        await asyncio.wait({snapshot})
