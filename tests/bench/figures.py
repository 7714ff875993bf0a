"""What a run of the bench has measured, and what it means."""

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.bench.breakdown import Breakdown
from tests.bench.by_type import TypeFigures
from tests.bench.stage import Backlog, Facts

BASELINE, LIMIT = "a", "c"
PEERS = ("p1", "p2")


@dataclass(frozen=True, slots=True)
class Target:
    """The least that a contestant's rate must be, as a multiple of another's, or of the best of several."""

    key: str
    of: tuple[str, ...]
    least: float

    @property
    def name(self) -> str:
        """As in results: `b2/a`, `b2/best of p1, p2`."""
        return ratio_name(self.key, *self.of)


@dataclass(slots=True)
class Measured:
    """One contestant: the rows of each run and the seconds of each round."""

    key: str
    title: str
    rows: int
    seconds: list[float] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        """Of all rounds."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """How much longer the slowest round took than the fastest; much of it means that others use the machine."""
        return max(self.seconds) / min(self.seconds) - 1

    @property
    def rate(self) -> float:
        """Outbox rows a second, of the median round."""
        return self.rows / self.median_seconds


@dataclass(slots=True)
class Figures:
    """All that was measured in one run."""

    backlog: Backlog
    facts: Facts
    targets: tuple[Target, ...]
    environment: dict[str, Any]
    measured: dict[str, Measured] = field(default_factory=dict)
    by_type: list[TypeFigures] = field(default_factory=list)
    breakdown: Breakdown | None = None
    faults: list[str] = field(default_factory=list)

    def ratio(self, key: str, *of: str) -> float:
        """How many times another's rate a contestant's is, or that of the best of several."""
        return self.measured[key].rate / max(self.measured[other].rate for other in of)

    @property
    def reached(self) -> bool:
        """Whether all targets were, and all contestants gave the same facts."""
        return not self.faults and all(self.ratio(target.key, *target.of) >= target.least for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping: every single figure, and what they were measured on."""
        ours = [key for key in self.measured if key not in {BASELINE, LIMIT}]
        return {
            "environment": self.environment,
            "faults": self.faults,
            "backlog": asdict(self.backlog),
            "facts": {table: count for table, (count, _) in self.facts.items()},
            "contestants": [
                {
                    "key": one.key,
                    "title": one.title,
                    "rows": one.rows,
                    "rounds_seconds": [round(seconds, 3) for seconds in one.seconds],
                    "median_rows_per_second": round(one.rate),
                }
                for one in self.measured.values()
            ],
            "ratios": {
                ratio_name(key, *of): round(self.ratio(key, *of), 3)
                for key in ours
                for of in ((BASELINE,), (LIMIT,), PEERS)
            },
            "targets": [
                {
                    "ratio": target.name,
                    "least": target.least,
                    "measured": round(self.ratio(target.key, *target.of), 3),
                    "reached": self.ratio(target.key, *target.of) >= target.least,
                }
                for target in self.targets
            ],
            "by_type": [
                {
                    "source_type": one.source_type,
                    "rows": one.rows,
                    "rows_per_second": round(one.projector),
                    "b2/a": round(one.projector / one.baseline, 1),
                    "b2/c": round(one.projector / one.limit, 3),
                }
                for one in self.by_type
            ],
            "breakdown": self.breakdown and _as_shares(self.breakdown),
        }


def ratio_name(key: str, *of: str) -> str:
    """A ratio's name in results and for readers."""
    return f"{key}/{of[0]}" if len(of) == 1 else f"{key}/best of {', '.join(of)}"


def _as_shares(breakdown: Breakdown) -> dict[str, Any]:
    return {
        "batches": breakdown.batches,
        "rows": breakdown.rows,
        "seconds": round(breakdown.seconds, 3),
        "parts": [
            {
                "kind": part.kind,
                "statements": part.statements,
                "seconds": round(part.seconds, 3),
                "share": round(part.seconds / breakdown.seconds, 3),
            }
            for part in breakdown.parts
        ],
    }
