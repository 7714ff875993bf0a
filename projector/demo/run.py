"""`projector demo`: an embedded PostgreSQL, traffic as an application writes it, the daemon, and a view of them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import asyncpg
import structlog
from pydantic import SecretStr
from rich.console import Console
from rich.live import Live

import schemas
from projector.daemon import Daemon
from projector.demo.embedded import EmbeddedPostgresError, database_dsn, embedded_postgres
from projector.demo.traffic import TrafficCounts, run_traffic, seed_platform
from projector.demo.view import Snapshot, as_line, as_tables, read_snapshot, summary
from projector.logs import configure_logs
from projector.migrate import migrate, set_notify_trigger
from projector.projections import load_registry
from projector.settings import Settings

FOLDER = Path(".demo")
DATABASE = "demo"
ROWS_PER_SECOND = 300.0

_SOURCES = Path(schemas.__file__).parent / "sql" / "sources.sql"
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 2.0
_CATCH_UP_SECONDS = 30.0

DONE, NOT_PROJECTED, WRONG_USAGE, NO_DATABASE = range(4)


def demo() -> int:
    """Runs for DEMO_SECONDS, or until Ctrl-C.

    Returns:
        The exit status: 0 if all that was written was projected, 1 if not, 2 for a wrong DEMO_SECONDS, 3 if PostgreSQL
        could not be started.
    """
    console = Console(soft_wrap=True)
    try:
        seconds = float(os.environ.get("DEMO_SECONDS", "0"))
    except ValueError:
        console.print(f"DEMO_SECONDS={os.environ['DEMO_SECONDS']!r} is not a number of seconds", style="red")
        return WRONG_USAGE
    FOLDER.mkdir(exist_ok=True)
    console.print(f"Starting PostgreSQL in {FOLDER}/postgres …")
    try:
        with (
            embedded_postgres(FOLDER / "postgres") as server,
            (FOLDER / "projector.log").open("w", encoding="utf-8") as log_file,
        ):
            log = configure_logs("json", "info", log_file)
            return asyncio.run(_Demo(server.dsn, seconds, console, log).run())
    except EmbeddedPostgresError as error:
        console.print(f"projector: {error}", style="red")
        return NO_DATABASE


@dataclass(slots=True)
class _Demo:
    server: str
    seconds: float
    console: Console
    log: structlog.stdlib.BoundLogger
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    written: TrafficCounts = field(default_factory=TrafficCounts)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop.set)
        settings = Settings(database_url=SecretStr(database_dsn(self.server, DATABASE)), reporting_http_port=0)
        await _prepare_database(self.server, settings, self.log)
        daemon = Daemon(settings, load_registry(), self.log)
        started = time.monotonic()
        async with _running(daemon) as projecting, _pool(settings) as pool:
            if self.seconds:
                loop.call_later(self.seconds, self.stop.set)
            self._introduce(settings, daemon)
            await self._write_and_watch(pool, daemon, projecting)
            self.console.print("Stopping: the traffic ends, the projector catches up …")
            projected = await self._catch_up(daemon)
        exit_status = projecting.result()
        for line in summary(read_snapshot(daemon.prometheus, self.written), time.monotonic() - started):
            self.console.print(line)
        if exit_status or not projected:
            self.console.print(f"Not everything was projected; see {FOLDER}/projector.log", style="red")
            return NOT_PROJECTED
        self.console.print("Everything that was written was projected. Nothing is left running.", style="green")
        return DONE

    def _introduce(self, settings: Settings, daemon: Daemon) -> None:
        self.console.print(f"Metrics    curl http://127.0.0.1:{daemon.port}/metrics   (also /livez, /readyz)")
        self.console.print(
            f"Status     DATABASE_URL={settings.database_url.get_secret_value()} .venv/bin/projector status"
        )
        self.console.print(f"Log        tail -f {FOLDER}/projector.log")
        self.console.print("Stop       Ctrl-C" + (f", or wait {self.seconds:g} s" if self.seconds else ""))

    async def _write_and_watch(self, pool: asyncpg.Pool, daemon: Daemon, projecting: "asyncio.Task[int]") -> None:
        random = Random(1)  # noqa: S311
        async with pool.acquire() as connection:
            platform = await seed_platform(connection, random)
        async with asyncio.TaskGroup() as group:
            group.create_task(run_traffic(pool, platform, random, self.written, self.stop, ROWS_PER_SECOND))
            group.create_task(self._watch(daemon))
            projecting.add_done_callback(lambda _: self.stop.set())

    async def _watch(self, daemon: Daemon) -> None:
        """Shows the counts until `stop` is set: a live table on a terminal, else a line now and then."""
        terminal = self.console.is_terminal
        before = Snapshot()
        with Live(console=self.console, auto_refresh=False) if terminal else nullcontext() as live:
            while not self.stop.is_set():
                now = read_snapshot(daemon.prometheus, self.written)
                if live:
                    live.update(as_tables(now, before, _REFRESH_SECONDS), refresh=True)
                else:
                    self.console.print(as_line(now))
                before = now
                await _sleep_until(self.stop, _REFRESH_SECONDS if terminal else _LINE_SECONDS)

    async def _catch_up(self, daemon: Daemon) -> bool:
        """Waits until all rows that were written are projected; gives whether that came about."""
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while read_snapshot(daemon.prometheus, self.written).completed < self.written.outbox_rows:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


async def _prepare_database(server: str, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
    """Makes the demo's database anew: the platform's tables, then ours."""
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await admin.close()
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        await connection.execute(_SOURCES.read_text(encoding="utf-8"))
        await migrate(connection, log)
        await set_notify_trigger(connection, wanted=True)
    finally:
        await connection.close()


@asynccontextmanager
async def _running(daemon: Daemon) -> AsyncIterator["asyncio.Task[int]"]:
    """Runs the daemon beside the body, from when it is ready; stops it as SIGTERM would."""
    task = asyncio.create_task(daemon.run())
    try:
        started = asyncio.create_task(daemon.projecting.wait())
        await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        yield task
    finally:
        daemon.stop.set()
        await task


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5)
    try:
        yield pool
    finally:
        await pool.close()


async def _sleep_until(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
