"""Each source type apart: the projector, the baseline and the limit on a backlog of one type alone."""

from dataclasses import dataclass

from projector.sqlfile import load_sql
from tests.bench.contestants import Baseline, Limit, Projector
from tests.bench.stage import Stage, connected

KEEP_TYPE = load_sql(__file__, "keep_type.sql")

# Which of the limit's statements write facts of this type. Capability usage comes of events, but for what is configured
# for sessions, which is the smaller part; sessions alone would have it without its events.
_LIMIT_OF = {
    "event": ("tool_call", "turn", "capability_usage"),
    "session": ("session",),
    "llm_generation": ("llm_generation",),
    "usage_ledger": ("budget_posting",),
}


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """One source type: rows, and rows a second of the projector with two workers, of the baseline and of the limit."""

    source_type: str
    rows: int
    projector: float
    baseline: float
    limit: float


async def drain_by_type(stage: Stage, baseline_rows: int) -> list[TypeFigures]:
    """Measures each source type once, on copies whose outbox has its rows alone."""
    figures = []
    for source_type, tables in _LIMIT_OF.items():
        rows, seconds = await _run(stage, source_type, Projector("b2", "", workers=2))
        few, baseline_seconds = await _run(stage, source_type, Baseline("a", "", waits_for_disk=True), baseline_rows)
        _, limit_seconds = await _run(stage, source_type, Limit("c", "", tables=tables))
        figures.append(TypeFigures(source_type, rows, rows / seconds, few / baseline_seconds, rows / limit_seconds))
    return figures


async def _run(
    stage: Stage, source_type: str, one: Projector | Baseline | Limit, most: int | None = None
) -> tuple[int, float]:
    """Lets one run; gives its rows and seconds."""
    async with stage.copy() as dsn:
        async with connected(dsn) as connection:
            rows = int(await connection.fetchval(KEEP_TYPE, source_type))
            await connection.execute("VACUUM (ANALYZE) reporting_outbox")
            await connection.execute("CHECKPOINT")
        rows = min(rows, most or rows)
        return rows, await one.run(dsn, rows)
