"""What the OpenAPI document cannot tell schemathesis of valid requests; loaded by SCHEMATHESIS_HOOKS.

Only requests that are meant to be valid are touched; the malformed ones go out as they are.
"""

import os
from typing import Any

import schemathesis
from schemathesis import GenerationMode

ORG_HEADER = "X-Org-Id"
SOURCE_TYPES = ("event", "session", "llm_generation", "usage_ledger")


def _is_meant_to_be_valid(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


@schemathesis.hook
def map_case(_: Any, case: Any) -> Any:
    """A cursor is one that a page gave, a source type is known, a range has an end after its start.

    A platform-wide caller names an org in one place.
    """
    if not _is_meant_to_be_valid(case):
        return case
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
    body = case.body if isinstance(case.body, dict) else {}
    if body.get("source_types"):
        body["source_types"] = [SOURCE_TYPES[len(name) % len(SOURCE_TYPES)] for name in body["source_types"]]
    if body.get("from"):
        body.pop("to", None)
    if "FUZZ_ORG" in os.environ:
        case.headers.pop(ORG_HEADER, None)
        if not body.get("org_id") and not (case.query or {}).get("org_id"):
            case.headers[ORG_HEADER] = os.environ["FUZZ_ORG"]
    return case


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """A requeue names exactly one kind of rows."""
    if case.operation.path != "/v1/reports/admin/outbox/requeue" or not _is_meant_to_be_valid(case):
        return True
    body = case.body if isinstance(case.body, dict) else {}
    return sum((body.get("ids") is not None, body.get("source_type") is not None, bool(body.get("all_dead")))) == 1
