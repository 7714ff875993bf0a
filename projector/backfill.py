"""Backfill: finds sources that lack a fact, slice by slice, and enqueues them (contract: http.md and outbox.md).

A backfill is made by several calls. Each walks every source type's table from where the last call came to, so that it
costs what it enqueues and what it looks at for the first time. How far it came is kept beside the outbox and written in
the transaction that enqueues, so it holds whatever dies. A call that finds nothing ends the backfill; the next one
starts anew.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import asyncpg

from projector.database import Timeouts, operator_transaction
from projector.outbox import wake
from projector.registry import Projection
from projector.sqlfile import load_sql
from schemas.reports import BackfillMode

LOOK = load_sql(__file__, "sql/look.sql")
ENQUEUE = load_sql(__file__, "sql/enqueue.sql")
LOAD_PROGRESS = load_sql(__file__, "sql/load_progress.sql")
SAVE_PROGRESS = load_sql(__file__, "sql/save_progress.sql")
FORGET_PROGRESS = load_sql(__file__, "sql/forget_progress.sql")
TRY_LOCK = load_sql(__file__, "sql/try_lock.sql")
UNLOCK = load_sql(__file__, "sql/unlock.sql")

# The lock of whatever works on the outbox of all orgs, as other programs of the platform know it (contract: outbox.md).
ALL_ORGS_LOCK = 7311142587303228529

# Shorter than the server waits before it looks for deadlocks (1 s by default): a backfill gives way before the server
# ends the application's transaction.
_LOCK_SECONDS = 0.5
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
_GIVES_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)

_SMALLEST_SLICE = 1_000
_LARGEST_SLICE = 10_000

Record = Callable[[asyncpg.Connection, int], Awaitable[None]]
"""Told inside each slice's transaction how many rows were enqueued so far."""


class BackfillBusyError(Exception):
    """Another backfill of the same org, or of all, is at work."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a backfill is about: the same scope in the next call goes on where this one ends.

    Attributes:
        org_id: one org; None for all.
        projections: in the order in which the limit is spent.
        created_from, created_to: range of the sources' created_at, the end excluded; None for any.
        mode: which sources.
    """

    org_id: int | None
    projections: tuple[Projection, ...]
    created_from: datetime | None = None
    created_to: datetime | None = None
    mode: BackfillMode = BackfillMode.MISSING

    @property
    def key(self) -> str:
        """What tells it apart from others."""
        bounds = [moment.isoformat() if moment else None for moment in (self.created_from, self.created_to)]
        types = [projection.source_type for projection in self.projections]
        return json.dumps([self.org_id, types, *bounds, self.mode])


@dataclass(slots=True)
class Progress:
    """How far a backfill has come: the keys after which to go on, by source type.

    Attributes:
        after: of the walk over all sources.
        final: behind these a source may still have been committed after the walk had passed its place.
        again: of the look again that follows the walk, where a call's time was up.
    """

    after: dict[str, str] = field(default_factory=dict)
    final: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class BackfillOutcome:
    """What one call did.

    Attributes:
        enqueued: rows by source type; with `dry_run`, those that would be.
        looked_at: how many sources it looked at.
        complete: whether it ended by itself; if not, its time was up.
    """

    enqueued: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0
    complete: bool = False

    @property
    def rows(self) -> int:
        """Rows of all source types."""
        return sum(self.enqueued.values())


@dataclass(frozen=True, slots=True)
class _Slice:
    """A slice of sources.

    Attributes:
        sources: those to enqueue.
        last_key: its last one's; where it is empty, that before it.
        size: how many it has.
        is_final: whether no source can come to stand before its last one any more.
    """

    sources: Sequence[asyncpg.Record]
    last_key: str
    size: int
    is_final: bool


