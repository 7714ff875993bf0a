"""What the endpoints do, on the database: each operation once, with its lock, its time and its record in the audit."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import asyncpg
import structlog

from backfill_api import answers, cursors
from backfill_api.audit import AFTER_ALL, Audit, Origin, list_actions
from backfill_api.problems import ApiError, Code
from projector import outbox
from projector.backfill import Backfill, BackfillBusyError, BackfillOutcome, Scope, alone
from projector.batch import BatchRules, run_batch
from projector.claims import Backlog, Claimer
from projector.database import acquire, operator_transaction
from projector.diagnostics import OutboxCounts, read_freshness, read_outbox, read_outbox_of_org
from projector.failed import Selection, count_requeueable, latest_failed, requeue
from projector.registry import Projection, Registry
from projector.sqlfile import load_sql
from projector.worker import isolating
from schemas.operations import ActionPage, FailedStatus, Operation, OutboxPage, Outcome, RequeueRequest, RequeueResult
from schemas.reports import ProjectorRunResult, ReportingBackfillRequest, ReportingBackfillResult, ReportingDiagnostics

__all__ = ["Operations", "Origin"]

FIND_ORG = load_sql(__file__, "sql/find_org.sql")

_LARGEST_BATCH = 1000
_FAILED_ROWS = 20


@dataclass(frozen=True, slots=True)
class Operations:
    """The operators' service without its HTTP.

    Attributes:
        pool: connections to the operational database.
        registry: the projections there are.
        rules: how batches are run.
        seconds: how long one operation may work before it gives a partial answer, or says that it is not complete.
        on_enqueued: told of rows that were enqueued: source type, count.
        clock: seconds that never go back, such as `time.monotonic`.
        log: where the audit's lines go.
    """

    pool: asyncpg.Pool
    registry: Registry
    rules: BatchRules
    seconds: float
    on_enqueued: Callable[[str, int], None]
    clock: Callable[[], float]
    log: structlog.stdlib.BoundLogger

    async def find_org(self, public_id: str) -> int | None:
        """The org_id of an org by its public id, in lower case; None where there is none."""
        async with acquire(self.pool) as connection:
            found: int | None = await connection.fetchval(FIND_ORG, public_id)
        return found

    async def backfill(
        self, origin: Origin, org_id: int | None, request: ReportingBackfillRequest
    ) -> ReportingBackfillResult:
        """Enqueues sources of one org, or of all (None) (contract: http.md, backfill).

        Raises:
            ApiError: 400, a source type that no projection knows; 409, a backfill of the same org is at work; 503 with
                the code `incomplete`, time was up before anything was found: the next call goes on from there.
        """
        scope = Scope(
            org_id, self._projections(request.source_types), request.created_from, request.created_to, request.mode
        )
        parameters = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
        async with self._audit.action(Operation.BACKFILL, origin, org_id, parameters) as record:
            work = Backfill(
                record.connection, scope, request.limit, self.rules.timeouts, self._deadline(), record.count,
                request.dry_run,
            )  # fmt: skip
            try:
                async with alone(record.connection, org_id):
                    outcome = await work.run()
            except BackfillBusyError:
                outcome = None
            finally:
                self._count(work.outcome, dry_run=request.dry_run)
            record.rows = 0 if request.dry_run else work.outcome.rows
            record.outcome = _how_it_ended(outcome)
        if outcome is None:
            raise ApiError(Code.CONFLICT, _busy(org_id), retry_after=1)
        if not outcome.complete and (request.dry_run or not outcome.rows):
            raise ApiError(Code.INCOMPLETE, _incomplete(outcome, dry_run=request.dry_run), retry_after=1)
        return answers.backfill_result(outcome)

    async def run(self, origin: Origin, org_id: int | None, limit: int) -> ProjectorRunResult:
        """Claims and projects up to `limit` due rows of one org, or of all (None), at once.

        Rows with something in their way, such as a lock, are put off and count as neither completed nor failed.
        """
        claimer = Claimer(Backlog(self.clock, exact=True))
        claim = claimer.claim if org_id is None else partial(outbox.claim_org, org_id=org_id)
        is_late = self._deadline()
        rules = isolating(self.rules)
        claimed = completed = failed = 0
        async with self._audit.action(Operation.RUN, origin, org_id, {"limit": limit}) as record:
            await outbox.release_expired(record.connection)
            while claimed < limit:
                if is_late():
                    record.outcome = Outcome.PARTIAL
                    break
                result = await run_batch(record.connection, rules, min(limit - claimed, _LARGEST_BATCH), claim)
                if not result.claimed:
                    break
                claimed += result.claimed
                completed += result.completed_rows
                failed += len(result.failed)
                record.rows = claimed
        return ProjectorRunResult(claimed=claimed, completed=completed, failed=failed)

    async def diagnostics(self, org_id: int | None) -> ReportingDiagnostics:
        """The outbox and the datasets of one org, or of all (None) (contract: http.md, diagnostics)."""
        tables = self.registry.tables
        async with acquire(self.pool) as connection, operator_transaction(connection, self.rules.timeouts):
            now: datetime = await connection.fetchval("SELECT clock_timestamp()")
            if org_id is None:
                state = await read_outbox(connection)
                rows = state.rows
                counts = OutboxCounts(
                    rows["pending"], rows["processing"], rows["failed"] + rows["dead"], rows["completed"],
                    state.oldest_pending_at, state.estimated - {"dead"},
                )  # fmt: skip
            else:
                counts = await read_outbox_of_org(connection, org_id)
            fresh = await read_freshness(connection, tables, org_id)
            failed = await latest_failed(connection, limit=_FAILED_ROWS, org_id=org_id)
        return answers.diagnostics(now, tables, fresh, counts, failed)

    async def outbox(
        self, org_id: int | None, status: FailedStatus | None, source_type: str | None, limit: int, cursor: str | None
    ) -> OutboxPage:
        """Failed rows, the latest failure first.

        Raises:
            ApiError: 400, the cursor is none of ours.
        """
        after = cursors.failed_row(cursor) if cursor is not None else None
        dead = None if status is None else status is FailedStatus.DEAD
        async with acquire(self.pool) as connection, operator_transaction(connection, self.rules.timeouts):
            rows = await latest_failed(
                connection, limit=limit + 1, org_id=org_id, dead=dead, source_type=source_type, after=after
            )
        page, more = rows[:limit], len(rows) > limit
        following = cursors.of_failed_row(page[-1].updated_at, page[-1].id) if more else None
        return OutboxPage(rows=[answers.outbox_item(row) for row in page], next_cursor=following)

    async def requeue(self, origin: Origin, org_id: int | None, request: RequeueRequest) -> RequeueResult:
        """Requeues failed rows of one org, or of all (None) (contract: outbox.md, states)."""
        selection = Selection(org_id, request.ids, request.source_type)
        timeouts, is_late = self.rules.timeouts, self._deadline()
        parameters = request.model_dump(mode="json", exclude_unset=True)
        async with self._audit.action(Operation.REQUEUE, origin, org_id, parameters) as record:
            if request.dry_run:
                record.rows = 0
                async with operator_transaction(record.connection, timeouts):
                    count = await count_requeueable(record.connection, selection, request.limit + 1)
                return RequeueResult(requeued=min(count, request.limit), more=count > request.limit)
            done = await requeue(
                record.connection, selection, limit=request.limit, timeouts=timeouts, is_late=is_late,
                record=record.count,
            )  # fmt: skip
            record.rows = done.rows
            record.outcome = Outcome.PARTIAL if done.more and done.rows < request.limit else Outcome.DONE
        return RequeueResult(requeued=done.rows, more=done.more)

    async def actions(self, org_id: int | None, limit: int, cursor: str | None) -> ActionPage:
        """Operator actions on one org, or all there were (None), the latest first.

        Raises:
            ApiError: 400, the cursor is none of ours.
        """
        before = AFTER_ALL if cursor is None else cursors.action(cursor)
        async with acquire(self.pool) as connection, operator_transaction(connection, self.rules.timeouts):
            actions = await list_actions(connection, org_id, before, limit + 1)
        page, more = actions[:limit], len(actions) > limit
        return ActionPage(actions=page, next_cursor=cursors.of_action(page[-1].id) if more else None)

    @property
    def _audit(self) -> Audit:
        return Audit(self.pool, self.log)

    def _deadline(self) -> Callable[[], bool]:
        ends = self.clock() + self.seconds
        return lambda: self.clock() >= ends

    def _projections(self, source_types: list[str] | None) -> tuple[Projection, ...]:
        known = [projection.source_type for projection in self.registry]
        if source_types is not None and not set(source_types) <= set(known):
            raise ApiError(Code.BAD_REQUEST, f"source_types: must be of {', '.join(known)}")
        return tuple(item for item in self.registry if source_types is None or item.source_type in source_types)

    def _count(self, outcome: BackfillOutcome, *, dry_run: bool) -> None:
        for source_type, rows in outcome.enqueued.items():
            if rows and not dry_run:
                self.on_enqueued(source_type, rows)


def _how_it_ended(outcome: BackfillOutcome | None) -> Outcome:
    if outcome is None:
        return Outcome.REFUSED
    return Outcome.DONE if outcome.complete else Outcome.PARTIAL


def _busy(org_id: int | None) -> str:
    whose = "all orgs" if org_id is None else "this org"
    return f"a backfill of {whose} is at work: wait until it has answered, it enqueues the same rows"


def _incomplete(outcome: BackfillOutcome, *, dry_run: bool) -> str:
    if dry_run:
        return (
            f"time was up after {outcome.looked_at} sources, {outcome.rows} of them to be enqueued: "
            "name source_types, a range from and to, or a smaller limit"
        )
    return (
        f"time was up after {outcome.looked_at} sources, none of them to be enqueued: "
        "call again, it goes on from there; all was reached when `enqueued` is 0"
    )
