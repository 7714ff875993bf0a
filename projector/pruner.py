"""Removes completed outbox rows after the retention: slice by slice, beside the workers (design: promises 3 and 8).

A slice is one short transaction: it takes an advisory lock that ends with it, looks at the next rows in the order of
creation, and removes those that were settled long enough ago. Between two slices nothing is held, neither a transaction
nor a connection, so all of it works behind a transaction pooler too, and a pruner that dies leaves nothing to clear.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from projector.database import Timeouts, acquire, transaction
from projector.errors import describe, is_database_fault
from projector.metrics import Metrics
from projector.sqlfile import load_sql
from projector.worker import wait_for

PRUNE = load_sql(__file__, "sql/prune.sql")

LOCK_KEY = 0x72702E70_72756E65
"""The advisory lock of a slice, "rp.prune": ours alone."""

_SLICE_ROWS = 1000
_SWEEP_SECONDS = 3600.0
_BOTTOM = UUID(int=0)

# A slice's time three times over: a quarter of the time is used at the most.
_REST_FACTOR = 3.0
_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one slice did: rows looked at, the last one from before the retention (None without any), rows removed."""

    walked: int
    last_id: UUID | None
    removed: int


@dataclass(slots=True)
class Pruner:
    """Removes completed rows that were settled longer ago than the retention.

    It works in rounds. Each walks from where the last one ended to the first rows that are younger than the retention.
    What the walk has passed is not looked at again, as a long transaction elsewhere may keep dead index entries there.
    But rows that had not been completed by then stay behind it, so once an hour a round begins at the very bottom.

    Several may run at once: while one works on a slice, the others end their round. Each has a place of its own, kept
    in memory alone.

    Attributes:
        retention: how long a completed row is kept, in seconds.
        stop: set to end it.
        clock: monotonic seconds; for its pace alone, the database's clock tells what is old.
        slice_rows: how many rows a slice looks at.
        cursor: the id after which the next round begins.
        sweep_at: when a round begins at the bottom again, by `clock`.
        slice_seconds: how long the last slice took, whether or not it came to its end.
    """

    pool: asyncpg.Pool
    metrics: Metrics
    timeouts: Timeouts
    retention: float
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    clock: Callable[[], float] = time.monotonic
    slice_rows: int = _SLICE_ROWS
    cursor: UUID = _BOTTOM
    sweep_at: float = float("-inf")
    slice_seconds: float = 0.0

    async def run(self) -> None:
        """Prunes until `stop` is set. A fault of the database ends a round and nothing else."""
        while not self.stop.is_set():
            try:
                await self.round()
            except Exception as error:
                if not is_database_fault(error):
                    raise
                self.log.warning("completed rows not pruned, trying again", error=describe(error))
            await wait_for(self.stop.wait(), max(pause_after_round(self.retention), self._rest_seconds))

    async def round(self) -> int:
        """Walks to where rows are younger than the retention; gives how many it removed.

        Raises:
            Exception: a fault of the database. What the slices before it removed stays removed; a sweep that it ended
                is not taken up again before the next one is due.
        """
        after = self._begin()
        removed = 0
        while not self.stop.is_set():
            piece = await self._one_slice(after)
            removed += piece.removed
            self.metrics.pruned(piece.removed)
            if piece.last_id is not None:
                after = piece.last_id
                self.cursor = max(self.cursor, after)
            if piece.last_id is None or piece.walked < self.slice_rows:
                break
            await wait_for(self.stop.wait(), self._rest_seconds)
        if removed:
            self.log.debug("completed rows pruned", rows=removed)
        return removed

    @property
    def _rest_seconds(self) -> float:
        return _REST_FACTOR * self.slice_seconds

    def _begin(self) -> UUID:
        """The id after which a round begins."""
        now = self.clock()
        if now < self.sweep_at:
            return self.cursor
        self.sweep_at = now + _SWEEP_SECONDS
        return _BOTTOM

    async def _one_slice(self, after: UUID) -> _Slice:
        started = self.clock()
        try:
            async with acquire(self.pool) as connection, transaction(connection, self.timeouts):
                (record,) = await connection.fetch(PRUNE, after, self.retention, self.slice_rows, LOCK_KEY)
        finally:
            self.slice_seconds = self.clock() - started
        return _Slice(*record)


def pause_after_round(retention: float) -> float:
    """How long a pruner rests between two rounds: a tenth of the retention, within bounds; all in seconds."""
    return min(max(retention / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE)
