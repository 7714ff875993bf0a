"""The daemon, `projector run`: workers, sampler, pruner and listener around one pool, until a signal ends them."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from projector.batch import BatchResult, BatchRules
from projector.claims import Backlog, Claimer
from projector.database import Timeouts, acquire, open_pool
from projector.errors import describe, is_database_fault
from projector.feed import Feed
from projector.fitness import Fitness
from projector.health import Health, start_http
from projector.listener import Listener
from projector.metrics import OTHER_SOURCE_TYPE, Metrics
from projector.migrate import applied_version, load_migrations
from projector.pooler import fitted
from projector.pruner import Pruner
from projector.registry import Registry
from projector.sampler import Sampler
from projector.settings import Settings, SharedSettings
from projector.worker import Backoff, BatchSize, Worker, wait_for

_SCHEMA_POLL_SECONDS = 2.0
_FAULTS_UNTIL_NOT_READY = 3


@dataclass(slots=True)
class Daemon:
    """One process of the projector.

    Attributes:
        stop: set to end it: no new batch begins, those at work end.
        on_batch: told of each batch that was committed with rows, and its seconds; for the demo and the benches.
        port: the HTTP port, once it serves.
        projecting: set once the workers run.
    """

    settings: Settings
    registry: Registry
    log: structlog.stdlib.BoundLogger
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    on_batch: Callable[[BatchResult, float], None] | None = None
    prometheus: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    port: int = 0
    projecting: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Works until `stop` is set; gives the process's exit status: 0 after an orderly end, 1 otherwise."""
        metrics = Metrics(self.registry, self.prometheus)
        http, self.port = await start_http(
            self.health, self.prometheus, self.settings.reporting_http_host, self.settings.reporting_http_port
        )
        self.log.info("serving /metrics, /livez and /readyz", host=self.settings.reporting_http_host, port=self.port)
        try:
            if not self.settings.reporting_background_enabled:
                self.log.warning("REPORTING_BACKGROUND_ENABLED is false: nothing is projected")
                self.health.ready("start")
                self.health.details["projecting"] = "disabled by REPORTING_BACKGROUND_ENABLED"
                await self.stop.wait()
                return 0
            return await self._project(metrics)
        finally:
            await http.cleanup()

    async def _project(self, metrics: Metrics) -> int:
        pool = await self._until_reached()
        if pool is None:
            return 0
        try:
            await self._until_migrated(pool)
            rules = worker_rules(self.settings, self.registry)
            fitness = Fitness(pool, rules, self.health, metrics.fits, self.stop, self.log)
            if not self.stop.is_set():
                await fitness.look()
            self.health.ready("start")
            return await self._run_tasks(fitness, metrics)
        finally:
            # Workers have ended; what is left is idle, or belongs to a task that was cancelled.
            pool.terminate()

    async def _until_reached(self) -> asyncpg.Pool | None:
        """The pool, as soon as the database can be reached; None if `stop` comes first."""
        backoff = Backoff()
        while not self.stop.is_set():
            try:
                settings = await fitted(self.settings, self.log)
                return await open_pool(settings, settings.reporting_projector_workers + 3)
            except Exception as error:
                if not is_database_fault(error):
                    raise
                pause = backoff.next()
                self.health.not_ready("database", f"cannot be used: {describe(error)}")
                self.log.warning(
                    "database not reached, trying again", error=describe(error), pause_seconds=round(pause, 3)
                )
                await wait_for(self.stop.wait(), pause)
        return None

    async def _until_migrated(self, pool: asyncpg.Pool) -> None:
        needed = load_migrations()[-1].version
        while not self.stop.is_set():
            try:
                async with acquire(pool) as connection:
                    current = await applied_version(connection)
                if current >= needed:
                    self.health.ready("database")
                    self.health.ready("schema")
                    return
                why = f"schema is at version {current}, this program needs {needed}: run `projector migrate`"
                self.health.not_ready("schema", why)
                self.log.warning(
                    "waiting for the schema", current=current, needed=needed, hint="run `projector migrate`"
                )
            except Exception as error:
                if not is_database_fault(error):
                    raise
                self.health.not_ready("database", f"cannot be used: {describe(error)}")
                self.log.warning("database not reached, trying again", error=describe(error))
            await wait_for(self.stop.wait(), _SCHEMA_POLL_SECONDS)

    async def _run_tasks(self, fitness: Fitness, metrics: Metrics) -> int:
        feed = Feed(self.settings.reporting_projector_interval_secs, time.monotonic)
        backlog = Backlog(time.monotonic)
        workers = [
            asyncio.create_task(
                self._worker(number, fitness, feed, Claimer(backlog), metrics).run(), name=f"worker-{number}"
            )
            for number in range(self.settings.reporting_projector_workers)
        ]
        helpers = [asyncio.create_task(job, name=name) for name, job in self._helpers(fitness, feed, metrics)]
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        metrics.up(projecting=True)
        self.projecting.set()
        self.log.info("projecting", workers=len(workers), projections=[item.name for item in self.registry])
        try:
            await asyncio.wait({stopping, *workers, *helpers}, return_when=asyncio.FIRST_COMPLETED)
            return await self._wind_down(workers, helpers)
        finally:
            metrics.up(projecting=False)
            for task in (stopping, *workers, *helpers):
                task.cancel()
            await asyncio.gather(stopping, *workers, *helpers, return_exceptions=True)

    async def _wind_down(self, workers: list[asyncio.Task[None]], helpers: list[asyncio.Task[None]]) -> int:
        """Lets batches end within the grace period; gives the exit status."""
        self.stop.set()
        self.health.not_ready("stop", "stopping: batches at work end, none begins")
        _, late = await asyncio.wait(workers, timeout=self.settings.reporting_shutdown_grace_secs)
        broken = [task for task in (*workers, *helpers) if task.done() and task.exception()]
        for task in broken:
            self.log.error("a task failed, stopping the process", task=task.get_name(), exc_info=task.exception())
        if late:
            self.log.error(
                "batches did not end within the grace period; rolled back, nothing is lost", batches=len(late)
            )
        if broken or late:
            return 1
        self.log.info("stopped")
        return 0

    def _helpers(self, fitness: Fitness, feed: Feed, metrics: Metrics) -> list[tuple[str, Coroutine[None, None, None]]]:
        pool, timeouts = fitness.pool, fitness.rules.timeouts
        sampler = Sampler(
            pool, self.registry, metrics, timeouts, self.settings.reporting_sample_interval_secs, self.stop, self.log
        )
        retention = self.settings.reporting_outbox_retention_secs
        pruner = Pruner(pool, metrics, timeouts, retention, self.stop, self.log)
        helpers: list[tuple[str, Coroutine[None, None, None]]] = [
            ("sampler", sampler.run()),
            ("pruner", pruner.run()),
            ("fitness", fitness.run()),
            ("wake", self._wake_on_stop(feed)),
        ]
        if self.settings.reporting_listen:
            helpers.append(("listener", Listener(self.settings, pool, feed, self.stop, self.log).run()))
        return helpers

    async def _wake_on_stop(self, feed: Feed) -> None:
        await self.stop.wait()
        feed.close()

    def _worker(self, number: int, fitness: Fitness, feed: Feed, claimer: Claimer, metrics: Metrics) -> Worker:
        log = self.log.bind(worker=number)
        slow_seconds = self.settings.reporting_projection_slow_threshold_ms / 1000

        def recovered() -> None:
            self.health.ready("database")
            metrics.up(projecting=True)

        async def rest() -> bool:
            recovered()
            await feed.wait()
            return True

        def on_fault(error: Exception, faults: int) -> None:
            metrics.error(type(error).__name__)
            if faults >= _FAULTS_UNTIL_NOT_READY:
                self.health.not_ready("database", f"no batch gets through: {describe(error)}")
                metrics.up(projecting=False)

        def on_batch(result: BatchResult, seconds: float) -> None:
            recovered()
            feed.found(more=result.full)
            metrics.batch(result, seconds)
            fitness.found(result.misfits)
            report_batch(log, self.registry, result, seconds, slow_seconds)
            if self.on_batch:
                self.on_batch(result, seconds)

        return Worker(
            pool=fitness.pool,
            rules=fitness.rules,
            size=batch_size(self.settings),
            stop=self.stop,
            rest=rest,
            on_batch=on_batch,
            on_fault=on_fault,
            log=log,
            claimer=claimer,
        )


