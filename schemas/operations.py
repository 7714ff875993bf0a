"""Bodies of the operators' endpoints that go beyond the contract: the failed rows, requeuing, the audit."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator

from schemas.bodies import Body, Int32, Int64, OrgId, Request, SourceType, whole

MOST_REQUEUED = 100_000
"""The largest `limit` of one requeue, in outbox rows."""

MOST_IDS = 1000
"""How many ids one requeue may name."""


class FailedStatus(StrEnum):
    """The failed rows to list.

    FAILED: those that are tried again by themselves.
    DEAD: dead letters, which only an operator can requeue.
    """

    FAILED = "failed"
    DEAD = "dead"


class OutboxItem(Body):
    """A failed row of the outbox."""

    id: UUID
    org_id: Int64
    source_type: str
    source_id: str
    source_version: str
    reason: str
    status: FailedStatus
    attempts: Int32
    next_attempt_at: datetime | None = Field(default=None, description="Left out for a dead letter: never by itself.")
    last_error: str | None = None
    created_at: datetime
    updated_at: datetime


class OutboxPage(Body):
    """Failed rows, the latest failure first. A row that fails again meanwhile moves to the front."""

    rows: list[OutboxItem]
    next_cursor: str | None = Field(
        default=None, description="Send it as `cursor` for the next page; left out at the end."
    )


class RequeueRequest(Request):
    """Which failed rows to requeue: exactly one of `ids`, `source_type` and `all_dead`."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=MOST_IDS)] | None = Field(
        default=None, description="Rows that have failed, by outbox id."
    )
    source_type: SourceType | None = Field(default=None, description="All dead letters of this source type.")
    all_dead: bool = Field(default=False, description="All dead letters.")
    limit: Annotated[Int64, Field(ge=1, le=MOST_REQUEUED), whole] = Field(
        default=10_000, description="The most rows to requeue; the oldest failures first."
    )
    dry_run: bool = Field(default=False, description="Count what would be requeued, change nothing.")
    org_id: OrgId | None = None

    @model_validator(mode="after")
    def _names_one_kind(self) -> Self:
        if sum((self.ids is not None, self.source_type is not None, self.all_dead)) != 1:
            raise ValueError("give exactly one of ids, source_type and all_dead")
        return self


class RequeueResult(Body):
    """How many rows were requeued, or would be."""

    requeued: Int64
    more: bool = Field(description="Whether `limit` or time ended this before all such rows were requeued: call again.")


class Operation(StrEnum):
    """The operator actions that leave a record."""

    BACKFILL = "backfill_reporting"
    RUN = "run_projector"
    REQUEUE = "requeue_outbox"


class Outcome(StrEnum):
    """How an action ended.

    RUNNING: it is at work, or its process died.
    DONE: as asked.
    PARTIAL: time ran out; what it had done stands.
    REFUSED: another one was at work; nothing was done.
    FAILED: an error ended it; what it had done stands.
    """

    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"


class Action(Body):
    """The record of one operator action."""

    id: UUID
    operation: Operation
    actor: str = Field(description="The token's name, or the JWT's subject.")
    org_id: Int64 | None = Field(default=None, description="organizations.org_id; left out for all orgs.")
    parameters: dict[str, object] = Field(description="What was asked for, as sent.")
    rows: Int64 = Field(description="Outbox rows enqueued, claimed or requeued.")
    outcome: Outcome
    request_id: str
    started_at: datetime
    finished_at: datetime | None = None


class ActionPage(Body):
    """Operator actions, the latest first."""

    actions: list[Action]
    next_cursor: str | None = Field(
        default=None, description="Send it as `cursor` for the next page; left out at the end."
    )
