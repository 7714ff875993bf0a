"""`python -m tests.bench`: one backlog, several ways of turning it into facts; then backfills. See README.md here.

Exit status: 0 all targets reached, 1 a target missed or the facts of two contestants differ, 2 the bench cannot run.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from projector.demo.embedded import EmbeddedPostgresError
from projector.errors import describe, is_database_fault
from projector.logs import configure_logs
from tests.bench.backfill import BackfillFigures, Scale, measure_backfill
from tests.bench.breakdown import break_down
from tests.bench.contestants import Baseline, Contestant, Limit, Projector
from tests.bench.figures import PEERS, Figures, Measured, Target
from tests.bench.peers import PGQUEUER, PROCRASTINATE, Peer
from tests.bench.report import show, show_backfill
from tests.bench.stage import Facts, Stage, count_completed, own_server, read_facts

RESULTS = Path(__file__).parent / "results"
REACHED, MISSED, CANNOT_RUN = range(3)

LIMIT = Limit("c", "limit: no outbox")
CONTESTANTS: tuple[Contestant, ...] = (
    Baseline("a", "row at a time", waits_for_disk=True),
    Baseline("a-nowait", "async commit", waits_for_disk=False),
    Projector("b1", "projector, 1 worker", workers=1),
    Projector("b2", "projector, 2 workers", workers=2),
    Peer("p1", "jobs on pgqueuer", PGQUEUER),
    Peer("p2", "jobs on procrastinate", PROCRASTINATE),
    LIMIT,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        sessions: how many sessions the backlog has, about 52 rows each.
        baseline_rows: how many of the first due rows the baseline and the peers get; they are too slow for all.
        rounds: how often each contestant runs.
        targets: what must be reached.
        backfill: how much of backfills.
    """

    sessions: int
    baseline_rows: int
    rounds: int
    targets: tuple[Target, ...]
    backfill: Scale


FULL = Plan(
    2000, 10_000, 3, (Target("b2", ("a",), 20), Target("b2", ("c",), 0.4), Target("b2", PEERS, 8)),
    Scale(26_000, 10_000, 15),
)  # fmt: skip
QUICK = Plan(
    200, 1_000, 1, (Target("b2", ("a",), 5), Target("b2", ("c",), 0.1), Target("b2", PEERS, 1.5)),
    # So small a backlog is gone at once, so its live rows have hardly anything to wait for.
    Scale(400, 2_000, 0.2, most_last_to_first=10, most_live_seconds=10, most_small_seconds=20, must_outlive=False),
)  # fmt: skip


def main() -> int:
    """Runs what the command line asks for; gives the exit status."""
    options = _parser().parse_args()
    console = Console()
    plan = QUICK if options.quick else FULL
    folder = options.results or (None if options.quick or options.dsn else RESULTS)
    configure_logs("console", "warning")
    reached = True
    try:
        with nullcontext(options.dsn) if options.dsn else own_server() as dsn:
            if options.only in {None, "drain"}:
                drained = asyncio.run(_measure(Stage(dsn), plan, console))
                show(drained, console)
                reached = drained.reached and not drained.faults
                if not drained.faults:
                    _keep(folder, "drain", drained.as_json())
            if options.only in {None, "backfill"}:
                filled = asyncio.run(_measure_backfill(dsn, plan, console))
                show_backfill(filled, console)
                reached = filled.reached and reached
                _keep(folder, "backfill", filled.as_json())
    except EmbeddedPostgresError as error:
        console.print(f"[red]bench: {error}[/]")
        return CANNOT_RUN
    except Exception as error:
        if not is_database_fault(error):
            raise
        console.print(f"[red]bench: the database could not be reached, or refused: {describe(error)}[/]")
        return CANNOT_RUN
    return REACHED if reached else MISSED


def _keep(folder: Path | None, name: str, figures: dict[str, Any]) -> None:
    if folder is not None:
        folder.mkdir(exist_ok=True)
        text = json.dumps(figures, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures the draining of a backlog.")
    parser.add_argument("--quick", action="store_true", help="a small backlog, one round, loose targets; keeps nothing")
    parser.add_argument(
        "--dsn", help="measure on this server, as a superuser, in databases of the bench's own; else an embedded one"
    )
    parser.add_argument("--only", choices=("drain", "backfill"), help="measure one of both")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=f"where figures are kept, else {RESULTS.name}/")
    return parser


async def _measure(stage: Stage, plan: Plan, console: Console) -> Figures:
    try:
        backlog = await stage.build(plan.sessions, configure_logs("console", "warning"))
        console.print(f"backlog: {backlog.rows:,} outbox rows of {backlog.sessions:,} sessions")
        expected = await _expected_facts(stage, (backlog.rows, plan.baseline_rows))
        figures = Figures(backlog, expected[backlog.rows], plan.targets, await _environment(stage))
        for one in CONTESTANTS:
            rows = plan.baseline_rows if isinstance(one, Baseline | Peer) else backlog.rows
            figures.measured[one.key] = Measured(one.key, one.title, rows)
        for number in range(plan.rounds):
            # Each round begins with another contestant, so that none is always the first, or after the same one.
            for one in _turned(number):
                await _run(stage, one, figures, expected)
                measured = figures.measured[one.key]
                spent = f"{measured.rows:,} rows in {measured.seconds[-1]:.2f} s"
                console.print(f"round {number + 1}: {one.key} {one.title}: {spent}")
        async with stage.copy() as dsn:
            figures.breakdown = await break_down(dsn)
        return figures
    finally:
        await stage.remove()


async def _environment(stage: Stage) -> dict[str, Any]:
    return {
        "postgresql": await stage.environment(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("asyncpg", "pgqueuer", "procrastinate", "psycopg")},
        "cores": os.cpu_count(),
    }


async def _measure_backfill(dsn: str, plan: Plan, console: Console) -> BackfillFigures:
    return await measure_backfill(dsn, plan.backfill, await _environment(Stage(dsn)), console)


def _turned(number: int) -> tuple[Contestant, ...]:
    first = number % len(CONTESTANTS)
    return (*CONTESTANTS[first:], *CONTESTANTS[:first])


async def _expected_facts(stage: Stage, samples: tuple[int, ...]) -> dict[int, Facts]:
    """The facts that the first so many rows give, for each sample; an untimed run of the limit, which warms up too."""
    async with stage.copy() as dsn:
        await LIMIT.run(dsn, 0)
        return {rows: await read_facts(dsn, rows) for rows in samples}


async def _run(stage: Stage, one: Contestant, figures: Figures, expected: dict[int, Facts]) -> None:
    """Times one contestant once, and compares its facts with those expected."""
    measured = figures.measured[one.key]
    async with stage.copy() as dsn:
        measured.seconds.append(await one.run(dsn, measured.rows))
        if await read_facts(dsn) != expected[measured.rows]:
            figures.faults.append(f"({one.key}) gave other facts than the limit")
        if one.settles and await count_completed(dsn) != measured.rows:
            figures.faults.append(f"({one.key}) did not complete exactly its {measured.rows} rows")


if __name__ == "__main__":
    sys.exit(main())
