"""The rows of `reporting_outbox` (contract: outbox.md)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

MAX_ERROR_CHARACTERS = 2000
"""The longest `last_error`, in characters."""

NOTIFY_CHANNEL = "reporting_outbox"
"""The channel on which whoever enqueues may wake the projector."""


class OutboxStatus(StrEnum):
    """The statuses that an outbox row can have. A dead letter is `failed` and due at infinity."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class OutboxRow(BaseModel):
    """One row of the outbox: which source is to be projected, and how far that has come."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID = Field(description="Time-ordered UUID (version 7).")
    org_id: int = Field(description="The tenant: organizations.org_id.")
    source_type: str = Field(description="`event`, `session`, `llm_generation`, `usage_ledger`, or a type to come.")
    source_id: str = Field(description="The source row's id, as text.")
    source_version: str = Field(default="", description="Which version of the source this row stands for.")
    reason: str = Field(description="Why it was enqueued, one reason for each source type.")
    status: OutboxStatus = OutboxStatus.PENDING
    attempts: Annotated[int, Field(ge=0)] = Field(default=0, description="How many times it failed.")
    next_attempt_at: datetime | None = Field(
        default=None, description="Not due before this; absent for a dead letter, which is never due by itself."
    )
    last_error: str | None = Field(default=None, max_length=MAX_ERROR_CHARACTERS)
    claimed_at: datetime | None = Field(default=None, description="Set by programs that claim by `processing`.")
    created_at: datetime
    updated_at: datetime
