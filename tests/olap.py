"""Fact messages as the changelog publishes them, for tests of the engines that load them."""

import json
from pathlib import Path
from typing import Any

from schemas.published import schemas

FOLDER = Path(__file__).parent.parent / "deploy" / "olap"

DATASETS = {
    "llm_generations": "fact_llm_generation", "tool_calls": "fact_tool_call", "turns": "fact_turn",
    "sessions": "fact_session", "budget_postings": "fact_budget_posting", "capability_usage": "fact_capability_usage",
}  # fmt: skip

AT = "2026-05-06T10:00:00.123456+00:00"
_VALUES = {"uuid": "00000000-0000-0000-0000-000000000007", "date": "2026-05-06", "date-time": AT, "int64": 2**63 - 1}


def fact(dataset: str, source_key: str, version: int, **changed: Any) -> dict[str, Any]:
    """A fact of org 1 with a value in each column."""
    message = {}
    for name, field in schemas()[f"changelog.{dataset}.v1"]["properties"].items():
        first = field.get("anyOf", [field])[0]
        message[name] = 1.5 if first["type"] == "number" else _VALUES.get(first.get("format", ""), f"a {name}, 'ü'")
    return {**message, "org_id": 1, "source_key": source_key, "version": version, "removed": False, **changed}


def removed(source_key: str, version: int) -> dict[str, Any]:
    """Says that a fact is gone."""
    return {"org_id": 1, "source_key": source_key, "removed": True, "version": version, "projected_at": AT}


def key(message: dict[str, Any]) -> bytes:
    return json.dumps({"org_id": message["org_id"], "source_key": message["source_key"]}).encode()


def statements(name: str) -> list[str]:
    """The statements of a file of deploy/olap."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]
