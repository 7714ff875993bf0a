"""`migrate` on the platform's database: re-runnable, from several places at once, and what it builds."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

import projector.migrate
from projector.migrate import MigrationError, applied_version, load_migrations, migrate, set_notify_trigger
from schemas.outbox import NOTIFY_CHANNEL
from tests.catalog import SOURCES, TABLES, WHOLE_SCHEMA, Catalog, duplicates, read_catalog
from tests.conftest import run_on
from tests.obstacles import opened, wait_until_blocking
from tests.platform_rows import add_org, enqueue

MIGRATIONS = load_migrations()
ALL = [migration.version for migration in MIGRATIONS]
INDEXES = next(migration.version for migration in MIGRATIONS if migration.name == "indexes")


@pytest.fixture
async def platform(empty_database: str) -> str:
    """The DSN of a database with the canonical tables alone."""
    await run_on(empty_database, SOURCES)
    return empty_database


@pytest.fixture
async def fresh(platform: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with the canonical tables alone."""
    async with opened(platform) as connection:
        yield connection


async def run(connection: asyncpg.Connection) -> list[int]:
    async with asyncio.timeout(60):
        return [migration.version for migration in await migrate(connection, structlog.get_logger())]


def assert_whole(catalog: Catalog) -> None:
    """All tables are there, every index is valid and none is there twice."""
    assert set(TABLES) <= {relation[1] for relation in catalog["relations"]}
    assert {entry[3:] for entry in catalog["indexes"]} == {("true", "true")}
    assert duplicates(catalog) == []
    assert {entry[3] for entry in catalog["constraints"]} == {"true"}


async def test_a_fresh_database_is_brought_up_to_date_once(fresh: asyncpg.Connection) -> None:
    assert await applied_version(fresh) == 0
    before = await read_catalog(fresh)
    assert await run(fresh) == ALL
    assert await applied_version(fresh) == ALL[-1]
    catalog = await read_catalog(fresh)
    assert_whole(catalog)
    for name, entries in before.items():
        assert entries <= catalog[name]  # the canonical tables stay as they are
    assert await run(fresh) == []
    assert await read_catalog(fresh) == catalog


@pytest.mark.parametrize("places", [2, 5])
async def test_migrations_from_several_places_at_once_end_well(platform: str, places: int) -> None:
    async def from_one_place() -> list[int]:
        async with opened(platform) as connection:
            return await run(connection)

    applied = await asyncio.gather(*(from_one_place() for _ in range(places)))
    assert sorted(version for versions in applied for version in versions) == ALL
    async with opened(platform) as connection:
        assert_whole(await read_catalog(connection))
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_migration_that_fails_lets_the_next_one_run(platform: str) -> None:
    async with opened(platform) as first, opened(platform) as second:
        await first.execute("CREATE VIEW fact_turn AS SELECT 1 AS org_id")
        for connection in (first, second):
            with pytest.raises(MigrationError):
                await run(connection)
        await first.execute("DROP VIEW fact_turn")
        assert await run(second) == ALL


async def test_migrations_build_what_the_schema_file_says(fresh: asyncpg.Connection, database: str) -> None:
    await fresh.execute(WHOLE_SCHEMA)
    said = await read_catalog(fresh)
    async with opened(database) as connection:
        built = await read_catalog(connection)
        if int(await connection.fetchval("SHOW server_version_num")) < 180000:
            for catalog in (said, built):
                catalog["functions"] = {entry for entry in catalog["functions"] if "uuid_v7" not in entry[0]}
    for name, entries in said.items():
        assert built[name] == entries, name


async def test_ids_are_time_ordered(connection: asyncpg.Connection) -> None:
    await add_org(connection)
    rows = [await enqueue(connection, "event", "x") for _ in range(50)]
    assert rows == sorted(rows)
    assert {row.version for row in rows} == {7}


async def test_a_database_without_organizations_is_not_the_platforms(empty_database: str) -> None:
    async with opened(empty_database) as connection:
        before = await read_catalog(connection)
        with pytest.raises(MigrationError, match=r"organizations is not there.*DATABASE_URL"):
            await run(connection)
        assert await read_catalog(connection) == before


