"""Watches whether the projections fit the database, for /readyz and the workers."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import asyncpg
import structlog

from projector.batch import BatchRules
from projector.database import Savepoint, acquire, transaction
from projector.errors import ErrorKind, classify, describe, is_database_fault
from projector.health import Health
from projector.misfit import find_misfit
from projector.registry import Projection
from projector.worker import wait_for

_SECONDS = 120.0
_SECONDS_WHILE_UNFIT = 5.0
_LOCK_SECONDS = 1.0


@dataclass(slots=True)
class Fitness:
    """Tries each projection without a source, at the start and now and then, and tells once when something changes.

    Attributes:
        rules: the workers' rules; their `misfits` are kept here.
        show: told of a projection's name, and whether it fits.
    """

    pool: asyncpg.Pool
    rules: BatchRules
    health: Health
    show: Callable[[str, bool], None]
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Looks until cancelled. A fault of the database leaves what is known as it is."""
        while not self.stop.is_set():
            await wait_for(self._hurry.wait(), _SECONDS_WHILE_UNFIT if self.rules.misfits else _SECONDS)
            if self._hurry.is_set():
                self._hurry.clear()
            else:
                await self.look()

    def found(self, misfits: Mapping[str, str]) -> None:
        """Tells what a batch has met: by source type, what is wrong."""
        for source_type, words in misfits.items():
            projection = self.rules.registry.get(source_type)
            if projection is not None:
                self._tell(projection, words)
                self._hurry.set()

    async def look(self) -> None:
        """Tries all projections once."""
        timeouts = replace(self.rules.timeouts, lock=_LOCK_SECONDS)
        try:
            async with acquire(self.pool) as connection, transaction(connection, timeouts):
                savepoint = Savepoint(connection)
                for projection in self.rules.registry:
                    await self._try(savepoint, projection)
        except Exception as error:
            if not is_database_fault(error):
                raise
            self.log.warning("projections not tried, what is known of them stands", error=describe(error))

    async def _try(self, savepoint: Savepoint, projection: Projection) -> None:
        try:
            self._tell(projection, await find_misfit(savepoint, projection, self.rules.on_source_gone))
        except asyncpg.PostgresError as error:
            if classify(error) is ErrorKind.TRANSIENT:
                raise
            # A lock, say: what is known of this one stands, the others are tried all the same.
            self.log.info("projection not tried", projection=projection.name, error=describe(error))

    def _tell(self, projection: Projection, words: str) -> None:
        self.show(projection.name, not words)
        topic = f"projection {projection.name}"
        if words == self.rules.misfits.get(projection.source_type, ""):
            return
        if words:
            self.rules.misfits[projection.source_type] = words
            self.health.not_ready(topic, words)
            self.log.error("a projection does not fit the database", projection=projection.name, why=words)
        else:
            del self.rules.misfits[projection.source_type]
            self.health.ready(topic)
            self.log.info("the projection fits the database again", projection=projection.name)
