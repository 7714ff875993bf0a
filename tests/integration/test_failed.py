"""Rows that have failed: listed, and requeued (contract: outbox.md, states)."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import outbox
from projector.database import Timeouts
from projector.failed import REQUEUE_DEAD, Requeued, Selection, count_requeueable, latest_failed, requeue
from schemas.outbox import NOTIFY_CHANNEL
from tests.claimed import claim_ids, fail_ids
from tests.obstacles import opened, set_columns, statuses
from tests.platform_rows import EPOCH, add_org, enqueue, outbox_row

TIMEOUTS = Timeouts(statement=30)


async def enqueue_rows(
    connection: asyncpg.Connection, count: int, source_type: str = "event", org_id: int = 1
) -> list[UUID]:
    await add_org(connection, org_id)
    return [await enqueue(connection, source_type, uuid4(), org_id) for _ in range(count)]


async def claimed(connection: asyncpg.Connection) -> list[UUID]:
    async with connection.transaction():
        return await claim_ids(connection, 100)


async def requeue_all(connection: asyncpg.Connection, selection: Selection) -> int:
    return (await requeue(connection, selection, limit=10_000, timeouts=TIMEOUTS)).rows


async def fail_rows(connection: asyncpg.Connection, rows: list[UUID], *, dead: bool) -> None:
    await fail_ids(connection, rows, "22003", 1 if dead else 10)


async def assert_requeued(connection: asyncpg.Connection, row: UUID) -> None:
    record = await outbox_row(connection, row)
    assert (record["status"], record["attempts"], record["last_error"]) == ("pending", 0, None)
    assert row in await claimed(connection)


async def test_failed_rows_are_requeued_by_id_and_no_others(connection: asyncpg.Connection) -> None:
    dead, waiting, not_named, pending, processing, completed = rows = await enqueue_rows(connection, 6)
    await fail_rows(connection, [dead], dead=True)
    await fail_rows(connection, [waiting, not_named], dead=False)
    await set_columns(connection, [pending], attempts=4)
    for row, status in ((processing, "processing"), (completed, "completed")):
        await set_columns(connection, [row], status=status)
    before = [await outbox_row(connection, row) for row in rows[2:]]
    named = [dead, waiting, pending, processing, completed, uuid4()]
    assert await count_requeueable(connection, Selection(ids=named), 100) == 2
    assert await statuses(connection, [dead, waiting]) == ["failed", "failed"]
    assert await requeue_all(connection, Selection(ids=named)) == 2
    for row in (dead, waiting):
        await assert_requeued(connection, row)
    assert [await outbox_row(connection, row) for row in rows[2:]] == before
    assert await requeue_all(connection, Selection(ids=named)) == 0


@pytest.mark.parametrize(
    ("source_type", "chosen"), [(None, ["event", "session"]), ("event", ["event"]), ("weather", [])]
)
async def test_dead_letters_are_requeued_by_source_type_or_all(
    connection: asyncpg.Connection, source_type: str | None, chosen: list[str]
) -> None:
    dead = {name: (await enqueue_rows(connection, 1, name))[0] for name in ("event", "session")}
    await fail_rows(connection, list(dead.values()), dead=True)
    others = await enqueue_rows(connection, 3)
    await fail_rows(connection, others[:1], dead=False)
    await set_columns(connection, others[1:2], status="completed")
    kept = [*others, *(row for name, row in dead.items() if name not in chosen)]
    before = [await outbox_row(connection, row) for row in kept]
    selection = Selection(source_type=source_type)
    assert await count_requeueable(connection, selection, 100) == len(chosen)
    assert await statuses(connection, list(dead.values())) == ["failed", "failed"]
    assert await requeue_all(connection, selection) == len(chosen)
    for name in chosen:
        await assert_requeued(connection, dead[name])
    assert [await outbox_row(connection, row) for row in kept] == before


async def test_more_dead_letters_than_a_slice_are_all_requeued(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    await connection.execute("""
        INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, status, attempts, next_attempt_at)
        SELECT 1, 'event', number, 'test', 'failed', 10, 'infinity' FROM generate_series(1, 2500) AS number
    """)
    assert await count_requeueable(connection, Selection(), 10_000) == 2500
    assert await requeue(connection, Selection(), limit=1200, timeouts=TIMEOUTS) == Requeued(1200, more=True)
    assert await requeue(connection, Selection(), limit=1300, timeouts=TIMEOUTS) == Requeued(1300, more=False)
    assert await outbox.count_due(connection) == 2500


@pytest.mark.parametrize("way", ["ids", "dead"])
async def test_requeueing_wakes_projectors_that_listen_and_a_dry_run_does_not(
    database: str, connection: asyncpg.Connection, way: str
) -> None:
    rows = await enqueue_rows(connection, 1)
    await fail_rows(connection, rows, dead=True)

    selection = Selection(ids=rows if way == "ids" else None)
    heard: asyncio.Queue[str] = asyncio.Queue()

    def note(*message: Any) -> None:
        heard.put_nowait(message[-1])

    async with opened(database) as listener:
        await listener.add_listener(NOTIFY_CHANNEL, note)
        assert await count_requeueable(connection, selection, 100) == 1
        await connection.execute(f"NOTIFY {NOTIFY_CHANNEL}, 'after the dry run'")
        assert await asyncio.wait_for(heard.get(), 15) == "after the dry run"
        assert await requeue_all(connection, selection) == 1
        assert await asyncio.wait_for(heard.get(), 15) == ""


async def test_only_rows_of_the_org_are_requeued(connection: asyncpg.Connection) -> None:
    (ours,) = await enqueue_rows(connection, 1)
    (theirs,) = await enqueue_rows(connection, 1, org_id=2)
    await fail_rows(connection, [ours, theirs], dead=True)
    for selection in (Selection(1, ids=[theirs]), Selection(3), Selection(3, source_type="event")):
        assert await count_requeueable(connection, selection, 100) == 0
        assert await requeue_all(connection, selection) == 0
    assert await requeue_all(connection, Selection(1)) == 1
    assert await statuses(connection, [ours, theirs]) == ["pending", "failed"]
    assert await requeue_all(connection, Selection(2, ids=[ours, theirs])) == 1


async def test_requeueing_stops_when_time_is_up_and_tells_that_there_is_more(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 2)
    await fail_rows(connection, rows, dead=True)
    late = await requeue(connection, Selection(), limit=10, timeouts=TIMEOUTS, is_late=lambda: True)
    assert late == Requeued(0, more=True)


async def test_what_is_requeued_is_recorded_in_the_same_transaction(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 3)
    await fail_rows(connection, rows, dead=True)
    told: list[int] = []

    async def note(_: asyncpg.Connection, count: int) -> None:
        told.append(count)
        if count == 3:
            raise ConnectionError

    assert (await requeue(connection, Selection(), limit=2, timeouts=TIMEOUTS, record=note)).rows == 2
    assert told == [2]
    await fail_rows(connection, rows[:2], dead=True)
    with pytest.raises(ConnectionError):
        await requeue(connection, Selection(), limit=9, timeouts=TIMEOUTS, record=note)
    assert await statuses(connection, rows) == ["failed"] * 3


async def failures(connection: asyncpg.Connection) -> dict[str, UUID]:
    """Failed rows by what they are, the latest failure last."""
    made = {
        "dead event": (await enqueue_rows(connection, 1))[0],
        "waiting event": (await enqueue_rows(connection, 1))[0],
        "dead session": (await enqueue_rows(connection, 1, "session"))[0],
        "of another org": (await enqueue_rows(connection, 1, org_id=2))[0],
    }
    for number, (name, row) in enumerate(made.items()):
        await fail_rows(connection, [row], dead="dead" in name)
        await connection.execute(
            "UPDATE reporting_outbox SET updated_at = now() + $2::interval WHERE id = $1",
            row,
            timedelta(seconds=number),
        )
    await enqueue_rows(connection, 1)
    return made


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ({}, ["of another org", "dead session", "waiting event", "dead event"]),
        ({"org_id": 1}, ["dead session", "waiting event", "dead event"]),
        ({"dead": True}, ["dead session", "dead event"]),
        ({"dead": False, "org_id": 1}, ["waiting event"]),
        ({"source_type": "session"}, ["dead session"]),
        ({"org_id": 2, "dead": True}, []),
    ],
    ids=str,
)
async def test_failed_rows_are_listed_the_latest_failure_first(
    connection: asyncpg.Connection, which: dict[str, Any], found: list[str]
) -> None:
    made = await failures(connection)
    listed = await latest_failed(connection, limit=10, **which)
    assert [row.id for row in listed] == [made[name] for name in found]
    assert all(row.last_error == "22003" for row in listed)
    assert {row.id for row in listed if row.dead} == {made[name] for name in found if "dead" in name}


@pytest.mark.parametrize("choose", [lambda: None, lambda: 1], ids=["all orgs", "one org"])
async def test_a_list_goes_on_where_the_page_before_ended(
    connection: asyncpg.Connection, choose: Callable[[], int | None]
) -> None:
    rows = await enqueue_rows(connection, 7)
    await fail_rows(connection, rows, dead=True)  # at the same moment: their ids decide
    org_id, pages, after = choose(), [], None
    while page := await latest_failed(connection, limit=3, org_id=org_id, after=after):
        pages.append([row.id for row in page])
        after = (page[-1].updated_at, page[-1].id)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [row for page in pages for row in page] == sorted(rows, reverse=True)


async def dead_rows(connection: asyncpg.Connection, count: int) -> list[UUID]:
    """Dead letters, the oldest failure first."""
    rows = await enqueue_rows(connection, count)
    await fail_rows(connection, rows, dead=True)
    for number, row in enumerate(rows):
        await connection.execute(
            "UPDATE reporting_outbox SET updated_at = $2 WHERE id = $1", row, EPOCH + timedelta(seconds=number)
        )
    return rows


async def test_the_oldest_failures_are_requeued_first(connection: asyncpg.Connection) -> None:
    rows = await dead_rows(connection, 4)
    assert await requeue(connection, Selection(), limit=2, timeouts=TIMEOUTS) == Requeued(2, more=True)
    assert await statuses(connection, rows) == ["pending", "pending", "failed", "failed"]


async def test_a_slice_tells_where_it_ended(connection: asyncpg.Connection) -> None:
    rows = await dead_rows(connection, 3)
    before_all = (EPOCH - timedelta(days=1), UUID(int=0))
    end = await connection.fetchrow(REQUEUE_DEAD, None, None, 2, *before_all)
    assert end is not None
    assert (end["rows"], end["id"]) == (2, rows[1])


async def test_a_dead_letter_that_another_holds_is_passed_over_and_told_as_more(
    database: str, connection: asyncpg.Connection
) -> None:
    rows = await dead_rows(connection, 3)
    await connection.execute("SET lock_timeout = '2s'")
    async with opened(database) as other, other.transaction():
        await other.execute("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", rows[1])
        assert await requeue(connection, Selection(), limit=10, timeouts=TIMEOUTS) == Requeued(2, more=True)
    assert await statuses(connection, rows) == ["pending", "failed", "pending"]


@pytest.mark.parametrize("way", ["ids", "dead"])
async def test_requeueing_says_when_a_row_was_changed(connection: asyncpg.Connection, way: str) -> None:
    rows = await dead_rows(connection, 1)
    await requeue_all(connection, Selection(ids=rows if way == "ids" else None))
    record = await outbox_row(connection, rows[0])
    assert record["updated_at"] == record["next_attempt_at"] > EPOCH


async def test_more_means_more_of_the_same_selection(connection: asyncpg.Connection) -> None:
    await fail_rows(connection, await enqueue_rows(connection, 2, "event"), dead=True)
    await fail_rows(connection, await enqueue_rows(connection, 2, "session"), dead=True)
    for_events = Selection(source_type="event")
    assert await requeue(connection, for_events, limit=2, timeouts=TIMEOUTS) == Requeued(2, more=False)


@pytest.mark.parametrize("unknown", [0, 2])
async def test_a_limit_holds_for_ids_too_and_more_is_told(connection: asyncpg.Connection, unknown: int) -> None:
    rows = await dead_rows(connection, 5)
    selection = Selection(ids=[*(uuid4() for _ in range(unknown)), *rows])
    assert await count_requeueable(connection, selection, 10) == 5
    done: list[Any] = [await requeue(connection, selection, limit=2, timeouts=TIMEOUTS) for _ in range(3)]
    assert done == [Requeued(2, more=True), Requeued(2, more=True), Requeued(1, more=False)]
