"""What goes over Kafka (design: feeds; README: Kafka)."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

OUTBOX_SCHEMA_VERSION = "1.0"
"""Major and minor version of OutboxMessage. A minor version adds fields; a reader refuses another major one."""


class OutboxKey(BaseModel):
    """The key of an OutboxMessage: all messages of one source stay in one partition."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    org_id: int
    source_type: str
    source_id: str


class OutboxMessage(BaseModel):
    """One row of the outbox that waits to be projected. A hint: the row itself is what counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: str = Field(pattern=r"^[0-9]+\.[0-9]+$", description="Major and minor version of this message.")
    id: UUID = Field(description="The row's id.")
    org_id: int = Field(description="The tenant.")
    source_type: str
    source_id: str
    source_version: str = ""
    reason: str
    created_at: datetime = Field(description="When the row was created.")
