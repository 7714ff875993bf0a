"""Changes of facts are captured by the database, whoever makes them; only where that was switched on."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
import structlog

from projector.batch import BatchRules
from projector.kafka import capture
from projector.registry import Registry
from tests.obstacles import wait_until_blocked
from tests.platform_rows import add_org
from tests.processes import daemon_settings, projector
from tests.roles import API, MIGRATE, PROJECTOR, as_user
from tests.scenes import SCENES, Scene, add_cast, project

LOG = structlog.get_logger()
ADD = """
INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day)
SELECT 1, 'session:' || n, now(), now() FROM generate_series(1, $1::integer) AS n
"""
Keys = set[tuple[str, int, str]]


@pytest.fixture
async def captured(connection: asyncpg.Connection, registry: Registry) -> asyncpg.Connection:
    """A connection to a database with an org and capturing switched on."""
    await add_org(connection, 1)
    await capture.enable(connection, registry, LOG)
    return connection


async def take(connection: asyncpg.Connection) -> Keys:
    """The facts whose changes were captured, which are forgotten with that."""
    records = await connection.fetch(
        "DELETE FROM reporting_fact_changes RETURNING dataset, org_ids, source_keys, cardinality(org_ids) AS facts"
    )
    assert all(record["facts"] == len(record["source_keys"]) for record in records)
    return {
        (record["dataset"], org_id, key)
        for record in records
        for org_id, key in zip(record["org_ids"], record["source_keys"], strict=True)
    }


async def test_nothing_is_captured_before_it_is_switched_on(connection: asyncpg.Connection) -> None:
    await add_org(connection, 1)
    await connection.execute(ADD, 3)
    assert await take(connection) == set()
    assert not await capture.is_capturing(connection)


async def test_what_is_inserted_updated_and_deleted_is_captured(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 3)
    assert await take(captured) == {("sessions", 1, f"session:{number}") for number in (1, 2, 3)}
    await captured.execute("UPDATE fact_session SET turn_count = 9 WHERE source_key <> 'session:2'")
    assert await take(captured) == {("sessions", 1, "session:1"), ("sessions", 1, "session:3")}
    await captured.execute("DELETE FROM fact_session WHERE source_key = 'session:2'")
    assert await take(captured) == {("sessions", 1, "session:2")}


async def test_an_upsert_captures_what_it_inserts_and_what_it_updates(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 1)
    await take(captured)
    await captured.execute(f"{ADD} ON CONFLICT (org_id, source_key) DO UPDATE SET turn_count = 1", 2)
    assert await take(captured) == {("sessions", 1, "session:1"), ("sessions", 1, "session:2")}


async def test_what_changes_nothing_is_not_captured(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 0)
    await captured.execute("UPDATE fact_session SET turn_count = 9")
    await captured.execute("DELETE FROM fact_session")
    assert await captured.fetchval("SELECT count(*) FROM reporting_fact_changes") == 0


async def test_a_key_that_is_changed_is_captured_as_it_was_and_as_it_is(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 1)
    await take(captured)
    await captured.execute("UPDATE fact_session SET source_key = 'session:new'")
    assert await take(captured) == {("sessions", 1, "session:1"), ("sessions", 1, "session:new")}


async def test_what_a_truncate_removes_is_captured(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 2500)
    await take(captured)
    await captured.execute("TRUNCATE fact_session, fact_turn")
    assert await take(captured) == {("sessions", 1, f"session:{number}") for number in range(1, 2501)}


async def test_a_change_holds_no_more_than_a_thousand_facts(captured: asyncpg.Connection) -> None:
    await captured.execute(ADD, 2500)
    sizes = await captured.fetch("SELECT cardinality(org_ids) AS facts FROM reporting_fact_changes ORDER BY 1 DESC")
    assert [record["facts"] for record in sizes] == [1000, 1000, 500]


async def test_what_is_rolled_back_is_not_captured(captured: asyncpg.Connection) -> None:
    transaction = captured.transaction()
    await transaction.start()
    await captured.execute(ADD, 3)
    await transaction.rollback()
    assert await take(captured) == set()


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_batches_capture_exactly_the_facts_of_each_scene(
    captured: asyncpg.Connection, registry: Registry, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(captured)
    source = await scene.write(captured, cast)
    await project(captured, rules, (scene.source_type, source))
    written = {
        (table.dataset, record["org_id"], record["source_key"])
        for table in registry.tables
        for record in await captured.fetch(f"SELECT org_id, source_key FROM {table.name}")
    }
    assert written
    assert await take(captured) == written


@pytest.mark.parametrize("user", [PROJECTOR, API])
async def test_who_writes_facts_needs_no_right_on_what_is_captured(
    captured: asyncpg.Connection, database: str, user: str
) -> None:
    await captured.execute("REVOKE ALL ON reporting_fact_changes FROM reporting_projector, reporting_api")
    writer = await asyncpg.connect(as_user(database, user))
    try:
        # A table of the writer's own must not take the place of ours.
        await writer.execute(
            "CREATE TEMPORARY TABLE reporting_fact_changes (dataset text, org_ids bigint[], source_keys text[])"
        )
        await writer.execute(ADD, 1)
        assert await take(writer) == set()
    finally:
        await writer.close()
    assert await take(captured) == {("sessions", 1, "session:1")}


async def test_a_writer_with_another_search_path_is_captured(captured: asyncpg.Connection) -> None:
    await captured.execute("CREATE SCHEMA elsewhere")
    await captured.execute("SET search_path = elsewhere")
    await captured.execute(ADD.replace("fact_session", "public.fact_session"), 1)
    await captured.execute("RESET search_path")
    assert await take(captured) == {("sessions", 1, "session:1")}


async def test_switching_on_and_off_again_may_be_repeated(connection: asyncpg.Connection, registry: Registry) -> None:
    assert await capture.enable(connection, registry, LOG) == list(registry.tables)
    assert await capture.enable(connection, registry, LOG) == []
    assert await capture.uncaptured(connection, registry.tables) == []
    await add_org(connection, 1)
    await connection.execute(ADD, 1)
    assert await capture.disable(connection, LOG) == len(registry.tables)
    assert await capture.disable(connection, LOG) == 0
    await connection.execute("UPDATE fact_session SET turn_count = 9")
    assert await take(connection) == set()
    assert await capture.uncaptured(connection, registry.tables) == list(registry.tables)


async def test_a_trigger_that_was_dropped_or_disabled_is_put_back(
    captured: asyncpg.Connection, registry: Registry
) -> None:
    await captured.execute("DROP TRIGGER reporting_changelog_delete ON fact_turn")
    await captured.execute("ALTER TABLE fact_session DISABLE TRIGGER reporting_changelog_update")
    names = {table.name for table in await capture.uncaptured(captured, registry.tables)}
    assert names == {"fact_turn", "fact_session"}
    assert {table.name for table in await capture.enable(captured, registry, LOG)} == names
    assert await capture.uncaptured(captured, registry.tables) == []


async def test_the_last_version_outlasts_switching_off_and_on(captured: asyncpg.Connection, registry: Registry) -> None:
    await captured.execute("UPDATE reporting_changelog_publisher SET version = 77")
    await capture.disable(captured, LOG)
    await capture.enable(captured, registry, LOG)
    assert await captured.fetchval("SELECT version FROM reporting_changelog_publisher") == 77


async def test_switching_on_waits_for_a_batch_and_keeps_no_writer_waiting_for_long(
    connection: asyncpg.Connection, database: str, registry: Registry
) -> None:
    await add_org(connection, 1)
    batch = connection.transaction()
    await batch.start()
    await connection.execute(ADD, 1)
    owner, other = await asyncpg.connect(as_user(database, MIGRATE)), await asyncpg.connect(database)
    try:
        enabling = asyncio.create_task(capture.enable(owner, registry, LOG))
        await wait_until_blocked(other, owner.get_server_pid())
        # Queued behind who waits for the batch; gets in between two of its attempts.
        await other.execute(
            "INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day) VALUES (1, 'b', now(), now())",
            timeout=20,
        )
        assert not enabling.done()
        await batch.commit()
        assert len(await enabling) == len(registry.tables)
    finally:
        owner.terminate()
        other.terminate()


async def test_the_commands_switch_on_and_off(
    connection: asyncpg.Connection, database: str, registry: Registry, tmp_path: Path
) -> None:
    on = await projector("changelog", "enable", folder=tmp_path, database_url=database)
    assert on.status == 0, on.err
    assert await capture.uncaptured(connection, registry.tables) == []
    off = await projector("changelog", "disable", folder=tmp_path, database_url=database)
    assert off.status == 0, off.err
    assert not await capture.is_capturing(connection)


async def test_migrate_switches_on_where_a_prefix_is_set(
    connection: asyncpg.Connection, database: str, registry: Registry, tmp_path: Path
) -> None:
    plain = await projector("migrate", folder=tmp_path, database_url=database)
    assert plain.status == 0, plain.err
    assert not await capture.is_capturing(connection)
    again = await projector("migrate", folder=tmp_path, database_url=database, reporting_changelog_topic_prefix="facts")
    assert again.status == 0, again.err
    assert await capture.uncaptured(connection, registry.tables) == []


async def test_the_projector_s_role_cannot_switch_on_and_is_told_so(database: str, tmp_path: Path) -> None:
    dsn = as_user(database, PROJECTOR)
    refused = await projector("changelog", "enable", folder=tmp_path, database_url=dsn)
    assert refused.status == 3
    assert "42501" in refused.err


async def test_a_database_that_is_not_migrated_is_told_apart(empty_database: str, tmp_path: Path) -> None:
    refused = await projector("changelog", "disable", folder=tmp_path, database_url=empty_database)
    assert refused.status == 3
    assert "projector migrate" in refused.err


@pytest.mark.parametrize(
    ("variables", "words", "status"),
    [
        ({}, "REPORTING_CHANGELOG_TOPIC_PREFIX is not set", 2),
        ({"reporting_changelog_topic_prefix": "facts"}, "REPORTING_KAFKA_BOOTSTRAP_SERVERS is not set", 2),
        (
            {"reporting_changelog_topic_prefix": "facts", "reporting_kafka_bootstrap_servers": "127.0.0.1:1"},
            "run `projector changelog enable` first",
            1,
        ),
    ],
)
async def test_a_snapshot_says_what_is_missing(
    database: str, tmp_path: Path, variables: dict[str, str], words: str, status: int
) -> None:
    refused = await projector("changelog", "snapshot", "turns", folder=tmp_path, database_url=database, **variables)
    assert (refused.status, words in refused.err) == (status, True), refused.err


async def test_a_snapshot_of_no_dataset_tells_which_there_are(database: str, tmp_path: Path) -> None:
    refused = await projector("changelog", "snapshot", "turnz", folder=tmp_path, database_url=database)
    assert refused.status == 2
    assert "capability_usage, llm_generations" in refused.err


async def test_a_daemon_that_cannot_publish_is_not_started(database: str, tmp_path: Path) -> None:
    settings = daemon_settings(database, reporting_changelog_topic_prefix="facts")
    refused = await projector("run", folder=tmp_path, **settings)
    assert refused.status == 2
    assert "REPORTING_KAFKA_BOOTSTRAP_SERVERS is not set" in refused.err
