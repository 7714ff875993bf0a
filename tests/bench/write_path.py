"""What an application's transaction pays for its outbox row, for our indexes on the outbox, and for the trigger."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from projector.migrate import set_notify_trigger
from projector.sqlfile import load_sql
from schemas.outbox import NOTIFY_CHANNEL
from tests.bench.parts import Spread, at_most, make_platform, new_table, own_database, show_targets
from tests.bench.pgbench import run_pgbench
from tests.bench.stage import connected

HISTORY = load_sql(__file__, "write_path/history.sql")
BARE_OUTBOX = load_sql(__file__, "write_path/bare_outbox.sql")
INDEXES = load_sql(__file__, "write_path/indexes.sql")

_SCRIPTS = Path(__file__).parent / "write_path"
_DATABASE = "projector_bench_write"
_ORGS = 20
_WAYS = {
    "a": "no outbox row",
    "b": "outbox row, bare outbox",
    "c": "outbox row, our indexes",
    "d": "outbox row, our indexes, notify trigger",
}
_RATIOS = (("b", "a"), ("c", "b"), ("d", "c"))


@dataclass(frozen=True, slots=True)
class WritePathScale:
    """How much is measured, and what must be reached.

    Attributes:
        history: generations and completed outbox rows that are there before.
        rounds: how often each way runs with each number of writers.
        seconds: how long each run takes.
        writers: how many write at once.
        most_for_indexes: the most that a transaction may take with our indexes, as a multiple of one without.
        most_for_trigger: the same of the trigger; one that costs more must not be there unless asked for.
    """

    history: int
    rounds: int
    seconds: int
    writers: tuple[int, ...]
    most_for_indexes: float = 1.15
    most_for_trigger: float = 1.05


@dataclass(slots=True)
class WritePathFigures:
    """What was measured: the transactions' seconds by way and number of writers, one spread for each round."""

    scale: WritePathScale
    environment: dict[str, Any]
    measured: dict[tuple[str, int], list[Spread]] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    triggers_by_default: int = 0

    def seconds(self, way: str, writers: int) -> float:
        """The median transaction of the median round."""
        return median(spread.median for spread in self.measured[way, writers])

    def ratio(self, way: str, of: str, writers: int) -> float:
        """How many times another way's time one takes: the median of each round's own ratio."""
        pairs = zip(self.measured[way, writers], self.measured[of, writers], strict=True)
        return median(one.median / other.median for one, other in pairs)

    @property
    def targets(self) -> list[dict[str, Any]]:
        """What must be reached; the trigger must be an option if it costs more than its limit."""
        scale = self.scale
        found = [
            at_most(f"our indexes, {self._with(writers)}", self.ratio("c", "b", writers), scale.most_for_indexes)
            for writers in scale.writers
        ]
        dearest = max(self.ratio("d", "c", writers) for writers in scale.writers)
        optional = at_most("notify trigger, or it is an option", dearest, scale.most_for_trigger)
        optional["reached"] = optional["reached"] or self.triggers_by_default == 0
        return [*found, optional]

    @property
    def reached(self) -> bool:
        """Whether all targets were."""
        return all(target["reached"] for target in self.targets)

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "history_rows": self.scale.history,
            "seconds_of_each_run": self.scale.seconds,
            "indexes_of_the_outbox": self.indexes,
            "triggers_on_the_outbox_unless_asked_for": self.triggers_by_default,
            "runs": [
                {
                    "way": way,
                    "title": _WAYS[way],
                    "writers": writers,
                    "rounds_count": [len(spread.seconds) for spread in spreads],
                    "rounds_median_ms": [round(spread.median * 1000, 4) for spread in spreads],
                    "rounds_p99_ms": [round(spread.p99 * 1000, 4) for spread in spreads],
                }
                for (way, writers), spreads in self.measured.items()
            ],
            "ratios": [
                {"ratio": f"{way}/{of}", "writers": writers, "measured": round(self.ratio(way, of, writers), 4)}
                for writers in self.scale.writers
                for way, of in _RATIOS
            ],
            "targets": self.targets,
        }

    def show(self, console: Console) -> None:
        """Prints each way's transactions, the ratios, and the targets."""
        columns = [f"{what}, {self._with(writers)}" for writers in self.scale.writers for what in ("ms", "tx/s")]
        table = new_table("What an application's transaction pays, medians", "transaction", *columns)
        for way, title in _WAYS.items():
            cells = []
            for writers in self.scale.writers:
                rate = median(len(spread.seconds) for spread in self.measured[way, writers]) / self.scale.seconds
                cells += [f"{self.seconds(way, writers) * 1000:.3f}", f"{rate:,.0f}"]
            table.add_row(f"{way} {title}", *cells)
        for way, of in _RATIOS:
            cells = []
            for writers in self.scale.writers:
                cells += [f"{self.ratio(way, of, writers):.3f}", ""]
            table.add_row(f"{way}/{of}", *cells)
        console.print(table)
        show_targets(self.targets, console)

    def _with(self, writers: int) -> str:
        return f"{writers} writer{'s' if writers > 1 else ''}"


