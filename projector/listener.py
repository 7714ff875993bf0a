"""Wake-ups by LISTEN: a connection of its own that ends the workers' pause when somebody enqueues.

It only ever shortens a pause. Behind a transaction pooler notifications do not arrive, which a round trip at the start
finds out; then, and whenever the connection is lost, polling alone does the work.
"""

import asyncio
import secrets
from dataclasses import dataclass, field

import asyncpg
import structlog

from projector.database import acquire, connect
from projector.errors import describe, is_database_fault
from projector.feed import Feed
from projector.pooler import shares_sessions
from projector.settings import Settings
from projector.worker import Backoff, wait_for
from schemas.outbox import NOTIFY_CHANNEL

_PROBE_SECONDS = 2.0
_RETRY_SECONDS = 60.0
_HEARTBEAT_SECONDS = 30.0


@dataclass(slots=True)
class Listener:
    """Listens until `stop` is set.

    Attributes:
        pool: another way to the same database, over which the probe is sent.
        listening: whether wake-ups arrive.
        heartbeat: how often it is made sure that the connection still lives, in seconds.
    """

    settings: Settings
    pool: asyncpg.Pool
    feed: Feed
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    listening: bool = False
    heartbeat: float = _HEARTBEAT_SECONDS
    _told: bool = False
    _probe: str = ""
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Connects, listens, and connects again after a loss."""
        backoff = Backoff()
        while not self.stop.is_set():
            try:
                arrived = await self._listen()
                backoff.reset()
                pause = 0.0 if arrived else _RETRY_SECONDS
            except Exception as error:
                if not is_database_fault(error):
                    raise
                pause = backoff.next()
                self.log.warning("listening interrupted, polling goes on", error=describe(error))
            finally:
                self.listening = False
            await wait_for(self.stop.wait(), pause)

    async def _listen(self) -> bool:
        """Listens until the connection ends or `stop` is set; gives whether notifications arrive here at all."""
        connection = await connect(self.settings)
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        try:
            if not await self._notifications_arrive(connection):
                # Looked for again and again, but said once: it is how things are, and no fault.
                say = self.log.debug if self._told else self.log.warning
                say("notifications do not arrive (a transaction pooler?), polling alone")
                self._told = True
                return False
            self.listening, self._told = True, False
            self.log.info("listening for wake-ups", channel=NOTIFY_CHANNEL)
            self.feed.wake()
            while not await _first(self.stop, closed, seconds=self.heartbeat):
                # Where packets vanish on the way, nothing else would ever tell.
                await connection.execute("SELECT 1", timeout=_PROBE_SECONDS)
            return True
        finally:
            connection.terminate()

    async def _notifications_arrive(self, connection: asyncpg.Connection) -> bool:
        # A LISTEN would stay behind in a session that others use.
        if await shares_sessions(connection, lambda: connect(self.settings)):
            return False
        await connection.add_listener(NOTIFY_CHANNEL, self._heard)
        return await self._probe_round_trip()

    async def _probe_round_trip(self) -> bool:
        self._probe = f"probe:{secrets.token_hex(8)}"
        self._answered.clear()
        async with acquire(self.pool) as connection, connection.transaction():
            await connection.execute("SELECT pg_notify($1, $2)", NOTIFY_CHANNEL, self._probe)
        await wait_for(self._answered.wait(), _PROBE_SECONDS)
        return self._answered.is_set()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == self._probe:
            self._answered.set()
        elif not str(payload).startswith("probe:"):
            self.feed.wake()


async def _first(*events: asyncio.Event, seconds: float) -> bool:
    """Waits for one of several events, but not longer than some seconds; gives whether one came."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=seconds)
        return bool(done)
    finally:
        for task in waiting:
            task.cancel()
