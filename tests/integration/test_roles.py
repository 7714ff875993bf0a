"""deploy/sql/roles.sql: each program's role can do its work, and nothing beyond (design: promise 6).

That it can is what all tests of whole programs show: they run under these roles (tests/roles.py).
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import structlog

from projector.migrate import load_migrations, migrate
from projector.projections import load_registry
from tests.conftest import SOURCES_SQL, run_on
from tests.obstacles import opened
from tests.platform_rows import add_event, add_org, add_session, enqueue
from tests.processes import projector
from tests.roles import API, MIGRATE, OWNER, PROJECTOR, ROLES_SQL, as_user, grant, migrate_by_role

CANONICAL = tuple(re.findall(r"CREATE TABLE (\w+)", SOURCES_SQL.read_text(encoding="utf-8")))
OURS = ("reporting_outbox", "reporting_actions", "reporting_backfill_progress", "reporting_projector_migrations")
FACTS = tuple(table.name for table in load_registry().tables)


async def allowed(connection: asyncpg.Connection, table: str) -> set[str]:
    """What the connection's user can really do to all of a table; tried, and undone."""
    column = await connection.fetchval(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 1", table
    )
    statements = {
        "SELECT": f"SELECT * FROM {table} LIMIT 0",
        "INSERT": f"INSERT INTO {table} SELECT (NULL::{table}).* LIMIT 0",
        "UPDATE": f"UPDATE {table} SET {column} = {column} WHERE false",
        "DELETE": f"DELETE FROM {table} WHERE false",
        "TRUNCATE": f"TRUNCATE {table} CASCADE",
    }
    can = set()
    for verb, statement in statements.items():
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
            can.add(verb)
        except asyncpg.InsufficientPrivilegeError:
            pass
        finally:
            await transaction.rollback()
    return can


@pytest.fixture(params=[PROJECTOR, API, MIGRATE])
async def user(request: pytest.FixtureRequest, database: str) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """Each of the users, and its connection."""
    async with opened(as_user(database, request.param)) as connection:
        yield request.param, connection


async def test_no_role_can_write_a_canonical_table(user: tuple[str, asyncpg.Connection]) -> None:
    assert len(CANONICAL) >= 16
    name, connection = user
    for table in CANONICAL:
        can = await allowed(connection, table)
        assert can <= {"SELECT"}, (name, table)
        if name == MIGRATE:
            assert not can, table


@pytest.mark.parametrize("user", [PROJECTOR, API], indirect=True)
async def test_each_role_can_do_to_our_tables_what_its_program_does(user: tuple[str, asyncpg.Connection]) -> None:
    name, connection = user
    writes_facts = {"SELECT", "INSERT", "UPDATE", "DELETE"}
    found = {table: await allowed(connection, table) for table in (*OURS, *FACTS)}
    # Which row an outbox row is, and what it is about, no one changes; nor what was asked for, by whom and when.
    assert found == dict.fromkeys(FACTS, writes_facts) | {
        "reporting_outbox": {"SELECT", "DELETE"} if name == PROJECTOR else {"SELECT", "INSERT"},
        "reporting_actions": set() if name == PROJECTOR else {"SELECT"},
        "reporting_backfill_progress": set() if name == PROJECTOR else writes_facts,
        "reporting_projector_migrations": {"SELECT"},
    }


