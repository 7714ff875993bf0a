"""What each transaction did, noted by triggers inside it: who projects a source settles a row of it, and nobody else.

Notes of a transaction that is rolled back are rolled back with it. So the notes that are left show promise 1 for each
transaction that took place: no source projected without a row of it settled, none settled without being projected, each
row settled once for each time that it was enqueued. Two that project one row at once cannot both have settled it.
"""

import asyncpg

from projector.database import APPLICATION_NAME

# Not `fact_turn`: a late tool call rewrites the fact of a turn, whose row is none of its own.
_INSTALL = """
    CREATE TABLE chaos_audit (
        what text NOT NULL, source text NOT NULL, transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
        program text NOT NULL DEFAULT current_setting('application_name'), status_before text
    );

    CREATE FUNCTION note_projected() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO chaos_audit (what, source) VALUES ('projected', NEW.source_key);
        RETURN NEW;
    END $$;
    CREATE TRIGGER note_projected BEFORE INSERT ON fact_tool_call FOR EACH ROW EXECUTE FUNCTION note_projected();
    CREATE TRIGGER note_projected BEFORE INSERT ON fact_session FOR EACH ROW EXECUTE FUNCTION note_projected();
    CREATE TRIGGER note_projected BEFORE INSERT ON fact_llm_generation FOR EACH ROW EXECUTE FUNCTION note_projected();
    CREATE TRIGGER note_projected BEFORE INSERT ON fact_budget_posting FOR EACH ROW EXECUTE FUNCTION note_projected();

    CREATE FUNCTION note_settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO chaos_audit (what, source, status_before)
        VALUES ('settled', NEW.source_type || ':' || NEW.source_id, OLD.status);
        RETURN NEW;
    END $$;
    CREATE TRIGGER note_settled AFTER UPDATE ON reporting_outbox FOR EACH ROW WHEN (NEW.status = 'completed')
        EXECUTE FUNCTION note_settled();
"""
_WRONG = """
    WITH projected AS (
        SELECT DISTINCT source, transaction FROM chaos_audit WHERE what = 'projected' AND program = $1
    ),
    settled AS (
        SELECT DISTINCT source, transaction
        FROM chaos_audit
        WHERE what = 'settled' AND program = $1 AND status_before IN ('pending', 'failed')
            AND source IN (SELECT source FROM projected)
    )
    SELECT 'projected without its row settled' AS wrong, source FROM (TABLE projected EXCEPT TABLE settled) AS p
    UNION ALL
    SELECT 'settled without being projected', source FROM (TABLE settled EXCEPT TABLE projected) AS s
    UNION ALL
    SELECT 'settled a row that was ' || status_before, source
    FROM chaos_audit
    WHERE what = 'settled' AND program = $1 AND status_before NOT IN ('pending', 'failed')
"""
_SETTLED = "SELECT count(*) FROM chaos_audit WHERE what = 'settled' AND program = $1"


async def install_audit(dsn: str) -> None:
    """Begins to take notes."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_INSTALL)
    finally:
        await connection.close()


async def settled_by(connection: asyncpg.Connection, program: str) -> int:
    """How many rows a program has settled as completed, by its application name."""
    return int(await connection.fetchval(_SETTLED, program))


async def verify_audit(dsn: str) -> None:
    """Sees that each transaction of the daemons projected what it settled, and settled what was its own.

    Raises:
        AssertionError: naming what was not so.
    """
    connection = await asyncpg.connect(dsn)
    try:
        wrong = [
            f"{record['wrong']}: {record['source']}" for record in await connection.fetch(_WRONG, APPLICATION_NAME)
        ]
        assert not wrong, f"{len(wrong)} transactions were not as they should be\n" + "\n".join(wrong[:20])
        assert await settled_by(connection, APPLICATION_NAME), "the notes are empty"
    finally:
        await connection.close()
