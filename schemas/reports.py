"""The bodies of the HTTP contract (http.md): what the backfill API takes and answers."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator

from schemas.bodies import Body, Int32, Int64, Moment, OrgId, Request, SourceType, whole

MOST_BACKFILLED = 100_000
"""The largest `limit` of one backfill, in outbox rows."""


class Dataset(StrEnum):
    """The facts' public names, one for each fact table."""

    LLM_GENERATIONS = "llm_generations"
    TOOL_CALLS = "tool_calls"
    TURNS = "turns"
    SESSIONS = "sessions"
    BUDGET_POSTINGS = "budget_postings"
    CAPABILITY_USAGE = "capability_usage"


class BackfillMode(StrEnum):
    """Which sources a backfill enqueues.

    MISSING: those that lack a fact.
    STALE: those too whose facts are older than they are.
    ALL: all that give facts, once.
    """

    MISSING = "missing"
    STALE = "stale"
    ALL = "all"


class ReportingBackfillRequest(Request):
    """What to enqueue, and how much of it at the most."""

    limit: Annotated[Int64, Field(ge=1, le=MOST_BACKFILLED), whole] = Field(
        default=1000, description="The most outbox rows to enqueue across all source types."
    )
    source_types: Annotated[list[SourceType], Field(min_length=1, max_length=50)] | None = Field(
        default=None, description="Only these source types; all by default."
    )
    created_from: Moment | None = Field(
        default=None, alias="from", description="Only sources created at or after this moment."
    )
    created_to: Moment | None = Field(default=None, alias="to", description="Only sources created before this moment.")
    mode: BackfillMode = Field(
        default=BackfillMode.MISSING,
        description="`missing`: sources that lack a fact. `stale`: those too whose facts are older than they are. "
        "`all`: every source that gives facts, once.",
    )
    dry_run: bool = Field(default=False, description="Count what would be enqueued, change nothing.")
    org_id: OrgId | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.created_from and self.created_to and self.created_from >= self.created_to:
            raise ValueError("from must be before to")
        return self


class ReportingBackfillResult(Body):
    """How many rows a backfill enqueued: in all, and by source type."""

    enqueued: Int64 = Field(description="Outbox rows enqueued: the sum of all counts.")
    events: Int64 = Field(description="Rows of source type `event`.")
    llm_generations: Int64 = Field(description="Rows of source type `llm_generation`.")
    sessions: Int64 = Field(description="Rows of source type `session`.")
    usage_ledger: Int64 = Field(description="Rows of source type `usage_ledger`.")
    others: Int64 | None = Field(
        default=None, description="Rows of source types of installed projections; left out where there are none."
    )


class ProjectorRunResult(Body):
    """What one run of the projector did."""

    claimed: Int64
    completed: Int64
    failed: Int64


class DatasetLag(Body):
    """How fresh one dataset is. Optional fields are left out when the dataset has no fact."""

    dataset: str = Field(description="The facts' public name: see Dataset; installed projections may add others.")
    latest_projected_at: datetime | None = Field(default=None, description="When its latest fact was written.")
    freshness_lag_ms: Int64 | None = Field(default=None, description="Milliseconds since then.")


class FailedRow(Body):
    """One of the latest failed outbox rows."""

    id: UUID
    org_id: Int64
    source_type: str
    source_id: str
    attempts: Int32
    last_error: str | None = None
    updated_at: datetime


class OutboxDiagnostics(Body):
    """The outbox in numbers: counted up to 5,000 rows, beyond that estimated."""

    pending: Int64
    processing: Int64
    failed: Int64 = Field(description="Waiting for their next attempt, and dead letters.")
    completed: Int64
    oldest_pending_at: datetime | None = None
    estimated: list[str] | None = Field(
        default=None, description="Which of these counts are estimates; left out where none is."
    )
    failed_rows: list[FailedRow]


class ReportingDiagnostics(Body):
    """Everything an operator looks at first."""

    generated_at: datetime
    projector_lag: list[DatasetLag]
    outbox: OutboxDiagnostics


class AllowedAction(Body):
    """Something the caller may do next."""

    rel: str
    hint: str | None = None
    href: str | None = None
    method: str | None = None
    operation_id: str | None = None
    schema_ref: str | None = None


class Problem(Body):
    """An error: RFC 9457 Problem Details."""

    title: str
    status: Int32
    detail: str | None = None
    code: str | None = Field(default=None, description="Stable, snake_case.")
    type: str | None = None
    instance: str | None = None
    retry_after_seconds: Int32 | None = None
    allowed_actions: list[AllowedAction] | None = None
