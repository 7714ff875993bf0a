"""What every long-running program on the outbox does around its work: serve HTTP, reach the database, end in order."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from projector.database import acquire, open_pool
from projector.errors import describe, is_database_fault
from projector.health import Health, start_http
from projector.migrate import applied_version, load_migrations
from projector.pooler import fitted
from projector.registry import Registry
from projector.settings import Settings
from projector.worker import Backoff, wait_for

_SCHEMA_POLL_SECONDS = 2.0

Named = tuple[str, Coroutine[None, None, None]]
"""What is to run as a task of that name."""


@dataclass(slots=True)
class Process(ABC):
    """A program that works until a signal ends it.

    Attributes:
        stop: set to end it: nothing new begins, what is at work ends.
        port: the HTTP port, once it serves.
        projecting: set once its workers run.
    """

    settings: Settings
    registry: Registry
    log: structlog.stdlib.BoundLogger
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    prometheus: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    port: int = 0
    projecting: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Works until `stop` is set; gives the process's exit status: 0 after an orderly end, 1 otherwise.

        Raises:
            PortError: its HTTP port cannot be had.
        """
        host = self.settings.reporting_http_host
        http, self.port = await start_http(self.health, self.prometheus, host, self.settings.reporting_http_port)
        self.log.info("serving /metrics, /livez and /readyz", host=host, port=self.port)
        try:
            return await self.work()
        finally:
            await http.cleanup()

    @abstractmethod
    async def work(self) -> int:
        """What it is there for; gives the exit status."""

    async def with_database(self, connections: int, use: Callable[[asyncpg.Pool], Awaitable[int]]) -> int:
        """Runs something on a pool, as soon as the database can be reached and is up to date; 0 if `stop` comes first.

        Args:
            connections: the most of the pool.
            use: what to run; gives the exit status. It finds `stop` set where that came before the schema was there.
        """
        pool = await self._until_reached(connections)
        if pool is None:
            return 0
        try:
            await self._until_migrated(pool)
            return await use(pool)
        finally:
            # Workers have ended; what is left is idle, or belongs to a task that was cancelled.
            pool.terminate()

    async def _until_reached(self, connections: int) -> asyncpg.Pool | None:
        backoff = Backoff()
        while not self.stop.is_set():
            try:
                return await open_pool(await fitted(self.settings, self.log), connections)
            except Exception as error:
                if not is_database_fault(error):
                    raise
                pause = backoff.next()
                self.health.not_ready("database", f"cannot be used: {describe(error)}")
                self.log.warning(
                    "database not reached, trying again", error=describe(error), pause_seconds=round(pause, 3)
                )
                await wait_for(self.stop.wait(), pause)
        return None

    async def _until_migrated(self, pool: asyncpg.Pool) -> None:
        needed = load_migrations()[-1].version
        while not self.stop.is_set():
            try:
                async with acquire(pool) as connection:
                    current = await applied_version(connection)
                if current >= needed:
                    self.health.ready("database")
                    self.health.ready("schema")
                    return
                why = f"schema is at version {current}, this program needs {needed}: run `projector migrate`"
                self.health.not_ready("schema", why)
                self.log.warning(
                    "waiting for the schema", current=current, needed=needed, hint="run `projector migrate`"
                )
            except Exception as error:
                if not is_database_fault(error):
                    raise
                self.health.not_ready("database", f"cannot be used: {describe(error)}")
                self.log.warning("database not reached, trying again", error=describe(error))
            await wait_for(self.stop.wait(), _SCHEMA_POLL_SECONDS)

    async def run_tasks(self, workers: Iterable[Named], helpers: Iterable[Named]) -> int:
        """Runs workers and helpers until `stop` is set or one of them ends; gives the exit status.

        Args:
            workers: have the grace period to end what they have begun once `stop` is set.
            helpers: are cancelled after the workers.
        """
        at_work = [asyncio.create_task(job, name=name) for name, job in workers]
        beside = [asyncio.create_task(job, name=name) for name, job in helpers]
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        self.projecting.set()
        try:
            await asyncio.wait({stopping, *at_work, *beside}, return_when=asyncio.FIRST_COMPLETED)
            return await self._wind_down(at_work, beside)
        finally:
            for task in (stopping, *at_work, *beside):
                task.cancel()
            await asyncio.gather(stopping, *at_work, *beside, return_exceptions=True)

    async def _wind_down(self, workers: list[asyncio.Task[None]], helpers: list[asyncio.Task[None]]) -> int:
        """Lets batches end within the grace period; gives the exit status."""
        self.stop.set()
        self.health.not_ready("stop", "stopping: batches at work end, none begins")
        _, late = await asyncio.wait(workers, timeout=self.settings.reporting_shutdown_grace_secs)
        broken = [task for task in (*workers, *helpers) if task.done() and task.exception()]
        for task in broken:
            self.log.error("a task failed, stopping the process", task=task.get_name(), exc_info=task.exception())
        if late:
            self.log.error(
                "batches did not end within the grace period; rolled back, nothing is lost", batches=len(late)
            )
        if broken or late:
            return 1
        self.log.info("stopped")
        return 0