def batch_rules(settings: SharedSettings, registry: Registry) -> BatchRules:
    """The rules of all batches under these settings."""
    return BatchRules(
        registry=registry,
        timeouts=Timeouts(settings.reporting_statement_timeout_secs),
        max_attempts=settings.reporting_projector_max_attempts,
        on_source_gone=settings.reporting_on_source_gone,
    )


def worker_rules(settings: Settings, registry: Registry) -> BatchRules:
    """The rules of the workers' batches: with a retention of 0 they delete what they complete."""
    keep = settings.reporting_outbox_retention_secs > 0
    return replace(batch_rules(settings, registry), keep_completed=keep)


def batch_size(settings: Settings) -> BatchSize:
    """How a worker's batches grow under these settings."""
    return BatchSize(
        start=settings.reporting_projector_limit,
        limit=settings.reporting_projector_max_limit,
        # A live row waits for the batch at work: one that takes half of what is called slow is large enough.
        slow_seconds=settings.reporting_projection_slow_threshold_ms / 2000,
    )


def report_batch(
    log: structlog.stdlib.BoundLogger, registry: Registry, result: BatchResult, seconds: float, slow_seconds: float
) -> None:
    """Logs what an operator should know of a batch: failures, rows put off, slowness."""
    for failed in result.failed:
        # A type that no projection knows is a text of whoever wrote the row.
        source_type = failed.source_type if registry.get(failed.source_type) else OTHER_SOURCE_TYPE
        say = log.error if failed.dead else log.warning
        say(
            "row is a dead letter; see `projector status`, then `projector requeue`" if failed.dead else "row failed",
            id=str(failed.id), org_id=failed.org_id, source_type=source_type, attempts=failed.attempts,
        )  # fmt: skip
    if result.contended:
        log.warning("rows put off, something was in their way each time", rows=result.contended)
    if slow_seconds and seconds > slow_seconds:
        log.warning(
            "slow batch", operation="project_batch", elapsed_ms=round(seconds * 1000), rows=result.claimed,
            source_type=sorted(result.completed),
        )  # fmt: skip
    else:
        log.debug("batch", rows=result.claimed, elapsed_ms=round(seconds * 1000))
