"""Brings a database up to date: `projector migrate`.

Versioned, re-runnable, and safe from several places at once. A database that has the outbox and the fact tables already
is compared with what this program expects before anything is changed (projector.attach).
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

import schemas
from projector.attach import find_incompatibilities

MIGRATIONS_FOLDER = Path(schemas.__file__).parent / "sql" / "migrations"
NOTIFY_TRIGGER = "reporting_outbox_notify"

_LOCK_KEY = 0x7265706F_7274696E  # "reportin": ours alone
_LOCK_RETRY_SECONDS = 0.2
_LOCK_WAIT_SECONDS = 600.0
_OLDEST_SERVER = 140000

_INDEX = re.compile(
    r"CREATE INDEX CONCURRENTLY (?P<name>\w+) ON (?P<table>\w+) USING (?P<definition>[^;]+);"
    r"|DROP INDEX CONCURRENTLY IF EXISTS \w+;",
    re.DOTALL,
)

_CREATE_VERSIONS = """
CREATE TABLE IF NOT EXISTS reporting_projector_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

# One statement, so that the trigger is never there without its function. The payload is empty: a hint, not a message.
_CREATE_TRIGGER = f"""
CREATE OR REPLACE FUNCTION {NOTIFY_TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    PERFORM pg_notify('reporting_outbox', '');
    RETURN NULL;
END
$body$;
DROP TRIGGER IF EXISTS {NOTIFY_TRIGGER} ON reporting_outbox;
CREATE TRIGGER {NOTIFY_TRIGGER} AFTER INSERT ON reporting_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION {NOTIFY_TRIGGER}();
"""
_DROP_TRIGGER = f"""
DROP TRIGGER IF EXISTS {NOTIFY_TRIGGER} ON reporting_outbox;
DROP FUNCTION IF EXISTS {NOTIFY_TRIGGER}();
"""


class MigrationError(Exception):
    """The database cannot be brought up to date; the message says why, and nothing was changed by the failed step."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; `concurrent` ones build indexes outside a transaction."""

    version: int
    name: str
    sql: str
    concurrent: bool


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    table: str
    definition: str


def load_migrations() -> list[Migration]:
    """The migrations that come with this program, in order: files `NNNN_name.sql` and `NNNN_name.concurrent.sql`."""
    migrations = []
    for path in sorted(MIGRATIONS_FOLDER.glob("*.sql")):
        stem, _, kind = path.name.removesuffix(".sql").partition(".")
        version, _, name = stem.partition("_")
        migrations.append(Migration(int(version), name, path.read_text(encoding="utf-8"), kind == "concurrent"))
    return migrations


async def applied_version(connection: asyncpg.Connection) -> int:
    """The version that a database is at; 0 where nothing was applied yet."""
    # Behind a transaction pooler, only a transaction keeps a statement's parts together.
    async with connection.transaction():
        if await connection.fetchval("SELECT to_regclass('reporting_projector_migrations') IS NULL"):
            return 0
        return int(await connection.fetchval("SELECT COALESCE(max(version), 0) FROM reporting_projector_migrations"))


async def migrate(connection: asyncpg.Connection, log: structlog.stdlib.BoundLogger) -> list[Migration]:
    """Applies what is missing; gives what it applied.

    Args:
        connection: a direct connection (no transaction pooler), with the right to create tables.
        log: where each step is told.

    Raises:
        MigrationError: the server is too old, the database is not the platform's, an existing table is incompatible,
            or another migration has held the lock for ten minutes.
        asyncpg.PostgresError: a step was refused.
    """
    await _check_server(connection)
    async with _alone(connection, log):
        current = await applied_version(connection)
        migrations = load_migrations()
        if current > migrations[-1].version:
            log.warning("database is newer than this program", version=current, known=migrations[-1].version)
            return []
        pending = [migration for migration in migrations if migration.version > current]
        if current == 0:
            await _check_tables(connection, migrations[0])
        for migration in pending:
            await _apply(connection, migration, log)
            log.info("migration applied", version=migration.version, name=migration.name)
        return pending


