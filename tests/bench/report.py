"""Figures for people: tables on the screen."""

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.backfill import BackfillFigures
from tests.bench.breakdown import Breakdown
from tests.bench.by_type import TypeFigures
from tests.bench.figures import BASELINE, LIMIT, PEERS, Figures


def show_drain(figures: Figures, console: Console) -> None:
    """Prints the contestants, the targets, where a batch's time goes, and what went wrong."""
    console.print(_contestants(figures))
    console.print(_by_type(figures.by_type))
    if figures.breakdown:
        console.print(_breakdown(figures.breakdown))
    for target in figures.targets:
        ratio = figures.ratio(target.key, *target.of)
        verdict = "[green]reached[/]" if ratio >= target.least else "[red]missed[/]"
        console.print(f"{target.name} = {ratio:.2f}, at least {target.least:g}: {verdict}")
    for fault in figures.faults:
        console.print(f"[red]{fault}[/]")
    if not figures.faults:
        console.print(f"All contestants gave the same facts: {sum(count for count, _ in figures.facts.values()):,}.")


def show_backfill(figures: BackfillFigures, console: Console) -> None:
    """Prints what calls cost, how long live rows waited, and the targets."""
    calls = figures.calls
    seconds = f"first {calls.seconds[0]:.3f} s, slowest {max(calls.seconds):.3f} s, last {calls.seconds[-1]:.3f} s"
    console.print(f"{figures.facts:,} missing facts filled by {len(calls.seconds)} calls: {seconds}")
    table = Table(title=f"Live rows behind a backlog of {figures.backlog:,} rows", box=box.SIMPLE_HEAD)
    table.add_column("org", no_wrap=True)
    for heading in ("rows", "median ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right")
    for place, delays in (("alone", figures.alone), ("behind the backlog", figures.behind)):
        for name, one in delays.items():
            told = one.as_json()
            table.add_row(f"{name}, {place}", *(f"{told[key]:,}" for key in ("rows", "median_ms", "p99_ms", "max_ms")))
    console.print(table)
    small = f"{figures.small_alone_seconds:.2f} s alone, {figures.small_behind_seconds:.2f} s behind the backlog"
    console.print(f"Another org's small backlog: {small}; {figures.left:,} rows of the backlog were left then")
    for name, (measured, most) in figures.targets.items():
        verdict = "[green]reached[/]" if measured <= most else "[red]missed[/]"
        console.print(f"{name} = {measured:.2f}, at most {most:g}: {verdict}")


def _contestants(figures: Figures) -> Table:
    table = Table(
        title=f"A backlog of {figures.backlog.rows:,} rows, medians", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("contestant", no_wrap=True)
    for heading in ("rows", "seconds", "spread", "rows/s", f"× {BASELINE}", "× peer", f"× {LIMIT}"):  # noqa: RUF001 - the sign is meant
        table.add_column(heading, justify="right")
    for one in figures.measured.values():
        table.add_row(
            f"{one.key} {one.title}",
            f"{one.rows:,}",
            f"{one.median_seconds:.2f}",
            f"{one.spread:.0%}",
            f"{one.rate:,.0f}",
            f"{figures.ratio(one.key, BASELINE):.1f}",
            f"{figures.ratio(one.key, *PEERS):.2f}",
            f"{figures.ratio(one.key, LIMIT):.3f}",
        )
    return table


def _by_type(measured: list[TypeFigures]) -> Table:
    table = Table(title="Each source type apart, 2 workers, one run", box=box.SIMPLE_HEAD)
    table.add_column("source type")
    for heading in ("rows", "rows/s", f"× {BASELINE}", f"× {LIMIT}"):  # noqa: RUF001 - the sign is meant
        table.add_column(heading, justify="right")
    for one in measured:
        ratios = (f"{one.projector / one.baseline:.1f}", f"{one.projector / one.limit:.2f}")
        table.add_row(one.source_type, f"{one.rows:,}", f"{one.projector:,.0f}", *ratios)
    return table


def _breakdown(breakdown: Breakdown) -> Table:
    table = Table(
        title=f"Where the time of one worker goes: {breakdown.batches} batches, {breakdown.seconds:.2f} s",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("part")
    for heading in ("statements", "seconds", "share"):
        table.add_column(heading, justify="right")
    for part in breakdown.parts:
        table.add_row(
            part.kind, f"{part.statements:,}", f"{part.seconds:.2f}", f"{part.seconds / breakdown.seconds:.1%}"
        )
    return table
