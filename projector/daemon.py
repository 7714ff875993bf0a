"""The daemon, `projector run`: workers, sampler, pruner and listener around one pool, until a signal ends them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import asyncpg
import structlog

from projector.batch import BatchResult, BatchRules
from projector.claims import Backlog, Claimer
from projector.database import Timeouts
from projector.errors import describe
from projector.feed import Feed
from projector.fitness import Fitness
from projector.kafka.changelog_task import Cluster, run_changelog
from projector.kafka.feed import KafkaFeed
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import ensure_outbox_topics
from projector.listener import Listener
from projector.metrics import OTHER_SOURCE_TYPE, Metrics
from projector.process import Named, Process
from projector.pruner import Pruner
from projector.registry import Registry
from projector.sampler import Sampler
from projector.settings import Settings, SharedSettings
from projector.worker import BatchSize, Claims, Worker

_FAULTS_UNTIL_NOT_READY = 3


@dataclass(slots=True)
class Daemon(Process):
    """One process of the projector.

    Attributes:
        kafka: the cluster, where messages tell what to project; None where the outbox is polled.
        changelog: where changed facts are published; None where they are not.
        on_batch: told of each batch that was committed with rows, and its seconds; for the demo and the benches.
    """

    kafka: KafkaSettings | None = None
    changelog: Cluster | None = None
    on_batch: Callable[[BatchResult, float], None] | None = None

    async def work(self) -> int:
        """Projects; gives the exit status."""
        metrics = Metrics(self.registry, self.prometheus)
        if not self.settings.reporting_background_enabled:
            self.log.warning("REPORTING_BACKGROUND_ENABLED is false: nothing is projected")
            self.health.ready("start")
            self.health.details["projecting"] = "disabled by REPORTING_BACKGROUND_ENABLED"
            await self.stop.wait()
            return 0
        # Beside the workers: sampler, pruner, changelog, trials of projections, and a listener or a sweep.
        connections = self.settings.reporting_projector_workers + 5
        return await self.with_database(connections, lambda pool: self._project(pool, metrics))

    async def _project(self, pool: asyncpg.Pool, metrics: Metrics) -> int:
        rules = worker_rules(self.settings, self.registry)
        fitness = Fitness(pool, rules, self.health, metrics.fits, self.stop, self.log)
        if not self.stop.is_set():
            await fitness.look()
        self.health.ready("start")
        feed = Feed(self.settings.reporting_projector_interval_secs, time.monotonic)
        workers = self._workers(fitness, feed, metrics)
        metrics.up(projecting=True)
        self.log.info(
            "projecting", workers=len(workers), feed="kafka" if self.kafka else "poll",
            projections=[item.name for item in self.registry],
        )  # fmt: skip
        try:
            return await self.run_tasks(workers, self._helpers(fitness, feed, metrics))
        finally:
            metrics.up(projecting=False)

    def _workers(self, fitness: Fitness, feed: Feed, metrics: Metrics) -> list[Named]:
        count = self.settings.reporting_projector_workers

        def new_worker(name: str, claims: Claims, rest: Callable[[], Awaitable[object]]) -> Worker:
            return self._worker(name, fitness, feed, claims, rest, metrics)

        if self.kafka is not None:
            most = self.settings.reporting_projector_max_limit
            kafka_feed = KafkaFeed(self.kafka, most, self.prometheus, self.health, self.stop, self.log)
            return kafka_feed.workers(count, new_worker)
        backlog = Backlog(time.monotonic)
        names = [f"worker-{number}" for number in range(count)]
        return [(name, new_worker(name, Claimer(backlog), feed.wait).run()) for name in names]

    def _helpers(self, fitness: Fitness, feed: Feed, metrics: Metrics) -> list[Named]:
        pool, timeouts = fitness.pool, fitness.rules.timeouts
        sampler = Sampler(
            pool, self.registry, metrics, timeouts, self.settings.reporting_sample_interval_secs, self.stop, self.log
        )
        retention = self.settings.reporting_outbox_retention_secs
        pruner = Pruner(pool, metrics, timeouts, retention, self.stop, self.log)
        helpers = [
            ("sampler", sampler.run()),
            ("pruner", pruner.run()),
            ("fitness", fitness.run()),
            ("wake", close_on_stop(feed, self.stop)),
            ("changelog", self._publish_changes(pool, timeouts)),
        ]
        if self.settings.reporting_listen and self.kafka is None:
            helpers.append(("listener", Listener(self.settings, pool, feed, self.stop, self.log).run()))
        if self.kafka is not None:
            helpers.append(("topics", ensure_outbox_topics(self.kafka, self.stop, self.log)))
        return helpers

    async def _publish_changes(self, pool: asyncpg.Pool, timeouts: Timeouts) -> None:
        await run_changelog(
            pool, self.registry, timeouts, self.changelog, prometheus=self.prometheus, health=self.health,
            stop=self.stop, log=self.log,
        )  # fmt: skip

    def _worker(
        self, name: str, fitness: Fitness, feed: Feed, claims: Claims, pause: Callable[[], Awaitable[object]],
        metrics: Metrics,
    ) -> Worker:  # fmt: skip
        log = self.log.bind(worker=name)
        slow_seconds = self.settings.reporting_projection_slow_threshold_ms / 1000

        def recovered() -> None:
            self.health.ready("database")
            metrics.up(projecting=True)

        async def rest() -> bool:
            recovered()
            await pause()
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
            claimer=claims,
        )


async def close_on_stop(feed: Feed, stop: asyncio.Event) -> None:
    """Ends all pauses when the process stops."""
    await stop.wait()
    feed.close()


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
