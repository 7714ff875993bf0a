"""How a request is followed: its id, the W3C trace it belongs to, and OpenTelemetry where that is installed."""

import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from aiohttp import web
from multidict import MultiMapping

_REQUEST_ID = re.compile("[A-Za-z0-9._-]{1,128}")
# Versions to come may add fields at the end; version ff is none, nor is an id of zeros.
_TRACEPARENT = re.compile("(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def request_id(headers: MultiMapping[str]) -> str:
    """The header `X-Request-Id` if there is one and it is harmless, else a new id."""
    given = headers.getall("X-Request-Id", [])
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else new_request_id()


def new_request_id() -> str:
    """An id for a request that brings none."""
    return uuid.uuid4().hex


def trace_id(headers: MultiMapping[str]) -> str | None:
    """The trace of the header `traceparent` (W3C Trace Context); None without a valid one."""
    given = headers.getall("traceparent", [])
    match = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    if match is None or (match[1] == "00" and match[3] is not None):
        return None
    return match[2]


@dataclass(slots=True)
class Traced:
    """One request in a trace; route and status are filled in before its span ends."""

    trace_id: str | None
    route: str = ""
    status: int = 0


class Tracer(Protocol):
    """Follows requests."""

    def span(self, request: web.BaseRequest) -> AbstractContextManager[Traced]:
        """What goes around the handling of a request."""

    def close(self) -> None:
        """Sends what is left."""


class PlainTracer:
    """Knows the trace that a request brings, and tells nobody."""

    @contextmanager
    def span(self, request: web.BaseRequest) -> Iterator[Traced]:
        """Nothing but the trace's id."""
        yield Traced(trace_id(request.headers))

    def close(self) -> None:
        """Nothing is left."""


def make_tracer(endpoint: str | None) -> Tracer:
    """A tracer that exports by OpenTelemetry if the extra `otel` is installed and an endpoint is set.

    Args:
        endpoint: `OTEL_EXPORTER_OTLP_ENDPOINT`; what else OpenTelemetry's variables say, its SDK reads by itself.
    """
    if not endpoint or find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return PlainTracer()
    from backfill_api.otel import OtelTracer  # noqa: PLC0415 - needs the extra

    return OtelTracer()
