"""What the service answers, made of what the projector knows (contract: http.md)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from projector.backfill import BackfillOutcome
from projector.diagnostics import OutboxCounts
from projector.failed import FailedRow
from projector.registry import Table
from schemas.operations import FailedStatus, OutboxItem
from schemas.reports import DatasetLag, OutboxDiagnostics, ReportingBackfillResult, ReportingDiagnostics
from schemas.reports import FailedRow as FailedRowBody

COUNTED = {
    "event": "events", "llm_generation": "llm_generations", "session": "sessions", "usage_ledger": "usage_ledger",
}  # fmt: skip
"""The source types of the contract, by the field that counts them."""


def backfill_result(outcome: BackfillOutcome) -> ReportingBackfillResult:
    """What a backfill answers; other source types than the contract's are counted together."""
    counts = {name: outcome.enqueued.get(source_type, 0) for source_type, name in COUNTED.items()}
    others = outcome.rows - sum(counts.values())
    return ReportingBackfillResult(enqueued=outcome.rows, **counts, others=others or None)


def diagnostics(
    now: datetime, tables: Iterable[Table], fresh: Mapping[str, datetime], counts: OutboxCounts,
    failed: Sequence[FailedRow],
) -> ReportingDiagnostics:  # fmt: skip
    """The diagnostics, with one entry for each dataset."""
    datasets = dict.fromkeys(table.dataset for table in tables)
    return ReportingDiagnostics(
        generated_at=now,
        projector_lag=[_lag(dataset, fresh.get(dataset), now) for dataset in datasets],
        outbox=OutboxDiagnostics(
            pending=counts.pending, processing=counts.processing, failed=counts.failed, completed=counts.completed,
            oldest_pending_at=counts.oldest_pending_at, estimated=sorted(counts.estimated) or None,
            failed_rows=[_failed_row(row) for row in failed],
        ),
    )  # fmt: skip


def _lag(dataset: str, latest: datetime | None, now: datetime) -> DatasetLag:
    if latest is None:
        return DatasetLag(dataset=dataset)
    age = max((now - latest).total_seconds(), 0.0)
    return DatasetLag(dataset=dataset, latest_projected_at=latest, freshness_lag_ms=round(age * 1000))


def _failed_row(row: FailedRow) -> FailedRowBody:
    return FailedRowBody(
        id=row.id, org_id=row.org_id, source_type=row.source_type, source_id=row.source_id, attempts=row.attempts,
        last_error=row.last_error, updated_at=row.updated_at,
    )  # fmt: skip


def outbox_item(row: FailedRow) -> OutboxItem:
    """A failed row, as the list shows it."""
    return OutboxItem(
        id=row.id, org_id=row.org_id, source_type=row.source_type, source_id=row.source_id,
        source_version=row.source_version, reason=row.reason,
        status=FailedStatus.DEAD if row.dead else FailedStatus.FAILED, attempts=row.attempts,
        next_attempt_at=row.next_attempt_at, last_error=row.last_error, created_at=row.created_at,
        updated_at=row.updated_at,
    )  # fmt: skip