async def test_a_database_that_is_newer_than_the_program_is_left_alone(connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO reporting_projector_migrations (version, name) VALUES (9999, 'later')")
    await connection.execute("DROP INDEX fact_turn_day")  # by a later migration, say
    before = await read_catalog(connection)
    with capture_logs() as logs:
        assert await run(connection) == []
    assert [(entry["log_level"], entry["version"]) for entry in logs] == [("warning", 9999)]
    assert await read_catalog(connection) == before


@pytest.fixture
async def half(fresh: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> asyncpg.Connection:
    """A connection to a database whose migration was stopped while it built the indexes; one index lacks."""
    with monkeypatch.context() as patch:
        patch.setattr(projector.migrate, "load_migrations", lambda: MIGRATIONS[:INDEXES])
        await run(fresh)
    await fresh.execute("DELETE FROM reporting_projector_migrations WHERE version = $1", INDEXES)
    await fresh.execute("DROP INDEX fact_turn_day, reporting_outbox_failed, reporting_outbox_due")
    await add_org(fresh)
    return fresh


async def test_an_interrupted_build_of_indexes_is_finished(
    platform: str, half: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    async with opened(platform) as writer:
        writing = writer.transaction()
        await writing.start()
        await enqueue(writer, "event", "x")
        await half.execute("SET lock_timeout = '20ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):  # leaves an invalid index
            await run(half)
        await writing.rollback()
    await half.execute("RESET lock_timeout")
    left = {entry[1]: entry[3] for entry in (await read_catalog(half))["indexes"]}
    assert left["reporting_outbox_due"] == "false"
    assert await run(half) == ALL[INDEXES - 1 :]
    assert await read_catalog(half) == await read_catalog(connection)  # which was never interrupted


async def test_an_index_of_ours_on_other_columns_is_named(half: asyncpg.Connection) -> None:
    await half.execute("CREATE INDEX fact_turn_day ON fact_turn (turn_id)")
    with pytest.raises(MigrationError, match=r"fact_turn_day.*turn_id"):
        await run(half)


async def test_behind_an_open_transaction_a_step_gives_up_and_leaves_everything_as_it_was(
    platform: str, fresh: asyncpg.Connection, database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    before = [await read_catalog(fresh), await read_catalog(connection)]
    async with opened(platform) as platforms_writer, opened(database) as outbox_writer:
        async with platforms_writer.transaction(), outbox_writer.transaction():
            await add_org(platforms_writer)
            await enqueue(outbox_writer, "event", "x")
            errors = await asyncio.gather(  # both at once, for each gives up after some seconds
                run(fresh), set_notify_trigger(connection, wanted=True), return_exceptions=True
            )
        assert [type(error) for error in errors] == [asyncpg.LockNotAvailableError] * 2
        assert [await read_catalog(fresh), await read_catalog(connection)] == before
    assert await run(fresh) == ALL
    await set_notify_trigger(connection, wanted=True)


async def test_writers_of_the_outbox_do_not_wait_while_its_indexes_are_built(
    platform: str, half: asyncpg.Connection
) -> None:
    async with opened(platform) as writer, opened(platform, lock_timeout="2s") as second_writer:
        writing = writer.transaction()
        await writing.start()
        await enqueue(writer, "event", "x")
        building = asyncio.create_task(run(half))
        await wait_until_blocking(second_writer, writer.get_server_pid())
        await enqueue(second_writer, "event", "y")
        await writing.commit()
        assert await building == ALL[INDEXES - 1 :]
    assert_whole(await read_catalog(half))


async def test_the_notify_trigger_wakes_a_listener_after_an_insert_and_can_be_removed(
    database: str, connection: asyncpg.Connection
) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await add_org(connection)
    before = await read_catalog(connection)
    async with opened(database) as listener:
        await listener.add_listener(NOTIFY_CHANNEL, lambda *message: heard.put_nowait(message[-1]))
        for _ in range(2):  # again is the same
            await set_notify_trigger(connection, wanted=True)
        await enqueue(connection, "event", "x")
        assert await asyncio.wait_for(heard.get(), 15) == ""
        for _ in range(2):
            await set_notify_trigger(connection, wanted=False)
        await enqueue(connection, "event", "y")
        await connection.execute(f"NOTIFY {NOTIFY_CHANNEL}, 'the last'")
        assert await asyncio.wait_for(heard.get(), 15) == "the last"
    assert await read_catalog(connection) == before


def test_migrations_are_numbered_without_gaps() -> None:
    assert list(range(1, len(MIGRATIONS) + 1)) == ALL
    assert all(migration.name for migration in MIGRATIONS)