async def set_notify_trigger(connection: asyncpg.Connection, *, wanted: bool) -> None:
    """Installs or removes the optional trigger that wakes the projector after each INSERT into the outbox."""
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(_CREATE_TRIGGER if wanted else _DROP_TRIGGER)


async def _check_server(connection: asyncpg.Connection) -> None:
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')::integer"))
    if version < _OLDEST_SERVER:
        raise MigrationError(f"PostgreSQL 14 or newer is needed; this server is {version // 10000}")
    # Ours stand where the platform's stand, whatever schema the migrating role would use first.
    if await connection.fetchval(_USE_PLATFORM_SCHEMA) is None:
        raise MigrationError(
            "table organizations is not there: the outbox belongs into the platform's own database. Check DATABASE_URL."
        )


async def _check_tables(connection: asyncpg.Connection, first: Migration) -> None:
    problems = await find_incompatibilities(connection, first.sql)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise MigrationError(f"existing tables do not fit, nothing was changed:\n{listed}")


@asynccontextmanager
async def _alone(connection: asyncpg.Connection, log: structlog.stdlib.BoundLogger) -> AsyncIterator[None]:
    # Asked for again and again instead of waited for: a session that waits in a statement holds a snapshot, and
    # CREATE INDEX CONCURRENTLY in the session it waits for would wait for that snapshot in turn.
    waited = 0.0
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
        if waited == 0:
            log.info("another migration is running, waiting for it")
        if waited >= _LOCK_WAIT_SECONDS:
            raise MigrationError(
                "another migration has been running for ten minutes; see pg_locks and pg_stat_activity"
            )
        await asyncio.sleep(_LOCK_RETRY_SECONDS)
        waited += _LOCK_RETRY_SECONDS
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)


async def _apply(connection: asyncpg.Connection, migration: Migration, log: structlog.stdlib.BoundLogger) -> None:
    if migration.concurrent:
        for match in _INDEX.finditer(migration.sql):
            if match["name"] is None:
                await connection.execute(match[0])
                continue
            index = _Index(match["name"], match["table"], " ".join(match["definition"].split()))
            await _build_index(connection, index, match[0], log)
        await _record(connection, migration)
        return
    async with connection.transaction():
        # A foreign key locks organizations: rather give up than make the application queue behind us.
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(_CREATE_VERSIONS)
        await connection.execute(migration.sql)
        await _record(connection, migration)


async def _record(connection: asyncpg.Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO reporting_projector_migrations (version, name) VALUES ($1, $2)", migration.version, migration.name
    )


def _plain(definition: str) -> str:
    """An index's definition without casts and parentheses: what tells varchar from text, and nothing else."""
    return re.sub(r"::(text|character varying)(\[\])?|[()]", "", definition)


async def _build_index(
    connection: asyncpg.Connection, index: _Index, statement: str, log: structlog.stdlib.BoundLogger
) -> None:
    """Builds an index unless the table has one on the same columns; replaces what an interrupted build has left."""
    for record in await connection.fetch(_TABLE_INDEXES, index.table):
        definition = record["definition"].partition(" USING ")[2]
        if record["valid"] and _plain(definition) == _plain(index.definition):
            log.info("index is there already", index=index.name, existing=record["name"])
            return
        if record["name"] == index.name:
            if record["valid"]:
                raise MigrationError(
                    f"index {index.name} is there but on other columns: {definition}; rename or drop it"
                )
            log.warning("dropping the rest of an interrupted index build", index=index.name)
            await connection.execute(f"DROP INDEX CONCURRENTLY {index.name}")
    await connection.execute(statement)


_USE_PLATFORM_SCHEMA = """
SELECT set_config('search_path', quote_ident(nspname) || ', ' || current_setting('search_path'), false)
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('organizations')
"""

_TABLE_INDEXES = """
SELECT class.relname AS name, pg_get_indexdef(class.oid) AS definition, indisvalid AS valid
FROM pg_index
JOIN pg_class AS class ON class.oid = indexrelid
WHERE indrelid = $1::text::regclass
"""
