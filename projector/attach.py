"""Compares tables that a database has already with those that this program expects (contract: outbox.md, facts.md).

What is expected is not written down a second time: the first migration is run in a schema of its own, read back from
the catalog, and rolled back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

_SCRATCH_SCHEMA = "reporting_projector_expected"

_TABLES = (
    "reporting_outbox", "fact_llm_generation", "fact_tool_call", "fact_turn", "fact_session", "fact_budget_posting",
    "fact_capability_usage",
)  # fmt: skip

# The columns that ON CONFLICT names: they need a unique index.
_KEYS = {"reporting_outbox": ("org_id", "source_type", "source_id", "source_version", "reason")}
_FACT_KEY = ("org_id", "source_key")

_STATUSES = ("pending", "processing", "completed", "failed")

_COLUMNS = """
SELECT
    class.relname AS table_name, attribute.attname AS column_name,
    format_type(attribute.atttypid, attribute.atttypmod) AS type, attribute.attnotnull AS required,
    attribute.atthasdef OR attribute.attidentity <> '' AS filled, attribute.attgenerated <> '' AS computed
FROM pg_class AS class
JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attisdropped
WHERE class.oid = ANY ($1::oid[])
ORDER BY class.relname, attribute.attnum
"""
_SCRATCH_TABLES = """
SELECT relname AS name, oid FROM pg_class WHERE relnamespace = to_regnamespace($1)::oid AND relkind = 'r'
"""
_EXISTING_TABLES = """
SELECT class.relname AS name, class.oid, class.relkind::text AS kind
FROM unnest($1::text[]) AS expected (name)
JOIN pg_class AS class ON class.oid = to_regclass(expected.name)
"""
_UNIQUE_KEYS = """
SELECT array_agg(attribute.attname::text) AS columns
FROM pg_index AS index
CROSS JOIN LATERAL unnest(index.indkey) WITH ORDINALITY AS key (attnum, position)
JOIN pg_attribute AS attribute ON attribute.attrelid = index.indrelid AND attribute.attnum = key.attnum
WHERE index.indrelid = $1::oid AND index.indisunique AND index.indisvalid AND index.indimmediate
    AND index.indpred IS NULL AND key.position <= index.indnkeyatts
GROUP BY index.indexrelid
"""
_STATUS_CHECKS = """
SELECT conname AS name, pg_get_expr(conbin, conrelid) AS expression
FROM pg_constraint
WHERE conrelid = $1::oid AND contype = 'c' AND conkey = ARRAY[
    (SELECT attnum FROM pg_attribute WHERE attrelid = $1::oid AND attname = 'status')
]
"""

_KINDS = {"p": "is partitioned, which this program does not support"}


@dataclass(frozen=True, slots=True)
class _Column:
    type: str
    required: bool
    filled: bool
    computed: bool


async def find_incompatibilities(connection: asyncpg.Connection, migration: str) -> list[str]:
    """Compares existing tables with what `migration` would create.

    Args:
        connection: not inside a transaction.
        migration: the SQL that creates the tables, with IF NOT EXISTS.

    Returns:
        One sentence for each thing that does not fit, naming table and column; empty where all fits or none is there.
        The database is as it was.

    Raises:
        asyncpg.PostgresError: the role may not create a schema, or the migration's SQL is refused.
    """
    existing = {record["name"]: record for record in await connection.fetch(_EXISTING_TABLES, _TABLES)}
    if not existing:
        return []
    expected = await _expected_columns(connection, migration)
    problems = []
    for name, record in existing.items():
        if record["kind"] != "r":
            problems.append(f"{name} {_KINDS.get(record['kind'], 'is not a table')}")
            continue
        found = (await _read_columns(connection, [record["oid"]])).get(name, {})
        problems += _compare_columns(name, expected[name], found)
        problems += await _compare_keys(connection, name, record["oid"])
    return problems


async def _expected_columns(connection: asyncpg.Connection, migration: str) -> dict[str, dict[str, _Column]]:
    scratch = connection.transaction()
    await scratch.start()
    try:
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(f"CREATE SCHEMA {_SCRATCH_SCHEMA}")
        await connection.execute(
            "SELECT set_config('search_path', $1 || ', ' || current_setting('search_path'), true)", _SCRATCH_SCHEMA
        )
        await connection.execute(migration)
        tables = await connection.fetch(_SCRATCH_TABLES, _SCRATCH_SCHEMA)
        return await _read_columns(connection, [table["oid"] for table in tables])
    finally:
        await scratch.rollback()


async def _read_columns(connection: asyncpg.Connection, tables: list[int]) -> dict[str, dict[str, _Column]]:
    columns: dict[str, dict[str, _Column]] = {}
    for record in await connection.fetch(_COLUMNS, tables):
        column = _Column(record["type"], record["required"], record["filled"], record["computed"])
        columns.setdefault(record["table_name"], {})[record["column_name"]] = column
    return columns


def _compare_columns(table: str, expected: Mapping[str, _Column], found: Mapping[str, _Column]) -> list[str]:
    problems = []
    for name, column in expected.items():
        if name not in found:
            problems.append(f"{table}.{name} is missing; expected type {column.type}")
        elif _plain_type(found[name].type) != column.type:
            problems.append(f"{table}.{name} is {found[name].type}; expected {column.type}")
        elif found[name].computed:
            problems.append(f"{table}.{name} is computed by the database; expected a plain column")
        elif found[name].required and not column.required:
            problems.append(f"{table}.{name} is NOT NULL; expected to allow nulls")
    problems += [
        f"{table}.{name} is NOT NULL without a default; the projector does not know and cannot fill it"
        for name, column in found.items()
        if name not in expected and column.required and not column.filled
    ]
    return problems


def _plain_type(name: str) -> str:
    return "text" if name == "character varying" else name


async def _compare_keys(connection: asyncpg.Connection, table: str, oid: int) -> list[str]:
    problems = []
    key = _KEYS.get(table, _FACT_KEY)
    unique = [set(record["columns"]) for record in await connection.fetch(_UNIQUE_KEYS, oid)]
    if set(key) not in unique:
        problems.append(f"{table} has no unique index on ({', '.join(key)})")
    if table == "reporting_outbox":
        if {"id"} not in unique:
            problems.append(f"{table} has no unique index on (id)")
        problems += await _compare_statuses(connection, table, oid)
    return problems


async def _compare_statuses(connection: asyncpg.Connection, table: str, oid: int) -> list[str]:
    """Tries each constraint on the status alone with each status."""
    problems = []
    for check in await connection.fetch(_STATUS_CHECKS, oid):
        statement = f"SELECT {check['expression']} FROM (SELECT $1::text) AS row (status)"  # noqa: S608 - the catalog's
        refused = [status for status in _STATUSES if await connection.fetchval(statement, status) is False]
        if refused:
            problems.append(f"{table}: constraint {check['name']} does not allow status {', '.join(refused)}")
    return problems
