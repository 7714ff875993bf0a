"""Watches the database for /readyz: can it be reached, and is its schema new enough."""

import asyncio
from dataclasses import dataclass

import asyncpg
import structlog

from projector.database import acquire
from projector.errors import describe, is_database_fault
from projector.health import Health
from projector.migrate import applied_version, load_migrations
from projector.worker import wait_for


@dataclass(slots=True)
class Watch:
    """Looks again and again, for as long as the service runs.

    Attributes:
        interval: seconds between two looks.
        ready: set once both were well for the first time.
    """

    pool: asyncpg.Pool
    health: Health
    interval: float
    stop: asyncio.Event
    ready: asyncio.Event
    log: structlog.stdlib.BoundLogger

    async def run(self) -> None:
        """Looks until `stop` is set; tells the log when something has changed."""
        needed = load_migrations()[-1].version
        before: dict[str, str] | None = None
        while not self.stop.is_set():
            found = await self._look(needed)
            for topic in ("database", "schema"):
                if topic in found:
                    self.health.not_ready(topic, found[topic])
                else:
                    self.health.ready(topic)
            self.health.ready("start")
            if found != before:
                self._tell(found)
            before = found
            await wait_for(self.stop.wait(), self.interval)

    async def _look(self, needed: int) -> dict[str, str]:
        """What stands in the way, by topic."""
        try:
            async with acquire(self.pool) as connection:
                current = await applied_version(connection)
        except Exception as error:
            if not is_database_fault(error):
                raise
            return {"database": f"cannot be used: {describe(error)}"}
        if current < needed:
            words = f"is at version {current}, this program needs {needed}: run `projector migrate`"
            return {"schema": words}
        return {}

    def _tell(self, found: dict[str, str]) -> None:
        if not found:
            self.ready.set()
            self.log.info("ready")
        for topic, words in found.items():
            self.log.warning("not ready", topic=topic, why=words)
