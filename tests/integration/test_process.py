"""`projector run` as a process: signals, sudden death, and a database that goes away (design: promises 1, 9)."""

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from tests.obstacles import enqueue_tools, everything, gate, open_gate, statuses, wait_until, wait_until_blocking
from tests.platform_rows import facts
from tests.processes import Running, daemon_settings, started

BLOCKED = "blocked"


@asynccontextmanager
async def at_work_and_blocked(
    database: str, folder: Path, **variables: str
) -> AsyncIterator[tuple[asyncpg.Connection, Running]]:
    """A process in the midst of a batch that waits for the fact of a tool named `blocked`; gives the gate's keeper."""
    async with (
        gate(database, "fact_tool_call", condition=f"NEW.tool_name = '{BLOCKED}'") as keeper,
        started("run", folder=folder, **daemon_settings(database, **variables)) as process,
    ):
        await process.has_logged("projecting")
        yield keeper, process


async def blocked_batch(connection: asyncpg.Connection, keeper: asyncpg.Connection) -> list[UUID]:
    """Rows that come together, so that one batch claims them, one of them blocked; returns when it waits."""
    async with connection.transaction():
        rows = await enqueue_tools(connection, ["first", BLOCKED, "last"])
    await wait_until_blocking(keeper, keeper.get_server_pid())
    return rows


async def free(connection: asyncpg.Connection, rows: list[UUID]) -> bool:
    """Whether nobody holds any of the rows."""
    claimable = "SELECT id FROM reporting_outbox WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED"
    return len(await connection.fetch(claimable, rows)) == len(rows)


async def completed(connection: asyncpg.Connection, rows: list[UUID], seconds: float = 15) -> None:
    async def all_completed() -> bool:
        return set(await statuses(connection, rows)) == {"completed"}

    await wait_until(all_completed, seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_lets_the_batch_at_work_end_and_begins_none(
    database: str, connection: asyncpg.Connection, tmp_path: Path, number: signal.Signals
) -> None:
    async with at_work_and_blocked(database, tmp_path) as (keeper, process):
        at_work = await blocked_batch(connection, keeper)
        process.send(number)
        await process.has_logged("stopping: batches at work end, none begins")
        late = await enqueue_tools(connection, ["late"])
        await open_gate(keeper)
        assert await process.end(within=10) == 0
        assert await statuses(connection, at_work + late) == ["completed"] * 3 + ["pending"]
        assert await free(connection, at_work + late)
        assert process.logged("stopped")


async def test_a_second_signal_stops_at_once_and_leaves_the_rows_as_they_were(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with at_work_and_blocked(database, tmp_path) as (keeper, process):
        rows = await blocked_batch(connection, keeper)
        before = await everything(connection)
        process.send(signal.SIGTERM)
        await process.has_logged("stopping: batches at work end, none begins")
        process.send(signal.SIGTERM)
        assert await process.end(within=5) == 1
        assert await free(connection, rows)  # though the batch is still blocked
        assert await everything(connection) == before


async def test_a_killed_process_leaves_its_rows_to_another(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with (
        at_work_and_blocked(database, tmp_path) as (keeper, process),
        started("run", folder=tmp_path, **daemon_settings(database)) as other,
    ):
        await other.has_logged("projecting")
        rows = await blocked_batch(connection, keeper)
        process.send(signal.SIGKILL)
        assert await process.end() == -signal.SIGKILL
        await open_gate(keeper)
        await completed(connection, rows)
    assert len(await facts(connection, "fact_tool_call")) == len(rows)
    assert {record["attempts"] for record in await connection.fetch("SELECT attempts FROM reporting_outbox")} == {0}


async def test_a_killed_process_frees_its_rows_at_once_even_in_the_midst_of_a_blocked_statement(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with at_work_and_blocked(database, tmp_path) as (keeper, process):
        rows = await blocked_batch(connection, keeper)
        before = await everything(connection)
        process.send(signal.SIGKILL)
        await process.end()

        async def are_free() -> bool:
            return await free(connection, rows)

        await wait_until(are_free, 3)
        assert await everything(connection) == before


async def test_a_taken_port_is_a_clear_error(database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = daemon_settings(database, reporting_http_port=port)
        async with started("run", folder=tmp_path, **settings) as process:
            assert await process.end(within=10) == 2
            said = process.text()
    assert f"REPORTING_HTTP_PORT={port}" in said
    assert "address already in use" in said
    assert "Traceback" not in said
    assert "DATABASE_URL" not in said


async def test_logs_are_json_lines_without_secrets(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    secret = "pa55-w0rd"
    dsn = database.replace("postgres@", f"postgres:{secret}@") if "postgres@" in database else database
    settings = daemon_settings(dsn, reporting_log_level="debug", reporting_projection_slow_threshold_ms="0.001")
    async with started("run", folder=tmp_path, **settings) as process:
        await completed(connection, await enqueue_tools(connection, ["search"]))
        process.send(signal.SIGTERM)
        assert await process.end() == 0
        lines = [json.loads(line) for line in process.text().splitlines()]
    assert all({"message", "level", "timestamp"} <= set(line) for line in lines)
    messages = [line["message"] for line in lines]
    assert messages[0] == "serving /metrics, /livez and /readyz"
    assert {"projecting", "slow batch", "stopped"} <= set(messages)
    (slow,) = [line for line in lines if line["message"] == "slow batch"]
    assert (slow["operation"], slow["rows"], slow["source_type"]) == ("project_batch", 1, ["event"])
    assert slow["elapsed_ms"] >= 0
    assert secret not in process.text()
