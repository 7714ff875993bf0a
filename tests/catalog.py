"""What a database's catalog says, as sets that can be compared."""

from pathlib import Path

import asyncpg

import schemas

SQL_FOLDER = Path(schemas.__file__).parent / "sql"
SOURCES = (SQL_FOLDER / "sources.sql").read_text(encoding="utf-8")
WHOLE_SCHEMA = (SQL_FOLDER / "schema.sql").read_text(encoding="utf-8")
LEGACY = (Path(__file__).parent / "legacy.sql").read_text(encoding="utf-8")

TABLES = (
    "reporting_outbox", "fact_llm_generation", "fact_tool_call", "fact_turn", "fact_session", "fact_budget_posting",
    "fact_capability_usage",
)  # fmt: skip

Catalog = dict[str, set[tuple[str, ...]]]

# Each gives one text array a row; system schemas and the temporary ones left out.
_QUESTIONS = {
    "relations": """
        SELECT ARRAY[relnamespace::regnamespace::text, relname, relkind::text, relpersistence::text]
        FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
            AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """,
    "columns": """
        SELECT ARRAY[
            attrelid::regclass::text, attname, attnum::text, format_type(atttypid, atttypmod), attnotnull::text,
            COALESCE(pg_get_expr(adbin, adrelid), ''), attidentity::text, attgenerated::text
        ]
        FROM pg_attribute
        JOIN pg_class AS class ON class.oid = attrelid AND relkind IN ('r', 'p', 'v')
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """,
    "constraints": """
        SELECT ARRAY[conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text]
        FROM pg_constraint WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """,
    "indexes": """
        SELECT ARRAY[indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid),
            indisvalid::text, indisready::text]
        FROM pg_index JOIN pg_class AS class ON class.oid = indrelid
        WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """,
    "triggers": """
        SELECT ARRAY[tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)] FROM pg_trigger WHERE NOT tgisinternal
    """,
    "functions": """
        SELECT ARRAY[oid::regprocedure::text, prosrc, provolatile::text, proparallel::text, prorettype::regtype::text]
        FROM pg_proc WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
    """,
    "schemas": "SELECT ARRAY[nspname::text] FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'",
}


async def read_catalog(connection: asyncpg.Connection) -> Catalog:
    """Everything that a migration could change but the rows."""
    return {
        name: {tuple(record[0]) for record in await connection.fetch(question)} for name, question in _QUESTIONS.items()
    }


def of_tables(catalog: Catalog, name: str, tables: tuple[str, ...] = TABLES) -> set[tuple[str, ...]]:
    """The part of a catalog that is about some tables."""
    return {entry for entry in catalog[name] if entry[0] in tables}


async def read_rows(connection: asyncpg.Connection, tables: tuple[str, ...] = TABLES) -> dict[str, list[str]]:
    """Every row of some tables, as text."""
    return {
        table: [record[0] for record in await connection.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in tables
    }


def duplicates(catalog: Catalog) -> list[str]:
    """Definitions of indexes, without their names, that occur more than once on a table."""
    seen: list[str] = []
    for entry in catalog["indexes"]:
        unique = "UNIQUE" in entry[2].partition(" INDEX ")[0]
        seen.append(f"{entry[0]} {unique} {entry[2].partition(' USING ')[2]}")
    return sorted({entry for entry in seen if seen.count(entry) > 1})
