"""The endpoints for operators, each declared once: the app serves this table, and the OpenAPI document describes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from backfill_api.caller import Policy
from backfill_api.operations import Operations, Origin
from backfill_api.problems import Code
from schemas.bodies import OrgId, SourceType
from schemas.operations import ActionPage, FailedStatus, OutboxPage, RequeueRequest, RequeueResult
from schemas.reports import (
    ProjectorRunResult,
    ReportingBackfillRequest,
    ReportingBackfillResult,
    ReportingDiagnostics,
)

MOST_RUN = 10_000
"""The largest `limit` of one run, in outbox rows."""

MOST_LISTED = 1000
"""The largest page of a listing."""


def _digits(value: object) -> object:
    """A query's number: digits alone. Pydantic would also take ` 7 `, `7.0` and `1_000`."""
    if isinstance(value, str) and not value.removeprefix("-").isdecimal():
        raise ValueError("must be a whole number")
    return value


# The bounds stand before the validator: the other way round the document would not know them.
_RunLimit = Annotated[int, Field(ge=1, le=MOST_RUN, json_schema_extra={"format": "int64"}), BeforeValidator(_digits)]
_PageLimit = Annotated[
    int, Field(ge=1, le=MOST_LISTED, json_schema_extra={"format": "int64"}), BeforeValidator(_digits)
]
_Cursor = Annotated[str | None, Field(min_length=1, max_length=500, description="`next_cursor` of the page before.")]


class OrgQuery(BaseModel):
    """The parameters that all endpoints without a body take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    org_id: OrgId | None = None


class RunQuery(OrgQuery):
    """The parameters of a run."""

    limit: _RunLimit = Field(default=100, description="The most outbox rows to claim and project.")


class OutboxQuery(OrgQuery):
    """Which failed rows to list."""

    status: FailedStatus | None = Field(
        default=None, description="`failed`: tried again by themselves. `dead`: dead letters. Both by default."
    )
    source_type: SourceType | None = Field(default=None, description="Only rows of this source type.")
    limit: _PageLimit = Field(default=100, description="The most rows of a page.")
    cursor: _Cursor = None


class ActionsQuery(OrgQuery):
    """Which part of the audit to list."""

    limit: _PageLimit = Field(default=100, description="The most actions of a page.")
    cursor: _Cursor = None


class NoQuery(BaseModel):
    """No parameters at all."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was let in: who asks, which org it is about (None for all), and its models."""

    origin: Origin
    org_id: int | None
    query: Any
    body: Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation over HTTP.

    Attributes:
        operation_id: its name for generated clients (contract: http.md).
        summary: one line of documentation.
        act: what it does.
        answer: the model of its 200.
        query: the model of its parameters.
        body: the model of its body; None if it takes none.
        is_action: whether it is an operator action, which counts for the rate limits.
        errors: the codes that it alone may answer with.
        policy: what the caller needs.
    """

    method: str
    path: str
    operation_id: str
    summary: str
    act: Callable[[Operations, Call], Awaitable[BaseModel]]
    answer: type[BaseModel]
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    is_action: bool = False
    errors: tuple[Code, ...] = ()
    policy: Policy = Policy.REPORT_ADMIN


async def _backfill(operations: Operations, call: Call) -> ReportingBackfillResult:
    return await operations.backfill(call.origin, call.org_id, call.body)


async def _run(operations: Operations, call: Call) -> ProjectorRunResult:
    return await operations.run(call.origin, call.org_id, call.query.limit)


async def _diagnostics(operations: Operations, call: Call) -> ReportingDiagnostics:
    return await operations.diagnostics(call.org_id)


async def _outbox(operations: Operations, call: Call) -> OutboxPage:
    query: OutboxQuery = call.query
    return await operations.outbox(call.org_id, query.status, query.source_type, query.limit, query.cursor)


async def _requeue(operations: Operations, call: Call) -> RequeueResult:
    return await operations.requeue(call.origin, call.org_id, call.body)


async def _actions(operations: Operations, call: Call) -> ActionPage:
    return await operations.actions(call.org_id, call.query.limit, call.query.cursor)


BACKFILL = Endpoint(
    "POST", "/v1/reports/admin/backfill", "backfill_reporting",
    "Enqueue sources that have no fact yet, for the projector to project them.",
    _backfill, ReportingBackfillResult, body=ReportingBackfillRequest, is_action=True,
    errors=(Code.CONFLICT, Code.INCOMPLETE),
)  # fmt: skip

ENDPOINTS = (
    BACKFILL,
    Endpoint(
        "POST", "/v1/reports/projector/run", "run_projector", "Claim and project due rows at once.",
        _run, ProjectorRunResult, query=RunQuery, is_action=True,
    ),
    Endpoint(
        "GET", "/v1/reports/admin/diagnostics", "get_diagnostics",
        "The outbox in numbers, the freshness of the datasets, the latest failures.",
        _diagnostics, ReportingDiagnostics, query=OrgQuery,
    ),
    Endpoint(
        "GET", "/v1/reports/admin/outbox", "list_outbox", "List failed rows, the latest failure first.",
        _outbox, OutboxPage, query=OutboxQuery,
    ),
    Endpoint(
        "POST", "/v1/reports/admin/outbox/requeue", "requeue_outbox",
        "Make failed rows pending again, with all attempts before them.",
        _requeue, RequeueResult, body=RequeueRequest, is_action=True,
    ),
    Endpoint(
        "GET", "/v1/reports/admin/actions", "list_actions", "List operator actions, the latest first.",
        _actions, ActionPage, query=ActionsQuery,
    ),
)  # fmt: skip
