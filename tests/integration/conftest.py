"""A database that many tests use one after another, emptied between them: quicker than one for each.

For modules whose tests leave the schema as they found it, but for a gate. Such a module overrides the fixture
`database`.
"""

import asyncio
from collections.abc import Iterator

import pytest

from projector.demo.embedded import database_dsn
from tests.conftest import TEMPLATE, run_on

_NAME = "test_reused"

# Rows alone, without the triggers and the checks of references: quicker than new files for two dozen tables.
_EMPTY = """
DO $body$
DECLARE
    named regclass;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR named IN
        SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'reporting_projector_migrations'
    LOOP
        EXECUTE format('DELETE FROM %s', named);
    END LOOP;
    DROP FUNCTION IF EXISTS wait_at_gate() CASCADE;
END
$body$
"""


@pytest.fixture(scope="session")
def _reused(template: str) -> Iterator[str]:
    asyncio.run(run_on(template, f"CREATE DATABASE {_NAME} TEMPLATE {TEMPLATE}"))
    yield database_dsn(template, _NAME)
    asyncio.run(run_on(template, f"DROP DATABASE {_NAME} WITH (FORCE)"))


@pytest.fixture
async def reused_database(_reused: str) -> str:
    """The DSN of a database that is empty now, but that other tests have used."""
    await empty(_reused)
    return _reused


async def empty(dsn: str) -> None:
    """Deletes all rows of a database, and a gate that was left in it."""
    await run_on(dsn, _EMPTY)
