"""pgbouncer with transaction pooling between everything and the database (promises 1, 3, 7)."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests.api import assert_problem, running_api
from tests.chaos.fleet import Fleet
from tests.chaos.pgbouncer import needs_pgbouncer, pgbouncer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.conftest import SOURCES_SQL, run_on
from tests.obstacles import opened, set_columns, wait_until
from tests.platform_rows import add_event, add_org, add_session, enqueue
from tests.processes import daemon_settings, projector, started

pytestmark = needs_pgbouncer

# What a batch sets for its own transaction.
_SET = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "client_connection_check_interval",
    "enable_seqscan", "enable_bitmapscan", "jit", "jit_above_cost", "plan_cache_mode", "synchronous_commit", "work_mem",
    "search_path",
)  # fmt: skip
_SETTINGS = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[]) ORDER BY name"
_LEFT = """
    SELECT
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
        (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_prepared_statements)
"""


async def settings_of_others(way: str, clients: int) -> list[dict[str, str]]:
    """What so many other clients of the pool find set, each in a session of its own; nothing else is left there."""
    connections = [await asyncpg.connect(way, statement_cache_size=0) for _ in range(clients)]
    found = []
    for connection in connections:
        await connection.execute("BEGIN")
        found.append({r["name"]: r["setting"] for r in await connection.fetch(_SETTINGS, list(_SET))})
        assert [list(record) for record in await connection.fetch(_LEFT)] == [[0, 0, 0]]
    for connection in connections:
        await connection.execute("COMMIT")
        await connection.close()
    return found


@pytest.mark.parametrize(
    ("retention", "round_robin"),
    [
        ("3600", "0"),
        pytest.param("3600", "1", marks=pytest.mark.full_only),
        pytest.param("0", "0", marks=pytest.mark.full_only),
        pytest.param("0", "1", marks=pytest.mark.full_only),
    ],
)
async def test_daemons_behind_pgbouncer_do_all_their_work_and_leave_no_trace_in_its_sessions(
    chaos: Chaos, database: str, tmp_path: Path, retention: str, round_robin: str
) -> None:
    writers = Writers(database, chaos.random(f"writers behind pgbouncer {retention}"))
    wanted = chaos.times(1500, 100)
    settings = {
        "reporting_outbox_retention_secs": retention, "reporting_sample_interval_secs": "0.1",
        "reporting_projector_limit": "20",
    }  # fmt: skip
    await add_old_rows(database)
    async with pgbouncer(database, server_round_robin=round_robin) as way:
        usual = await settings_of_others(way, 1)
        async with Fleet(way, tmp_path, **settings) as fleet, asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            daemons = await fleet.start(2)

            async def enough() -> bool:
                return writers.committed >= wanted

            await wait_until(enough, 60)
            writers.stop.set()
            await settled(database)
            await old_rows_are_pruned(database)
            assert await settings_of_others(way, 4) == usual * 4
            await group.create_task(status_of(way, tmp_path))
            assert await fleet.stop_all() == [0, 0]
        for daemon in daemons:
            assert [line["level"] for line in daemon.logged(_POOLER_FOUND)] == ["info"]
            assert len(daemon.logged("notifications do not arrive (a transaction pooler?), polling alone")) == 1
            assert [line for line in map(json.loads, daemon.text().splitlines()) if "error" in line] == []
    left = await verify(database)
    assert left == 0 if retention == "0" else left > wanted


_POOLER_FOUND = (
    "a connection pooler was found, so no prepared statements are kept; where it supports them, set"
    " REPORTING_STATEMENT_CACHE_SIZE=100"
)


async def add_old_rows(dsn: str) -> None:
    """Rows that were completed long ago."""
    async with opened(dsn) as connection:
        await add_org(connection, 99)
        rows = [await enqueue(connection, "session", uuid4(), 99) for _ in range(5)]
        long_ago = await connection.fetchval("SELECT now() - interval '1 day'")
        await set_columns(connection, rows, status="completed", created_at=long_ago, updated_at=long_ago)


async def old_rows_are_pruned(dsn: str) -> None:
    async with opened(dsn) as connection:

        async def none_is_left() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE org_id = 99") == 0)

        await wait_until(none_is_left, 30)


async def status_of(way: str, folder: Path) -> None:
    ran = await projector("status", "--json", folder=folder, **daemon_settings(way))
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out)["outbox"]["rows"]["dead"] == 0


@pytest.mark.full_only
async def test_the_commands_work_behind_pgbouncer(database: str, tmp_path: Path) -> None:
    async with opened(database) as connection:
        await add_org(connection)
        session = await add_session(connection)
        rows = []
        for _ in range(5):
            event = await add_event(connection, session, "tool.completed", {"tool_name": "read", "success": True})
            rows.append(await enqueue(connection, "event", event))
        await set_columns(connection, rows, status="failed", attempts=10)
        await connection.execute("UPDATE reporting_outbox SET next_attempt_at = 'infinity'")
    async with pgbouncer(database, server_round_robin="1") as way:
        counted = await projector("requeue", "--all-dead", "--dry-run", folder=tmp_path, **daemon_settings(way))
        requeued = await projector("requeue", "--all-dead", folder=tmp_path, **daemon_settings(way))
        drained = await projector("drain", folder=tmp_path, **daemon_settings(way))
    assert (counted.out, requeued.out) == ("5 rows would be requeued\n", "5 rows requeued\n")
    assert (drained.status, json.loads(drained.out)["completed"]) == (0, 5)


@pytest.mark.parametrize("round_robin", ["0", pytest.param("1", marks=pytest.mark.full_only)])
async def test_migrate_refuses_a_transaction_pooler_and_changes_nothing(
    empty_database: str, tmp_path: Path, round_robin: str
) -> None:
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    async with pgbouncer(empty_database, server_round_robin=round_robin) as way:
        ran = await projector("migrate", folder=tmp_path, **daemon_settings(way))
    assert ran.status == 2
    assert "DATABASE_URL leads through a transaction pooler, a direct connection is needed" in ran.err
    async with opened(empty_database) as connection:
        assert await connection.fetchval("SELECT to_regclass('reporting_outbox')") is None


@pytest.mark.full_only
async def test_migrate_works_through_a_session_pooler(empty_database: str, tmp_path: Path) -> None:
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    async with pgbouncer(empty_database, pool_mode="session") as way:
        ran = await projector("migrate", folder=tmp_path, **daemon_settings(way))
    assert ran.status == 0, ran.err


async def test_the_backfill_api_refuses_a_transaction_pooler_and_does_nothing_by_half(database: str) -> None:
    async with opened(database) as connection:
        await add_org(connection)
        await add_session(connection)
        async with pgbouncer(database) as way, running_api(way) as api:
            for path in ("/v1/reports/admin/backfill", "/v1/reports/projector/run?limit=10"):
                problem = assert_problem(await api.post(path, {} if "backfill" in path else None), 503, "unavailable")
                assert "leads through a transaction pooler" in problem["detail"]
            ready = await api.get("/readyz", by=None)
            assert ready.status == 503
            assert b"leads through a transaction pooler" in ready.body
        assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 0
        assert await connection.fetchval("SELECT count(*) FROM reporting_actions") == 0
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_the_backfill_api_works_through_a_session_pooler(database: str) -> None:
    async with opened(database) as connection:
        await add_org(connection)
        await add_session(connection)
    async with pgbouncer(database, pool_mode="session", default_pool_size="20") as way, running_api(way) as api:
        answer = await api.post("/v1/reports/admin/backfill", {})
        assert (answer.status, answer.json["enqueued"]) == (200, 1)


async def test_prepared_statements_that_the_pooler_loses_are_nobodys_fault_and_the_log_says_what_to_set(
    database: str, tmp_path: Path
) -> None:
    settings = daemon_settings(database, reporting_statement_cache_size="100")
    async with opened(database) as connection, pgbouncer(database, server_round_robin="1") as way:
        await add_org(connection)
        await add_session(connection)
        async with started("run", folder=tmp_path, **{**settings, "database_url": way}) as daemon:
            await daemon.has_written("set REPORTING_STATEMENT_CACHE_SIZE=0")
            await daemon.has_logged("batch given up, nothing was changed; trying again")
        faults = daemon.logged("batch given up, nothing was changed; trying again")
        assert any("set REPORTING_STATEMENT_CACHE_SIZE=0" in line["error"] for line in faults)
