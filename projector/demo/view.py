"""What the demo shows, read from the very metrics that the daemon serves."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from rich.columns import Columns
from rich.table import Table

from projector.demo.traffic import TrafficCounts

_DATASETS = ("sessions", "turns", "tool_calls", "llm_generations", "budget_postings", "capability_usage")


@dataclass(frozen=True, slots=True)
class OverApi:
    """Outbox rows that operators enqueued, and projected, over the backfill API."""

    enqueued: int = 0
    projected: int = 0


@dataclass(slots=True)
class Snapshot:
    """Counts at one moment; delays in seconds."""

    sources: dict[str, int] = field(default_factory=dict)
    outbox_rows: int = 0
    completed: int = 0
    failed: int = 0
    lag_seconds: float = 0.0
    facts: dict[str, int] = field(default_factory=dict)
    delay_median: float = 0.0
    delay_p99: float = 0.0
    over_api: OverApi = OverApi()

    @property
    def waiting(self) -> int:
        """Rows enqueued and not yet projected."""
        return max(self.outbox_rows - self.completed, 0)


def read_snapshot(registry: CollectorRegistry, written: TrafficCounts, over_api: OverApi) -> Snapshot:
    """Reads the daemon's metrics, beside what the traffic has written and what operators did over the API."""
    outcomes: dict[str, float] = {}
    facts: dict[str, float] = {}
    buckets: dict[float, float] = {}
    lag = 0.0
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "reporting_projector_rows_total":
                outcome = sample.labels["outcome"]
                outcomes[outcome] = outcomes.get(outcome, 0) + sample.value
            elif sample.name == "reporting_projector_facts_total":
                facts[sample.labels["dataset"]] = sample.value
            elif sample.name == "reporting_projection_delay_seconds_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0) + sample.value
            elif sample.name == "reporting_outbox_lag_seconds":
                lag = max(lag, sample.value)
    return Snapshot(
        sources={
            "sessions": written.sessions, "events": written.events, "generations": written.llm_generations,
            "ledger entries": written.ledger_entries,
        },
        outbox_rows=written.outbox_rows + over_api.enqueued,
        completed=round(outcomes.get("completed", 0)) + over_api.projected,
        failed=round(outcomes.get("failed", 0) + outcomes.get("dead", 0)),
        lag_seconds=lag,
        facts={name: round(facts.get(name, 0)) for name in _DATASETS},
        delay_median=_quantile(buckets, 0.5),
        delay_p99=_quantile(buckets, 0.99),
        over_api=over_api,
    )  # fmt: skip


def as_tables(now: Snapshot, before: Snapshot, seconds: float) -> Columns:
    """The live view: sources in, outbox, facts out; rates since the snapshot before."""
    sources = Table("written by the application", "rows")
    for name, count in now.sources.items():
        sources.add_row(name, f"{count:,}")
    outbox = Table("outbox", "")
    outbox.add_row("rows in", f"{now.outbox_rows:,}  ({_rate(now.outbox_rows, before.outbox_rows, seconds)}/s)")
    outbox.add_row("projected", f"{now.completed:,}  ({_rate(now.completed, before.completed, seconds)}/s)")
    outbox.add_row("waiting", f"{now.waiting:,}")
    outbox.add_row("failed", f"{now.failed:,}")
    outbox.add_row("lag", _milliseconds(now.lag_seconds))
    outbox.add_row("delay, median", f"≤ {_milliseconds(now.delay_median)}")
    outbox.add_row("delay, 99 %", f"≤ {_milliseconds(now.delay_p99)}")
    facts = Table("facts written", "rows")
    for name, count in now.facts.items():
        facts.add_row(name, f"{count:,}")
    return Columns([sources, outbox, facts])


def as_line(now: Snapshot) -> str:
    """The same in one line, for where there is no terminal."""
    return (
        f"rows in {now.outbox_rows:,}, projected {now.completed:,}, facts out {sum(now.facts.values()):,}, "
        f"waiting {now.waiting:,}, lag {_milliseconds(now.lag_seconds)}, "
        f"delay median ≤ {_milliseconds(now.delay_median)}"
    )


def summary(now: Snapshot, seconds: float) -> Iterator[str]:
    """What the demo did, in a few lines."""
    sources = ", ".join(f"{count:,} {name}" for name, count in now.sources.items())
    facts = ", ".join(f"{count:,} {name}" for name, count in now.facts.items())
    yield f"In {seconds:.0f} s the application wrote {sources}"
    yield f"and {now.outbox_rows:,} outbox rows; {now.completed:,} were projected, {now.failed:,} failed."
    if now.over_api != OverApi():
        yield f"Of these the backfill API enqueued {now.over_api.enqueued:,} and projected {now.over_api.projected:,}."
    yield f"Facts written: {facts}."
    yield (
        f"From an outbox row to its committed facts: median ≤ {_milliseconds(now.delay_median)}, "
        f"99 % ≤ {_milliseconds(now.delay_p99)}."
    )


def _quantile(buckets: dict[float, float], share: float) -> float:
    """The upper bound of the bucket in which this share of all rows lies; 0 without rows."""
    total = max(buckets.values(), default=0)
    return next((bound for bound, count in sorted(buckets.items()) if total and count >= share * total), 0.0)


def _rate(now: int, before: int, seconds: float) -> str:
    return f"{max(now - before, 0) / seconds:,.0f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"  # noqa: PLR2004
