"""Facts as messages: what the changelog publishes to one compacted topic a dataset (README: Kafka; contract: facts.md).

A consumer keeps, for each key, the message with the highest `version`, and drops what is older.
"""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

FACTS_SCHEMA_VERSION = "1.0"
"""Major and minor version of the fact messages, in the header `schema_version`. A minor version adds fields."""

_Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
_Version = Annotated[
    int, Field(ge=1, le=2**63 - 1, json_schema_extra={"format": "int64"}, description="Only grows for a key.")
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FactKey(_Message):
    """The key of a fact's messages: all of them stay in one partition."""

    org_id: _Int64 = Field(description="The tenant.")
    source_key: str = Field(description="Which fact of the tenant: unique within the dataset.")


class RemovedFact(FactKey):
    """Says that a fact is gone. The tombstone (no value) for the same key follows it."""

    removed: Literal[True]
    version: _Version
    projected_at: datetime = Field(description="When this was found, by the database's clock.")


class FactMessage(FactKey):
    """What every fact has; columns that the database has beyond these are published too."""

    removed: Literal[False]
    version: _Version
    session_id: UUID | None
    user_id: UUID | None
    principal_id: UUID | None
    agent_id: UUID | None
    agent_name_snapshot: str | None
    harness_id: UUID | None
    harness_name_snapshot: str | None
    app_id: UUID | None
    blueprint_id: str | None
    created_at: datetime = Field(description="When the thing happened.")
    time_bucket_day: date = Field(description="The day of created_at, in UTC.")
    projected_at: datetime = Field(description="When the fact was last written.")


class LlmGenerationFact(FactMessage):
    """A fact of the dataset `llm_generations`."""

    turn_id: str | None
    model: str | None
    provider: str | None
    finish_reason: str | None
    input_tokens: _Int64
    output_tokens: _Int64
    cache_read_tokens: _Int64
    cache_creation_tokens: _Int64
    total_tokens: _Int64
    duration_ms: _Int64
    time_to_first_token_ms: _Int64
    success_count: _Int64
    error_count: _Int64


class ToolCallFact(FactMessage):
    """A fact of the dataset `tool_calls`."""

    turn_id: str | None
    tool_call_id: str | None
    tool_name: str | None
    tool_display_name_snapshot: str | None
    tool_status: str | None
    capability_id: str | None
    capability_name_snapshot: str | None
    call_count: _Int64
    success_count: _Int64
    error_count: _Int64
    timeout_count: _Int64
    cancelled_count: _Int64
    duration_ms: _Int64


class TurnFact(FactMessage):
    """A fact of the dataset `turns`."""

    turn_id: str | None
    turn_status: str | None
    turn_count: _Int64
    duration_ms: _Int64
    iterations: _Int64
    input_tokens: _Int64
    output_tokens: _Int64
    cache_read_tokens: _Int64
    cache_creation_tokens: _Int64
    total_tokens: _Int64
    tool_call_count: _Int64
    success_count: _Int64
    error_count: _Int64


class SessionFact(FactMessage):
    """A fact of the dataset `sessions`."""

    session_status: str | None
    started_at: datetime | None
    finished_at: datetime | None
    last_active_at: datetime | None
    session_count: _Int64
    duration_ms: _Int64
    turn_count: _Int64
    tool_call_count: _Int64
    input_tokens: _Int64
    output_tokens: _Int64
    cache_read_tokens: _Int64
    cache_creation_tokens: _Int64
    total_tokens: _Int64


class BudgetPostingFact(FactMessage):
    """A fact of the dataset `budget_postings`."""

    budget_id: UUID | None
    budget_subject_type: str | None
    budget_subject_id: str | None
    currency: str | None
    meter_source: str | None
    ref_type: str | None
    amount: float | Literal["NaN", "Infinity", "-Infinity"] = Field(
        description="Double precision; what JSON has no number for stands as text."
    )
    debit_count: _Int64
    credit_count: _Int64


class CapabilityUsageFact(FactMessage):
    """A fact of the dataset `capability_usage`."""

    turn_id: str | None
    capability_id: str | None
    capability_name_snapshot: str | None
    capability_usage_kind: str | None = Field(description="configured, resolved, exposed, invoked or effect_ran.")
    tool_name: str | None
    usage_count: _Int64
    duration_ms: _Int64


FACT_MODELS: dict[str, type[FactMessage]] = {
    "llm_generations": LlmGenerationFact,
    "tool_calls": ToolCallFact,
    "turns": TurnFact,
    "sessions": SessionFact,
    "budget_postings": BudgetPostingFact,
    "capability_usage": CapabilityUsageFact,
}
"""The models of the built-in datasets' messages. Datasets that plugins add have none here."""
