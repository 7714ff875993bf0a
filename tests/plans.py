"""Plans as PostgreSQL tells them, and what is asked of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

FILL = (Path(__file__).parent / "fill.sql").read_text(encoding="utf-8")
OUTBOX_ROWS = {"completed": 50_000, "due": 5_300, "waiting": 300, "dead": 300, "leased": 300}

Plan = dict[str, Any]

_BY_KEY = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Tid Range Scan"}
_CONDITIONS = {"Index Cond", "TID Cond"}
_WRITES = {"ModifyTable", "LockRows"}


async def fill(connection: asyncpg.Connection, sessions: int) -> None:
    """Fills a migrated, empty database; see fill.sql."""
    await connection.execute(f"SET fill.sessions = {sessions}")
    await connection.execute(FILL)


def literal(value: Any) -> str:
    """A value of one of our statements' parameters, for EXECUTE."""
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value)
        case list():
            return "'{" + ",".join(json.dumps(str(item)) for item in value) + "}'"
        case _:
            return "'" + str(value).replace("'", "''") + "'"


def call(name: str, arguments: list[Any]) -> str:
    """An EXECUTE of a prepared statement."""
    given = f"({', '.join(map(literal, arguments))})" if arguments else ""
    return f"EXECUTE {name}{given}"


async def explain(connection: asyncpg.Connection, name: str, arguments: list[Any]) -> Plan:
    """Runs a prepared statement and gives its plan, with what really happened."""
    records = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {call(name, arguments)}")
    plan: Plan = json.loads(records[0][0])[0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    """All nodes of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def reads(plan: Plan) -> list[Plan]:
    """The nodes that read a table."""
    return [node for node in nodes(plan) if "Relation Name" in node and node["Node Type"] not in _WRITES]


def rows_read(plan: Plan) -> float:
    """How many rows of tables were looked at, those that a filter dropped included."""
    counts = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(float(node["Actual Loops"]) * sum(float(node.get(name, 0)) for name in counts) for node in reads(plan))


def used_indexes(plan: Plan) -> set[str]:
    """The indexes that a plan reads."""
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def problems(plan: Plan, *, most_rows: float, whole: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with a plan: tables read without a condition on an index or on addresses, or too many rows read.

    Args:
        plan: as `explain` gives it.
        most_rows: how many rows may be looked at.
        whole: tables that may be read from end to end.
    """
    found = []
    for node in reads(plan):
        table, kind = node["Relation Name"], node["Node Type"]
        if table in whole:
            continue
        if kind not in _BY_KEY:
            found.append(f"{kind} on {table}")
        elif not any(_CONDITIONS & set(part) for part in nodes(node)):
            found.append(f"{kind} on all of {table}")
    if rows_read(plan) > most_rows:
        found.append(f"{rows_read(plan):.0f} rows read, {most_rows:.0f} allowed")
    return found
