"""A worker: one connection at a time, one batch after another, until told to stop."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import asyncpg
import structlog

from projector.batch import BatchResult, BatchRules, Claim, run_batch
from projector.database import acquire
from projector.errors import describe, is_database_fault
from projector.outbox import ClaimedRows

_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
_FAULTS_UNTIL_ISOLATED = 3
# The batch has waited for long enough already.
_LASTING = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
_PLAN_ROWS = 200
_PLAN_GROWTH = 4
_PLAN_SECONDS = 5.0
_ISOLATING_LOCK_SECONDS = 1.0
_ISOLATING_STATEMENT_SECONDS = 5.0


@dataclass(slots=True)
class BatchSize:
    """How many rows a batch claims: doubles while there are more to claim, returns to the start when there are not.

    A batch that was given up, or was slow, makes the next one half as large.
    """

    start: int
    limit: int
    slow_seconds: float
    rows: int = 0

    def __post_init__(self) -> None:
        self.rows = self.start

    def succeeded(self, seconds: float, *, full: bool) -> None:
        """Learns from a batch that was committed; `full`: more rows may be due."""
        if self.slow_seconds and seconds > self.slow_seconds:
            self.rows = max(self.rows // 2, 1)
        elif full:
            self.rows = min(self.rows * 2, self.limit)
        else:
            self.rows = self.start

    def failed(self) -> None:
        """Learns from a batch that was given up."""
        self.rows = max(self.rows // 2, 1)


@dataclass(slots=True)
class Backoff:
    """Pauses after faults: doubling with jitter, up to a limit, in seconds."""

    faults: int = 0

    def next(self) -> float:
        """The pause after one more fault."""
        self.faults += 1
        longest = min(_FIRST_BACKOFF * 2.0 ** min(self.faults - 1, 16), _LONGEST_BACKOFF)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Forgets the faults, after a success."""
        self.faults = 0


@dataclass(slots=True)
class PlanAge:
    """Tells when a connection's plans are to be made anew.

    A plan that was made while a table was small may read a worse index once it has grown, and the server notices only
    when it has gathered statistics. So plans go whenever the rows that were projected with them are four times as many,
    and after some seconds of use.
    """

    made_at: float
    rows: int = 0
    rows_then: int = 0

    def used(self, rows: int) -> None:
        """Counts rows that were projected."""
        self.rows += rows

    def is_old(self, now: float) -> bool:
        """Whether the plans should go; if so, counts anew from here. `now`: monotonic seconds."""
        grown = self.rows >= max(_PLAN_GROWTH * self.rows_then, _PLAN_ROWS)
        if not grown and (self.rows == self.rows_then or now - self.made_at < _PLAN_SECONDS):
            return False
        self.made_at, self.rows_then = now, self.rows
        return True


class Claims(Protocol):
    """Which rows a worker claims next."""

    @property
    def more(self) -> bool:
        """Whether there is more to claim than the last batch took."""

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to claim before the worker has rested: it need not look."""

    async def claim(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims up to `limit` rows inside a transaction. The locks are the lease."""

    def settled(self) -> None:
        """Tells that the batch was committed."""

    def given_up(self) -> None:
        """Tells that the batch was rolled back: its rows are to be claimed again."""


@dataclass(slots=True)
class Worker:
    """Runs batches, one after another.

    Attributes:
        pool: where its connections come from.
        rules: how batches are run.
        size: how many rows to claim.
        stop: set when no new batch may begin.
        rest: called when there is nothing to claim; gives whether to look again.
        on_batch: told of each batch that was committed with rows, and its seconds.
        on_fault: told of each fault and how many there were in a row; what it raises ends the worker.
        log: bound to the worker's number.
        claimer: which rows come next.
        batch: what is done with them.
        is_fault: whether an error is to be waited out, rather than a mistake in this program.
        describe: such an error in our own words.
    """

    pool: asyncpg.Pool
    rules: BatchRules
    size: BatchSize
    stop: asyncio.Event
    rest: Callable[[], Awaitable[bool]]
    on_batch: Callable[[BatchResult, float], None]
    on_fault: Callable[[Exception, int], None]
    log: structlog.stdlib.BoundLogger
    claimer: Claims
    batch: Callable[[asyncpg.Connection, BatchRules, int, Claim], Awaitable[BatchResult]] = run_batch
    is_fault: Callable[[BaseException], bool] = is_database_fault
    describe: Callable[[BaseException], str] = describe
    _isolates: bool = False

    async def run(self) -> None:
        """Works until `stop` is set, or `rest` says so. Faults pause it, other errors are raised."""
        backoff = Backoff()
        done = False
        while not done and not self.stop.is_set():
            try:
                async with acquire(self.pool) as connection:
                    done = await self._work_on(connection, backoff)
            except Exception as error:
                if not self.is_fault(error):
                    raise
                await self._pause_after(error, backoff)

    async def _work_on(self, connection: asyncpg.Connection, backoff: Backoff) -> bool:
        """Runs batches on one connection until `stop` is set or it is lost; gives whether `rest` said to end."""
        plans = PlanAge(time.monotonic())
        while not self.stop.is_set() and not connection.is_closed():
            if plans.is_old(time.monotonic()):
                await connection.execute("DISCARD PLANS")
            result = await self._one_batch(connection)
            backoff.reset()
            plans.used(result.claimed)
            if (result.claimed == 0 or self.claimer.exhausted) and not await self.rest():
                return True
        return False

    async def _one_batch(self, connection: asyncpg.Connection) -> BatchResult:
        rules = isolating(self.rules) if self._isolates else self.rules
        started = time.monotonic()
        try:
            result = await self.batch(connection, rules, self.size.rows, self.claimer.claim)
        except BaseException:
            self.claimer.given_up()
            raise
        self.claimer.settled()
        # What is in some rows' way is in that of the next ones too: the others do not wait for it again.
        self._isolates = bool(result.contended)
        result.more = self.claimer.more
        seconds = time.monotonic() - started
        if result.claimed:
            self.size.succeeded(seconds, full=result.full)
            self.on_batch(result, seconds)
        return result

    async def _pause_after(self, error: Exception, backoff: Backoff) -> None:
        seconds = backoff.next()
        self._isolates = backoff.faults >= _FAULTS_UNTIL_ISOLATED or isinstance(error, _LASTING)
        self.size.failed()
        self.on_fault(error, backoff.faults)
        self.log.warning(
            "batch given up, nothing was changed; trying again",
            error=self.describe(error),
            pause_seconds=round(seconds, 3),
            faults=backoff.faults,
        )
        await wait_for(self.stop.wait(), seconds)


def isolating(rules: BatchRules) -> BatchRules:
    """Rules for when batches keep being given up: what is in some rows' way is found soon, and these are put off."""
    statement = min(rules.timeouts.statement, _ISOLATING_STATEMENT_SECONDS)
    timeouts = replace(rules.timeouts, lock=_ISOLATING_LOCK_SECONDS, statement=statement)
    return replace(rules, isolate_contended=True, timeouts=timeouts)


async def wait_for(awaitable: Awaitable[object], seconds: float) -> None:
    """Waits for something, but not longer than some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return
