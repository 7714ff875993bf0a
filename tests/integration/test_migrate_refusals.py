"""`migrate` on tables that do not fit: each thing is named, all of them at once, and nothing at all is changed."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import structlog

from projector.batch import BatchRules, run_batch
from projector.migrate import MigrationError, load_migrations, migrate
from tests.catalog import LEGACY, SOURCES, read_catalog, read_rows
from tests.obstacles import opened

# What somebody may have done to the tables, and what is to be said of it.
MISFITS: dict[str, tuple[str, str]] = {
    "a missing column": (
        "ALTER TABLE fact_turn DROP COLUMN iterations",
        "fact_turn.iterations is missing; expected type bigint",
    ),
    "another type": (
        "ALTER TABLE fact_tool_call ALTER COLUMN duration_ms DROP DEFAULT, ALTER COLUMN duration_ms TYPE text",
        "fact_tool_call.duration_ms is text; expected bigint",
    ),
    "a narrower type": (
        "ALTER TABLE fact_turn ALTER COLUMN tool_call_count TYPE integer",
        "fact_turn.tool_call_count is integer; expected bigint",
    ),
    "a text of limited length": (
        "ALTER TABLE fact_turn ALTER COLUMN turn_status TYPE varchar(9)",
        "fact_turn.turn_status is character varying(9); expected text",
    ),
    "a time without its zone": (
        "ALTER TABLE fact_session ALTER COLUMN started_at TYPE timestamp",
        "fact_session.started_at is timestamp without time zone; expected timestamp with time zone",
    ),
    "NOT NULL where nulls are needed": (
        "ALTER TABLE fact_llm_generation ALTER COLUMN session_id SET NOT NULL",
        "fact_llm_generation.session_id is NOT NULL; expected to allow nulls",
    ),
    "a column of its own that must be filled": (
        "ALTER TABLE fact_session ADD COLUMN region text NOT NULL",
        "fact_session.region is NOT NULL without a default; the projector does not know and cannot fill it",
    ),
    "no key of facts": (
        "DROP INDEX capability_usage_key",
        "fact_capability_usage has no unique index on (org_id, source_key)",
    ),
    "a key of some facts only": (
        (
            "DROP INDEX capability_usage_key;"
            "CREATE UNIQUE INDEX ON fact_capability_usage (org_id, source_key) WHERE tool_name IS NULL"
        ),
        "fact_capability_usage has no unique index on (org_id, source_key)",
    ),
    "a key with more columns": (
        "DROP INDEX capability_usage_key; CREATE UNIQUE INDEX ON fact_capability_usage (org_id, source_key, tool_name)",
        "fact_capability_usage has no unique index on (org_id, source_key)",
    ),
    "a key that is checked at the commit": (
        (
            "DROP INDEX capability_usage_key;"
            "ALTER TABLE fact_capability_usage ADD UNIQUE (org_id, source_key) DEFERRABLE INITIALLY DEFERRED"
        ),
        "fact_capability_usage has no unique index on (org_id, source_key)",
    ),
    "a key that only carries a column": (
        "DROP INDEX capability_usage_key; CREATE UNIQUE INDEX ON fact_capability_usage (org_id) INCLUDE (source_key)",
        "fact_capability_usage has no unique index on (org_id, source_key)",
    ),
    "no key of the outbox": (
        "DROP INDEX outbox_work",
        "reporting_outbox has no unique index on (org_id, source_type, source_id, source_version, reason)",
    ),
    "no ids": (
        "ALTER TABLE reporting_outbox DROP CONSTRAINT outbox_pk",
        "reporting_outbox has no unique index on (id)",
    ),
    "a status that is not allowed": (
        (
            "UPDATE reporting_outbox SET status = 'pending' WHERE status = 'processing';"
            "ALTER TABLE reporting_outbox DROP CONSTRAINT outbox_status, ADD CONSTRAINT old_status"
            " CHECK (status IN ('pending', 'completed', 'failed'))"
        ),
        "reporting_outbox: constraint old_status does not allow status processing",
    ),
    "a view": (
        "DROP TABLE fact_turn; CREATE VIEW fact_turn AS SELECT 1::bigint AS org_id, 'x'::text AS source_key",
        "fact_turn is not a table",
    ),
    "a column that computes itself": (
        (
            "ALTER TABLE fact_llm_generation DROP COLUMN total_tokens, ADD COLUMN total_tokens bigint"
            " GENERATED ALWAYS AS (input_tokens + output_tokens) STORED"
        ),
        "fact_llm_generation.total_tokens",
    ),
    "a table in partitions": (
        (
            "DROP TABLE fact_budget_posting CASCADE; CREATE TABLE fact_budget_posting (LIKE fact_posting_copy"
            " INCLUDING DEFAULTS, PRIMARY KEY (org_id, source_key)) PARTITION BY LIST (org_id)"
        ),
        "fact_budget_posting",
    ),
}
CERTAIN = dict(list(MISFITS.items())[:10]) | {
    name: MISFITS[name] for name in ("no key of the outbox", "a status that is not allowed")
}


@pytest.fixture
async def legacy(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database whose tables an older program made."""
    async with opened(empty_database) as connection:
        await connection.execute(SOURCES)
        await connection.execute(LEGACY)
        await connection.execute("CREATE TABLE fact_posting_copy (LIKE fact_budget_posting INCLUDING DEFAULTS)")
        yield connection


