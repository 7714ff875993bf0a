"""Where packets vanish and no connection ends, nobody waits for answers for longer than once (promise 9)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

import asyncpg
import pytest

from projector.database import Timeouts, acquire, transaction
from projector.feed import Feed
from projector.listener import Listener
from tests.chaos.proxy import Proxy
from tests.daemons import captured_log, settings_for
from tests.obstacles import wait_until

_ANSWER_SECONDS = 1.0


async def in_a_transaction(connection: asyncpg.Connection, proxy: Proxy) -> None:
    async with transaction(connection, Timeouts(1)):
        proxy.silence()
        await connection.execute("SELECT 1")


async def at_the_commit(connection: asyncpg.Connection, proxy: Proxy) -> None:
    async with transaction(connection, Timeouts(1)):
        proxy.silence()


async def outside(connection: asyncpg.Connection, proxy: Proxy) -> None:
    proxy.silence()
    await connection.execute("DISCARD PLANS")


@pytest.mark.parametrize("falls_silent", [in_a_transaction, at_the_commit, outside])
async def test_a_connection_that_is_silent_is_given_up_after_one_lost_answer_and_replaced(
    database: str, falls_silent: Callable[[asyncpg.Connection, Proxy], Awaitable[None]]
) -> None:
    async def lost(pool: asyncpg.Pool, proxy: Proxy) -> None:
        async with acquire(pool) as connection:
            await falls_silent(connection, proxy)

    async with Proxy(database, Random(0)) as proxy:
        pool = await asyncpg.create_pool(proxy.dsn, min_size=1, max_size=1, command_timeout=_ANSWER_SECONDS)
        try:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await lost(pool, proxy)
            assert time.monotonic() - began < 1.9 * _ANSWER_SECONDS
            async with acquire(pool) as connection:
                assert await connection.fetchval("SELECT 1") == 1
        finally:
            pool.terminate()


async def test_a_listener_notices_that_its_connection_is_silent_and_makes_another(database: str) -> None:
    log, capture = captured_log()
    stop = asyncio.Event()
    async with Proxy(database, Random(0)) as proxy, asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        listener = Listener(settings_for(proxy.dsn), pool, Feed(5, time.monotonic), stop, log, heartbeat=0.1)
        task = asyncio.create_task(listener.run())

        async def listens_again() -> bool:
            return [entry["event"] for entry in capture.entries].count("listening for wake-ups") == 2

        async def listens() -> bool:
            return listener.listening

        await wait_until(listens)
        proxy.silence()
        await wait_until(listens_again)
        stop.set()
        await task
