"""What goes over Kafka (design: feeds; README: Kafka)."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.bodies import Int64

OUTBOX_SCHEMA_VERSION = "1.0"
"""Major and minor version of OutboxMessage. A minor version adds fields; a reader refuses another major one."""


class OutboxKey(BaseModel):
    """The key of an OutboxMessage: all messages of one source stay in one partition."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    org_id: Int64 = Field(description="The tenant.")
    source_type: str = Field(description="What kind of source is to be projected.")
    source_id: str = Field(description="The source's id, as text.")


class OutboxMessage(BaseModel):
    """One row of the outbox that waits to be projected. A hint: the row itself is what counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: str = Field(pattern=r"^[0-9]+\.[0-9]+$", description="Major and minor version of this message.")
    id: UUID = Field(description="The row's id.")
    org_id: Int64 = Field(description="The tenant.")
    source_type: str = Field(description="What kind of source is to be projected.")
    source_id: str = Field(description="The source's id, as text.")
    source_version: str = Field(default="", description="Which version of the source the row stands for.")
    reason: str = Field(description="Why the row was enqueued.")
    created_at: datetime = Field(description="When the row was created.")
