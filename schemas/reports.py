"""The bodies of the HTTP contract (http.md): what the backfill API answers and the command line prints."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]


class Dataset(StrEnum):
    """The facts' public names, one for each fact table."""

    LLM_GENERATIONS = "llm_generations"
    TOOL_CALLS = "tool_calls"
    TURNS = "turns"
    SESSIONS = "sessions"
    BUDGET_POSTINGS = "budget_postings"
    CAPABILITY_USAGE = "capability_usage"


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReportingBackfillRequest(_Body):
    """What to enqueue at the most."""

    limit: Int64 = Field(default=1000, description="The most outbox rows to enqueue across all source types.")


class ReportingBackfillResult(_Body):
    """How many rows a backfill enqueued: in all, and by source type."""

    enqueued: Int64 = Field(description="The sum of the four counts.")
    events: Int64
    llm_generations: Int64
    sessions: Int64
    usage_ledger: Int64


class ProjectorRunResult(_Body):
    """What one run of the projector did."""

    claimed: Int64
    completed: Int64
    failed: Int64


class DatasetLag(_Body):
    """How fresh one dataset is. Optional fields are left out when the dataset has no fact."""

    dataset: Dataset
    latest_projected_at: datetime | None = Field(default=None, description="When its latest fact was written.")
    freshness_lag_ms: Int64 | None = Field(default=None, description="Milliseconds since then.")


class FailedRow(_Body):
    """One of the latest failed outbox rows."""

    id: UUID
    org_id: Int64
    source_type: str
    source_id: str
    attempts: Int32
    last_error: str | None = None
    updated_at: datetime


class OutboxDiagnostics(_Body):
    """The outbox in numbers. On a large outbox `completed` is an estimate."""

    pending: Int64
    processing: Int64
    failed: Int64 = Field(description="Waiting for their next attempt, and dead letters.")
    completed: Int64
    oldest_pending_at: datetime | None = None
    failed_rows: list[FailedRow]


class ReportingDiagnostics(_Body):
    """Everything an operator looks at first."""

    generated_at: datetime
    projector_lag: list[DatasetLag]
    outbox: OutboxDiagnostics


class AllowedAction(_Body):
    """Something the caller may do next."""

    rel: str
    hint: str | None = None
    href: str | None = None
    method: str | None = None
    operation_id: str | None = None
    schema_ref: str | None = None


class Problem(_Body):
    """An error: RFC 9457 Problem Details."""

    title: str
    status: Int32
    detail: str | None = None
    code: str | None = Field(default=None, description="Stable, snake_case.")
    type: str | None = None
    instance: str | None = None
    retry_after_seconds: Int32 | None = None
    allowed_actions: list[AllowedAction] | None = None