async def refused(connection: asyncpg.Connection) -> list[str]:
    """What `migrate` says, line by line; the database is as it was, to the last row."""
    before = await read_catalog(connection)
    tables = tuple(entry[1] for entry in before["relations"] if entry[2] in {"r", "v"})
    rows = await read_rows(connection, tables)
    with pytest.raises(MigrationError) as caught:
        await migrate(connection, structlog.get_logger())
    assert await read_catalog(connection) == before
    assert await read_rows(connection, tables) == rows
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("change", "sentence"), MISFITS.values(), ids=list(MISFITS))
async def test_what_does_not_fit_is_named_and_nothing_is_changed(
    legacy: asyncpg.Connection, change: str, sentence: str
) -> None:
    await legacy.execute(change)
    first, *listed = await refused(legacy)
    assert "nothing was changed" in first
    (line,) = listed
    assert line.startswith(f"  - {sentence}")


async def test_everything_that_does_not_fit_is_listed_at_once(legacy: asyncpg.Connection) -> None:
    for change, _ in CERTAIN.values():
        await legacy.execute(change.replace("DROP INDEX capability", "DROP INDEX IF EXISTS capability"))
    await legacy.execute("DROP INDEX fact_capability_usage_org_id_source_key_idx")
    _, *listed = await refused(legacy)
    sentences = {sentence for _, sentence in CERTAIN.values()}
    assert {line.removeprefix("  - ") for line in listed} == sentences
    assert len(listed) == len(sentences)


FITS = {
    "a constraint between a status and another column": (
        "ALTER TABLE reporting_outbox ADD CHECK (status <> 'completed' OR claimed_at IS NULL)"
    ),
    "a rule for statuses that names none": "ALTER TABLE reporting_outbox ADD CHECK (status ~ '^[a-z]+$')",
    "one status more": (
        "ALTER TABLE reporting_outbox DROP CONSTRAINT outbox_status, ADD CHECK"
        " (status IN ('pending', 'processing', 'completed', 'failed', 'parked'))"
    ),
    "a key that carries one column more": (
        "DROP INDEX capability_usage_key;"
        "CREATE UNIQUE INDEX ON fact_capability_usage (org_id, source_key) INCLUDE (tool_name)"
    ),
    "a column of its own with a default": "ALTER TABLE fact_turn ADD COLUMN region text NOT NULL DEFAULT 'eu'",
    "a column of its own that computes itself": (
        "ALTER TABLE fact_turn ADD COLUMN tokens bigint NOT NULL GENERATED ALWAYS AS (input_tokens) STORED"
    ),
    "a nullable count": "ALTER TABLE fact_turn ALTER COLUMN iterations DROP NOT NULL",
    "no foreign key": "ALTER TABLE reporting_outbox DROP CONSTRAINT outbox_org",
    "no check of statuses": "ALTER TABLE reporting_outbox DROP CONSTRAINT outbox_status",
}


@pytest.mark.parametrize("change", FITS.values(), ids=list(FITS))
async def test_what_does_no_harm_is_not_complained_of(
    legacy: asyncpg.Connection, rules: BatchRules, change: str
) -> None:
    await legacy.execute(change)
    assert len(await migrate(legacy, structlog.get_logger())) == len(load_migrations())
    result = await run_batch(legacy, rules, 10)
    assert (result.claimed, result.completed_rows, result.failed) == (2, 2, [])
