"""The shared models: what goes out comes back, bounds hold, optional fields are left out, unknown ones refused."""

import inspect
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from schemas import reports
from schemas.outbox import MAX_ERROR_CHARACTERS, OutboxRow, OutboxStatus

AT = datetime(2026, 5, 6, 10, 0, 0, 123456, tzinfo=UTC)
ROW_ID = UUID(int=7)

OUTBOX_ROW: dict[str, Any] = {
    "id": ROW_ID, "org_id": 1, "source_type": "event", "source_id": "x", "reason": "event_projection",
    "created_at": AT, "updated_at": AT,
}  # fmt: skip
FAILED_ROW: dict[str, Any] = {
    "id": ROW_ID, "org_id": 1, "source_type": "event", "source_id": "x", "attempts": 3, "updated_at": AT
}  # fmt: skip
OUTBOX = {"pending": 1, "processing": 2, "failed": 3, "completed": 4, "failed_rows": [FAILED_ROW]}
BACKFILL = {"enqueued": 10, "events": 1, "llm_generations": 2, "sessions": 3, "usage_ledger": 4}

BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (reports.ReportingBackfillRequest, {"limit": 5000}),
    (reports.ReportingBackfillResult, BACKFILL),
    (reports.ProjectorRunResult, {"claimed": 3, "completed": 2, "failed": 1}),
    (reports.DatasetLag, {"dataset": "turns", "latest_projected_at": AT, "freshness_lag_ms": 12}),
    (reports.FailedRow, {**FAILED_ROW, "last_error": "22003"}),
    (reports.OutboxDiagnostics, {**OUTBOX, "oldest_pending_at": AT}),
    (
        reports.ReportingDiagnostics,
        {"generated_at": AT, "projector_lag": [{"dataset": "turns"}], "outbox": OUTBOX},
    ),
    (reports.AllowedAction, {"rel": "retry-later", "hint": "wait"}),
    (reports.Problem, {"title": "Not found", "status": 404, "allowed_actions": [{"rel": "retry"}]}),
]
NAMES = [model.__name__ for model, _ in BODIES]


def test_every_body_of_the_contract_is_tested_here() -> None:
    bodies = {
        name
        for name, model in inspect.getmembers(reports, inspect.isclass)
        if issubclass(model, BaseModel) and model.__module__ == reports.__name__ and not name.startswith("_")
    }
    assert bodies == set(NAMES)


@pytest.mark.parametrize(("model", "values"), BODIES, ids=NAMES)
def test_a_body_survives_the_way_through_json(model: type[BaseModel], values: dict[str, Any]) -> None:
    body = model(**values)
    assert model.model_validate_json(body.model_dump_json(by_alias=True)) == body
    assert model.model_validate_json(body.model_dump_json(by_alias=True, exclude_none=True)) == body


@pytest.mark.parametrize(("model", "values"), BODIES, ids=NAMES)
def test_fields_that_a_body_does_not_have_are_refused(model: type[BaseModel], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="limmit"):
        model(**values, limmit=1)


@pytest.mark.parametrize(("model", "values"), BODIES, ids=NAMES)
def test_a_body_cannot_be_changed(model: type[BaseModel], values: dict[str, Any]) -> None:
    body = model(**values)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(body, next(iter(values)), None)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (reports.DatasetLag(dataset=reports.Dataset.TURNS), {"dataset"}),
        (reports.FailedRow(**FAILED_ROW), set(FAILED_ROW)),
        (reports.OutboxDiagnostics.model_validate(OUTBOX), set(OUTBOX)),
        (reports.AllowedAction(rel="retry"), {"rel"}),
        (reports.Problem(title="Conflict", status=409), {"title", "status"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseModel) else "",
)
def test_optional_fields_are_left_out_when_empty(body: BaseModel, fields: set[str]) -> None:
    assert set(body.model_dump(mode="json", exclude_none=True)) == fields
    required = {name for name, field in type(body).model_fields.items() if field.is_required()}
    assert required == fields


def test_a_backfill_request_may_be_empty() -> None:
    assert reports.ReportingBackfillRequest().limit == 1000
    assert reports.ReportingBackfillRequest.model_validate_json("{}").limit == 1000


def test_all_fields_of_a_backfill_result_are_required() -> None:
    for name in BACKFILL:
        with pytest.raises(ValidationError, match=name):
            reports.ReportingBackfillResult(**{key: value for key, value in BACKFILL.items() if key != name})


def integers(bits: int) -> list[tuple[type[BaseModel], dict[str, Any], str]]:
    """The fields of all bodies that are integers of so many bits."""
    return [
        (model, values, name)
        for model, values in BODIES
        for name, field in model.model_fields.items()
        if f"'int{bits}'" in str(model.model_json_schema()["properties"][field.alias or name])
    ]