async def measure_write_path(
    dsn: str, scale: WritePathScale, environment: dict[str, Any], console: Console
) -> WritePathFigures:
    """Runs each way's transactions in turn, round after round, in a database of its own."""
    figures = WritePathFigures(scale, environment)
    async with AsyncExitStack() as stack:
        template = await stack.enter_async_context(own_database(dsn, f"{_DATABASE}_template"))
        await _fill(template, scale.history)
        databases = {
            way: await stack.enter_async_context(own_database(dsn, f"{_DATABASE}_{way}", f"{_DATABASE}_template"))
            for way in _WAYS
        }
        await _set_up(databases, figures)
        # One connection listens, as a projector does.
        listener = await stack.enter_async_context(connected(databases["d"]))
        await listener.add_listener(NOTIFY_CHANNEL, _ignore)
        for writers in scale.writers:
            console.print(f"write path: {writers} at once, {scale.rounds} rounds")
            await _run_rounds(databases, writers, figures)
        await listener.remove_listener(NOTIFY_CHANNEL, _ignore)
    return figures


async def _fill(dsn: str, history: int) -> None:
    await make_platform(dsn, _ORGS)
    async with connected(dsn) as connection:
        await connection.execute(HISTORY, history)
        await connection.execute("VACUUM (ANALYZE)")


async def _set_up(databases: dict[str, str], figures: WritePathFigures) -> None:
    """Takes our indexes from those ways that are without, and gives the trigger to the one that has it."""
    for way, dsn in databases.items():
        async with connected(dsn) as connection:
            found = (await connection.fetch(INDEXES))[0]
            if way in "ab":
                await connection.execute(BARE_OUTBOX)
            if way == "d":
                figures.triggers_by_default = found["triggers"]
                await set_notify_trigger(connection, wanted=True)
            figures.indexes[way] = (await connection.fetch(INDEXES))[0]["indexes"]
    async with connected(databases["d"]) as connection:
        await connection.execute("CHECKPOINT")


async def _run_rounds(databases: dict[str, str], writers: int, figures: WritePathFigures) -> None:
    for number in range(figures.scale.rounds):
        # Every round begins with another way.
        order = [list(_WAYS)[(number + place) % len(_WAYS)] for place in range(len(_WAYS))]
        for way in order:
            script = _SCRIPTS / ("without.sql" if way == "a" else "with.sql")
            seconds = await run_pgbench(databases[way], script, writers, figures.scale.seconds)
            figures.measured.setdefault((way, writers), []).append(Spread(seconds))


def _ignore(*_: object) -> None:
    return


FULL = WritePathScale(100_000, rounds=6, seconds=1, writers=(1, 8))
QUICK = WritePathScale(1_000, rounds=1, seconds=1, writers=(2,), most_for_indexes=10)
