"""What long runs put on a server: a database of their own, a steady writer, and a daemon that is its own process."""

import asyncio
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import psutil
import structlog
from prometheus_client.parser import text_string_to_metric_families

from projector.demo.embedded import database_dsn
from projector.migrate import migrate
from projector.sqlfile import load_sql
from tests.bench.stage import SOURCES_SQL, connected
from tests.platform_rows import add_org
from tests.processes import Running, started

WRITE = load_sql(__file__, "write_small_backlog.sql")

_ORGS = (1, 2, 3, 4)
# Few large transactions rather than many small ones, so that this process is idle for nearly all of the time; and
# connections enough for commits that take a tenth of a second.
_TICK_SECONDS = 0.025
_CONNECTIONS = 4
_LOG_TAIL = 2000
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=30)


@asynccontextmanager
async def platform(server: str, name: str) -> AsyncIterator[str]:
    """A database with a few orgs and nothing else in it, dropped at the end; gives its DSN."""
    async with connected(server) as admin:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {name}")
    try:
        dsn = database_dsn(server, name)
        async with connected(dsn) as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
            await connection.execute(SOURCES_SQL.read_text(encoding="utf-8"))
            await migrate(connection, structlog.get_logger())
            for org_id in _ORGS:
                await add_org(connection, org_id)
        yield dsn
    finally:
        async with connected(server) as admin:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@dataclass(slots=True)
class Writer:
    """Writes generations with their outbox rows at a steady pace, however long a transaction takes.

    Attributes:
        rows_per_second: the pace.
        written: rows committed so far.
        late_seconds: how long after its time the latest transaction was committed, since `take_late` was last called.
    """

    dsn: str
    rows_per_second: int
    written: int = 0
    late_seconds: float = 0.0
    _ticks: Iterator[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        """Writes until it is cancelled."""
        started_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(self._write(started_at))

    def take_late(self) -> float:
        """Gives `late_seconds`, which begins anew."""
        late, self.late_seconds = self.late_seconds, 0.0
        return late

    async def _write(self, started_at: float) -> None:
        rows = round(self.rows_per_second * _TICK_SECONDS)
        async with connected(self.dsn) as connection:
            for tick in self._ticks:
                due = started_at + tick * _TICK_SECONDS
                await asyncio.sleep(max(due - time.monotonic(), 0))
                await connection.execute(WRITE, _ORGS[tick % len(_ORGS)], rows)
                self.written += rows
                self.late_seconds = max(self.late_seconds, time.monotonic() - due)


@asynccontextmanager
async def writing(dsn: str, rows_per_second: int) -> AsyncIterator[Writer]:
    """Writes at a steady pace meanwhile. Raises what made the writer end."""
    writer = Writer(dsn, rows_per_second)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        yield writer
        task.cancel()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the daemon has counted: rows completed and rows that ended otherwise, batches and their seconds, its lag."""

    completed: int
    otherwise: int
    batches: int
    batch_seconds: float
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Projecting:
    """A daemon at work in a process of its own."""

    running: Running
    url: str
    http: aiohttp.ClientSession

    @property
    def process(self) -> psutil.Process:
        """Its process."""
        return psutil.Process(self.running.process.pid)

    async def counted(self) -> Counted:
        """Reads its metrics.

        Raises:
            RuntimeError: it does not answer; with the end of its log.
        """
        try:
            async with self.http.get(self.url) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RuntimeError(f"the daemon does not answer\n{self.running.text()[-_LOG_TAIL:]}") from error
        values: dict[str, float] = {}
        otherwise = lag = 0.0
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
                if sample.name == "reporting_projector_rows_total" and sample.labels["outcome"] != "completed":
                    otherwise += sample.value
                if sample.name == "reporting_outbox_lag_seconds":
                    lag = max(lag, sample.value)
        return Counted(
            completed=round(values["reporting_projector_rows_total"] - otherwise),
            otherwise=round(otherwise),
            batches=round(values["reporting_projector_batch_seconds_count"]),
            batch_seconds=values["reporting_projector_batch_seconds_sum"],
            lag_seconds=lag,
        )


@asynccontextmanager
async def projecting(dsn: str, **variables: str) -> AsyncIterator[Projecting]:
    """Runs `projector run` with the defaults of its settings and these variables; at the end SIGTERM ends it.

    Raises:
        RuntimeError: it did not end in order; with the end of its log.
    """
    with TemporaryDirectory(prefix="projector-bench-") as folder:
        settings = {
            "database_url": dsn, "reporting_http_host": "127.0.0.1", "reporting_http_port": "0",
            "reporting_log_format": "json",
        } | variables  # fmt: skip
        async with started("run", folder=Path(folder), **settings) as running:
            await running.has_logged("projecting")
            port = next(line["port"] for line in map(json.loads, running.text().splitlines()) if "port" in line)
            async with ending_with_us(running), aiohttp.ClientSession(timeout=_HTTP_TIMEOUT) as http:
                yield Projecting(running, f"http://127.0.0.1:{port}/metrics", http)
            running.send(signal.SIGTERM)
            if status := await running.end():
                raise RuntimeError(f"the daemon ended with status {status}\n{running.text()[-_LOG_TAIL:]}")


@asynccontextmanager
async def ending_with_us(running: Running) -> AsyncIterator[None]:
    """Ends a process if we are killed: the input of what watches it ends then."""
    watchdog = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", 'read -r line; kill "$0"', str(running.process.pid), stdin=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        watchdog.kill()
        await watchdog.wait()
