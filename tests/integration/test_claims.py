"""Claims are fair and flat: fresh rows first, backlogs org by org, nothing walked twice (design: promise 8)."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
import structlog

from projector import outbox
from projector.batch import BatchResult, BatchRules
from projector.claims import Backlog, Claimer
from projector.outbox import ClaimedRows
from projector.worker import BatchSize, Worker
from tests.claimed import claim_ids, ids_of
from tests.obstacles import opened
from tests.platform_rows import add_generation, add_org, enqueue

ENQUEUE = """
    INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, next_attempt_at)
    SELECT
        $1, 'event', gen_random_uuid()::text, 'test',
        clock_timestamp() - make_interval(secs => $3) + n * interval '1 microsecond'
    FROM generate_series(1, $2) AS n
    RETURNING id
"""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def add_rows(connection: asyncpg.Connection, org_id: int, rows: int, seconds: float = 100) -> list[UUID]:
    """Rows of an org that have been due for so long."""
    await add_org(connection, org_id)
    return [record["id"] for record in await connection.fetch(ENQUEUE, org_id, rows, seconds)]


async def settle(connection: asyncpg.Connection, claimer: Claimer, limit: int) -> Counter[int]:
    """Claims and settles a batch; gives how many rows of each org."""
    async with connection.transaction():
        groups = await claimer.claim(connection, limit)
        for group in groups:
            await outbox.complete(connection, group.tids, [1.0])
    claimer.settled()
    return orgs(groups)


def orgs(groups: list[ClaimedRows]) -> Counter[int]:
    return Counter(org_id for group in groups for org_id in group.org_ids)


async def warmed(connection: asyncpg.Connection, clock: Clock) -> Claimer:
    """A daemon's claimer that has looked once, and found nothing."""
    claimer = Claimer(Backlog(clock))
    assert await settle(connection, claimer, 100) == {}
    return claimer


# Backlogs.


async def test_orgs_with_a_backlog_share_a_batch_evenly(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (1, 2, 3, 4):
        await add_rows(connection, org_id, 1000, seconds=100 - org_id)
    assert await settle(connection, Claimer(Backlog(clock)), 400) == {1: 100, 2: 100, 3: 100, 4: 100}


@pytest.mark.parametrize("limit", [40, 400, 401, 999])
async def test_small_orgs_leave_their_room_to_those_that_have_more(
    connection: asyncpg.Connection, clock: Clock, limit: int
) -> None:
    await add_rows(connection, 1, 2000)
    for org_id in (2, 3, 4):
        await add_rows(connection, org_id, 2)
    claimed = await settle(connection, Claimer(Backlog(clock)), limit)
    assert limit // 2 <= claimed.total() <= limit
    assert {org_id: claimed[org_id] for org_id in (2, 3, 4)} == {2: 2, 3: 2, 4: 2}


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11, 21, 33])
async def test_no_more_than_the_limit_is_claimed(connection: asyncpg.Connection, clock: Clock, limit: int) -> None:
    for org_id in (1, 2, 3):
        await add_rows(connection, org_id, 50)
    assert 1 <= (await settle(connection, Claimer(Backlog(clock)), limit)).total() <= limit


async def test_an_org_goes_on_where_its_last_claim_ended(connection: asyncpg.Connection, clock: Clock) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    await settle(connection, claimer, 40)
    # What lies behind that place is not looked at before the next sweep: it might be a million dead entries.
    (behind,) = await add_rows(connection, 1, 1)
    await connection.execute(
        "UPDATE reporting_outbox SET next_attempt_at = (SELECT next_attempt_at FROM reporting_outbox WHERE id = $2) "
        "WHERE id = $1", behind, rows[10],
    )  # fmt: skip
    async with connection.transaction():
        assert await ids_of(connection, await claimer.claim(connection, 40)) == rows[40:80]
    clock.now += 2
    async with connection.transaction():
        assert behind in await ids_of(connection, await claimer.claim(connection, 40))


