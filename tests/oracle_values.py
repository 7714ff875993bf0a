"""The contract's rules about single values, in plain Python: JSON, sums, long texts, durations (facts.md)."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class JsonNumber:
    """A number of a JSON document as its literal text: not a `str`, so that it is never taken for a JSON string."""

    literal: str


def parse_json(document: str | None) -> Any:
    """A document as PostgreSQL prints jsonb: numbers are normalised already, their literal is their `->>` text."""
    return None if document is None else json.loads(document, parse_int=JsonNumber, parse_float=JsonNumber)


def member(document: Any, name: str) -> Any:
    return document.get(name) if isinstance(document, dict) else None


def text(document: Any, name: str) -> str | None:
    """A member's text; only scalars have one."""
    match member(document, name):
        case bool(value):
            return "true" if value else "false"
        case JsonNumber(literal=value) | str(value):
            return value
        case _:
            return None


def number(document: Any, name: str, default: int = 0) -> int:
    digits = text(document, name) or ""
    if not re.fullmatch("[0-9]+", digits):
        return default
    digits = digits.lstrip("0") or "0"
    # The length is looked at first: a number may have more digits than int() agrees to read.
    return int(digits) if len(digits) <= len(str(BIGINT_MAX)) and int(digits) <= BIGINT_MAX else default


def capability(value: Any) -> str | None:
    """A capability id counts only as a non-empty string."""
    return value if isinstance(value, str) and value else None


def total(values: Iterable[int]) -> int:
    return max(BIGINT_MIN, min(BIGINT_MAX, sum(values)))


def bounded(value: str | None) -> str | None:
    """Indexed text, short enough for a btree entry and still distinct."""
    if value is None or len(value.encode()) <= 1000:
        return value
    return f"{value[:200]}#{hashlib.sha256(value.encode()).hexdigest()}"


def milliseconds(start: datetime | None, end: datetime | None) -> int:
    if start is None or end is None:
        return 0
    return max(0, ((end - start) // timedelta(microseconds=1) + 500) // 1000)


def counts(**true: bool) -> dict[str, Any]:
    return {f"{name}_count": int(value) for name, value in true.items()}
