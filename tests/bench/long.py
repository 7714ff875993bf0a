"""`python -m tests.bench.long`: what only minutes of steady load can show. See README.md here.

Exit status: 0 all targets reached, 1 a target missed, 2 the bench cannot run, 130 interrupted; what was sampled until
then is kept beside the last whole run, as <part>.partial.json.
"""

import argparse
import asyncio
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from projector.demo.embedded import EmbeddedPostgresError
from projector.errors import describe, is_database_fault
from projector.logs import configure_logs
from tests.bench.bloat import BloatFigures, bloat_scale, measure_bloat
from tests.bench.long_runs import keep, minutes, until_signal
from tests.bench.pinned import measure_pinned
from tests.bench.pinned_figures import PinnedFigures, pinned_scale
from tests.bench.stage import Stage, own_server

RESULTS = Path(__file__).parent / "results"
REACHED, MISSED, CANNOT_RUN, INTERRUPTED = 0, 1, 2, 130

# Checkpoints as often as by default: a long run has them at its start as well as at its end.
_SERVER = {"pg_stat_statements.track": "top", "compute_query_id": "on", "checkpoint_timeout": "5min"}
_PARTS = ("bloat", "pinned")


def main() -> int:
    """Runs what the command line asks for; gives the exit status."""
    options = _parser().parse_args()
    console = Console()
    configure_logs("console", "warning")
    try:
        with own_server(_SERVER) as dsn:
            return asyncio.run(_run(dsn, options, console))
    except EmbeddedPostgresError as error:
        console.print(f"[red]bench: {error}[/]")
        return CANNOT_RUN


async def _run(dsn: str, options: argparse.Namespace, console: Console) -> int:
    """Runs all parts that are asked for, until a signal comes."""
    try:
        return await until_signal(_measure_all(dsn, options, console))
    except asyncio.CancelledError:
        console.print("[red]bench: interrupted[/]")
        return INTERRUPTED
    except Exception as error:
        if not is_database_fault(error):
            raise
        console.print(f"[red]bench: the database could not be reached, or refused: {describe(error)}[/]")
        return CANNOT_RUN


async def _measure_all(dsn: str, options: argparse.Namespace, console: Console) -> int:
    environment = {
        "postgresql": await Stage(dsn).environment() | _SERVER,
        "python": platform.python_version(),
        "asyncpg": version("asyncpg"),
        "cores": os.cpu_count(),
    }
    reached = True
    for name in _PARTS:
        if options.only in {None, name}:
            reached = await _measure(name, dsn, environment, options, console) and reached
    return REACHED if reached else MISSED


async def _measure(
    name: str, dsn: str, environment: dict[str, Any], options: argparse.Namespace, console: Console
) -> bool:
    """Measures one part, and keeps it, whole or as far as it came; tells whether its targets were reached."""
    figures: BloatFigures | PinnedFigures
    whole = False
    try:
        if name == "bloat":
            figures = BloatFigures(bloat_scale(options.minutes), environment)
            await measure_bloat(dsn, figures, console)
        else:
            figures = PinnedFigures(pinned_scale(options.minutes), environment)
            await measure_pinned(dsn, figures, console)
        whole = True
    finally:
        keep(options.results, name, figures.as_json(whole=whole), whole=whole)
    figures.show(console)
    return figures.reached


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.long", description="Measures what only minutes of steady load can show."
    )
    parser.add_argument(
        "--minutes", type=minutes, help="of load for each retention, and under the pin; else 10, and 15"
    )
    parser.add_argument("--only", choices=_PARTS, help="measure one of both")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help=f"where figures are kept, else {RESULTS.name}/"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
