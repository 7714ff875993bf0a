"""`projector demo`: an embedded PostgreSQL, traffic as an application writes it, daemon, backfill API, and a view."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import asyncpg
import structlog
from pydantic import SecretStr
from rich.columns import Columns
from rich.console import Console
from rich.live import Live

import schemas
from projector.daemon import Daemon
from projector.demo.api import DemoApi, DemoApiError, StoppedError, commands, running_api
from projector.demo.broker import LightBrokerError
from projector.demo.embedded import EmbeddedPostgresError, database_dsn, embedded_postgres
from projector.demo.kafka import DemoKafka, running_kafka
from projector.demo.traffic import Platform, TrafficCounts, run_traffic, seed_platform
from projector.demo.view import OverApi, Snapshot, as_line, as_tables, read_snapshot, summary
from projector.logs import configure_logs
from projector.migrate import migrate, set_notify_trigger
from projector.projections import load_registry
from projector.registry import Registry
from projector.settings import Settings, SettingsError, load_settings
from projector.sqlfile import load_sql

FOLDER = Path(".demo")
DATABASE = "demo"
ROWS_PER_SECOND = 300.0

_API_COUNTS = load_sql(__file__, "api_counts.sql")
_SOURCES = Path(schemas.__file__).parent / "sql" / "sources.sql"
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 2.0
_CATCH_UP_SECONDS = 30.0

DONE, NOT_PROJECTED, WRONG_USAGE, NOT_STARTED = range(4)
INTERRUPTED = 130


def demo(*, with_kafka: bool) -> int:
    """Runs for DEMO_SECONDS, or until Ctrl-C.

    Args:
        with_kafka: whether what the application enqueues goes through a relay, a broker and consumers, and facts to a
            changelog; else the outbox is polled.

    Returns:
        The exit status: 0 if all that was written was projected, 1 if not or if something ended badly, 2 for a wrong
        DEMO_SECONDS or setting, 3 if PostgreSQL, the backfill API or the broker could not be started, 130 if Ctrl-C
        came before the demo was up.
    """
    console = Console(soft_wrap=True)
    text = os.environ.get("DEMO_SECONDS") or "0"
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        console.print(
            f"projector: DEMO_SECONDS={text!r}: must be a number of seconds, like 20", style="red", markup=False
        )
        return WRONG_USAGE
    try:
        settings = load_settings(
            database_url=SecretStr("postgresql://"), reporting_http_port=0, reporting_background_enabled=True
        )
    except SettingsError as error:
        console.print(f"projector: {error}", style="red", markup=False)
        return WRONG_USAGE
    FOLDER.mkdir(exist_ok=True)
    console.print(f"Starting PostgreSQL in {FOLDER}/postgres …")
    try:
        with (
            embedded_postgres(FOLDER / "postgres") as server,
            (FOLDER / "projector.log").open("w", encoding="utf-8") as log_file,
        ):
            log = configure_logs("json", "info", log_file)
            database = SecretStr(database_dsn(server.dsn, DATABASE))
            settings = settings.model_copy(update={"database_url": database})
            return asyncio.run(_Demo(server.dsn, settings, float(text), with_kafka, console, log).run())
    except (EmbeddedPostgresError, DemoApiError, LightBrokerError) as error:
        console.print(f"projector: {error}", style="red", markup=False)
        return NOT_STARTED
    except (KeyboardInterrupt, StoppedError):
        console.print("Stopped before the demo was up. Nothing is left running.")
        return INTERRUPTED


@dataclass(slots=True)
class _Demo:
    server: str
    settings: Settings
    seconds: float
    with_kafka: bool
    console: Console
    log: structlog.stdlib.BoundLogger
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    written: TrafficCounts = field(default_factory=TrafficCounts)
    kafka: DemoKafka | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop.set)
        await _prepare_database(self.server, self.settings, self.log)
        registry, random = load_registry(), Random(1)  # noqa: S311
        async with AsyncExitStack() as stack:
            if self.with_kafka:
                kafka = running_kafka(FOLDER / "kafka", self.settings, registry, self.log)
                self.kafka = await stack.enter_async_context(kafka)
            daemon = self._daemon(registry)
            api = await stack.enter_async_context(running_api(FOLDER, self.settings.database_url, self.stop))
            projecting = await stack.enter_async_context(_running(daemon))
            pool = await stack.enter_async_context(_pool(self.settings))
            started = time.monotonic()
            if self.seconds:
                loop.call_later(self.seconds, self.stop.set)
            platform = await _seed(pool, random)
            self._introduce(daemon)
            self._introduce_api(api, platform)
            await self._write_and_watch(pool, platform, random, daemon, projecting)
            self.console.print("Stopping: the traffic ends, the projector catches up …")
            last = await self._catch_up(pool, daemon)
            followed = await self._has_followed(pool, registry)
        for line in summary(last, time.monotonic() - started):
            self.console.print(line)
        if self.kafka:
            self.console.print(f"Kafka: {self.kafka.as_line(daemon.prometheus)}.")
        return self._conclude(last, projecting.result(), api) or (DONE if followed else NOT_PROJECTED)

    def _daemon(self, registry: Registry) -> Daemon:
        if self.kafka is None:
            return Daemon(self.settings, registry, self.log)
        cluster = self.kafka.cluster
        return Daemon(self.settings, registry, self.log, kafka=cluster.kafka, changelog=cluster)

    async def _has_followed(self, pool: asyncpg.Pool, registry: Registry) -> bool:
        """Waits until the changelog's reader holds what the tables hold, but not for ever; gives whether it does."""
        if self.kafka is None:
            return True
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while not await self.kafka.has_followed(pool, registry):
            if time.monotonic() > deadline:
                self.console.print(f"The changelog's reader is behind; see {FOLDER}/projector.log", style="red")
                return False
            await asyncio.sleep(0.05)
        self.console.print("The changelog's reader holds exactly as many facts as the tables.", style="green")
        return True

    def _introduce(self, daemon: Daemon) -> None:
        self.console.print(f"Metrics    curl http://127.0.0.1:{daemon.port}/metrics   (also /livez, /readyz)")
        self.console.print(
            f"Status     DATABASE_URL={self.settings.database_url.get_secret_value()} .venv/bin/projector status"
        )
        if self.kafka:
            self.console.print(self.kafka.introduce(), highlight=False)
        self.console.print(f"Log        tail -f {FOLDER}/projector.log {FOLDER}/api.log")

    def _introduce_api(self, api: DemoApi, platform: Platform) -> None:
        """Tells where the API is, and a line to paste for each operation: on the org with the most traffic."""
        self.console.print(f"API        {api.url}   (docs {api.url}/docs, metrics {api.url}/metrics)")
        self.console.print(f"Token      {api.token}   (all orgs, until the demo ends)", highlight=False)
        for what, command in commands(api, platform.orgs[0].public_id):
            self.console.print(f"  # {what}", style="dim", highlight=False)
            self.console.print(f"  {command}", markup=False, highlight=False)
        self.console.print("Stop       Ctrl-C" + (f", or wait {self.seconds:g} s" if self.seconds else ""))

    def _conclude(self, last: Snapshot, exit_status: int, api: DemoApi) -> int:
        if api.process.returncode:
            self.console.print(f"The backfill API did not end in order; see {FOLDER}/api.log", style="red")
        if exit_status or last.waiting:
            self.console.print(f"Not everything was projected; see {FOLDER}/projector.log", style="red")
        if exit_status or last.waiting or api.process.returncode:
            return NOT_PROJECTED
        self.console.print("Everything that was written was projected. Nothing is left running.", style="green")
        return DONE

    async def _write_and_watch(
        self, pool: asyncpg.Pool, platform: Platform, random: Random, daemon: Daemon, projecting: "asyncio.Task[int]"
    ) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_traffic(pool, platform, random, self.written, self.stop, ROWS_PER_SECOND))
            group.create_task(self._watch(pool, daemon))
            projecting.add_done_callback(lambda _: self.stop.set())

    async def _watch(self, pool: asyncpg.Pool, daemon: Daemon) -> None:
        """Shows the counts until `stop` is set: a live table on a terminal, else a line now and then."""
        terminal = self.console.is_terminal
        before = Snapshot()
        with Live(console=self.console, auto_refresh=False) if terminal else nullcontext() as live:
            while not self.stop.is_set():
                now = await self._look(pool, daemon)
                if live:
                    live.update(self._tables(now, before, daemon), refresh=True)
                else:
                    kafka = f", {self.kafka.as_line(daemon.prometheus)}" if self.kafka else ""
                    self.console.print(as_line(now) + kafka)
                before = now
                await _sleep_until(self.stop, _REFRESH_SECONDS if terminal else _LINE_SECONDS)

    def _tables(self, now: Snapshot, before: Snapshot, daemon: Daemon) -> Columns:
        tables = as_tables(now, before, _REFRESH_SECONDS)
        if self.kafka:
            tables.add_renderable(self.kafka.as_table(daemon.prometheus))
        return tables

    async def _look(self, pool: asyncpg.Pool, daemon: Daemon) -> Snapshot:
        (counts,) = await pool.fetch(_API_COUNTS)
        return read_snapshot(daemon.prometheus, self.written, OverApi(counts["enqueued"], counts["projected"]))

    async def _catch_up(self, pool: asyncpg.Pool, daemon: Daemon) -> Snapshot:
        """Waits until all rows that were enqueued are projected, but not for ever; gives the last look."""
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while True:
            now = await self._look(pool, daemon)
            if not now.waiting or time.monotonic() > deadline:
                return now
            await asyncio.sleep(0.05)


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


async def _seed(pool: asyncpg.Pool, random: Random) -> Platform:
    async with pool.acquire() as connection:
        return await seed_platform(connection, random)


async def _sleep_until(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
