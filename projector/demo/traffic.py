"""Traffic of an agent platform, made up: live, as the application writes it, or a backlog in bulk.

Live traffic takes all its randomness from the Random passed in, and all its times from the database. Not for
databases that anyone needs: the rows look real and are not.
"""

import asyncio
from contextlib import aclosing
from random import Random
from typing import Final

import asyncpg

from projector.demo.backlog import write_backlog
from projector.demo.seed import Connection, Platform, seed_platform
from projector.demo.session import session_steps
from projector.demo.writes import TrafficCounts

__all__ = ["Platform", "TrafficCounts", "run_session", "run_traffic", "seed_platform", "write_backlog"]

MOST_SESSIONS_AT_ONCE: Final = 8
LARGEST_DEBT_SECONDS: Final = 1.0


async def run_session(connection: Connection, platform: Platform, random: Random, counts: TrafficCounts) -> None:
    """Write one whole session, as fast as the database takes it; `counts` grows with every commit.

    Raises:
        asyncpg.PostgresError: as the database reports it; what was committed before stays and is counted.
    """
    async for _ in session_steps(connection, platform, random, counts):
        pass


async def run_traffic(
    pool: asyncpg.Pool,
    platform: Platform,
    random: Random,
    counts: TrafficCounts,
    stop: asyncio.Event,
    rate: float,
) -> None:
    """Write sessions, several at a time, at about `rate` outbox rows a second, until `stop` is set.

    Each session under way holds one connection; at most eight do, and one of the pool's is left to others. After
    `stop` no new transaction begins, and the call returns when those under way have committed.

    Raises:
        ValueError: `rate` is not above 0.
        ExceptionGroup: of what the database or the connection raised; the other sessions were rolled back to their
            last commit, and `counts` holds what is known to be committed.
    """
    if rate <= 0:
        raise ValueError("the rate of traffic must be above 0 outbox rows a second")
    pace = _Pace(rate, stop)
    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, min(MOST_SESSIONS_AT_ONCE, pool.get_max_size() - 1))):
            group.create_task(_write_sessions(pool, platform, random, counts, pace))


async def _write_sessions(
    pool: asyncpg.Pool, platform: Platform, random: Random, counts: TrafficCounts, pace: "_Pace"
) -> None:
    while not pace.stop.is_set():
        async with pool.acquire() as connection, aclosing(session_steps(connection, platform, random, counts)) as steps:
            async for rows in steps:
                await pace.spend(rows)
                if pace.stop.is_set():
                    break


class _Pace:
    """Keeps all sessions together at one rate: each waits until the rows written so far were due."""

    def __init__(self, rate: float, stop: asyncio.Event) -> None:
        self.stop = stop
        self._rate = rate
        self._due = asyncio.get_running_loop().time()

    async def spend(self, rows: int) -> None:
        """Wait until `rows` more rows were due, or until `stop` is set."""
        now = asyncio.get_running_loop().time()
        # After a stall only a second's worth is made up for: a burst would not be what an application writes.
        self._due = max(self._due, now - LARGEST_DEBT_SECONDS) + rows / self._rate
        if self._due > now:
            try:
                async with asyncio.timeout(self._due - now):
                    await self.stop.wait()
            except TimeoutError:
                return
