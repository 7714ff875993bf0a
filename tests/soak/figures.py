"""What a run has sampled, and whether anything grew."""

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.soak.faults import Fault
from tests.soak.plan import Plan

_MEGABYTE = 1_048_576
_LONGEST_LAG_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        seconds: since the run began.
        daemon_rss_bytes, daemon_fds: of the daemon that lives from begin to end.
        api_rss_bytes, api_fds: of the backfill API.
        connections: that the programs have at the server.
        lag_seconds: the age of the oldest due row.
        waiting, outbox_rows, outbox_bytes: rows not completed, all rows, the outbox with its indexes on the disk.
        written: transactions that the writers committed so far.
        completed: rows that the daemons completed so far.
    """

    seconds: float
    daemon_rss_bytes: int
    daemon_fds: int
    api_rss_bytes: int
    api_fds: int
    connections: int
    lag_seconds: float
    waiting: int
    outbox_rows: int
    outbox_bytes: int
    written: int
    completed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that must hold: what was found, and the most that is allowed."""

    name: str
    found: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.found <= self.most


# How much a median of the last third may exceed that of the first: this many times, and this much more.
_GROWTH: dict[str, tuple[float, float]] = {
    "daemon_rss_bytes": (1.1, 8 * _MEGABYTE),
    "daemon_fds": (1.0, 2),
    "api_rss_bytes": (1.1, 8 * _MEGABYTE),
    "api_fds": (1.0, 4),
    "connections": (1.0, 4),
    "lag_seconds": (2.0, 0),  # and the plan's slack
    "waiting": (2.0, 200),
    "outbox_rows": (1.5, 500),
    "outbox_bytes": (1.5, 8 * _MEGABYTE),
}


@dataclass(slots=True)
class Figures:
    """All of one run.

    Attributes:
        plan: what was asked for.
        samples, faults: in the order of time.
        answers: how often the service answered with each status.
        complaints: what went wrong, in words; nothing where all is well.
    """

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def medians(self, name: str) -> tuple[float, float]:
        """Of the first third of the samples and of the last."""
        third = max(len(self.samples) // 3, 1)
        first, last = self.samples[:third], self.samples[-third:]
        before, after = (median(getattr(sample, name) for sample in part) for part in (first, last))
        return before, after

    @property
    def verdicts(self) -> list[Verdict]:
        """What must hold of the samples."""
        found = []
        for name, (times, more) in _GROWTH.items():
            first, last = self.medians(name)
            slack = self.plan.lag_slack if name == "lag_seconds" else more
            found.append(Verdict(f"{name}: median of the last", last, times * first + slack))
        longest = max(sample.lag_seconds for sample in self.samples)
        return [*found, Verdict("lag_seconds: the longest", longest, _LONGEST_LAG_SECONDS)]

    @property
    def holds(self) -> bool:
        """Whether all is well."""
        return bool(self.samples) and not self.complaints and all(verdict.holds for verdict in self.verdicts)

    @property
    def rows_per_second(self) -> float:
        """Rows that the daemons completed, over the whole run."""
        first, last = self.samples[0], self.samples[-1]
        return (last.completed - first.completed) / max(last.seconds - first.seconds, 0.001)

    def as_json(self, *, whole: bool) -> dict[str, Any]:
        """For keeping. Args: whole: whether the run came to its end; if not, nothing is judged."""
        judged = whole and bool(self.samples)
        return {
            "whole": whole,
            "plan": asdict(self.plan) | {"retention_seconds": self.plan.retention_seconds},
            "rows_per_second": round(self.rows_per_second, 1) if judged else None,
            "thirds": {name: self.medians(name) for name in _GROWTH} if judged else {},
            "verdicts": [asdict(one) | {"holds": one.holds} for one in self.verdicts] if judged else [],
            "complaints": self.complaints,
            "answers": self.answers,
            "faults": [asdict(fault) for fault in self.faults],
            "samples": [
                {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(sample).items()}
                for sample in self.samples
            ],
        }
