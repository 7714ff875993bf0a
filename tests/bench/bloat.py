"""Whether the outbox stays small under a steady load, with completed rows kept for a while or not at all."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.load import platform, projecting, writing
from tests.bench.stage import connected
from tests.bench.watch import Sample, Watch, Window

_DATABASE = "projector_bench_bloat"
_MEGABYTE = 1_048_576


@dataclass(frozen=True, slots=True)
class BloatScale:
    """How much is measured, and what must be reached.

    Attributes:
        seconds: how long each retention is measured.
        retentions: REPORTING_OUTBOX_RETENTION_SECS of each run.
        rows_per_second: the steady load.
        most_growth: the most that heap, indexes and dead rows may be in the last third, as a multiple of the most that
            they were in the second third. What grows steadily is at 1.5.
        least_projected: the least share of the rows written that must be projected at the end.
        least_written: the least share of the rows asked for that the writer must have written: else it is another load.
    """

    seconds: float
    retentions: tuple[int, ...]
    rows_per_second: int = 800
    most_growth: float = 1.3
    least_projected: float = 0.98
    least_written: float = 0.98


@dataclass(slots=True)
class Kept:
    """One retention: its samples."""

    retention_seconds: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def whole(self) -> Window:
        """From the first sample to the last."""
        return Window(self.samples[0], self.samples[-1])

    def growth(self, measure: Callable[[Sample], int]) -> float:
        """The most of the last third, as a multiple of the most of the second third."""
        begin, seconds = self.samples[0].seconds, self.whole.seconds
        second = [measure(one) for one in self.samples if seconds / 3 <= one.seconds - begin < seconds * 2 / 3]
        last = [measure(one) for one in self.samples if one.seconds - begin >= seconds * 2 / 3]
        return max(last) / max(*second, 1)


@dataclass(slots=True)
class BloatFigures:
    """What was measured; while it is measured, what there is so far."""

    scale: BloatScale
    environment: dict[str, Any]
    kept: list[Kept] = field(default_factory=list)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached, for each retention."""
        return [target for one in self.kept for target in self._targets(one)]

    @property
    def reached(self) -> bool:
        """Whether all was."""
        return all(target["reached"] for target in self.targets)

    def _targets(self, one: Kept) -> list[dict[str, Any]]:
        scale, last = self.scale, one.samples[-1]
        asked = scale.rows_per_second * one.whole.seconds
        at_most = [
            ("heap, last third / second third", one.growth(lambda sample: sample.heap_bytes), scale.most_growth),
            ("indexes, last third / second third", one.growth(lambda sample: sample.index_bytes), scale.most_growth),
            ("dead rows, last third / second third", one.growth(lambda sample: sample.dead), scale.most_growth),
        ]
        at_least = [
            ("rows projected / rows written", last.projected / max(last.written, 1), scale.least_projected),
            ("rows written / rows asked for", (last.written - one.samples[0].written) / asked, scale.least_written),
        ]
        told = [(*item, item[1] <= item[2]) for item in at_most] + [(*item, item[1] >= item[2]) for item in at_least]
        return [
            {"retention_seconds": one.retention_seconds, "figure": figure, "limit": limit,
             "measured": round(measured, 3), "reached": reached}
            for figure, measured, limit, reached in told
        ]  # fmt: skip

    def as_json(self, *, whole: bool = True) -> dict[str, Any]:
        """For keeping. Without `whole` the run was broken off, and what it shows is not judged."""
        return {
            "environment": self.environment,
            "scale": asdict(self.scale),
            "whole": whole,
            "targets": self.targets if whole else [],
            "retentions": [
                {
                    "retention_seconds": one.retention_seconds,
                    "steady": one.whole.as_json() if whole else None,
                    "samples": [sample.as_json() for sample in one.samples],
                }
                for one in self.kept
            ],
        }

    def show(self, console: Console) -> None:
        """Prints the most of each thing by retention, and the targets."""
        table = Table(title="The outbox under a steady load: the most of the last third", box=box.SIMPLE_HEAD)
        for heading in ("retention s", "heap MB", "indexes MB", "dead rows", "completed", "rows/s", "CPU µs/row"):
            table.add_column(heading, justify="right")
        for one in self.kept:
            last = one.samples[len(one.samples) * 2 // 3 :]
            table.add_row(
                str(one.retention_seconds),
                f"{max(sample.heap_bytes for sample in last) / _MEGABYTE:.1f}",
                f"{max(sample.index_bytes for sample in last) / _MEGABYTE:.1f}",
                f"{max(sample.dead for sample in last):,}",
                f"{max(sample.completed or 0 for sample in last):,}",
                f"{one.whole.projected_per_second:,.0f}",
                f"{one.whole.backend_cpu_us_per_row:.0f}",
            )
        console.print(table)
        for target in self.targets:
            verdict = "[green]reached[/]" if target["reached"] else "[red]missed[/]"
            told = f"{target['figure']} = {target['measured']:.2f}, limit {target['limit']:g}"
            console.print(f"retention {target['retention_seconds']} s: {told}: {verdict}")


async def measure_bloat(server: str, figures: BloatFigures, console: Console) -> None:
    """Measures one retention after the other, each on a database of its own; fills `figures` as it goes."""
    scale = figures.scale
    for retention in scale.retentions:
        console.print(
            f"bloat: retention {retention} s, {scale.rows_per_second} rows/s for {scale.seconds / 60:g} minutes"
        )
        kept = Kept(retention)
        figures.kept.append(kept)
        async with (
            platform(server, _DATABASE) as dsn,
            connected(dsn) as connection,
            projecting(dsn, reporting_outbox_retention_secs=str(retention)) as daemon,
            writing(dsn, scale.rows_per_second) as writer,
        ):
            await Watch(connection, writer, daemon, kept.samples, counts_completed=True).over(scale.seconds)


def bloat_scale(minutes: float | None) -> BloatScale:
    """Ten minutes for each retention, or so many. Rows are kept for a tenth of it, at most a minute; or not at all."""
    seconds = 60.0 * (10 if minutes is None else minutes)
    return BloatScale(seconds, retentions=(max(1, min(60, round(seconds / 10))), 0))
