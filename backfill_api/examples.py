"""Examples in the OpenAPI document, by operation; a test holds them against the models."""

import json
from collections.abc import Mapping
from typing import Any

from backfill_api.problems import ApiError, Code, problem_response

_AT = "2026-05-06T10:00:00.123456Z"
_ID = "019df9c4-3b1e-7c60-9d2f-0a7b5e1c2d3f"

BODIES: Mapping[str, Any] = {
    "backfill_reporting": {"limit": 5000},
    "requeue_outbox": {"all_dead": True, "dry_run": True},
}

_FAILED = {
    "id": _ID, "org_id": 7, "source_type": "event", "source_id": "0b6f1e0e-8f0f-4a55-9f0e-1d1f5f2f8a11",
    "attempts": 3, "last_error": "22003 NumericValueOutOfRangeError: a value does not fit", "updated_at": _AT,
}  # fmt: skip

ANSWERS: Mapping[str, Any] = {
    "backfill_reporting": {
        "enqueued": 5000, "events": 4200, "llm_generations": 600, "sessions": 150, "usage_ledger": 50,
    },
    "run_projector": {"claimed": 100, "completed": 99, "failed": 1},
    "get_diagnostics": {
        "generated_at": _AT,
        "projector_lag": [
            {"dataset": "turns", "latest_projected_at": _AT, "freshness_lag_ms": 1200},
            {"dataset": "budget_postings"},
        ],
        "outbox": {
            "pending": 12, "processing": 0, "failed": 1, "completed": 104095, "oldest_pending_at": _AT,
            "failed_rows": [_FAILED],
        },
    },
    "list_outbox": {
        "rows": [
            _FAILED | {
                "source_version": "", "reason": "event_projection", "status": "failed", "next_attempt_at": _AT,
                "created_at": _AT,
            }
        ],
        "next_cursor": "eyJhIjoxfQ",
    },
    "requeue_outbox": {"requeued": 12, "more": False},
    "list_actions": {
        "actions": [
            {
                "id": _ID, "operation": "backfill_reporting", "actor": "ops", "org_id": 7,
                "parameters": {"limit": 5000}, "rows": 5000, "outcome": "done", "request_id": "d2c5e3",
                "started_at": _AT, "finished_at": _AT,
            }
        ],
    },
}  # fmt: skip

_DETAILS: Mapping[Code, str] = {
    Code.BAD_REQUEST: "body: limit must be greater than or equal to 1",
    Code.UNAUTHORIZED: "no credentials: send Authorization: Bearer <token>",
    Code.FORBIDDEN: "Access denied: policy 'report.admin' requires 'org:reports:admin'",
    Code.NOT_FOUND: "Organization not found",
    Code.INTERNAL_ERROR: "Internal server error",
}
_RETRY_SECONDS: Mapping[Code, int] = {Code.CONFLICT: 1, Code.RATE_LIMITED: 2, Code.UNAVAILABLE: 5}


def problem_example(code: Code) -> dict[str, Any]:
    """A problem of this code, as the service would send it."""
    error = ApiError(code, _DETAILS.get(code), retry_after=_RETRY_SECONDS.get(code))
    example: dict[str, Any] = json.loads(problem_response(error, "/v1/reports/admin/backfill").text or "{}")
    return example
