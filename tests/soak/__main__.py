"""`make soak MINUTES=n`, or `python -m tests.soak`: everything at once for as long as wanted. See README.md here.

Exit status: 0 all holds, 1 something does not, 2 the run cannot begin, 130 interrupted; what was sampled until then is
kept beside the last whole run, as soak.partial.json.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from projector.demo.embedded import EmbeddedPostgresError
from projector.logs import configure_logs
from tests.bench.charts import RESULTS, draw
from tests.bench.long_runs import keep, minutes, until_signal
from tests.soak.figures import Figures
from tests.soak.plan import Plan
from tests.soak.run import soak

HOLDS, FAILED, CANNOT_RUN, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    """Runs what the command line asks for; gives the exit status."""
    options = _parser().parse_args()
    console = Console(soft_wrap=True)
    configure_logs("console", "warning")
    seconds = options.minutes * 60
    fault_pause = options.fault_seconds or min(max(seconds / 20, 1.0), 30.0)
    figures = Figures(Plan(seconds, options.rate, fault_pause, options.seed))
    console.print(
        f"soak: {options.minutes:g} minutes, {options.rate:g} transactions/s, a fault every {fault_pause:g} s, "
        f"completed rows kept for {figures.plan.retention_seconds} s, --seed {options.seed}"
    )
    try:
        return asyncio.run(_run(figures, options.results, console))
    except EmbeddedPostgresError as error:
        console.print(f"soak: {error}", style="red", markup=False)
        return CANNOT_RUN


async def _run(figures: Figures, results: Path, console: Console) -> int:
    whole = False
    try:
        await until_signal(soak(figures, console))
        whole = True
    except asyncio.CancelledError:
        console.print("[red]soak: interrupted[/]")
        return INTERRUPTED
    finally:
        keep(results, "soak", figures.as_json(whole=whole), whole=whole)
    _show(figures, console)
    draw(results, "soak")
    return HOLDS if figures.holds else FAILED


def _show(figures: Figures, console: Console) -> None:
    table = Table("", "median of the first third", "found", "at most", "")
    for verdict in figures.verdicts:
        first = figures.medians(verdict.name.partition(":")[0])[0]
        mark = "[green]holds[/]" if verdict.holds else "[red]does not hold[/]"
        table.add_row(
            verdict.name, *(_number(verdict.name, value) for value in (first, verdict.found, verdict.most)), mark
        )
    console.print(table)
    kinds: dict[str, int] = {}
    for fault in figures.faults:
        kinds[fault.name] = kinds.get(fault.name, 0) + 1
    console.print(f"{figures.rows_per_second:,.0f} rows/s; answers {figures.answers}; faults {kinds}", markup=False)
    for complaint in figures.complaints:
        console.print(complaint, style="red", markup=False)
    console.print("[green]soak: all holds[/]" if figures.holds else "[red]soak: something does not hold[/]")


def _number(name: str, value: float) -> str:
    return f"{value / 2**20:,.1f} MB" if "bytes" in name else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Runs everything at once, and tells what grows and what is lost."
    )
    parser.add_argument("--minutes", type=minutes, default=30.0, help="how long the load lasts, else 30")
    parser.add_argument("--rate", type=float, default=60.0, help="transactions a second, about, else 60")
    parser.add_argument("--fault-seconds", type=float, help="the mean pause between faults, else 30, or less")
    parser.add_argument("--seed", type=int, default=Random().randrange(1_000_000), help="to run the same again")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where figures are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
