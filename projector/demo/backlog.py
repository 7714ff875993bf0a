"""A backlog in bulk: whole sessions of the last 30 days with an outbox row for each source row, made by the server."""

from datetime import datetime
from typing import Final

from projector.demo.seed import Connection
from projector.demo.vocabulary import vocabulary_json
from projector.demo.writes import TrafficCounts
from projector.sqlfile import load_sql

SESSIONS_PER_TRANSACTION: Final = 1000
_SETTINGS: Final = load_sql(__file__, "backlog_settings.sql")
_PLAN: Final = load_sql(__file__, "backlog_plan.sql")
_WRITE: Final = load_sql(__file__, "backlog.sql")
_COUNTS: Final = load_sql(__file__, "backlog_counts.sql")


async def write_backlog(connection: Connection, sessions: int) -> TrafficCounts:
    """Write `sessions` complete sessions, about 52 outbox rows each, due in the order in which things happened.

    The times end shortly before now; apart from them and the ids the rows follow from `sessions` and from the orgs
    in the database. Each 1000 sessions are a transaction; at the end the tables are analyzed. Triggers and
    foreign keys are skipped, and the counters that they would keep are set.

    Raises:
        ValueError: `sessions` is below 0, or the database has no organization with agents and harnesses.
        RuntimeError: the connection is in a transaction.
        asyncpg.InsufficientPrivilegeError: the role is not a superuser.
    """
    if sessions < 0:
        raise ValueError("a backlog cannot have fewer than 0 sessions")
    if connection.is_in_transaction():
        raise RuntimeError("a backlog is written in transactions of its own")
    counts = TrafficCounts()
    now = await connection.fetchval("SELECT clock_timestamp()")
    for first in range(1, sessions + 1, SESSIONS_PER_TRANSACTION):
        last = min(first + SESSIONS_PER_TRANSACTION - 1, sessions)
        counts.add(await _write_slice(connection, first, last, sessions, now))
    await connection.execute("ANALYZE sessions, events, llm_generations, usage_ledger, reporting_outbox")
    return counts


async def _write_slice(connection: Connection, first: int, last: int, sessions: int, now: datetime) -> TrafficCounts:
    """Sessions number `first` to `last` of `sessions`, in a transaction."""
    async with connection.transaction():
        await connection.fetchrow(_SETTINGS, first, last, sessions, now.isoformat(), vocabulary_json())
        await connection.execute(_PLAN)
        await connection.execute(_WRITE)
        counted = await connection.fetchrow(_COUNTS)
        assert counted is not None
        if counted["sessions"] != last - first + 1:
            raise ValueError("a backlog needs an organization with agents, harnesses and people: seed the platform")
    return TrafficCounts(**counted)
