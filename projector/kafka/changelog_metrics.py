"""What the changelog tells Prometheus."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge


class ChangelogMetrics:
    """The changelog's metrics; datasets are a closed set."""

    def __init__(self, datasets: Iterable[str], registry: CollectorRegistry) -> None:
        self._published = Counter(
            "reporting_changelog_published", "Facts published to Kafka, removed ones included.", ["dataset"],
            registry=registry,
        )  # fmt: skip
        self._oversized = Counter(
            "reporting_changelog_oversized", "Facts not published: larger than the topic takes.", ["dataset"],
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "reporting_changelog_failures", "Attempts to publish that failed and are made again.", registry=registry
        )
        self._waiting = Gauge(
            "reporting_changelog_waiting", "Changes of facts that wait to be published; 10,000 stands for more.",
            registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "reporting_changelog_lag_seconds", "Age of the oldest change that waits; 0 where none does.",
            registry=registry,
        )  # fmt: skip
        for dataset in datasets:
            self._published.labels(dataset)
            self._oversized.labels(dataset)

    def published(self, dataset: str, facts: int) -> None:
        """Counts facts that the cluster has."""
        self._published.labels(dataset).inc(facts)

    def oversized(self, dataset: str) -> None:
        """Counts a fact that no message is large enough for."""
        self._oversized.labels(dataset).inc()

    def failed(self) -> None:
        """Counts an attempt that failed."""
        self._failures.inc()

    def waiting(self, changes: int, lag_seconds: float) -> None:
        """Shows how many changes wait, and the age of the oldest in seconds."""
        self._waiting.set(changes)
        self._lag.set(lag_seconds)
