"""What a peer's job does: the baseline's own statements for one row, on one of a few connections of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from tests.bench.baseline import RowAtATime

Row = tuple[int, str, str]
"""What an outbox row says: org id, source type, source id."""

# As the projector's batches: a crash may lose the last commits, but never a job's facts without losing its end too.
NO_WAIT = {"synchronous_commit": "off"}


class Hands:
    """Connections with all statements prepared; a job takes the one that was used last, or waits for one."""

    def __init__(self) -> None:
        self._free: asyncio.LifoQueue[RowAtATime] = asyncio.LifoQueue()

    def add(self, hand: RowAtATime) -> None:
        """One more."""
        self._free.put_nowait(hand)

    async def project(self, org_id: int, source_type: str, source_id: str) -> None:
        """Writes the facts of one row."""
        hand = await self._free.get()
        try:
            await hand.project(org_id, source_type, source_id)
        finally:
            self._free.put_nowait(hand)


@asynccontextmanager
async def open_hands(dsn: str, count: int) -> AsyncIterator[Hands]:
    """So many connections, prepared; closed at the end."""
    hands = Hands()
    async with AsyncExitStack() as stack:
        for _ in range(count):
            connection = await asyncpg.connect(dsn, server_settings=NO_WAIT)
            stack.push_async_callback(connection.close)
            hands.add(await RowAtATime.prepare(connection))
        yield hands
