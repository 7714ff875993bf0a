"""Backlogs in which some rows are bad, and what makes them bad: done behind the program's back, and undone again."""

from uuid import UUID

import asyncpg

from projector.sqlfile import load_sql
from tests.obstacles import refuse_by_check, refuse_by_trigger
from tests.platform_rows import add_org, enqueue

CANARY = "canary_3b1f"
"""In every text of every source."""

OUTBOX_CANARY = "canary_7c2e"
"""In source ids and source types, which are the outbox's own: operators are shown them, logs and metrics are not."""

_BACKLOG = load_sql(__file__, "poisoned_backlog.sql")
_BAD = """
    SELECT o.id
    FROM reporting_outbox AS o
    LEFT JOIN events AS e ON o.source_type = 'event' AND e.id::text = o.source_id
    LEFT JOIN llm_generations AS g ON o.source_type = 'llm_generation' AND g.id::text = o.source_id
    LEFT JOIN usage_ledger AS l ON o.source_type = 'usage_ledger' AND l.id::text = o.source_id
    LEFT JOIN sessions AS s ON o.source_type = 'session' AND s.id::text = o.source_id
    WHERE COALESCE(e.data ->> 'tool_name', g.model, l.ref_type, s.blueprint_id) LIKE 'bad%'
"""
# Each of these says as much as it can of the row: none of it may be repeated anywhere.
_RAISING = (
    "RAISE EXCEPTION '% is refused', NEW.model"
    " USING DETAIL = NEW.provider, HINT = NEW.finish_reason, COLUMN = NEW.model, CONSTRAINT = NEW.model"
)
_GOOD = f"good {CANARY}"
_REFUSE = f"""
    ALTER TABLE fact_budget_posting ALTER ref_type TYPE varchar({len(_GOOD)});
    CREATE TABLE good_blueprint (name text PRIMARY KEY);
    INSERT INTO good_blueprint VALUES ('{_GOOD}');
    ALTER TABLE fact_session ADD CONSTRAINT refused FOREIGN KEY (blueprint_id) REFERENCES good_blueprint;
"""
_RAISE_IN_PROJECTION = """
    ALTER FUNCTION reporting_text(jsonb, text) RENAME TO reporting_text_as_it_was;
    CREATE FUNCTION reporting_text(document jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT CASE
            WHEN key = 'turn_id' AND document ? 'iterations' AND document ->> key LIKE 'bad%'
                THEN (document ->> key)::numeric::text
            ELSE reporting_text_as_it_was(document, key)
        END
    $$;
"""
_CURE = """
    ALTER TABLE fact_tool_call DROP CONSTRAINT refused;
    DROP TRIGGER refuse ON fact_llm_generation;
    ALTER TABLE fact_budget_posting ALTER ref_type TYPE text;
    ALTER TABLE fact_session DROP CONSTRAINT refused;
    DROP FUNCTION reporting_text(jsonb, text);
    ALTER FUNCTION reporting_text_as_it_was(jsonb, text) RENAME TO reporting_text;
"""


async def add_backlog(connection: asyncpg.Connection, rows: int, every: int) -> None:
    """So many sources of each of the four types, with their outbox rows; the first of every so many is bad, 0: none."""
    await add_org(connection)
    await connection.execute(_BACKLOG, rows, every, CANARY)


async def add_hopeless(connection: asyncpg.Connection, rows: int) -> list[UUID]:
    """Outbox rows that no cure will help: ids that are no UUIDs, and source types that nobody knows; gives them."""
    ids = ("", " ", "7", OUTBOX_CANARY, f"{OUTBOX_CANARY}%s\n{{}}", "{00000000-0000-7000-8000-000000000000}", "é" * 900)
    hopeless = []
    for number in range(rows):
        source_type = ("event", "session", "llm_generation", "usage_ledger")[number % 4]
        hopeless.append(await enqueue(connection, source_type, ids[number % len(ids)]))
        hopeless.append(await enqueue(connection, f"{OUTBOX_CANARY} {number}", OUTBOX_CANARY))
    return hopeless


async def bad_rows(connection: asyncpg.Connection) -> set[UUID]:
    """The outbox rows whose sources are marked as bad."""
    return {record["id"] for record in await connection.fetch(_BAD)}


async def refuse(connection: asyncpg.Connection) -> None:
    """Bad rows are refused from now on: by a check, a trigger, a type that is too short, a reference."""
    await refuse_by_check(connection, "fact_tool_call", "tool_name LIKE 'bad%'")
    await refuse_by_trigger(connection, "fact_llm_generation", "NEW.model LIKE 'bad%'", raising=_RAISING)
    await connection.execute(_REFUSE)


async def raise_in_projection(connection: asyncpg.Connection) -> None:
    """The projection's own statement raises from now on where it reads a bad turn."""
    await connection.execute(_RAISE_IN_PROJECTION)


async def cure(connection: asyncpg.Connection) -> None:
    """Undoes all of that."""
    await connection.execute(_CURE)
