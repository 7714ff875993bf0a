"""`python -m tests.bench`: what the projector can do, measured part by part in one run. See README.md here.

Exit status: 0 all targets reached, 1 a target missed or the facts of two contestants differ, 2 the bench cannot run.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from projector.demo.embedded import EmbeddedPostgresError
from projector.errors import describe, is_database_fault
from projector.logs import configure_logs
from tests.bench import backfill, changelog, drain, fairness, flat, kafka, lag, scaling, write_path
from tests.bench.charts import draw_all
from tests.bench.report import show_backfill, show_drain
from tests.bench.stage import Stage, own_server

RESULTS = Path(__file__).parent / "results"
REACHED, MISSED, CANNOT_RUN = range(3)


class Figures(Protocol):
    """What a part has measured."""

    @property
    def reached(self) -> bool:
        """Whether all targets were."""

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the bench: how it measures, at which two scales, and how it shows what it has measured."""

    measure: Callable[[str, Any, dict[str, Any], Console], Coroutine[Any, Any, Any]]
    full: Any
    quick: Any
    show: Callable[[Any, Console], None]


PARTS = {
    "drain": Part(drain.measure_drain, drain.FULL, drain.QUICK, show_drain),
    "scaling": Part(scaling.measure_scaling, scaling.FULL, scaling.QUICK, scaling.ScalingFigures.show),
    "flat": Part(flat.measure_flat, flat.FULL, flat.QUICK, flat.FlatFigures.show),
    "lag": Part(lag.measure_lag, lag.FULL, lag.QUICK, lag.LagFigures.show),
    "fairness": Part(fairness.measure_fairness, fairness.FULL, fairness.QUICK, fairness.FairnessFigures.show),
    "write_path": Part(
        write_path.measure_write_path, write_path.FULL, write_path.QUICK, write_path.WritePathFigures.show
    ),
    "backfill": Part(backfill.measure_backfill, backfill.FULL, backfill.QUICK, show_backfill),
    "kafka": Part(kafka.measure_kafka, kafka.FULL, kafka.QUICK, kafka.KafkaFigures.show),
    "changelog": Part(changelog.measure_changelog, changelog.FULL, changelog.QUICK, changelog.ChangelogFigures.show),
}


def main() -> int:
    """Runs what the command line asks for; gives the exit status."""
    options = _parser().parse_args()
    console = Console()
    folder = options.results or (None if options.quick or options.dsn else RESULTS)
    configure_logs("console", "warning")
    names = options.only or list(PARTS)
    try:
        with nullcontext(options.dsn) if options.dsn else own_server() as dsn:
            environment = asyncio.run(_environment(dsn))
            reached = [_run(name, dsn, environment, folder, console, quick=options.quick) for name in names]
    except EmbeddedPostgresError as error:
        console.print(f"[red]bench: {error}[/]")
        return CANNOT_RUN
    except Exception as error:
        if not is_database_fault(error):
            raise
        console.print(f"[red]bench: the database could not be reached, or refused: {describe(error)}[/]")
        return CANNOT_RUN
    if folder is not None:
        draw_all(folder)
    return REACHED if all(reached) else MISSED


def _run(
    name: str, dsn: str, environment: dict[str, Any], folder: Path | None, console: Console, *, quick: bool
) -> bool:
    """Measures one part, shows and keeps its figures; gives whether its targets were reached."""
    part = PARTS[name]
    console.rule(name)
    figures: Figures = asyncio.run(part.measure(dsn, part.quick if quick else part.full, environment, console))
    part.show(figures, console)
    kept = figures.as_json()
    if folder is not None and not kept.get("faults"):
        folder.mkdir(exist_ok=True)
        text = json.dumps(kept, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return figures.reached


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures the projector.")
    parser.add_argument("--quick", action="store_true", help="small, one round, loose targets; keeps nothing")
    parser.add_argument(
        "--dsn", help="measure on this server, as a superuser, in databases of the bench's own; else an embedded one"
    )
    parser.add_argument(
        "--only", choices=tuple(PARTS), action="append", help="measure this part; may be given several times"
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=f"where figures are kept, else {RESULTS.name}/")
    return parser


async def _environment(dsn: str) -> dict[str, Any]:
    return {
        "postgresql": await Stage(dsn).environment(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("asyncpg", "pgqueuer", "procrastinate", "psycopg")},
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
