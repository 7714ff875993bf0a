"""The statements that the engine runs, each with what its plan must keep to."""

from dataclasses import dataclass
from typing import Any

from projector import diagnostics, outbox
from projector.batch import DELAY_BOUNDS
from projector.projections import BUILT_IN
from projector.registry import Registry
from tests.plans import OUTBOX_ROWS, Plan, nodes, problems, used_indexes

SOURCES = 50
"""How many sources a projection's statement is given."""

ROWS = 100
"""How many outbox rows other statements are given, or may take."""

_WAITING = sum(OUTBOX_ROWS.values()) - OUTBOX_ROWS["completed"]
_OUTBOX = frozenset({"reporting_outbox"})
_ORGANIZATIONS = frozenset({"organizations"})


@dataclass(frozen=True)
class Statement:
    """A statement, and what its plan must keep to.

    Attributes:
        sql: the statement.
        arguments: its arguments, but for the first ones where `sources` or `rows` is given.
        most_rows: how many rows of tables it may look at.
        sources: the type of the sources whose org ids and ids come first.
        rows: whether the ids of some outbox rows come first.
        indexes: the indexes that it may use, where this matters.
        unsorted: whether a sort would show that it reads more than it gives.
        whole: tables, or the partial indexes used of them, that it may read from end to end.
        daemon: whether connections that live long run it.
    """

    sql: str
    arguments: tuple[Any, ...] = ()
    most_rows: float = 0
    sources: str | None = None
    rows: bool = False
    indexes: frozenset[str] = frozenset()
    unsorted: bool = False
    whole: frozenset[str] = frozenset()
    daemon: bool = True


def flaws(statement: Statement, plan: Plan) -> list[str]:
    """What is wrong with a statement's plan."""
    found = problems(plan, most_rows=statement.most_rows, whole=statement.whole)
    kinds = {node["Node Type"] for node in nodes(plan) if node.get("Relation Name") not in _ORGANIZATIONS}
    if "Seq Scan" in kinds:
        found.append("sequential scan")
    if statement.unsorted and any("Sort" in kind for kind in kinds):
        found.append("sort")
    others = used_indexes(plan) - statement.indexes - {"organizations_pkey"}
    if statement.indexes and (others or not used_indexes(plan) & statement.indexes):
        found.append(f"indexes used: {sorted(used_indexes(plan))}")
    return found


_KEY = frozenset({"reporting_outbox_pkey"})
_DUE = frozenset({"reporting_outbox_due"})
_FAILED = frozenset({"reporting_outbox_failed"})
_LEASED = frozenset({"reporting_outbox_leased"})

STATEMENTS: dict[str, Statement] = {
    # A batch.
    "claim": Statement(outbox.CLAIM, (ROWS,), ROWS * 2, indexes=_DUE, unsorted=True),
    "complete": Statement(outbox.COMPLETE, (list(DELAY_BOUNDS),), ROWS, rows=True, indexes=_KEY),
    "fail": Statement(outbox.FAIL, (["22003"] * ROWS, 10), ROWS, rows=True, indexes=_KEY),
    "postpone": Statement(outbox.POSTPONE, ("42703", 30.0), ROWS, rows=True, indexes=_KEY),
    # The sampler.
    "release": Statement(outbox.RELEASE, (ROWS,), OUTBOX_ROWS["leased"] + ROWS, indexes=_LEASED | _KEY, whole=_OUTBOX),
    "backlog": Statement(
        diagnostics.BACKLOG, most_rows=_WAITING, indexes=_DUE | _FAILED | _LEASED, whole=_OUTBOX
    ),
    # The command line.
    "latest_failed": Statement(
        diagnostics.LATEST_FAILED, (20,), 20, indexes=_FAILED, unsorted=True, whole=_OUTBOX, daemon=False
    ),
    "count_due": Statement(outbox.COUNT_DUE, most_rows=OUTBOX_ROWS["due"], indexes=_DUE, daemon=False),
    "count_dead": Statement(
        outbox.COUNT_DEAD, (None,), OUTBOX_ROWS["dead"], indexes=_DUE | _FAILED, daemon=False
    ),
    "requeue_dead": Statement(
        outbox.REQUEUE_DEAD, (None, ROWS), OUTBOX_ROWS["dead"] + ROWS, indexes=_DUE | _FAILED | _KEY, daemon=False
    ),
    "requeue_dead_of_a_type": Statement(
        outbox.REQUEUE_DEAD, ("event", ROWS), OUTBOX_ROWS["dead"] + ROWS, indexes=_DUE | _FAILED | _KEY, daemon=False
    ),
    "requeue_ids": Statement(outbox.REQUEUE_IDS, (), ROWS, rows=True, daemon=False),
    "count_failed_ids": Statement(outbox.COUNT_FAILED_IDS, (), ROWS, rows=True, daemon=False),
}  # fmt: skip
STATEMENTS |= {
    f"freshness_of_{table.name}": Statement(
        diagnostics.FRESHNESS.format(table=table.name), most_rows=20 * 2,
        indexes=frozenset({f"{table.name}_projected"}), whole=_ORGANIZATIONS,
    )
    for table in Registry(BUILT_IN).tables
}  # fmt: skip
_ROWS_FOR_EACH_SOURCE = {"event": 40, "session": 40, "llm_generation": 6, "usage_ledger": 6}
for projection in BUILT_IN:
    rows = SOURCES * _ROWS_FOR_EACH_SOURCE[projection.source_type]
    STATEMENTS[f"project_{projection.name}"] = Statement(
        projection.project, (False,), rows, sources=projection.source_type
    )
    STATEMENTS[f"project_{projection.name}_again"] = Statement(
        projection.project, (True,), rows, sources=projection.source_type
    )
    STATEMENTS[f"remove_{projection.name}"] = Statement(
        projection.remove, (), SOURCES * 10, sources=projection.source_type
    )
