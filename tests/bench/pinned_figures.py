"""What a run under a long transaction has measured, and what it means."""

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.parts import Drained
from tests.bench.watch import Sample, Window


@dataclass(frozen=True, slots=True)
class PinnedScale:
    """How much is measured, and what must be reached.

    Attributes:
        seconds: how long the pin lasts, in windows of `window_seconds`.
        warm_seconds: the load before anything is measured.
        rows_per_second: the steady load.
        backlog_rows, rounds: the backlog that is drained, and how often: before the pin, at its end, and after it.
        least_speed: the least that the speed of a claim, and of draining, may be under the pin, as a share of before.
        least_projected: the least share of the rows written in the last window that must be projected in it.
        most_waiting_seconds: the most rows that may wait in the last window, in seconds of the load.
        least_dead: the least share of the rows settled under the pin that must be left dead: else nothing was pinned.
        least_written: the least share of the rows asked for that the writer must have written.
    """

    seconds: float
    warm_seconds: float
    window_seconds: float
    rows_per_second: int = 800
    backlog_rows: int = 20_000
    rounds: int = 5
    least_speed: float = 0.9
    least_projected: float = 0.98
    most_waiting_seconds: float = 2.0
    least_dead: float = 0.8
    least_written: float = 0.98


@dataclass(slots=True)
class PinnedFigures:
    """What was measured; while it is measured, what there is so far."""

    scale: PinnedScale
    environment: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    before: Window | None = None
    under: list[Window] = field(default_factory=list)
    pinned_at_seconds: float | None = None
    released_at_seconds: float | None = None
    settled_under_pin: int = 0
    dead_under_pin: int = 0
    draining_seconds: list[tuple[float, float]] = field(default_factory=list)
    drained_before: list[Drained] = field(default_factory=list)
    drained_under: list[Drained] = field(default_factory=list)
    drained_after: list[Drained] = field(default_factory=list)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached; of a whole run."""
        assert self.before is not None
        scale, last = self.scale, self.under[-1]
        draining = _rate(self.drained_under) / _rate(self.drained_before)
        waiting = max(one.waiting for one in self.samples if last.first.seconds <= one.seconds <= last.last.seconds)
        at_least = [
            ("claim time before / in the last window", self.before.claim_ms / last.claim_ms, scale.least_speed),
            ("draining under the pin / before", draining, scale.least_speed),
            ("rows projected / written, last window", last.projected_per_second / last.written_per_second,
             scale.least_projected),
            ("rows left dead / settled under the pin", self.dead_under_pin / max(self.settled_under_pin, 1),
             scale.least_dead),
            ("rows written / asked for, last window", last.written_per_second / scale.rows_per_second,
             scale.least_written),
        ]  # fmt: skip
        waiting_seconds = waiting / scale.rows_per_second
        told = [(*item, item[1] >= item[2]) for item in at_least]
        told.append(("rows waiting in the last window, seconds of load", waiting_seconds, scale.most_waiting_seconds,
                     waiting_seconds <= scale.most_waiting_seconds))  # fmt: skip
        return [
            {"figure": figure, "limit": limit, "measured": round(measured, 3), "reached": reached}
            for figure, measured, limit, reached in told
        ]

    @property
    def reached(self) -> bool:
        """Whether all was."""
        return all(target["reached"] for target in self.targets)

    def as_json(self, *, whole: bool = True) -> dict[str, Any]:
        """For keeping. Without `whole` the run was broken off, and what it shows is not judged."""
        return {
            "environment": self.environment,
            "scale": asdict(self.scale),
            "whole": whole,
            "targets": self.targets if whole else [],
            "pinned_at_seconds": self.pinned_at_seconds,
            "released_at_seconds": self.released_at_seconds,
            "before": self.before and self.before.as_json(),
            "under_the_pin": [window.as_json() for window in self.under],
            "settled_under_the_pin": self.settled_under_pin,
            "left_dead_under_the_pin": self.dead_under_pin,
            "draining_seconds": [(round(begin, 3), round(end, 3)) for begin, end in self.draining_seconds],
            "drained": {name: [one.as_json() for one in series] for name, series in self._series},
            "samples": [sample.as_json() for sample in self.samples],
        }

    def show(self, console: Console) -> None:
        """Prints the windows, the backlogs, and the targets; of a whole run."""
        assert self.before is not None
        table = Table(title="A steady load under a long transaction", box=box.SIMPLE_HEAD)
        table.add_column("window", no_wrap=True)
        for heading in ("claim ms", "rows a claim", "batch ms", "rows/s", "CPU µs/row"):
            table.add_column(heading, justify="right")
        for name, window in (("before", self.before), ("first under it", self.under[0]), ("last", self.under[-1])):
            told = window.as_json()
            table.add_row(
                name, f"{window.claim_ms:.2f}", f"{told['rows_per_claim']:.1f}", f"{window.batch_ms:.1f}",
                f"{window.projected_per_second:,.0f}", f"{window.backend_cpu_us_per_row:.0f}",
            )  # fmt: skip
        console.print(table)
        rates = ", ".join(f"{_rate(series):,.0f} rows/s {name}" for name, series in self._series)
        console.print(f"A backlog of {self.scale.backlog_rows:,} rows, medians: {rates}")
        for target in self.targets:
            verdict = "[green]reached[/]" if target["reached"] else "[red]missed[/]"
            console.print(f"{target['figure']} = {target['measured']:.2f}, limit {target['limit']:g}: {verdict}")

    @property
    def _series(self) -> list[tuple[str, list[Drained]]]:
        return [
            ("before the pin", self.drained_before),
            ("at its end", self.drained_under),
            ("after it", self.drained_after),
        ]


def _rate(series: list[Drained]) -> float:
    return median(one.rate for one in series)


def pinned_scale(minutes: float | None) -> PinnedScale:
    """Fifteen minutes under the pin, or so many; at least three windows, none longer than a minute."""
    seconds = 60.0 * (15 if minutes is None else minutes)
    return PinnedScale(seconds, warm_seconds=min(30.0, seconds / 6), window_seconds=min(60.0, seconds / 3))