def test_the_contracts_32_bit_fields_are_such_and_all_others_have_64() -> None:
    narrow = {(model.__name__, name) for model, _, name in integers(32)}
    assert narrow == {("FailedRow", "attempts"), ("Problem", "status"), ("Problem", "retry_after_seconds")}
    wide = [name for _, _, name in integers(64)]
    assert len(wide) == 1 + 6 + 3 + 1 + 1 + 4


@pytest.mark.parametrize("bits", [32, 64])
def test_integers_take_their_bounds_and_nothing_beyond(bits: int) -> None:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for model, values, name in integers(bits):
        if model is reports.ReportingBackfillRequest:
            continue
        for bound in (least, most):
            assert getattr(model(**{**values, name: bound}), name) == bound
        for beyond in (least - 1, most + 1):
            with pytest.raises(ValidationError, match=name):
                model(**{**values, name: beyond})


def test_the_datasets_are_the_contracts() -> None:
    assert {dataset.value for dataset in reports.Dataset} == {
        "llm_generations", "tool_calls", "turns", "sessions", "budget_postings", "capability_usage",
    }  # fmt: skip
    # Installed projections may have datasets of their own.
    assert reports.DatasetLag(dataset="weather").dataset == "weather"


@pytest.mark.parametrize("limit", [0, -1, 100_001, 2**63, "5", True, 1.5, None, float("inf")])
def test_a_limit_that_is_no_whole_number_from_1_to_100_000_is_refused(limit: Any) -> None:
    with pytest.raises(ValidationError, match="limit"):
        reports.ReportingBackfillRequest(limit=limit)


@pytest.mark.parametrize("limit", [1, 100_000, 153.0])
def test_a_limit_may_be_written_as_any_integer(limit: Any) -> None:
    assert reports.ReportingBackfillRequest(limit=limit).limit == int(limit)


@pytest.mark.parametrize(
    "bounds",
    [
        {"from": "2026-05-06T10:00:00Z", "to": "2026-05-06T10:00:00Z"},
        {"from": "2026-05-06T10:00:00Z", "to": "2026-05-06T11:00:00+02:00"},
        {"from": "2026-05-06T10:00:00"},
        {"to": "0001-01-01T00:00:00+14:00"},
        {"to": 1_770_000_000},
        {"created_from": "2026-05-06T10:00:00Z"},
    ],
    ids=str,
)
def test_a_range_that_is_none_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        reports.ReportingBackfillRequest.model_validate_json(json.dumps(bounds))


def test_a_range_is_of_moments_wherever_they_were_written() -> None:
    text = '{"from": "2026-05-06T10:00:00+02:00", "to": "2026-05-06T10:00:00Z"}'
    request = reports.ReportingBackfillRequest.model_validate_json(text)
    assert request.created_from == datetime(2026, 5, 6, 8, tzinfo=UTC)
    assert request.created_to == datetime(2026, 5, 6, 10, tzinfo=UTC)


def test_an_outbox_row_has_the_tables_defaults() -> None:
    row = OutboxRow(**OUTBOX_ROW)
    assert (row.source_version, row.status, row.attempts) == ("", OutboxStatus.PENDING, 0)
    assert (row.next_attempt_at, row.last_error, row.claimed_at) == (None, None, None)


def test_an_outbox_row_survives_the_way_through_json() -> None:
    row = OutboxRow(
        **OUTBOX_ROW, source_version="v", status=OutboxStatus.FAILED, attempts=3, next_attempt_at=AT,
        last_error="22003", claimed_at=AT,
    )  # fmt: skip
    assert OutboxRow.model_validate_json(row.model_dump_json()) == row


def test_an_outbox_row_takes_columns_that_others_have_added() -> None:
    assert OutboxRow(**OUTBOX_ROW, shard=3).id == ROW_ID  # type: ignore[call-arg]


def test_the_statuses_are_the_contracts() -> None:
    assert {status.value for status in OutboxStatus} == {"pending", "processing", "completed", "failed"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "dead"), ("attempts", -1), ("last_error", "x" * (MAX_ERROR_CHARACTERS + 1)), ("id", "17")],
)
def test_an_outbox_row_that_the_table_would_refuse_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        OutboxRow(**{**OUTBOX_ROW, name: value})


def test_the_longest_error_fits() -> None:
    assert MAX_ERROR_CHARACTERS == 2000
    assert OutboxRow(**OUTBOX_ROW, last_error="ü" * 2000).last_error == "ü" * 2000
