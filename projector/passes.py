"""The passes of a projection: how rows of one projection become facts, as a set (design: promise 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from projector.outbox import ClaimedRows
from projector.registry import Projection
from projector.settings import OnSourceGone

_Sources = tuple[list[int], list[str]]
"""Org ids and source ids, in pairs."""


@dataclass(slots=True)
class Projected:
    """What came of rows: sources that are gone, facts written and removed by dataset, records skipped by reason."""

    gone: int = 0
    facts: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


async def project(
    connection: asyncpg.Connection, projection: Projection, rows: ClaimedRows, on_source_gone: OnSourceGone
) -> Projected:
    """The two passes of a projection: insert or lock, then read again and overwrite what was locked.

    Raises:
        asyncpg.PostgresError: the database refused; what was written until then is to be undone.
    """
    outcome = Projected()
    sources = (rows.org_ids, rows.source_ids)
    existing, gone = await _project_pass(connection, projection, sources, outcome, overwrite=False)
    if existing[0]:
        _, gone_since = await _project_pass(connection, projection, existing, outcome, overwrite=True)
        gone = (gone[0] + gone_since[0], gone[1] + gone_since[1])
    outcome.gone = len(gone[0])
    if gone[0] and on_source_gone is OnSourceGone.REMOVE:
        for record in await connection.fetch(projection.remove, *gone):
            add(outcome.removed, {record["name"]: record["count"]})
    return outcome


async def _project_pass(
    connection: asyncpg.Connection,
    projection: Projection,
    sources: tuple[Sequence[int], Sequence[str]],
    outcome: Projected,
    *,
    overwrite: bool,
) -> tuple[_Sources, _Sources]:
    """Runs the projection's statement once; gives the sources that have facts already, and those that are gone."""
    named: dict[str, _Sources] = {"existing": ([], []), "gone": ([], [])}
    counts = {"written": outcome.facts, "skipped": outcome.skipped}
    for record in await connection.fetch(projection.project, *sources, overwrite):
        if record["outcome"] in named:
            org_ids, source_ids = named[record["outcome"]]
            org_ids.append(record["org_id"])
            source_ids.append(record["source_id"])
        else:
            add(counts[record["outcome"]], {record["name"]: record["count"]})
    return named["existing"], named["gone"]


def add(total: dict[str, int], counts: dict[str, int]) -> None:
    """Adds counts by name to a total; what is 0 gets no name."""
    for name, count in counts.items():
        if count:
            total[name] = total.get(name, 0) + count
