"""The service's metrics: one object that is passed in, base units, closed sets of labels, never a tenant."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from backfill_api.problems import Code
from projector.metrics import OutboxGauges, show_build
from projector.registry import Registry

NO_ROUTE = "unmatched"
"""What a path without a route is called in labels, and a request that could not be read."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})

# How a backfill request ended, by the code of its answer. What is in none of these was refused for what was asked.
_OUTCOMES = {
    None: "done",
    Code.CONFLICT: "conflict",
    Code.RATE_LIMITED: "rate_limited",
    Code.INCOMPLETE: "incomplete",
    Code.TIMEOUT: "timeout",
    Code.UNAVAILABLE: "unavailable",
    Code.INTERNAL_ERROR: "error",
}
_REFUSED = "refused"


class ApiMetrics(OutboxGauges):
    """All that the service tells Prometheus."""

    def __init__(self, projections: Registry, registry: CollectorRegistry) -> None:
        super().__init__(projections, registry)
        self._enqueued = Counter(
            "reporting_backfill_enqueued", "Outbox rows enqueued by backfills.", ["source_type"], registry=registry
        )
        self._backfills = Counter(
            "reporting_backfill_requests", "Backfill requests, by how they ended.", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "reporting_api_request_seconds", "How long a request took until its answer was ready.",
            ["route", "method", "status"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        show_build("reporting_api_build_info", registry)
        for source_type in self.source_types:
            self._enqueued.labels(source_type)
        for outcome in (*_OUTCOMES.values(), _REFUSED):
            self._backfills.labels(outcome)

    def enqueued(self, source_type: str, rows: int) -> None:
        """Counts rows that a backfill enqueued."""
        self._enqueued.labels(self._label(source_type)).inc(rows)

    def backfill(self, code: Code | None) -> None:
        """Counts a backfill request by the code of its answer; None for one that succeeded."""
        self._backfills.labels(_OUTCOMES.get(code, _REFUSED)).inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request: its route's pattern or NO_ROUTE, and its status by class."""
        self._seconds.labels(route, method if method in _METHODS else "other", f"{status // 100}xx").observe(seconds)
