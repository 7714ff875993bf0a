"""What the relay and the consumers tell Prometheus."""

from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge

from projector.metrics import OTHER_SOURCE_TYPE
from projector.registry import Registry


class RelayMetrics:
    """What a relay has published."""

    def __init__(self, projections: Registry, registry: CollectorRegistry) -> None:
        self._types = {projection.source_type for projection in projections}
        self._published = Counter(
            "reporting_relay_published", "Outbox rows whose message the cluster has.", ["source_type"],
            registry=registry,
        )  # fmt: skip
        self._failed = Counter(
            "reporting_relay_failed", "Outbox rows whose message did not get through; they are due again.",
            ["source_type"], registry=registry,
        )  # fmt: skip
        self._errors = Counter(
            "reporting_relay_errors", "Batches given up and tried again, by kind of error.", ["kind"],
            registry=registry,
        )  # fmt: skip
        for source_type in (*sorted(self._types), OTHER_SOURCE_TYPE):
            self._published.labels(source_type)
            self._failed.labels(source_type)

    def published(self, rows: Mapping[str, int]) -> None:
        """Counts rows that were published, by source type."""
        for source_type, count in rows.items():
            self._published.labels(self._label(source_type)).inc(count)

    def failed(self, rows: Mapping[str, int]) -> None:
        """Counts rows that were not, by source type."""
        for source_type, count in rows.items():
            self._failed.labels(self._label(source_type)).inc(count)

    def error(self, kind: str) -> None:
        """Counts a batch that was given up."""
        self._errors.labels(kind).inc()

    def _label(self, source_type: str) -> str:
        return source_type if source_type in self._types else OTHER_SOURCE_TYPE


class ConsumerMetrics:
    """What the consumers of a process have met; shared by all of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Gauge(
            "reporting_kafka_consumer_lag", "Messages behind the newest one, by partition of this process.",
            ["topic", "partition"], registry=registry,
        )  # fmt: skip
        self._messages = Counter("reporting_kafka_messages", "Messages read.", registry=registry)
        self._rebalances = Counter(
            "reporting_kafka_rebalances", "How often a consumer was given its partitions anew.", registry=registry
        )
        self._dead_letters = Counter(
            "reporting_kafka_dead_letters", "Messages put into the dead-letter topic.", ["reason"], registry=registry
        )
        self._errors = Counter(
            "reporting_kafka_errors", "Faults of the cluster that consumers waited out, by kind.", ["kind"],
            registry=registry,
        )  # fmt: skip

    def read(self, messages: int) -> None:
        """Counts messages that were read."""
        self._messages.inc(messages)

    def lag(self, messages: Mapping[TopicPartition, int]) -> None:
        """Shows how far behind the newest message partitions are."""
        for place, behind in messages.items():
            self._lag.labels(place.topic, str(place.partition)).set(behind)

    def rebalanced(self) -> None:
        """Counts a rebalance of one consumer."""
        self._rebalances.inc()

    def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Forgets partitions that go to others."""
        for place in partitions:
            self._lag.remove_by_labels({"topic": place.topic, "partition": str(place.partition)})

    def dead_letter(self, reason: str) -> None:
        """Counts a message that went to the dead-letter topic."""
        self._dead_letters.labels(reason).inc()

    def error(self, kind: str) -> None:
        """Counts a fault of the cluster."""
        self._errors.labels(kind).inc()
