"""What several parts of the bench share: databases of their own, distributions, rates, and targets as they are kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import structlog
from rich import box
from rich.console import Console
from rich.table import Table

from projector.demo.embedded import database_dsn
from projector.migrate import migrate
from projector.sqlfile import load_sql
from tests.bench.stage import SOURCES_SQL, connected

ADD_ORGS = load_sql(__file__, "add_orgs.sql")


@asynccontextmanager
async def own_database(server: str, name: str, template: str = "template1") -> AsyncIterator[str]:
    """A database that is made at the start and dropped at the end; gives its DSN."""
    await _on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await _on(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield database_dsn(server, name)
    finally:
        await _on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def make_platform(dsn: str, orgs: int) -> None:
    """Canonical tables, outbox and facts, all empty, and organizations 1, 2, … `orgs`."""
    async with connected(dsn) as connection:
        await connection.execute(SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate(connection, structlog.get_logger())
        await connection.execute(ADD_ORGS, orgs)


async def _on(server: str, statement: str) -> None:
    async with connected(server) as connection:
        await connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity of seconds is distributed: at least two of them."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Half of them are no longer."""
        return median(self.seconds)

    @property
    def p99(self) -> float:
        """One in a hundred is longer."""
        return self.percentiles[98]

    @property
    def percentiles(self) -> list[float]:
        """The first to the 99th."""
        return quantiles(self.seconds, n=100, method="inclusive")

    @property
    def milliseconds(self) -> list[str]:
        """Median, p99 and maximum for a table."""
        return [f"{value * 1000:,.2f}" for value in (self.median, self.p99, max(self.seconds))]

    def as_json(self) -> dict[str, Any]:
        """Milliseconds. All percentiles stand for the single values, which are too many to keep."""
        named = {"min": min(self.seconds), "median": self.median, "p99": self.p99, "max": max(self.seconds)}
        return {
            "count": len(self.seconds),
            **{f"{name}_ms": round(value * 1000, 3) for name, value in named.items()},
            "percentiles_ms": [round(value * 1000, 3) for value in self.percentiles],
        }


@dataclass(slots=True)
class Drained:
    """How many rows of a backlog were projected, and the seconds that it took."""

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def as_json(self) -> dict[str, float]:
        """For keeping."""
        return {"rows": self.rows, "seconds": round(self.seconds, 3), "rows_per_second": round(self.rate)}


def at_most(figure: str, measured: float, limit: float) -> dict[str, Any]:
    """A target that a figure must not exceed, as it is kept."""
    return {"figure": figure, "limit": limit, "measured": round(measured, 4), "reached": measured <= limit}


def at_least(figure: str, measured: float, least: float) -> dict[str, Any]:
    """A target that a figure must reach, as it is kept."""
    return {"figure": figure, "least": least, "measured": round(measured, 4), "reached": measured >= least}


def new_table(title: str, first: str, *others: str) -> Table:
    """A table whose first column is words, the others numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def show_targets(targets: list[dict[str, Any]], console: Console) -> None:
    """Prints each target with what was measured."""
    for target in targets:
        verdict = "[green]reached[/]" if target["reached"] else "[red]missed[/]"
        bound = f"at least {target['least']:g}" if "least" in target else f"at most {target['limit']:g}"
        console.print(f"{target['figure']} = {target['measured']:.4g}, {bound}: {verdict}")