@dataclass(slots=True)
class Backfill:
    """One call of a backfill.

    Attributes:
        connection: not inside a transaction.
        scope: what it is about.
        limit: the most rows to enqueue.
        timeouts: of each slice's transaction.
        is_late: whether its time is up.
        record: told inside each transaction that enqueues.
        dry_run: count, change nothing; begins at the start, and neither knows nor keeps progress.
        outcome: what it has done so far.
    """

    connection: asyncpg.Connection
    scope: Scope
    limit: int
    timeouts: Timeouts
    is_late: Callable[[], bool]
    record: Record
    dry_run: bool = False
    outcome: BackfillOutcome = field(default_factory=BackfillOutcome)
    _progress: Progress = field(default_factory=Progress)

    async def run(self) -> BackfillOutcome:
        """Enqueues up to `limit` sources, in the scope's order, the oldest first (contract: http.md, backfill).

        Raises:
            asyncpg.PostgresError, OSError: what was enqueued before stands, `outcome` tells; the next call goes on.
        """
        known = None if self.dry_run else await self.connection.fetchval(LOAD_PROGRESS, self.scope.key)
        if known:
            self._progress = Progress(**json.loads(known))
        done = await self._walk(self._progress.after)
        # A call that has not walked everything itself looks again for what was committed late, behind the walk.
        if done and known and self.scope.mode is not BackfillMode.ALL:
            done = await self._look_again()
        self.outcome.complete = done or self.room <= 0
        if done and not self.outcome.rows and not self.dry_run:
            await self.connection.execute(FORGET_PROGRESS, self.scope.key)
        return self.outcome

    async def _look_again(self) -> bool:
        """Walks what may have come late; gives whether time was enough. If not, the next call goes on from there."""
        again = self._progress.again or dict(self._progress.final)
        self._progress.again = {}
        await self._walk(again)
        if not self.is_late():
            return True
        self._progress.again = again
        await self._save()
        return False

    @property
    def room(self) -> int:
        """How many rows may still be enqueued."""
        return self.limit - self.outcome.rows

    async def _walk(self, after: dict[str, str]) -> bool:
        """Walks all source types on from `after`; gives whether it came to their ends."""
        for projection in self.scope.projections:
            size = max(min(self.room, _LARGEST_SLICE), _SMALLEST_SLICE)
            ended = False
            while not ended:
                if self.room <= 0 or self.is_late():
                    return False
                before = self.outcome.rows
                ended = await self._one_slice(projection, after, size)
                if self.outcome.rows == before:
                    size = min(size * 2, _LARGEST_SLICE)
        return True

    async def _one_slice(self, projection: Projection, after: dict[str, str], size: int) -> bool:
        """Looks at one slice and enqueues what it lacks; gives whether it was the last one.

        It gives way: where the application holds a row that it wants too, the slice is given up and tried again.
        """
        for pause in _PAUSES:
            before = dict(after)
            try:
                return await self._try_slice(projection, after, size)
            except _GIVES_WAY:
                after.clear()
                after.update(before)
                await asyncio.sleep(pause)
        return await self._try_slice(projection, after, size)

    async def _try_slice(self, projection: Projection, after: dict[str, str], size: int) -> bool:
        """Looks at one slice, enqueues what it lacks and notes how far that came: one transaction."""
        source_type = projection.source_type
        every = self.scope.mode is BackfillMode.ALL
        timeouts = replace(self.timeouts, lock=_LOCK_SECONDS)
        async with operator_transaction(self.connection, timeouts):
            key = after.get(source_type, "")
            piece = await self._look(projection, key, size)
            if every and len(piece.sources) > self.room:
                # Of all sources a slice is enqueued whole: once projected, nothing tells these from the others.
                size = self.room
                piece = await self._look(projection, key, size)
            # The last slice is looked at again by the next call: sources may be under way while it is read.
            if len(piece.sources) <= self.room and (every or piece.size == size):
                after[source_type] = piece.last_key
                if piece.is_final and after is self._progress.after:
                    self._progress.final[source_type] = piece.last_key
            enqueued = await self._enqueue(projection, piece.sources[: self.room])
        self.outcome.looked_at += piece.size
        self.outcome.enqueued[source_type] = self.outcome.enqueued.get(source_type, 0) + enqueued
        return piece.size < size

    async def _look(self, projection: Projection, key: str, size: int) -> _Slice:
        scope = self.scope
        *sources, end = await self.connection.fetch(
            look_statement(projection), key, scope.org_id, scope.created_from, scope.created_to, scope.mode, size,
            projection.source_type, projection.reason, projection.versioned,
        )  # fmt: skip
        return _Slice(sources, end["source_id"] or key, int(end["version"]), bool(end["is_final"]))

    async def _enqueue(self, projection: Projection, sources: Sequence[asyncpg.Record]) -> int:
        """Enqueues sources, notes how far that came, and gives how many they were."""
        if self.dry_run:
            return len(sources)
        enqueued = 0
        if sources:
            columns = [[source[name] for source in sources] for name in ("org_id", "source_id", "version")]
            enqueued = int(await self.connection.fetchval(ENQUEUE, projection.source_type, projection.reason, *columns))
        await self._save()
        if enqueued:
            await self.record(self.connection, self.outcome.rows + enqueued)
            await wake(self.connection)
        return enqueued

    async def _save(self) -> None:
        await self.connection.execute(SAVE_PROGRESS, self.scope.key, json.dumps(asdict(self._progress)))


def look_statement(projection: Projection) -> str:
    """The statement that looks at a projection's next slice."""
    return LOOK.replace("{missing}", projection.missing)


@asynccontextmanager
async def alone(connection: asyncpg.Connection, org_id: int | None) -> AsyncIterator[None]:
    """Holds the lock of the backfills of one org, or of those of all (None): a session-level advisory lock.

    Raises:
        BackfillBusyError: somebody else holds it.
    """
    if not await _sure(connection, TRY_LOCK, org_id):
        raise BackfillBusyError
    try:
        yield
    finally:
        if not connection.is_closed():
            await _sure(connection, UNLOCK, org_id)


async def _sure(connection: asyncpg.Connection, statement: str, org_id: int | None) -> bool:
    """Locks or unlocks; where it is not known whether that was done, the connection ends, and the lock with it."""
    try:
        return bool(await connection.fetchval(statement, org_id, ALL_ORGS_LOCK))
    except BaseException:
        connection.terminate()
        raise
