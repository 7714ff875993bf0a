"""The metrics: one object that is passed in, base units, a closed set of labels, never a tenant."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from projector.batch import DELAY_BOUNDS, BatchResult
from projector.outbox import Delays
from projector.registry import Registry

DISTRIBUTION = "reporting-projector"
OTHER_SOURCE_TYPE = "other"
"""What a source type that no projection knows is called in labels: they stay a closed set, whatever rows say."""

_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)


class OutboxGauges:
    """What any program that watches the outbox tells Prometheus of it."""

    def __init__(self, projections: Registry, registry: CollectorRegistry) -> None:
        self._types = {projection.source_type for projection in projections}
        self.registry = registry
        self._lag = Gauge(
            "reporting_outbox_lag_seconds", "Age of the oldest due row; 0 where none is due.", ["source_type"],
            registry=registry,
        )  # fmt: skip
        self._rows = Gauge(
            "reporting_outbox_rows",
            "Outbox rows by status; dead letters apart from failed rows; estimated where there are many.",
            ["status"], registry=registry,
        )  # fmt: skip
        self._freshness = Gauge(
            "reporting_dataset_freshness_seconds", "Time since a dataset last gained a fact.", ["dataset"],
            registry=registry,
        )  # fmt: skip
        self._sampled = Gauge(
            "reporting_outbox_sampled_timestamp_seconds", "When the outbox was last sampled, Unix time.",
            registry=registry,
        )  # fmt: skip
        self._released = Counter(
            "reporting_outbox_leases_released", "Rows whose lease by another program ran out.", registry=registry
        )
        for source_type in self.source_types:
            self._lag.labels(source_type).set(0)

    @property
    def source_types(self) -> tuple[str, ...]:
        """The source types that labels may hold."""
        return (*sorted(self._types), OTHER_SOURCE_TYPE)

    def released(self, rows: int) -> None:
        """Counts leases of other programs that were released."""
        self._released.inc(rows)

    def outbox(self, rows: Mapping[str, int], lag_seconds: Mapping[str, float], sampled_at: float) -> None:
        """Shows a sample of the outbox: rows by status, lag by source type, when (Unix time, seconds)."""
        for status, count in rows.items():
            self._rows.labels(status).set(count)
        lags = dict.fromkeys(self.source_types, 0.0)
        for source_type, lag in lag_seconds.items():
            label = self._label(source_type)
            lags[label] = max(lag, lags[label])
        for source_type, lag in lags.items():
            self._lag.labels(source_type).set(lag)
        self._sampled.set(sampled_at)

    def freshness(self, seconds: Mapping[str, float]) -> None:
        """Shows how long ago each dataset last gained a fact; a dataset without facts has no value."""
        for dataset, age in seconds.items():
            self._freshness.labels(dataset).set(age)

    def _label(self, source_type: str) -> str:
        return source_type if source_type in self._types else OTHER_SOURCE_TYPE


def show_build(name: str, registry: CollectorRegistry) -> None:
    """Adds a gauge `name` that is always 1; its labels tell the build."""
    build = Gauge(name, "Always 1; the labels tell the build.", ["version", "python"], registry=registry)
    build.labels(version(DISTRIBUTION), platform.python_version()).set(1)


class Metrics(OutboxGauges):
    """All that a projector tells Prometheus."""

    def __init__(self, projections: Registry, registry: CollectorRegistry) -> None:
        super().__init__(projections, registry)
        self._datasets = [table.dataset for table in projections.tables]
        self._up = Gauge(
            "reporting_projector_up", "1 while the projector projects, 0 while it cannot.", registry=registry
        )
        self._fits = Gauge(
            "reporting_projector_projection_fits", "1 where a projection fits the database, 0 where it does not.",
            ["projection"], registry=registry,
        )  # fmt: skip
        show_build("reporting_projector_build_info", registry)
        self._define_counters(registry)
        self._delays = _DelayHistogram(sorted(self._types))
        registry.register(self._delays)
        self.up(projecting=False)

    def _define_counters(self, registry: CollectorRegistry) -> None:
        self._projected = Counter(
            "reporting_projector_rows", "Outbox rows settled.", ["source_type", "outcome"], registry=registry
        )
        self._facts = Counter("reporting_projector_facts", "Facts written.", ["dataset"], registry=registry)
        self._removed = Counter("reporting_projector_facts_removed", "Facts removed.", ["dataset"], registry=registry)
        self._gone = Counter(
            "reporting_projector_source_gone", "Rows whose source was gone.", ["source_type"], registry=registry
        )
        self._skipped = Counter(
            "reporting_projector_records_skipped", "Records of capability.usage events that gave no fact.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._pruned = Counter(
            "reporting_outbox_pruned", "Completed outbox rows removed after the retention.", registry=registry
        )
        self._errors = Counter(
            "reporting_projector_errors", "Batches given up and tried again, by kind of error.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "reporting_projector_batch_seconds", "How long a batch took, claim to commit.", buckets=_BATCH_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._batch_rows = Histogram(
            "reporting_projector_batch_rows", "Rows in a batch.", buckets=_BATCH_ROWS, registry=registry
        )
        for source_type in self.source_types:
            for outcome in ("completed", "failed", "dead", "postponed"):
                self._projected.labels(source_type, outcome)
        for dataset in self._datasets:
            self._facts.labels(dataset)
            self._removed.labels(dataset)

    def up(self, *, projecting: bool) -> None:
        """Tells whether the projector projects."""
        self._up.set(int(projecting))

    def fits(self, projection: str, fits: bool) -> None:
        """Tells whether a projection fits the database."""
        self._fits.labels(projection).set(int(fits))

    def batch(self, result: BatchResult, seconds: float) -> None:
        """Counts a batch that was committed."""
        self._batch_seconds.observe(seconds)
        self._batch_rows.observe(result.claimed)
        for outcome, rows in (("completed", result.completed), ("postponed", result.postponed)):
            for source_type, count in rows.items():
                self._projected.labels(self._label(source_type), outcome).inc(count)
        for failed in result.failed:
            self._projected.labels(self._label(failed.source_type), "dead" if failed.dead else "failed").inc()
        for counter, counts in (
            (self._gone, result.gone),
            (self._facts, result.facts),
            (self._removed, result.removed),
            (self._skipped, result.skipped),
        ):
            for name, count in counts.items():
                counter.labels(name).inc(count)
        self._delays.add(result.delays)

    def pruned(self, rows: int) -> None:
        """Counts completed rows that were removed after the retention."""
        self._pruned.inc(rows)

    def error(self, kind: str) -> None:
        """Counts a batch that was given up."""
        self._errors.labels(kind).inc()


class _DelayHistogram(Collector):
    """`reporting_projection_delay_seconds`, counted by PostgreSQL: a batch brings a few sums instead of its rows."""

    def __init__(self, source_types: Iterable[str]) -> None:
        self._buckets = {source_type: [0] * (len(DELAY_BOUNDS) + 1) for source_type in source_types}
        self._seconds = dict.fromkeys(self._buckets, 0.0)

    def add(self, delays: Iterable[Delays]) -> None:
        for delay in delays:
            self._buckets[delay.source_type][delay.bucket] += delay.rows
            self._seconds[delay.source_type] += delay.seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "reporting_projection_delay_seconds", "From an outbox row's creation to the commit of its facts.",
            labels=["source_type"],
        )  # fmt: skip
        for source_type, counts in self._buckets.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*map(str, DELAY_BOUNDS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric([source_type], buckets, self._seconds[source_type])
        return [family]
