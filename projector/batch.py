"""A batch: claim due rows, project them set by set, settle them, commit. One transaction (design: promises 1 to 3)."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import asyncpg
import structlog

from projector import outbox
from projector.claims import claim as claim_any
from projector.database import Savepoint, Timeouts, transaction
from projector.errors import ErrorKind, classify, describe
from projector.isolate import isolate
from projector.misfit import find_misfit
from projector.outbox import ClaimedRows, Delays, FailedOutcome, Tid
from projector.passes import add, project
from projector.registry import Projection, Registry
from projector.settings import OnSourceGone

DELAY_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800, 3600,
)  # fmt: skip
"""Upper bounds of the delays' buckets, in seconds: 1 ms to 1 h."""

_POSTPONE_SECONDS = 30.0
# How often a batch waits for what is in some rows' way, to tell these rows from the others: enough to find one among
# thousands. Beyond that it puts off good rows with them, so that those of other projections go on.
_MOST_WAITS = 12

Log = structlog.stdlib.BoundLogger

Claim = Callable[[asyncpg.Connection, int], Awaitable[list[ClaimedRows]]]
"""Claims up to so many rows inside a transaction."""


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What a batch needs to know, the same for all batches of a process.

    Attributes:
        registry: the projections there are.
        timeouts: of its transaction.
        max_attempts: attempts before a failing row is a dead letter.
        on_source_gone: what becomes of the facts of sources that are gone.
        keep_completed: whether completed rows stay in the outbox; if not, they are deleted as they are settled.
        misfits: what is wrong with projections that are known not to fit the database, by source type: their rows are
            put off without a try. Shared, and changed while batches run.
        isolate_contended: whether rows with something in their way (a lock) are looked for and put off, instead of
            giving the batch up.
    """

    registry: Registry
    timeouts: Timeouts
    max_attempts: int
    on_source_gone: OnSourceGone
    keep_completed: bool = True
    misfits: dict[str, str] = field(default_factory=dict)
    isolate_contended: bool = False


@dataclass(slots=True)
class BatchResult:
    """What a batch did.

    Attributes:
        limit: how many rows it would have claimed at the most.
        claimed: how many it claimed.
        more: whether a backlog is known that it did not come to.
        completed, postponed, gone: rows by source type; `gone` are those completed ones whose source was not there.
        contended: those postponed ones that had something in their way.
        failed: the rows that failed.
        facts, removed: facts written and removed, by dataset.
        misfits: what is wrong with projections that were found not to fit the database, by source type.
        skipped: records that gave no fact, by reason.
        delays: how long the completed rows took.
    """

    limit: int = 0
    claimed: int = 0
    more: bool = False
    completed: dict[str, int] = field(default_factory=dict)
    failed: list[FailedOutcome] = field(default_factory=list)
    postponed: dict[str, int] = field(default_factory=dict)
    contended: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    delays: list[Delays] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether more rows may be due."""
        return self.claimed >= self.limit or self.more

    @property
    def completed_rows(self) -> int:
        """Rows settled as completed, of all source types."""
        return sum(self.completed.values())

    @property
    def dead_rows(self) -> int:
        """Rows that became dead letters."""
        return sum(outcome.dead for outcome in self.failed)


