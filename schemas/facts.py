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

    removed: Literal[True] = Field(description="This fact is gone.")
    version: _Version
    projected_at: datetime = Field(description="When this was found, by the database's clock.")


class FactMessage(FactKey):
    """What every fact has; columns that the database has beyond these are published too."""

    removed: Literal[False] = Field(description="Whether the fact is gone: this one is not.")
    version: _Version
    session_id: UUID | None = Field(description="The session that it happened in; of a session, its own id.")
    user_id: UUID | None = Field(description="The session's owner, a user.")
    principal_id: UUID | None = Field(description="The session's owner, a principal.")
    agent_id: UUID | None = Field(description="The agent.")
    agent_name_snapshot: str | None = Field(description="The agent's name when the fact was written.")
    harness_id: UUID | None = Field(description="The harness.")
    harness_name_snapshot: str | None = Field(description="The harness's name when the fact was written.")
    app_id: UUID | None = Field(description="The session's app.")
    blueprint_id: str | None = Field(description="The session's blueprint.")
    created_at: datetime = Field(description="When the thing happened.")
    time_bucket_day: date = Field(description="The day of created_at, in UTC.")
    projected_at: datetime = Field(description="When the fact was last written.")


class LlmGenerationFact(FactMessage):
    """A fact of the dataset `llm_generations`."""

    turn_id: str | None = Field(description="The turn of that session.")
    model: str | None = Field(description="The model that was called.")
    provider: str | None = Field(description="Who serves that model.")
    finish_reason: str | None = Field(description="Why the model stopped.")
    input_tokens: _Int64 = Field(description="Tokens that went in.")
    output_tokens: _Int64 = Field(description="Tokens that came out.")
    cache_read_tokens: _Int64 = Field(description="Tokens read from the provider's cache.")
    cache_creation_tokens: _Int64 = Field(description="Tokens written to the provider's cache.")
    total_tokens: _Int64 = Field(description="The sum of the four above.")
    duration_ms: _Int64 = Field(description="How long it took, in milliseconds.")
    time_to_first_token_ms: _Int64 = Field(description="How long the first token took, in milliseconds.")
    success_count: _Int64 = Field(description="1 for a success, else 0: to be summed.")
    error_count: _Int64 = Field(description="1 for an error, else 0: to be summed.")


class ToolCallFact(FactMessage):
    """A fact of the dataset `tool_calls`."""

    turn_id: str | None = Field(description="The turn of that session.")
    tool_call_id: str | None = Field(description="The call's id, as the model gave it.")
    tool_name: str | None = Field(description="The tool's name.")
    tool_display_name_snapshot: str | None = Field(description="The tool's name for people, as it was then.")
    tool_status: str | None = Field(
        description="How the call ended: success, error, timeout, cancelled, or a word of the platform's."
    )
    capability_id: str | None = Field(description="The capability.")
    capability_name_snapshot: str | None = Field(description="The capability's name, as it was then.")
    call_count: _Int64 = Field(description="1: to be summed.")
    success_count: _Int64 = Field(description="1 for a success, else 0: to be summed.")
    error_count: _Int64 = Field(description="1 for an error, else 0: to be summed.")
    timeout_count: _Int64 = Field(description="1 for a timeout, else 0: to be summed.")
    cancelled_count: _Int64 = Field(description="1 for a cancelled call, else 0: to be summed.")
    duration_ms: _Int64 = Field(description="How long it took, in milliseconds.")


class TurnFact(FactMessage):
    """A fact of the dataset `turns`."""

    turn_id: str | None = Field(description="The turn of that session.")
    turn_status: str | None = Field(description="How the turn ended: completed, failed or cancelled.")
    turn_count: _Int64 = Field(description="1: to be summed.")
    duration_ms: _Int64 = Field(description="How long it took, in milliseconds.")
    iterations: _Int64 = Field(description="How many times the turn went round.")
    input_tokens: _Int64 = Field(description="Tokens that went in.")
    output_tokens: _Int64 = Field(description="Tokens that came out.")
    cache_read_tokens: _Int64 = Field(description="Tokens read from the provider's cache.")
    cache_creation_tokens: _Int64 = Field(description="Tokens written to the provider's cache.")
    total_tokens: _Int64 = Field(description="Tokens in and out, without the cache's.")
    tool_call_count: _Int64 = Field(description="How many tool calls.")
    success_count: _Int64 = Field(description="1 for a success, else 0: to be summed.")
    error_count: _Int64 = Field(description="1 for an error, else 0: to be summed.")


class SessionFact(FactMessage):
    """A fact of the dataset `sessions`."""

    session_status: str | None = Field(description="The session's status, as the platform has it.")
    started_at: datetime | None = Field(description="When the session started.")
    finished_at: datetime | None = Field(description="When the session finished.")
    last_active_at: datetime | None = Field(description="When the session last changed.")
    session_count: _Int64 = Field(description="1: to be summed.")
    duration_ms: _Int64 = Field(description="How long it took, in milliseconds.")
    turn_count: _Int64 = Field(description="How many turns.")
    tool_call_count: _Int64 = Field(description="How many tool calls.")
    input_tokens: _Int64 = Field(description="Tokens that went in.")
    output_tokens: _Int64 = Field(description="Tokens that came out.")
    cache_read_tokens: _Int64 = Field(description="Tokens read from the provider's cache.")
    cache_creation_tokens: _Int64 = Field(description="Tokens written to the provider's cache.")
    total_tokens: _Int64 = Field(description="The sum of the four above.")


class BudgetPostingFact(FactMessage):
    """A fact of the dataset `budget_postings`."""

    budget_id: UUID | None = Field(description="The budget that was charged.")
    budget_subject_type: str | None = Field(description="What kind of thing the budget is for.")
    budget_subject_id: str | None = Field(description="Which one.")
    currency: str | None = Field(description="What the amount is in.")
    meter_source: str | None = Field(description="What was metered.")
    ref_type: str | None = Field(description="What kind of thing the posting refers to.")
    amount: float | Literal["NaN", "Infinity", "-Infinity"] = Field(
        description="Double precision; what JSON has no number for stands as text."
    )
    debit_count: _Int64 = Field(description="1 for an amount of 0 or more, else 0: to be summed.")
    credit_count: _Int64 = Field(description="1 for an amount below 0, else 0: to be summed.")


class CapabilityUsageFact(FactMessage):
    """A fact of the dataset `capability_usage`."""

    turn_id: str | None = Field(description="The turn of that session.")
    capability_id: str | None = Field(description="The capability.")
    capability_name_snapshot: str | None = Field(description="The capability's name, as it was then.")
    capability_usage_kind: str | None = Field(description="configured, resolved, exposed, invoked or effect_ran.")
    tool_name: str | None = Field(description="The tool's name.")
    usage_count: _Int64 = Field(description="How many uses: to be summed.")
    duration_ms: _Int64 = Field(description="How long it took, in milliseconds.")


FACT_MODELS: dict[str, type[FactMessage]] = {
    "llm_generations": LlmGenerationFact,
    "tool_calls": ToolCallFact,
    "turns": TurnFact,
    "sessions": SessionFact,
    "budget_postings": BudgetPostingFact,
    "capability_usage": CapabilityUsageFact,
}
"""The models of the built-in datasets' messages. Datasets that plugins add have none here."""
