"""The daemon: it projects what is due, tells how it fares, and ends in order (design: processes; promises 3, 9)."""

import json
from uuid import UUID

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from projector import process as process_module
from projector.batch import BatchResult
from projector.registry import Registry
from tests.conftest import SOURCES_SQL, run_on
from tests.daemons import running, settings_for
from tests.obstacles import (
    enqueue_tools,
    gate,
    open_gate,
    opened,
    statuses,
    wait_until,
    wait_until_blocking,
)
from tests.platform_rows import enqueue, facts, outbox_row
from tests.roles import migrate_by_role


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def completed(connection: asyncpg.Connection, rows: list[UUID]) -> None:
    """Waits until rows are projected."""

    async def all_completed() -> bool:
        return set(await statuses(connection, rows)) == {"completed"}

    await wait_until(all_completed)


async def test_projects_what_is_there_and_what_comes(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    there = await enqueue_tools(connection, ["search", "read"])
    async with running(settings_for(database), registry) as projector:
        await completed(connection, there)
        await completed(connection, await enqueue_tools(connection, ["write"]))
    assert projector.task.result() == 0
    assert {fact["tool_name"] for fact in await facts(connection, "fact_tool_call")} == {"search", "read", "write"}


async def test_a_row_that_cannot_be_projected_does_not_stop_the_others(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    async with running(settings_for(database, reporting_projector_max_attempts=1), registry) as projector:
        bad = await enqueue(connection, "event", "no uuid", await enqueue_org(connection))
        await completed(connection, await enqueue_tools(connection, ["search"]))

        async def failed() -> bool:
            return await statuses(connection, [bad]) == ["failed"]

        await wait_until(failed)
    assert projector.metric("reporting_projector_rows_total", source_type="event", outcome="dead") == 1
    (said,) = projector.logged("row is a dead letter; see `projector status`, then `projector requeue`")
    assert (said["id"], said["log_level"]) == (str(bad), "error")


async def enqueue_org(connection: asyncpg.Connection) -> int:
    await connection.execute("INSERT INTO organizations (org_id, name) VALUES (1, 'Org') ON CONFLICT DO NOTHING")
    return 1


async def test_serves_metrics_that_tell_what_it_did(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    async with running(settings_for(database), registry) as projector:
        await completed(connection, await enqueue_tools(connection, ["search", "read", "write"]))

        async def shown() -> bool:
            return projector.metric("reporting_outbox_rows", status="completed") == 3

        await wait_until(shown)
        status, text = await projector.get("/metrics")
        assert status == 200
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    assert samples["reporting_projector_rows_total", "completed", "event"] == 3
    assert samples["reporting_projection_delay_seconds_count", "event"] == 3
    assert samples["reporting_projector_facts_total", "tool_calls"] == 3
    assert samples["reporting_projector_batch_rows_sum",] == 3
    assert samples["reporting_projector_up",] == 1
    assert 0 <= samples["reporting_dataset_freshness_seconds", "tool_calls"] < 60
    assert projector.metric("reporting_projector_up") == 0  # after the end


async def test_is_alive_and_ready_when_it_projects(database: str, registry: Registry) -> None:
    async with running(settings_for(database), registry) as projector:
        await wait_until(projector.ready)
        assert await projector.get("/livez") == (200, '{"status": "alive"}')
        assert json.loads((await projector.get("/readyz"))[1])["status"] == "ready"
        assert (await projector.get("/nowhere"))[0] == 404


async def test_waits_for_the_schema_and_begins_without_a_restart(
    empty_database: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_SCHEMA_POLL_SECONDS", 0.05)
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    async with running(settings_for(empty_database), registry) as projector, opened(empty_database) as connection:
        await projector.has_logged("waiting for the schema")
        status, body = await projector.get("/readyz")
        assert status == 503
        assert "run `projector migrate`" in json.loads(body)["obstacles"]["schema"]
        assert (await projector.get("/livez"))[0] == 200
        assert projector.metric("reporting_projector_up") == 0
        await migrate_by_role(empty_database)
        await wait_until(projector.ready)
        await completed(connection, await enqueue_tools(connection, ["search"]))
        assert projector.metric("reporting_projector_up") == 1


async def test_is_not_ready_while_it_stops_and_ends_the_batch_at_work(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    async with gate(database, "fact_tool_call") as keeper, running(settings_for(database), registry) as projector:
        at_work = await enqueue_tools(connection, ["search"])
        await wait_until_blocking(keeper, keeper.get_server_pid())
        projector.daemon.stop.set()

        async def stopping() -> bool:
            return not await projector.ready()

        await wait_until(stopping)
        assert "stopping" in json.loads((await projector.get("/readyz"))[1])["obstacles"]["stop"]
        assert (await projector.get("/livez"))[0] == 200
        late = await enqueue_tools(connection, ["read"])
        await open_gate(keeper)
        assert await projector.task == 0
    assert await statuses(connection, at_work + late) == ["completed", "pending"]


async def test_a_batch_that_outlasts_the_grace_period_is_rolled_back(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    settings = settings_for(database, reporting_shutdown_grace_secs=0.2)
    async with gate(database, "fact_tool_call") as keeper, running(settings, registry) as projector:
        rows = await enqueue_tools(connection, ["search"])
        before = await outbox_row(connection, rows[0])
        await wait_until_blocking(keeper, keeper.get_server_pid())
        projector.daemon.stop.set()
        assert await projector.task == 1
        assert len(await connection.fetch("SELECT id FROM reporting_outbox FOR UPDATE NOWAIT")) == 1
    assert await outbox_row(connection, rows[0]) == before
    assert await facts(connection, "fact_tool_call") == []


async def test_projects_nothing_but_serves_where_that_is_switched_off(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    rows = await enqueue_tools(connection, ["search"])
    settings = settings_for(database, reporting_background_enabled=False)
    async with running(settings, registry) as projector:
        status, body = await projector.get("/readyz")
        assert status == 200
        assert "REPORTING_BACKGROUND_ENABLED" in json.loads(body)["details"]["projecting"]
        assert (await projector.get("/livez"))[0] == 200
        assert "reporting_projector_up 0.0" in (await projector.get("/metrics"))[1]
        assert not projector.daemon.projecting.is_set()
    assert projector.task.result() == 0
    assert await statuses(connection, rows) == ["pending"]


async def test_says_so_while_the_database_is_away_and_goes_on_when_it_is_back(
    database: str, server: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    async with running(settings_for(database), registry) as projector:
        await wait_until(projector.ready)
        rows = await enqueue_tools(connection, ["search"])
        await completed(connection, rows)
        await connection.execute("UPDATE reporting_outbox SET status = 'pending', next_attempt_at = now() + '1 s'")
        await run_on(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        async def not_ready() -> bool:
            return not await projector.ready()

        try:
            await wait_until(not_ready)
            obstacles = json.loads((await projector.get("/readyz"))[1])["obstacles"]
            assert "no batch gets through: 55000 ObjectNotInPrerequisiteStateError" in obstacles["database"]
            assert projector.metric("reporting_projector_up") == 0
        finally:
            await run_on(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await completed(connection, rows)
        await wait_until(projector.ready)
        assert projector.metric("reporting_projector_up") == 1
    assert (await outbox_row(connection, rows[0]))["attempts"] == 0


async def test_a_mistake_of_the_program_ends_the_process_with_status_1(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    def broken(_: BatchResult, __: float) -> None:
        raise RuntimeError("a mistake")

    async with running(settings_for(database), registry) as projector:
        projector.daemon.on_batch = broken
        await enqueue_tools(connection, ["search"])
        assert await projector.task == 1
    (said,) = projector.logged("a task failed, stopping the process")
    assert isinstance(said["exc_info"], RuntimeError)
