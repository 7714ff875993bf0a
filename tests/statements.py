"""The statements that the engine runs, each with what its plan must keep to."""

from dataclasses import dataclass
from typing import Any

from projector import claims, diagnostics, failed, leases, outbox, overdue, pruner
from projector.backfill import look_statement
from projector.batch import DELAY_BOUNDS
from projector.kafka import capture, changes, snapshot
from projector.projections import BUILT_IN
from projector.registry import Registry
from tests.plans import OUTBOX_ROWS, Plan, nodes, problems, used_indexes

SOURCES = 50
"""How many sources a projection's statement is given."""

ROWS = 100
"""How many outbox rows other statements are given, or may take."""

_BOTTOM = "00000000-0000-0000-0000-000000000000"
_FIRST = ("-infinity", _BOTTOM)
_LAST = ("infinity", "ffffffff-ffff-ffff-ffff-ffffffffffff")
_FAILED_ROWS = 900  # due, waiting and dead
_MOST_ROWS_ON_A_PAGE = 80
_OUTBOX = frozenset({"reporting_outbox"})
_ORGANIZATIONS = frozenset({"organizations"})


@dataclass(frozen=True)
class Statement:
    """A statement, and what its plan must keep to.

    Attributes:
        sql: the statement.
        arguments: its arguments, but for the first ones where `sources`, `rows` or `ids` is given.
        most_rows: how many rows of tables it may look at.
        sources: the type of the sources whose org ids and ids come first.
        rows: whether some outbox rows come first, by where they are.
        ids: whether some outbox rows come first, by their ids.
        indexes: the indexes that it may use, where this matters.
        unsorted: whether a sort would show that it reads more than it gives.
        whole: tables, or the partial indexes used of them, that it may read from end to end.
        operator: whether it runs in an operator's transaction, planned for its parameters.
        before: what the program runs before it in its transaction.
    """

    sql: str
    arguments: tuple[Any, ...] = ()
    most_rows: float = 0
    sources: str | None = None
    rows: bool = False
    ids: bool = False
    indexes: frozenset[str] = frozenset()
    unsorted: bool = False
    whole: frozenset[str] = frozenset()
    operator: bool = False
    before: str = "SELECT"


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
_FRESH = frozenset({"reporting_outbox_due"})
_DUE = frozenset({"reporting_outbox_due_by_org"})
_FAILED = frozenset({"reporting_outbox_failed"})
_FAILED_BY_ORG = frozenset({"reporting_outbox_failed_by_org"})
_LEASED = frozenset({"reporting_outbox_leased"})
_TABLES = Registry(BUILT_IN).tables
_PROJECTED = frozenset(f"{table.name}_projected" for table in _TABLES)