async def test_a_recorded_action_can_only_be_ended(database: str) -> None:
    async with opened(as_user(database, API)) as connection:
        start = "INSERT INTO reporting_actions (operation, actor, parameters, request_id) VALUES ('x', 'a', '{}', 'r')"
        await connection.execute(start)
        await connection.execute("UPDATE reporting_actions SET outcome = 'done', rows = 7, finished_at = now()")
        for refused in (
            "DELETE FROM reporting_actions",
            "UPDATE reporting_actions SET actor = 'somebody else'",
            "UPDATE reporting_actions SET parameters = '{}'",
            "UPDATE reporting_actions SET started_at = now()",
            start.replace("(operation", "(started_at, operation").replace("('x'", "(now(), 'x'"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)


async def test_what_an_outbox_row_is_about_cannot_be_changed(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    await enqueue(connection, "event", uuid4())
    for name in (PROJECTOR, API):
        async with opened(as_user(database, name)) as program:
            for column, value in (
                ("org_id", "1"),
                ("source_id", "'x'"),
                ("source_type", "'x'"),
                ("created_at", "now()"),
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await program.execute(f"UPDATE reporting_outbox SET {column} = {value}")


async def test_no_role_can_make_tables_become_another_or_read_files(user: tuple[str, asyncpg.Connection]) -> None:
    name, connection = user
    refused = ["CREATE SCHEMA mine", f"SET ROLE {OWNER}", "COPY organizations FROM PROGRAM 'true'", "CREATE ROLE mine"]
    if name != MIGRATE:
        refused += ["CREATE TABLE mine ()", "SET ROLE reporting_migrate", "ALTER TABLE fact_turn ADD mine text"]
    for statement in refused:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_run_again_it_takes_back_what_was_granted_beyond(database: str, connection: asyncpg.Connection) -> None:
    everyone = "reporting_projector, reporting_api, reporting_migrate"
    for table in (*CANONICAL, "reporting_actions"):
        await connection.execute(f"GRANT ALL ON {table} TO {everyone}")
    await connection.execute(f"GRANT UPDATE (status) ON sessions TO {everyone}")
    await grant(database)
    for name in (PROJECTOR, API, MIGRATE):
        async with opened(as_user(database, name)) as program:
            for table in CANONICAL:
                assert await allowed(program, table) <= {"SELECT"}, (name, table)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await program.execute("UPDATE sessions SET status = 'x'")
            assert name == MIGRATE or "DELETE" not in await allowed(program, "reporting_actions")


async def test_a_table_that_a_migration_adds_is_granted_when_it_is_run_again(
    database: str, connection: asyncpg.Connection
) -> None:
    """As if the release that brought the table had just been installed."""
    await connection.execute("ALTER TABLE reporting_actions RENAME TO hidden")
    await grant(database)
    await connection.execute("CREATE TABLE reporting_actions (LIKE hidden INCLUDING ALL)")
    async with opened(as_user(database, API)) as program:
        assert await allowed(program, "reporting_actions") == set()
        await grant(database)
        assert await allowed(program, "reporting_actions") == {"SELECT"}


async def test_outside_the_platforms_database_it_says_so(empty_database: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="run this in the platform's own database"):
        await grant(empty_database)


@pytest.fixture
async def owned(empty_database: str, connection: asyncpg.Connection) -> AsyncIterator[tuple[str, str]]:
    """A platform whose tables stand in a schema of their own and belong to no superuser; DSN and owner."""
    role = f"App {uuid4().hex}"
    await connection.execute(f"CREATE ROLE \"{role}\" LOGIN CREATEROLE PASSWORD '{urlsplit(empty_database).password}'")
    name = empty_database.rpartition("/")[2]
    await connection.execute(f'ALTER DATABASE {name} OWNER TO "{role}"')
    await connection.execute(f'ALTER DATABASE {name} SET search_path = "My schema", public')
    await run_on(empty_database, f'CREATE SCHEMA "My schema" AUTHORIZATION "{role}"')
    await run_on(empty_database, f'SET ROLE "{role}"; ' + SOURCES_SQL.read_text(encoding="utf-8"))
    yield empty_database, role
    await run_on(empty_database, f'DROP OWNED BY "{role}" CASCADE; ALTER DATABASE {name} OWNER TO CURRENT_USER')
    await connection.execute(f'DROP ROLE "{role}"')


async def test_a_platform_of_its_own_owner_and_schema_goes_on_writing(owned: tuple[str, str], tmp_path: Path) -> None:
    """The application's role owns neither the outbox nor the facts, and still enqueues; the programs do their work."""
    dsn, role = owned
    assert len(await migrate_by_role(dsn)) == len(load_migrations())
    async with opened(dsn) as application:
        await application.execute(f'SET ROLE "{role}"')
        await add_org(application)
        session = await add_session(application)
        row = await enqueue(
            application, "event", await add_event(application, session, "tool.completed", {"success": True})
        )
        bad = await enqueue(application, "event", "no id")
        drained = await projector("drain", folder=tmp_path, database_url=dsn, reporting_projector_max_attempts="1")
        assert drained.status == 1
        assert '"completed": 1' in drained.out
        assert await application.fetchval("SELECT count(*) FROM fact_tool_call") == 1
        await application.execute("UPDATE reporting_outbox SET status = 'pending' WHERE id = $1", row)
        await application.execute("DELETE FROM reporting_outbox WHERE id = $1", row)
    assert (await projector("status", folder=tmp_path, database_url=dsn)).status == 0
    requeued = await projector("requeue", str(bad), folder=tmp_path, database_url=dsn)
    assert (requeued.status, requeued.out) == (0, "1 rows requeued\n")


async def test_the_owner_of_the_platforms_tables_may_run_it_with_createrole(
    owned: tuple[str, str], connection: asyncpg.Connection
) -> None:
    """It may grant membership of these roles, but is no member itself, and is none afterwards."""
    dsn, role = owned
    for group in ("reporting_migrate", "reporting_projector", "reporting_api"):
        await connection.execute(f'GRANT {group} TO "{role}" WITH ADMIN OPTION, INHERIT FALSE')
    application, script = as_user(dsn, role.replace(" ", "%20")), ROLES_SQL.read_text(encoding="utf-8")
    await run_on(application, script)
    async with opened(as_user(dsn, MIGRATE)) as migrating:
        assert len(await migrate(migrating, structlog.get_logger())) == len(load_migrations())
    await run_on(application, script)
    async with opened(as_user(dsn, PROJECTOR)) as program:
        assert await allowed(program, "fact_turn") == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    async with opened(application) as owner:
        assert await allowed(owner, "reporting_outbox") == {"SELECT", "INSERT", "UPDATE", "DELETE"}
        assert await allowed(owner, "fact_turn") == {"SELECT"}
        assert not await owner.fetchval("SELECT pg_has_role('reporting_migrate', 'USAGE')")