async def test_two_workers_of_a_process_serve_different_orgs(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    for org_id in (1, 2, 3, 4):
        await add_rows(connection, org_id, 500)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction(), connection.transaction():
        mine = orgs(await first.claim(connection, 100))
        theirs = orgs(await second.claim(other, 100))
        assert set(mine) | set(theirs) == {1, 2, 3, 4}
        assert not set(mine) & set(theirs)
    first.settled()
    second.settled()


async def test_an_org_that_a_worker_is_still_at_is_left_to_it(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    for org_id in (1, 2):
        await add_rows(connection, org_id, 500)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction():
        assert orgs(await first.claim(other, 100)) == {1: 100}
        assert [await settle(connection, second, 100) for _ in range(2)] == [{2: 100}, {2: 100}]
    first.settled()
    assert await settle(connection, second, 100) == {1: 100}


async def test_two_workers_share_the_only_org_there_is(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    rows = await add_rows(connection, 1, 200)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction(), connection.transaction():
        assert await ids_of(connection, await first.claim(connection, 100)) == rows[:100]
        assert await ids_of(other, await second.claim(other, 100)) == rows[100:]


async def test_every_org_has_its_turn_however_many_there_are(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 31):
        await add_rows(connection, org_id, 50)
    claimer = Claimer(Backlog(clock))
    served = [await settle(connection, claimer, 40) for _ in range(3)]
    assert [set(claimed.values()) for claimed in served] == [{4}, {4}, {4}]
    assert set().union(*served) == set(range(1, 31))


@pytest.fixture
def short_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that look at four orgs."""
    monkeypatch.setattr("projector.claims._ORGS_OF_A_SWEEP", 4)


@pytest.mark.usefixtures("short_sweeps")
@pytest.mark.parametrize("exact", [False, True])
async def test_sweeps_go_on_until_they_have_come_to_an_org_with_due_rows(
    connection: asyncpg.Connection, clock: Clock, exact: bool
) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 1, seconds=-600)
    await add_rows(connection, 10, 1)
    claimer = Claimer(Backlog(clock, exact=exact))
    assert await settle(connection, claimer, 100) == {10: 1}
    assert await settle(connection, claimer, 100) == {}


@pytest.mark.usefixtures("short_sweeps")
async def test_sweeps_come_to_all_orgs_in_turn(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 3)
    claimer = Claimer(Backlog(clock))
    served: Counter[int] = Counter()
    for _ in range(6):
        served += await settle(connection, claimer, 16)
    assert served == dict.fromkeys(range(1, 10), 3)


async def test_what_was_claimed_and_given_up_is_claimed_again(connection: asyncpg.Connection, clock: Clock) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        assert await ids_of(connection, await claimer.claim(connection, 40)) == rows[:40]
        await transaction.rollback()
        claimer.given_up()


async def test_what_another_process_left_is_found_by_a_sweep(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    async with opened(database) as other:
        held = other.transaction()
        await held.start()
        assert await claim_ids(other, 40) == rows[:40]
        assert await settle(connection, claimer, 100) == {1: 60}
        await held.rollback()
    assert await settle(connection, claimer, 100) == {}
    clock.now += 2
    assert await settle(connection, claimer, 100) == {1: 40}


async def test_a_claim_that_is_to_be_exact_sweeps_before_it_says_that_nothing_is_due(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = Claimer(Backlog(clock, exact=True))
    assert await settle(connection, claimer, 100) == {}
    await add_rows(connection, 1, 1)
    assert await settle(connection, claimer, 100) == {1: 1}


# Fresh rows.


async def test_fresh_rows_are_claimed_by_themselves_before_a_backlog(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    clock.now += 2
    assert (await settle(connection, claimer, 100)) == {1: 100}
    await add_rows(connection, 2, 3, seconds=0)
    assert await settle(connection, claimer, 100) == {2: 3}


async def test_fresh_rows_and_a_backlog_take_turns(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    clock.now += 2
    assert await settle(connection, claimer, 10) == {1: 10}
    await add_rows(connection, 2, 25, seconds=0)
    assert [await settle(connection, claimer, 10) for _ in range(5)] == [{2: 10}, {1: 10}, {2: 10}, {1: 10}, {2: 5}]


async def test_fresh_rows_need_no_sweep(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await warmed(connection, clock)
    for org_id in (3, 5):
        await add_rows(connection, org_id, 1, seconds=0)
        assert await settle(connection, claimer, 100) == {org_id: 1}


async def test_fresh_rows_are_claimed_in_the_order_in_which_they_became_due(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    later, earlier = [await add_rows(connection, 1, 5, seconds=seconds) for seconds in (0.02, 0.1)]
    for rows in (earlier, later):
        clock.now += 0.06
        async with connection.transaction():
            groups = await claimer.claim(connection, 5)
            assert await ids_of(connection, groups) == rows
            await outbox.complete(connection, [tid for group in groups for tid in group.tids], [1.0])


@pytest.mark.parametrize(("milliseconds", "looks"), [(0, 1), (10, 1), (150, 2)])
async def test_a_row_of_a_transaction_that_commits_late_is_fresh_all_the_same(
    connection: asyncpg.Connection, clock: Clock, milliseconds: int, looks: int
) -> None:
    claimer = await warmed(connection, clock)
    backlog = claimer._backlog  # noqa: SLF001 - what time the server had at the last look
    await add_rows(connection, 1, 1)
    await connection.execute(
        "UPDATE reporting_outbox SET next_attempt_at = $1",
        backlog._looked_at - timedelta(milliseconds=milliseconds),  # type: ignore[operator]  # noqa: SLF001
    )
    for look in range(1, looks + 1):
        # Every look reaches back a little, and one each twentieth of a second further.
        clock.now += 0.03
        assert await settle(connection, claimer, 100) == ({1: 1} if look == looks else {})


async def test_a_row_of_a_transaction_that_commits_very_late_is_found_by_a_sweep(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1, seconds=30)
    assert await settle(connection, claimer, 100) == {}
    clock.now += 1
    assert await settle(connection, claimer, 100) == {1: 1}


async def test_live_rows_of_the_last_minute_do_not_queue_behind_their_orgs_backlog_after_a_restart(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    await add_rows(connection, 1, 1000)
    await add_rows(connection, 1, 3, seconds=50)
    assert await settle(connection, Claimer(Backlog(clock)), 100) == {1: 3}


async def test_rows_that_another_worker_is_just_projecting_make_nobody_look_at_the_whole_last_minute(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    (late,) = await add_rows(connection, 1, 1, seconds=30)
    await connection.execute("UPDATE reporting_outbox SET status = 'completed' WHERE id = $1", late)
    await add_rows(connection, 2, 1, seconds=0.5)
    async with opened(database) as other, other.transaction():
        assert len(await claim_ids(other, 1)) == 1
        clock.now += 2
        assert await settle(connection, claimer, 100) == {}
        await connection.execute("UPDATE reporting_outbox SET status = 'pending' WHERE id = $1", late)
        assert await settle(connection, claimer, 100) == {}


async def test_a_late_commit_does_not_queue_behind_its_orgs_backlog(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = Claimer(Backlog(clock))
    await add_rows(connection, 1, 1000)
    assert await settle(connection, claimer, 100) == {1: 100}
    await add_rows(connection, 1, 3, seconds=30)
    assert await settle(connection, claimer, 100) == {1: 100}
    clock.now += 2
    assert await settle(connection, claimer, 100) == {1: 3}


async def test_fresh_rows_of_a_batch_that_was_given_up_are_fresh_again(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    rows = await add_rows(connection, 1, 3, seconds=0)
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        assert await ids_of(connection, await claimer.claim(connection, 100)) == rows
        await transaction.rollback()
        claimer.given_up()
        await asyncio.sleep(0.6)


async def test_more_fresh_rows_than_a_batch_takes_become_a_backlog_in_which_orgs_take_turns(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000, seconds=0.1)
    clock.now += 0.06
    await add_rows(connection, 2, 5, seconds=0)
    assert await settle(connection, claimer, 100) == {1: 100}
    assert (await settle(connection, claimer, 100))[2] == 5


async def test_rows_that_become_due_while_nobody_looks_are_fresh_at_the_next_look(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1, seconds=-0.2)
    assert await settle(connection, claimer, 100) == {}
    await asyncio.sleep(0.8)
    assert await settle(connection, claimer, 100) == {1: 1}


# What both must keep to.


async def test_orgs_with_dead_letters_alone_are_not_looked_at(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 1)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed', next_attempt_at = 'infinity'")
    await add_rows(connection, 10, 1)
    assert await settle(connection, Claimer(Backlog(clock)), 4) == {10: 1}


async def test_rows_that_are_not_due_are_left(connection: asyncpg.Connection, clock: Clock) -> None:
    await add_rows(connection, 1, 80)
    await add_rows(connection, 1, 40, seconds=-600)
    claimer = Claimer(Backlog(clock))
    assert await settle(connection, claimer, 100) == {1: 80}
    assert await settle(connection, claimer, 100) == {}


async def test_orgs_with_failed_rows_alone_have_their_turn(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (1, 2, 3):
        await add_rows(connection, org_id, 2)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed'")
    assert await settle(connection, Claimer(Backlog(clock)), 12) == {1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize("seconds", [0, 100], ids=["fresh", "backlog"])
@pytest.mark.parametrize("place", [0, 15, 39], ids=["first", "in the middle", "last"])
async def test_a_claim_never_waits_for_a_row_that_another_holds(
    database: str, connection: asyncpg.Connection, clock: Clock, place: int, seconds: float
) -> None:
    claimer = await warmed(connection, clock)
    held = (await add_rows(connection, 1, 40, seconds))[place]
    clock.now += 2
    await connection.execute("SET lock_timeout = '2s'")
    async with opened(database) as other, other.transaction():
        await other.execute("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", held)
        async with connection.transaction():
            claimed = await ids_of(connection, await claimer.claim(connection, 100))
    assert held not in claimed
    assert len(claimed) == 39


async def test_the_smallest_org_id_there_can_be_is_served_too(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (-(2**63) + 1, -5, 0, 2**63 - 1):
        await add_org_of_any_id(connection, org_id)
        await enqueue(connection, "event", "x", org_id)
    claimed = await settle(connection, Claimer(Backlog(clock)), 100)
    assert claimed == {-(2**63) + 1: 1, -5: 1, 0: 1, 2**63 - 1: 1}


async def add_org_of_any_id(connection: asyncpg.Connection, org_id: int) -> None:
    """An org whose id may be negative, which has no public id of the usual form."""
    if org_id >= 0:
        await add_org(connection, org_id)
        return
    await connection.execute("INSERT INTO organizations (org_id, public_id, name) VALUES ($1, NULL, 'x')", org_id)


# A sweep's pace.


def seconds_of(costs: list[float]) -> Iterator[float]:
    """A clock that goes on by these costs, one at each second look: at the end of each sweep."""
    now = 0.0
    yield now
    for cost in costs:
        yield now
        now += cost
        yield now


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 1.0), (0.01, 1.0), (0.2, 10.0)])
async def test_sweeps_take_a_fiftieth_of_the_time_at_the_most(
    connection: asyncpg.Connection, cost: float, pause: float
) -> None:
    ticks = seconds_of([cost])
    now = [0.0]

    def clock() -> float:
        now[0] = next(ticks, now[0])
        return now[0]

    backlog = Backlog(clock)
    await backlog.sweep(connection)
    now[0] = cost + pause - 0.01
    assert not backlog.sweep_is_due
    now[0] = cost + pause + 0.01
    assert backlog.sweep_is_due


class CostlyClock:
    """Seconds that pass while something looks at the database: `step` at each second look."""

    def __init__(self) -> None:
        self.now, self.step, self.looks = 1000.0, 0.0, 0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks % 2 == 0:
            self.now += self.step
        return self.now


async def test_a_look_at_the_whole_last_minute_counts_as_part_of_the_sweep(connection: asyncpg.Connection) -> None:
    clock = CostlyClock()
    backlog = Backlog(clock)
    await backlog.sweep(connection)
    clock.looks, clock.step = 0, 0.2
    await backlog.claim_fresh(connection, 10)
    clock.step = 0
    clock.now += 10.7
    assert not backlog.sweep_is_due
    clock.now += 0.4
    assert backlog.sweep_is_due


# A worker.


async def work(database: str, rules: BatchRules, start: int, batches: int) -> list[BatchResult]:
    """So many batches of one worker, the first of `start` rows."""
    stop = asyncio.Event()
    done: list[BatchResult] = []

    def count(result: BatchResult, _: float) -> None:
        done.append(result)
        if len(done) == batches:
            stop.set()

    def give_up(error: Exception, _: int) -> None:
        raise error

    async def nothing_is_due() -> bool:
        return False

    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        await Worker(
            pool=pool, rules=rules, size=BatchSize(start=start, limit=1000, slow_seconds=0), stop=stop,
            rest=nothing_is_due, on_batch=count, on_fault=give_up, log=structlog.get_logger(),
            claimer=Claimer(Backlog(lambda: 0.0, exact=True)),
        ).run()  # fmt: skip
    return done


async def test_batches_grow_while_there_are_orgs_that_none_came_to(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for org_id in range(1, 30):
        await add_org(connection, org_id)
        await enqueue(connection, "llm_generation", await add_generation(connection, org_id), org_id)
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() - interval '2 minutes'")
    done = await work(database, rules, start=8, batches=3)
    assert [result.limit for result in done] == [8, 16, 32]
    assert [result.full for result in done] == [True, True, False]
    assert sum(result.claimed for result in done) == 29