@dataclass(slots=True)
class _Batch:
    """A batch at work: what it goes by, what is to be settled, and what it did.

    Attributes:
        savepoint: of its transaction.
        rules: the same for all batches of a process.
        result: what it did.
        completed: the rows to be settled as completed.
        errors: the rows to be settled as failed, each with its error.
        postponed: the rows to be put off, by error.
        waits: how often something was in the way of rows.
    """

    savepoint: Savepoint
    rules: BatchRules
    result: BatchResult
    completed: list[Tid] = field(default_factory=list)
    errors: list[tuple[Tid, str]] = field(default_factory=list)
    postponed: dict[str, list[Tid]] = field(default_factory=dict)
    waits: int = 0

    async def project(self, groups: Iterable[ClaimedRows]) -> None:
        """Projects claimed rows, projection by projection."""
        by_kind: dict[tuple[str, bool], list[ClaimedRows]] = {}
        for group in groups:
            if self.rules.registry.get(group.source_type) is None:
                error = "unsupported source type: no projection knows it"
                self.errors.extend((tid, error) for tid in group.tids)
            elif not group.well_formed:
                self.errors.extend((tid, "malformed source id: not a UUID") for tid in group.tids)
            else:
                # Rows that have failed before stand apart, so that they do not make fresh ones be halved again.
                by_kind.setdefault((group.source_type, group.retried), []).append(group)
        # All workers lock facts in the same order, the registry's from its end. Events come last, as they alone lock
        # facts of rows in other batches (a tool call raises its turn's count): what is locked last is held for the
        # shortest time.
        for projection in reversed(tuple(self.rules.registry)):
            for retried in (False, True):
                kind = by_kind.get((projection.source_type, retried))
                if kind:
                    await self._project_group(projection, _joined(kind))

    async def settle(self) -> None:
        """Writes to the outbox what has become of the rows."""
        connection, rules = self.savepoint.connection, self.rules
        if self.completed:
            self.result.delays = await outbox.complete(
                connection, self.completed, DELAY_BOUNDS, keep=rules.keep_completed
            )
        if self.errors:
            self.result.failed = await outbox.fail(connection, self.errors, rules.max_attempts)
        for error, tids in self.postponed.items():
            await outbox.postpone(connection, tids, error, _POSTPONE_SECONDS)

    async def _project_group(self, projection: Projection, rows: ClaimedRows) -> None:
        """Projects rows of one projection as a set; where that fails, finds the bad ones, and projects the others."""
        if known := self.rules.misfits.get(projection.source_type):
            self._put_off(projection, rows, known)
            return

        in_the_way: asyncpg.PostgresError | None = None

        async def attempt(some: ClaimedRows) -> asyncpg.PostgresError | None:
            nonlocal in_the_way
            if in_the_way is not None and self.waits >= _MOST_WAITS:
                return in_the_way
            error = await self._attempt(projection, some)
            if error is not None and classify(error) is ErrorKind.CONTENDED:
                self.waits += 1
                in_the_way = error
            return error

        error = await attempt(rows)
        if error is None or await self._put_off_misfit(projection, rows, error):
            return
        async for row, its_error in isolate(rows, error, attempt):
            if classify(its_error) is ErrorKind.CONTENDED:
                self._put_off(projection, row, describe(its_error))
                add(self.result.contended, {projection.source_type: len(row)})
            elif not await self._put_off_misfit(projection, row, its_error):
                self.errors.append((row.tids[0], describe(its_error)))

    async def _attempt(self, projection: Projection, rows: ClaimedRows) -> asyncpg.PostgresError | None:
        """Projects rows as a set, or undoes what it did; gives the error where rows may have to be isolated for it."""
        try:
            async with self.savepoint.undone_on_error():
                outcome = await project(self.savepoint.connection, projection, rows, self.rules.on_source_gone)
        except asyncpg.PostgresError as error:
            kind = classify(error)
            if kind is ErrorKind.TRANSIENT or (kind is ErrorKind.CONTENDED and not self.rules.isolate_contended):
                raise
            return error
        self.completed.extend(rows.tids)
        add(self.result.completed, {projection.source_type: len(rows)})
        add(self.result.gone, {projection.source_type: outcome.gone})
        add(self.result.facts, outcome.facts)
        add(self.result.removed, outcome.removed)
        add(self.result.skipped, outcome.skipped)
        return None

    async def _put_off_misfit(self, projection: Projection, rows: ClaimedRows, error: asyncpg.PostgresError) -> bool:
        """Puts rows off where their projection does not fit the database and fails for any row; gives whether so."""
        if classify(error) is not ErrorKind.BROKEN:
            return False
        misfit = await find_misfit(self.savepoint, projection, self.rules.on_source_gone)
        if misfit:
            self.result.misfits[projection.source_type] = misfit
            self._put_off(projection, rows, misfit)
        return bool(misfit)

    def _put_off(self, projection: Projection, rows: ClaimedRows, error: str) -> None:
        self.postponed.setdefault(error, []).extend(rows.tids)
        add(self.result.postponed, {projection.source_type: len(rows)})


async def run_batch(
    connection: asyncpg.Connection, rules: BatchRules, limit: int, claim: Claim = claim_any
) -> BatchResult:
    """Claims up to `limit` due rows and brings each to its end: completed, failed, or put off.

    Args:
        connection: not inside a transaction.
        rules: the same for all batches of a process.
        limit: the most rows.
        claim: which rows: those of all orgs by default.

    Raises:
        Exception: what `classify` calls transient or contended; nothing has changed then, and no row has lost an
            attempt.
    """
    result = BatchResult(limit=limit)
    async with transaction(connection, rules.timeouts):
        groups = await claim(connection, limit)
        result.claimed = sum(map(len, groups))
        if groups:
            batch = _Batch(Savepoint(connection), rules, result)
            await batch.project(groups)
            await batch.settle()
    return result


def _joined(groups: Sequence[ClaimedRows]) -> ClaimedRows:
    """Groups of one kind as one."""
    first, *others = groups
    if not others:
        return first
    return replace(
        first,
        tids=[tid for group in groups for tid in group.tids],
        org_ids=[org_id for group in groups for org_id in group.org_ids],
        source_ids=[source_id for group in groups for source_id in group.source_ids],
    )
