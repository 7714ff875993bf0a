"""Spans by OpenTelemetry. Imported only where the extra `otel` is installed.

A span holds method, route pattern and status; no path, query or error text, which may tell of tenants.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backfill_api.tracing import Traced

_FIRST_SERVER_ERROR = 500


class OtelTracer:
    """Exports a span for each request over OTLP, in the background."""

    def __init__(self) -> None:
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say is stronger.
        resource = Resource.create({SERVICE_NAME: "backfill-api", **OTELResourceDetector().detect().attributes})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("backfill_api")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, request: web.BaseRequest) -> Iterator[Traced]:
        """A server's span, child of the one that the request names."""
        parent = self._propagator.extract({"traceparent": request.headers.get("traceparent", "")})
        with self._tracer.start_as_current_span(
            request.method, parent, SpanKind.SERVER, {"http.request.method": request.method},
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            traced = Traced(format(span.get_span_context().trace_id, "032x"))
            yield traced
            span.update_name(f"{request.method} {traced.route}")
            span.set_attributes({"http.route": traced.route, "http.response.status_code": traced.status})
            if traced.status >= _FIRST_SERVER_ERROR:
                span.set_status(StatusCode.ERROR)

    def close(self) -> None:
        """Sends the spans that are left."""
        self._provider.shutdown()