STATEMENTS: dict[str, Statement] = {
    # A batch.
    "claim_fresh": Statement(claims.CLAIM_FRESH, (ROWS, "-infinity", _BOTTOM), ROWS, indexes=_FRESH),
    "claim_backlog": Statement(
        claims.CLAIM_BACKLOG, (ROWS // 4, [1, 2, 3, 4], ["-infinity"] * 4, [_FIRST[1]] * 4), ROWS, indexes=_DUE
    ),
    "find_backlog": Statement(claims.FIND_BACKLOG, (0, ROWS), 20 * 2, indexes=_DUE),
    "complete": Statement(outbox.COMPLETE, (list(DELAY_BOUNDS),), ROWS, rows=True),
    "complete_and_delete": Statement(outbox.COMPLETE_AND_DELETE, (list(DELAY_BOUNDS),), ROWS, rows=True),
    "fail": Statement(outbox.FAIL, (["22003"] * ROWS, 10), ROWS, rows=True),
    "postpone": Statement(outbox.POSTPONE, ("42703", 30.0), ROWS, rows=True),
    # Kafka: consumers, their sweep, and the relay.
    "claim_ids": Statement(outbox.CLAIM_IDS, most_rows=ROWS, ids=True, indexes=_KEY),
    "find_held": Statement(outbox.FIND_HELD, most_rows=ROWS, ids=True, rows=True, indexes=_KEY),
    "claim_overdue": Statement(overdue.CLAIM_OVERDUE, (ROWS, 0.0, "-infinity", _BOTTOM), ROWS, indexes=_FRESH),
    "lease": Statement(leases.LEASE, most_rows=ROWS, rows=True),
    "release_ids": Statement(leases.RELEASE_IDS, most_rows=ROWS, ids=True, indexes=_KEY),
    "count_leased": Statement(
        leases.COUNT_LEASED, (ROWS,), OUTBOX_ROWS["leased"], indexes=_LEASED, whole=_OUTBOX
    ),
    # The sampler.
    "release": Statement(outbox.RELEASE, (ROWS,), OUTBOX_ROWS["leased"] + ROWS, indexes=_LEASED | _KEY, whole=_OUTBOX),
    "backlog": Statement(
        diagnostics.BACKLOG, (ROWS,), ROWS * 3, indexes=_FRESH | _FAILED | _LEASED, unsorted=True, whole=_OUTBOX
    ),
    "sampled": Statement(diagnostics.SAMPLED, (None, 2), 2 * _MOST_ROWS_ON_A_PAGE),
    "freshness": Statement(
        diagnostics.freshness_statement(diagnostics.FRESHNESS, _TABLES), most_rows=len(_TABLES) * 20 * 2,
        indexes=_PROJECTED, whole=_ORGANIZATIONS,
    ),
    # The pruner.
    "prune": Statement(pruner.PRUNE, (_BOTTOM, 0.0, ROWS, pruner.LOCK_KEY), ROWS * 3, indexes=_KEY),
    # Operators.
    "claim_org": Statement(outbox.CLAIM_ORG, (ROWS, 1), ROWS, indexes=_DUE, unsorted=True),
    "latest_failed": Statement(
        failed.LATEST_FAILED, (None, None, None, *_LAST, 20), 20, indexes=_FAILED, unsorted=True, operator=True
    ),
    "latest_failed_of_an_org": Statement(
        failed.LATEST_FAILED, (1, None, None, *_LAST, 20), 20, indexes=_FAILED_BY_ORG, unsorted=True, operator=True
    ),
    "count_due": Statement(
        outbox.COUNT_DUE, most_rows=OUTBOX_ROWS["due"], indexes=_FRESH | _DUE, whole=_OUTBOX, operator=True
    ),
    "count_dead": Statement(
        failed.COUNT_DEAD, (None, None, 2**31 - 1), _FAILED_ROWS, indexes=_FAILED | _FAILED_BY_ORG, whole=_OUTBOX,
        operator=True,
    ),
    "requeue_dead": Statement(
        failed.REQUEUE_DEAD, (None, None, ROWS, *_FIRST), _FAILED_ROWS + ROWS, indexes=_FAILED | _KEY, operator=True
    ),
    "requeue_dead_of_an_org": Statement(
        failed.REQUEUE_DEAD, ("event", 1, ROWS, *_FIRST), _FAILED_ROWS + ROWS, indexes=_FAILED_BY_ORG | _KEY,
        operator=True,
    ),
    "requeue_ids": Statement(failed.REQUEUE_IDS, (None, ROWS), ROWS * 2, ids=True, operator=True),
    "count_failed_ids": Statement(failed.COUNT_FAILED_IDS, (None,), ROWS, ids=True, operator=True),
    "backlog_org": Statement(
        diagnostics.BACKLOG_ORG, (ROWS, 1), ROWS * 3, indexes=_DUE | _FAILED_BY_ORG | _LEASED, unsorted=True,
        whole=_OUTBOX, operator=True,
    ),
    "count_org": Statement(diagnostics.COUNT_ORG, (1, ROWS), ROWS, operator=True),
    "freshness_org": Statement(
        diagnostics.freshness_statement(diagnostics.FRESHNESS_ORG, _TABLES), (1,), len(_TABLES), indexes=_PROJECTED,
        operator=True,
    ),
}  # fmt: skip
_CHANGES = frozenset({"reporting_fact_changes"})
_CHANGES_KEY = frozenset({"reporting_fact_changes_pkey"})
# The changelog.
STATEMENTS |= {
    "changelog_take": Statement(changes.TAKE, (0, ["sessions"], ROWS, ROWS), ROWS, indexes=_CHANGES_KEY),
    "changelog_settle": Statement(changes.SETTLE, ([1, 2, 3],), 3, indexes=_CHANGES_KEY),
    "changelog_waiting": Statement(capture.WAITING, (ROWS,), ROWS, indexes=_CHANGES_KEY, unsorted=True, whole=_CHANGES),
    "changelog_left": Statement(snapshot.LEFT, ([1, 2, 3],), 3, indexes=_CHANGES_KEY),
}
for table in Registry(BUILT_IN).tables:
    key = frozenset({f"{table.name}_pkey", f"{table.name}_prefix"})
    STATEMENTS[f"facts_of_{table.name}"] = Statement(
        changes.FACTS.format(table=table.name), ([1, 2, 1], ["a", "b", "c"]), 3, indexes=key
    )
    STATEMENTS[f"snapshot_of_{table.name}"] = Statement(
        snapshot.SNAPSHOT.format(table=table.name),
        (table.dataset, 0, "", ROWS),
        ROWS,
        indexes=key,
        operator=True,
        before=snapshot.KEEP_TO_THE_KEY,
    )
_LOOKED_AT_FOR_EACH_SOURCE = {"event": 6, "session": 12, "llm_generation": 3, "usage_ledger": 3}
_ROWS_FOR_EACH_SOURCE = {"event": 40, "session": 40, "llm_generation": 6, "usage_ledger": 6}
for projection in BUILT_IN:
    rows = SOURCES * _ROWS_FOR_EACH_SOURCE[projection.source_type]
    STATEMENTS[f"project_{projection.name}"] = Statement(
        projection.project, (False,), rows, sources=projection.source_type
    )
    STATEMENTS[f"project_{projection.name}_again"] = Statement(
        projection.project, (True,), rows, sources=projection.source_type
    )
    for whose, org_id in (("", None), ("_of_an_org", 1)):
        STATEMENTS[f"look_{projection.name}{whose}"] = Statement(
            look_statement(projection),
            ("", org_id, None, None, "missing", ROWS, projection.source_type, projection.reason, projection.versioned),
            ROWS * _LOOKED_AT_FOR_EACH_SOURCE[projection.source_type], operator=True,
        )  # fmt: skip
    STATEMENTS[f"remove_{projection.name}"] = Statement(
        projection.remove, (), SOURCES * 10, sources=projection.source_type
    )
