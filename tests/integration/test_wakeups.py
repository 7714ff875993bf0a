"""Polling finds every row; wake-ups make it sooner; an idle daemon costs next to nothing (design: promises 7, 8)."""

import asyncio
import time
from uuid import UUID

import asyncpg
import pytest

from projector import daemon as daemon_module
from projector import listener as listener_module
from projector.database import open_pool
from projector.feed import Feed
from projector.listener import Listener
from projector.migrate import set_notify_trigger
from projector.registry import Registry
from tests.daemons import RunningDaemon, captured_log, running, settings_for
from tests.obstacles import enqueue_tools, opened, statuses, wait_until
from tests.wire import counted

LONG_POLL = 30.0
SOON = 5.0
"""Seconds: far below the long poll, far above what a wake-up takes on a busy machine."""


class Clock:
    """The daemon's clock, which can be put ahead; counts how often the feed looks at it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return time.monotonic() + self.ahead

    async def several_looks(self, looks: int) -> None:
        wanted = self.looks + looks

        async def looked() -> bool:
            return self.looks >= wanted

        await wait_until(looked)

    async def make_idle(self) -> None:
        """Makes the feed believe that no row came for hours; returns in its first long pause."""
        await self.several_looks(5)  # earlier wake-ups are used up
        self.ahead += 10_000
        await self.several_looks(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(daemon_module, "time", clock)
    return clock


async def completed_soon(connection: asyncpg.Connection, rows: list[UUID]) -> None:
    async def completed() -> bool:
        return set(await statuses(connection, rows)) == {"completed"}

    await wait_until(completed, SOON)


async def listens(projector: RunningDaemon, times: int = 1) -> None:
    await projector.has_logged("listening for wake-ups", times)


async def test_a_notification_wakes_an_idle_daemon(
    database: str, connection: asyncpg.Connection, registry: Registry, clock: Clock
) -> None:
    await set_notify_trigger(connection, wanted=True)
    async with running(settings_for(database, reporting_projector_interval_secs=LONG_POLL), registry) as projector:
        await listens(projector)
        await clock.make_idle()
        await completed_soon(connection, await enqueue_tools(connection, ["search"]))


async def test_without_listening_polling_finds_the_rows(
    database: str, connection: asyncpg.Connection, registry: Registry, clock: Clock
) -> None:
    await set_notify_trigger(connection, wanted=True)
    settings = settings_for(database, reporting_projector_interval_secs=0.5, reporting_listen=False)
    async with running(settings, registry) as projector:
        await clock.make_idle()
        await completed_soon(connection, await enqueue_tools(connection, ["search"]))
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        assert await connection.fetchval(listening) == 0
        assert projector.logged("listening for wake-ups") == []


async def test_without_the_trigger_polling_finds_the_rows(
    database: str, connection: asyncpg.Connection, registry: Registry, clock: Clock
) -> None:
    async with running(settings_for(database, reporting_projector_interval_secs=0.5), registry) as projector:
        await listens(projector)
        await clock.make_idle()
        await completed_soon(connection, await enqueue_tools(connection, ["search"]))


async def test_a_lost_listening_connection_comes_back_and_looks_for_what_it_missed(
    database: str, connection: asyncpg.Connection, registry: Registry, clock: Clock
) -> None:
    await set_notify_trigger(connection, wanted=True)
    async with running(settings_for(database, reporting_projector_interval_secs=LONG_POLL), registry) as projector:
        await listens(projector)
        await clock.make_idle()
        await connection.execute("ALTER TABLE reporting_outbox DISABLE TRIGGER ALL")
        missed = await enqueue_tools(connection, ["search"])
        await connection.execute("ALTER TABLE reporting_outbox ENABLE TRIGGER ALL")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        await listens(projector, times=2)
        await completed_soon(connection, missed)
        await clock.make_idle()
        await completed_soon(connection, await enqueue_tools(connection, ["read"]))


async def test_where_notifications_do_not_arrive_the_listener_says_so_and_leaves_it_to_polling(
    database: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As behind a transaction pooler: what is sent over the pool does not reach the connection that listens.
    monkeypatch.setattr(listener_module, "_PROBE_SECONDS", 0.2)
    log, capture = captured_log()
    stop = asyncio.Event()
    pool = await open_pool(settings_for(empty_database), 1)
    listener = Listener(settings_for(database), pool, Feed(5, time.monotonic), stop, log)
    task = asyncio.create_task(listener.run())
    try:

        async def said() -> bool:
            return bool(capture.entries)

        await wait_until(said)
        assert "polling alone" in capture.entries[0]["event"]
        assert not listener.listening
        assert not task.done()
    finally:
        stop.set()
        await task
        pool.terminate()


async def test_a_stop_ends_the_longest_pause(database: str, registry: Registry, clock: Clock) -> None:
    settings = settings_for(database, reporting_projector_interval_secs=LONG_POLL, reporting_shutdown_grace_secs=60)
    async with running(settings, registry) as projector:
        await listens(projector)
        await clock.make_idle()
        projector.daemon.stop.set()
        assert await asyncio.wait_for(projector.task, SOON) == 0


async def test_an_idle_daemon_sends_at_most_a_few_statements_a_second(
    database: str, registry: Registry, clock: Clock
) -> None:
    async with counted(database) as wire:
        settings = settings_for(
            wire.dsn,
            reporting_projector_interval_secs=5,
            reporting_sample_interval_secs=60,  # about a dozen statements each time
            reporting_projector_workers=8,
        )
        async with running(settings, registry) as projector:
            await listens(projector)
            await clock.make_idle()
            before, seconds = wire.sent, 2.0
            await asyncio.sleep(seconds)
            assert wire.clients >= 2
            assert (wire.sent - before) / seconds <= 5


async def test_a_busy_daemon_polls_within_milliseconds(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    settings = settings_for(database, reporting_projector_interval_secs=LONG_POLL, reporting_listen=False)
    async with running(settings, registry), opened(database) as watcher:
        for number in range(5):
            (row,) = await enqueue_tools(connection, [f"tool-{number}"])
            await completed_soon(watcher, [row])
        delays = [
            record["seconds"]
            for record in await connection.fetch(
                "SELECT extract(epoch FROM updated_at - created_at)::float8 AS seconds FROM reporting_outbox"
            )
        ]
    assert sorted(delays)[2] < 0.5
