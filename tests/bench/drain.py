"""Draining: one backlog, several ways of turning it into facts, in rounds."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from projector.logs import configure_logs
from tests.bench.breakdown import break_down
from tests.bench.by_type import drain_by_type
from tests.bench.contestants import Baseline, Contestant, Limit, Projector
from tests.bench.figures import PEERS, Figures, Measured, Target
from tests.bench.peers import PGQUEUER, PROCRASTINATE, Peer
from tests.bench.stage import Facts, Stage, count_completed, read_facts

LIMIT = Limit("c", "limit: no outbox")
CONTESTANTS: tuple[Contestant, ...] = (
    Baseline("a", "row at a time", waits_for_disk=True),
    Baseline("a-nowait", "async commit", waits_for_disk=False),
    Projector("b1", "projector, 1 worker", workers=1),
    Projector("b2", "projector, 2 workers", workers=2),
    Projector("b2-none", "projector, retention 0", workers=2, keeps=False),
    Peer("p1", "jobs on pgqueuer", PGQUEUER),
    Peer("p2", "jobs on procrastinate", PROCRASTINATE),
    LIMIT,
)


@dataclass(frozen=True, slots=True)
class DrainScale:
    """How much is measured, and what must be reached.

    Attributes:
        sessions: how many sessions the backlog has, about 52 rows each.
        baseline_rows: how many of the first due rows the baseline and the peers get; they are too slow for all.
        typed_rows: how many rows of each source type the baseline gets where source types are drained apart.
        rounds: how often each contestant runs.
        targets: what must be reached.
    """

    sessions: int
    baseline_rows: int
    typed_rows: int
    rounds: int
    targets: tuple[Target, ...]


async def measure_drain(dsn: str, scale: DrainScale, environment: dict[str, Any], console: Console) -> Figures:
    """Lets each contestant drain a copy of the same backlog, in rounds, and compares them.

    Args:
        dsn: a superuser's, of the server to measure on.
        scale: how much.
        environment: what it is measured on, for the results.
        console: where progress is told.
    """
    stage = Stage(dsn)
    try:
        backlog = await stage.build(scale.sessions, configure_logs("console", "warning"))
        console.print(f"backlog: {backlog.rows:,} outbox rows of {backlog.sessions:,} sessions")
        expected = await _expected_facts(stage, (backlog.rows, scale.baseline_rows))
        figures = Figures(backlog, expected[backlog.rows], scale.targets, environment)
        for one in CONTESTANTS:
            rows = scale.baseline_rows if isinstance(one, Baseline | Peer) else backlog.rows
            figures.measured[one.key] = Measured(one.key, one.title, rows)
        for number in range(scale.rounds):
            # Each round begins with another contestant, so that none is always the first, or after the same one.
            for one in _turned(number):
                await _run(stage, one, figures, expected)
                measured = figures.measured[one.key]
                spent = f"{measured.rows:,} rows in {measured.seconds[-1]:.2f} s"
                console.print(f"round {number + 1}: {one.key} {one.title}: {spent}")
        figures.by_type = await drain_by_type(stage, scale.typed_rows)
        async with stage.copy() as copy:
            figures.breakdown = await break_down(copy)
        return figures
    finally:
        await stage.remove()


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


FULL = DrainScale(
    4000, 10_000, 3_000, 3, (Target("b2", ("a",), 40), Target("b2", ("c",), 0.6), Target("b2", PEERS, 8)),
)  # fmt: skip
QUICK = DrainScale(
    200, 1_000, 150, 1, (Target("b2", ("a",), 5), Target("b2", ("c",), 0.1), Target("b2", PEERS, 1.5))
)  # fmt: skip
