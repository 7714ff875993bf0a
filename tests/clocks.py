"""A database whose clock is off, and can be set while all is at work."""

from datetime import timedelta

import asyncpg

# What `now()` means to whoever looks up functions here first. The outbox's defaults go by it too.
_SHIFT = """
    CREATE SCHEMA clock;
    CREATE TABLE clock.off_by AS SELECT interval '0' AS off_by;
    CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT pg_catalog.now() + (SELECT off_by FROM clock.off_by)';
    CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT pg_catalog.clock_timestamp() + (SELECT off_by FROM clock.off_by)';
    GRANT USAGE ON SCHEMA clock TO PUBLIC;
    GRANT SELECT ON clock.off_by TO PUBLIC;
    ALTER TABLE reporting_outbox
        ALTER COLUMN next_attempt_at SET DEFAULT clock.now(),
        ALTER COLUMN created_at SET DEFAULT clock.now(),
        ALTER COLUMN updated_at SET DEFAULT clock.now();
    DO $body$
    BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database());
    END
    $body$;
    SET search_path = clock, pg_catalog, public;
"""


async def shift_clock(connection: asyncpg.Connection) -> None:
    """Lets a database's clock be set: for this connection, and for all that are opened from now on."""
    await connection.execute(_SHIFT)


async def set_clock(connection: asyncpg.Connection, seconds: float) -> None:
    """Sets the clock to so many seconds off the real one."""
    await connection.execute("UPDATE clock.off_by SET off_by = $1", timedelta(seconds=seconds))
