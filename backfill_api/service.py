"""`backfill-api serve`: the HTTP server, a watch on the database and a sampler, until a signal ends them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from backfill_api.app import build_app
from backfill_api.auth import Authenticator
from backfill_api.handlers import Parts
from backfill_api.metrics import ApiMetrics
from backfill_api.operations import Operations
from backfill_api.ratelimit import Rate, RateLimiter
from backfill_api.server import Limits, Runner, listen
from backfill_api.settings import ServiceSettings
from backfill_api.shell import Shell
from backfill_api.tracing import make_tracer
from backfill_api.watch import Watch
from projector.daemon import batch_rules
from projector.database import Timeouts, open_pool
from projector.health import Health
from projector.pooler import refuse_shared_sessions
from projector.registry import Registry
from projector.sampler import Sampler

APPLICATION_NAME = "reporting-backfill-api"

# Where packets vanish on the way, the server would keep a backfill's lock for hours.
_KEEPALIVE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
_WATCH_SECONDS = 2.0
_WATCHERS = 2
_HELPERS_SECONDS = 1.0
# An operation ends by itself; this much later the request is given up, whatever it waits for.
_LATER_SECONDS = 10.0


@dataclass(slots=True)
class Service:
    """One process of the service.

    Attributes:
        stop: set to end it: nothing new is accepted, requests at work end.
        limits: of connections.
        operations: what the endpoints do, instead of what they do on the database; for tests of the HTTP alone.
        port: the HTTP port, once it serves; 0 before.
    """

    settings: ServiceSettings
    registry: Registry
    authenticator: Authenticator
    log: structlog.stdlib.BoundLogger
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    limits: Limits = field(default_factory=Limits)
    operations: Operations | None = None
    prometheus: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    port: int = 0
    metrics: ApiMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = ApiMetrics(self.registry, self.prometheus)

    async def run(self) -> int:
        """Serves until `stop` is set; gives the process's exit status: 0 after an orderly end, 1 otherwise.

        Raises:
            PortError: the port cannot be had.
        """
        tracer = make_tracer(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        # No connection is made before it is needed: the service starts, and says what is wrong, without its database.
        pool = await self._pool(self.settings.reporting_api_pool_size)
        watchers = await self._pool(_WATCHERS)
        try:
            shell = Shell(self.log, self.metrics, tracer, self.settings.reporting_api_operation_secs + _LATER_SECONDS)
            runner = self._runner(shell, self.operations or self._operations(pool))
            host = self.settings.reporting_api_host
            self.port = await listen(runner, host, self.settings.reporting_api_port)
            self.log.info("serving", host=host, port=self.port)
            async with self._helpers(watchers) as helpers:
                broken = await self._until_stopped(helpers)
                # Cancelled, which is what a second signal does, it waits for nothing more.
                late = await self._close(runner, shell)
            return 1 if broken or late else 0
        finally:
            pool.terminate()
            watchers.terminate()
            # Sending what is left may take seconds, which nothing else must wait for.
            await asyncio.to_thread(tracer.close)

    async def _pool(self, size: int) -> asyncpg.Pool:
        return await open_pool(self.settings, size, at_once=False, application_name=APPLICATION_NAME, init=self._set_up)

    async def _set_up(self, connection: asyncpg.Connection) -> None:
        """Makes sure that a new connection is good for session-level locks, and that these end with it."""
        await refuse_shared_sessions(connection, self.settings)
        await connection.execute(_KEEPALIVE)

    def _operations(self, pool: asyncpg.Pool) -> Operations:
        return Operations(
            pool=pool,
            registry=self.registry,
            rules=replace(batch_rules(self.settings, self.registry), timeouts=self._timeouts()),
            seconds=self.settings.reporting_api_operation_secs,
            on_enqueued=self.metrics.enqueued,
            clock=time.monotonic,
            log=self.log,
        )

    def _timeouts(self) -> Timeouts:
        """No statement of an operation outlasts the operation."""
        longest = min(self.settings.reporting_statement_timeout_secs, self.settings.reporting_api_operation_secs)
        return Timeouts(statement=longest)

    def _runner(self, shell: Shell, operations: Operations) -> Runner:
        settings = self.settings
        limiter = RateLimiter(
            Rate(settings.reporting_api_org_actions_per_minute, settings.reporting_api_org_actions_burst),
            Rate(settings.reporting_api_actions_per_minute, settings.reporting_api_actions_burst),
            clock=time.monotonic,
        )
        parts = Parts(operations, self.authenticator, limiter, self.limits.body_seconds)
        app = build_app(parts, self.health, self.prometheus, most_body_bytes=settings.reporting_api_max_body_bytes)
        return Runner(app, shell, self.limits, shutdown_seconds=settings.reporting_shutdown_grace_secs)

    @asynccontextmanager
    async def _helpers(self, watchers: asyncpg.Pool) -> AsyncIterator[list[asyncio.Task[None]]]:
        """What runs beside the requests. It ends by itself once `stop` is set, unless the database does not answer."""
        ready = asyncio.Event()
        watch = Watch(watchers, self.health, _WATCH_SECONDS, self.stop, ready, self.log)
        helpers = [
            asyncio.create_task(watch.run(), name="watch"),
            asyncio.create_task(self._sample(watchers, ready), name="sampler"),
        ]
        try:
            yield helpers
            ready.set()
            await asyncio.wait(helpers, timeout=_HELPERS_SECONDS)
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _until_stopped(self, helpers: list[asyncio.Task[None]]) -> bool:
        """Works until `stop` is set; tells whether something broke."""
        stopping: asyncio.Task[Any] = asyncio.create_task(self.stop.wait(), name="stop")
        await asyncio.wait({stopping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self.stop.set()
        self.health.not_ready("stop", "stopping: requests at work end, none begins")
        broken = [task for task in helpers if task.done() and task.exception()]
        for task in broken:
            self.log.error("a task failed, stopping", task=task.get_name(), exc_info=task.exception())
        return bool(broken)

    async def _sample(self, watchers: asyncpg.Pool, ready: asyncio.Event) -> None:
        sampler = Sampler(
            watchers, self.registry, self.metrics, Timeouts(self.settings.reporting_statement_timeout_secs),
            self.settings.reporting_sample_interval_secs, self.stop, self.log, releases=False,
        )  # fmt: skip
        # Before its tables are there, there is nothing to sample.
        await ready.wait()
        await sampler.run()

    async def _close(self, runner: Runner, shell: Shell) -> int:
        """Lets requests at work end within the grace period; gives how many did not."""
        cleanup = asyncio.create_task(runner.cleanup())
        await asyncio.wait([cleanup], timeout=self.settings.reporting_shutdown_grace_secs)
        late = shell.at_work
        if late:
            self.log.error("requests did not end within the grace period, they are cut off", requests=late)
        await cleanup
        if not late:
            self.log.info("stopped")
        return late
