"""What the attacks on relay and consumers share: a broker to break, what relays lease, what attacks cost."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import psutil

from tests.chaos.writers import FAULTS, Writers
from tests.kafka.apache import ApacheBroker
from tests.kafka.clients import admin
from tests.kafka.feeding import Feeding, metric
from tests.obstacles import opened, wait_until
from tests.processes import Running

CONSUMER = ("run", "--feed", "kafka")
RELAY = ("relay",)

_NOTE_LEASES = """
    CREATE TABLE chaos_leases (id uuid NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO chaos_leases (id) VALUES (NEW.id);
        RETURN NEW;
    END $$;
    CREATE TRIGGER note_lease AFTER UPDATE ON reporting_outbox FOR EACH ROW
        WHEN (NEW.status = 'processing' AND OLD.status <> 'processing') EXECUTE FUNCTION note_lease();
"""
_EXPIRE = "UPDATE reporting_outbox SET claimed_at = now() - interval '16 minutes' WHERE status = 'processing'"
_EXPIRE_EVERY = 0.5


async def note_leases(dsn: str) -> None:
    """Begins to note each lease in `chaos_leases`."""
    async with opened(dsn) as connection:
        await connection.execute(_NOTE_LEASES)


async def leases(dsn: str) -> int:
    """How many leases were noted."""
    async with opened(dsn) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM chaos_leases"))


@asynccontextmanager
async def leases_that_end(dsn: str) -> AsyncIterator[None]:
    """Meanwhile all leases end after half a second or so, instead of 15 minutes."""

    async def expire() -> None:
        while True:
            with contextlib.suppress(*FAULTS):
                async with opened(dsn) as connection:
                    await connection.execute(_EXPIRE)
            await asyncio.sleep(_EXPIRE_EVERY)

    expiring = asyncio.create_task(expire())
    try:
        yield
    finally:
        expiring.cancel()
        await asyncio.gather(expiring, return_exceptions=True)


@asynccontextmanager
async def writing(writers: Writers) -> AsyncIterator[None]:
    """Lets writers write meanwhile."""
    at_work = asyncio.create_task(writers.run())
    try:
        yield
        writers.stop.set()
        await at_work
    finally:
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)


@asynccontextmanager
async def silent(broker: ApacheBroker) -> AsyncIterator[None]:
    """Meanwhile the broker answers nothing, and all connections stay open."""
    os.kill(broker.process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.process_id, signal.SIGCONT)


@dataclass(frozen=True)
class Cost:
    """What processes have used so far: seconds of the CPU and lines of the log."""

    seconds: float
    lines: int

    def since(self, before: "Cost") -> "Cost":
        """What was used since then."""
        return Cost(self.seconds - before.seconds, self.lines - before.lines)


def cost(processes: Sequence[Running]) -> Cost:
    """What these have used so far."""
    times = [psutil.Process(running.process.pid).cpu_times() for running in processes]
    return Cost(
        sum(time.user + time.system for time in times), sum(running.text().count("\n") for running in processes)
    )


async def delete_topic(feeding: Feeding, topic: str) -> None:
    """Deletes a topic; returns when it is gone."""
    async with admin(bootstrap_servers=feeding.bootstrap) as client:
        await client.delete_topics([topic])

        async def is_gone() -> bool:
            return topic not in await client.list_topics()

        await wait_until(is_gone)


async def publishes_again(running: Running, counter: str = "reporting_relay_published_total") -> float:
    """Waits until a relay publishes, or another counter of a process grows; gives the seconds that took."""
    began, before = time.monotonic(), await metric(running, counter)

    async def more() -> bool:
        return await metric(running, counter) > before

    await wait_until(more, 90)
    return time.monotonic() - began


async def leased(connection: asyncpg.Connection) -> int:
    """How many rows are leased now."""
    return int(await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE status = 'processing'"))
