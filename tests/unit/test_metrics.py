"""Metrics: the names operators watch, base units, closed label sets, and an exposition that Prometheus takes."""

import shutil
import subprocess
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from projector.batch import DELAY_BOUNDS, BatchResult
from projector.metrics import OTHER_SOURCE_TYPE, Metrics
from projector.outbox import Delays, FailedOutcome
from projector.registry import Registry

SOURCE_TYPES = {"event", "session", "llm_generation", "usage_ledger"}
DATASETS = {"llm_generations", "tool_calls", "turns", "sessions", "budget_postings", "capability_usage"}
CANARY = "canary_type_7"


@pytest.fixture
def metrics(registry: Registry) -> Metrics:
    return Metrics(registry, CollectorRegistry())


def families(metrics: Metrics) -> dict[str, Metric]:
    """The exposition, parsed as Prometheus would."""
    text = generate_latest(metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(metrics: Metrics, name: str, **labels: Any) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def busy(metrics: Metrics) -> Metrics:
    """Every method used, with a source type that no projection knows wherever one can come."""
    failed = [FailedOutcome(uuid4(), 1, kind, 1, dead=dead) for kind in ("event", CANARY) for dead in (False, True)]
    metrics.batch(
        BatchResult(
            limit=500, claimed=11, completed={"event": 3, "session": 2}, failed=failed, postponed={"event": 2},
            gone={"event": 1}, facts={"tool_calls": 4}, removed={"turns": 1}, skipped={"no_capability": 1},
            delays=[Delays("event", 0, 2, 0.001), Delays("event", 19, 1, 4000.0), Delays("session", 5, 2, 0.05)],
        ),
        0.02,
    )  # fmt: skip
    metrics.error("DeadlockDetectedError")
    metrics.released(3)
    metrics.pruned(5)
    metrics.outbox({"pending": 1, "dead": 2}, {"event": 1.5, CANARY: 7.0, "other thing": 3.0}, 1_700_000_000.0)
    metrics.freshness({"tool_calls": 2.5})
    metrics.up(projecting=True)
    return metrics


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("reporting_outbox_lag_seconds", "gauge", {"source_type"}),
        ("reporting_outbox_rows", "gauge", {"status"}),
        ("reporting_outbox_pruned", "counter", set()),
        ("reporting_projector_rows", "counter", {"source_type", "outcome"}),
        ("reporting_projector_batch_seconds", "histogram", {"le"}),
        ("reporting_projector_batch_rows", "histogram", {"le"}),
        ("reporting_projection_delay_seconds", "histogram", {"source_type", "le"}),
        ("reporting_dataset_freshness_seconds", "gauge", {"dataset"}),
        ("reporting_projector_up", "gauge", set()),
        ("reporting_projector_build_info", "gauge", {"version", "python"}),
    ],
)
def test_the_names_that_operators_watch_are_there(metrics: Metrics, name: str, kind: str, labels: set[str]) -> None:
    family = families(busy(metrics))[name]
    assert family.type == kind
    assert family.documentation
    assert {label for sample in family.samples for label in sample.labels} == labels
    if kind == "counter":
        assert {sample.name for sample in family.samples if not sample.name.endswith("_created")} == {f"{name}_total"}


def test_every_name_is_ours_and_every_unit_a_base_unit(metrics: Metrics) -> None:
    for name, family in families(busy(metrics)).items():
        assert name.startswith("reporting_")
        assert not name.endswith(("_ms", "_milliseconds", "_minutes", "_kilobytes"))
        assert family.documentation


def test_no_metric_tells_of_a_tenant(metrics: Metrics) -> None:
    for family in families(busy(metrics)).values():
        for sample in family.samples:
            assert not {"org", "org_id", "organization", "tenant"} & set(sample.labels)


def test_source_types_that_no_projection_knows_are_other(metrics: Metrics) -> None:
    busy(metrics)
    assert CANARY not in generate_latest(metrics.registry).decode()
    seen = {
        sample.labels["source_type"]
        for family in families(metrics).values()
        for sample in family.samples
        if "source_type" in sample.labels
    }
    assert seen == SOURCE_TYPES | {OTHER_SOURCE_TYPE}
    assert value(metrics, "reporting_projector_rows_total", source_type="other", outcome="failed") == 1
    assert value(metrics, "reporting_projector_rows_total", source_type="other", outcome="dead") == 1
    assert value(metrics, "reporting_outbox_lag_seconds", source_type="other") == 7


