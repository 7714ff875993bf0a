"""Where contestants run: a server, a template database with the backlog, and a fresh copy of it for each run."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import asyncpg
import structlog

import schemas
from projector.demo.backlog import write_backlog
from projector.demo.embedded import database_dsn, embedded_postgres
from projector.demo.seed import seed_platform
from projector.migrate import migrate
from projector.sqlfile import load_sql

# A small production server: commits wait for the disk, autovacuum is at work, no checkpoint falls into a run.
# Statements are counted only in a database that asks for it.
SERVER_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "50",
    "track_commit_timestamp": "on",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
    "compute_query_id": "off",
}
_ORGS = 4
_SEED = 20260501
_TEMPLATE = "projector_bench_template"
_COPY = "projector_bench_copy"
SOURCES_SQL = Path(schemas.__file__).parent / "sql" / "sources.sql"
_DERIVED = load_sql(__file__, "derived.sql")
_FACTS = load_sql(__file__, "facts.sql")
_ENVIRONMENT = load_sql(__file__, "environment.sql")
_BACKLOG = load_sql(__file__, "backlog.sql")

Facts = dict[str, tuple[int, str]]
"""By fact table: how many facts, and a checksum over all of them."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What there is to project: sessions, their outbox rows, and these by source type and event type."""

    sessions: int
    rows: int
    by_kind: dict[str, int]


@contextmanager
def own_server(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a private server in a temporary folder, with these settings besides the bench's own; gives its DSN."""
    with (
        TemporaryDirectory(prefix="projector-bench-", ignore_cleanup_errors=True) as folder,
        embedded_postgres(Path(folder), SERVER_SETTINGS | dict(settings or {})) as server,
    ):
        yield server.dsn


class Stage:
    """A template database with a backlog, on a server that `dsn` is a superuser of."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def build(self, sessions: int, log: structlog.stdlib.BoundLogger) -> Backlog:
        """Makes the template: canonical tables, outbox, facts, and the backlog of so many sessions."""
        await self.remove()
        await _execute(self._dsn, f"CREATE DATABASE {_TEMPLATE}")
        async with connected(database_dsn(self._dsn, _TEMPLATE)) as connection:
            await connection.execute(SOURCES_SQL.read_text(encoding="utf-8"))
            await migrate(connection, log)
            await connection.execute(_DERIVED)
            await seed_platform(connection, Random(_SEED), _ORGS)
            await write_backlog(connection, sessions)
            # All copies begin with the same statistics and visibility map, as tables that have been there for a while.
            await connection.execute("VACUUM (ANALYZE)")
            by_kind = {record["kind"]: int(record["count"]) for record in await connection.fetch(_BACKLOG)}
        return Backlog(sessions, sum(by_kind.values()), by_kind)

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[str]:
        """A copy of the template, the same page by page, with nothing left to write back; gives its DSN."""
        await _execute(self._dsn, f"DROP DATABASE IF EXISTS {_COPY} WITH (FORCE)")
        await _execute(self._dsn, f"CREATE DATABASE {_COPY} TEMPLATE {_TEMPLATE}")
        await _execute(self._dsn, "CHECKPOINT")
        yield database_dsn(self._dsn, _COPY)
        await _execute(self._dsn, f"DROP DATABASE {_COPY} WITH (FORCE)")

    async def remove(self) -> None:
        """Drops both databases, if they are there."""
        for name in (_COPY, _TEMPLATE):
            await _execute(self._dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def environment(self) -> dict[str, str]:
        """The server's version and the settings that figures depend on."""
        async with connected(self._dsn) as connection:
            found: dict[str, str] = json.loads(await connection.fetchval(_ENVIRONMENT))
        return found


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def read_facts(dsn: str, first_rows: int | None = None) -> Facts:
    """What the facts of a database amount to; with `first_rows`, those alone that come of the outbox's first rows."""
    async with connected(dsn) as connection:
        await connection.execute("SET work_mem = '64MB'")  # the sample's rows are looked up in memory
        records = await connection.fetch(_FACTS, first_rows)
    return {record["fact_table"]: (record["facts"], record["checksum"]) for record in records}


async def count_completed(dsn: str) -> int:
    """How many outbox rows are settled as completed."""
    async with connected(dsn) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE status = 'completed'"))


async def _execute(dsn: str, statement: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(statement)