def test_settled_rows_are_counted_by_source_type_and_outcome(metrics: Metrics) -> None:
    busy(busy(metrics))
    outcomes = {"completed": 6, "failed": 2, "dead": 2, "postponed": 4}
    for outcome, count in outcomes.items():
        assert value(metrics, "reporting_projector_rows_total", source_type="event", outcome=outcome) == count
    assert value(metrics, "reporting_projector_facts_total", dataset="tool_calls") == 8
    assert value(metrics, "reporting_projector_facts_removed_total", dataset="turns") == 2
    assert value(metrics, "reporting_outbox_pruned_total") == 10
    assert value(metrics, "reporting_projector_batch_rows_sum") == 22
    assert value(metrics, "reporting_projector_batch_seconds_count") == 2


def test_counters_are_there_from_the_start_so_that_their_first_increase_shows(metrics: Metrics) -> None:
    for source_type in SOURCE_TYPES | {OTHER_SOURCE_TYPE}:
        for outcome in ("completed", "failed", "dead", "postponed"):
            assert value(metrics, "reporting_projector_rows_total", source_type=source_type, outcome=outcome) == 0
        assert value(metrics, "reporting_outbox_lag_seconds", source_type=source_type) == 0
    for dataset in DATASETS:
        assert value(metrics, "reporting_projector_facts_total", dataset=dataset) == 0
    assert value(metrics, "reporting_outbox_pruned_total") == 0
    assert value(metrics, "reporting_projector_up") == 0


def test_lag_returns_to_zero_when_nothing_is_due_any_more(metrics: Metrics) -> None:
    busy(metrics)
    metrics.outbox({"pending": 0, "dead": 2}, {}, 1_700_000_005.0)
    for source_type in ("event", OTHER_SOURCE_TYPE):
        assert value(metrics, "reporting_outbox_lag_seconds", source_type=source_type) == 0
    assert value(metrics, "reporting_outbox_rows", status="pending") == 0
    assert value(metrics, "reporting_outbox_sampled_timestamp_seconds") == 1_700_000_005


def test_a_dataset_without_facts_has_no_freshness(metrics: Metrics) -> None:
    busy(metrics)
    assert value(metrics, "reporting_dataset_freshness_seconds", dataset="tool_calls") == 2.5
    assert value(metrics, "reporting_dataset_freshness_seconds", dataset="turns") is None


def test_the_delays_buckets_reach_from_a_millisecond_to_an_hour() -> None:
    assert (DELAY_BOUNDS[0], DELAY_BOUNDS[-1]) == (0.001, 3600)
    assert list(DELAY_BOUNDS) == sorted(set(DELAY_BOUNDS))


def test_the_delay_histogram_is_consistent(metrics: Metrics) -> None:
    busy(busy(metrics))
    samples = families(metrics)["reporting_projection_delay_seconds"].samples
    for source_type, count, total in (("event", 6, 8000.002), ("session", 4, 0.1), ("usage_ledger", 0, 0.0)):
        mine = [sample for sample in samples if sample.labels["source_type"] == source_type]
        buckets = [(float(sample.labels["le"]), sample.value) for sample in mine if "le" in sample.labels]
        assert [bound for bound, _ in buckets] == [*DELAY_BOUNDS, float("inf")]
        assert [rows for _, rows in buckets] == sorted(rows for _, rows in buckets)
        sums = {sample.name.rpartition("_")[2]: sample.value for sample in mine if "le" not in sample.labels}
        assert buckets[-1][1] == sums["count"] == count
        assert sums["sum"] == pytest.approx(total)
    by_bound = {s.labels["le"]: s.value for s in samples if s.labels.get("source_type") == "event" and "le" in s.labels}
    assert (by_bound["0.001"], by_bound["3600"], by_bound["+Inf"]) == (4, 4, 6)


def test_promtool_has_nothing_to_complain_of(metrics: Metrics) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `make packages`")
    exposition = generate_latest(busy(metrics).registry)
    checked = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
