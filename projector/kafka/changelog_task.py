"""What a daemon does for the changelog: publishes it, or says that nobody does."""

import asyncio
from dataclasses import dataclass

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from projector.database import Timeouts, acquire, transaction
from projector.errors import describe, is_database_fault
from projector.health import Health
from projector.kafka.capture import count_waiting, is_capturing
from projector.kafka.settings import KafkaSettings
from projector.registry import Registry
from projector.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the changelog goes: the cluster, and what the topics' names begin with."""

    kafka: KafkaSettings
    prefix: str


def changelog_cluster(settings: Settings) -> Cluster | None:
    """Where the changelog goes by the settings; None where nothing is published.

    Raises:
        SettingsError: a prefix is set, but the cluster's settings are not there or wrong.
    """
    prefix = settings.reporting_changelog_topic_prefix
    return Cluster(read_settings(KafkaSettings), prefix) if prefix else None


async def run_changelog(  # noqa: PLR0913 - a process's parts, as Process has them

    pool: asyncpg.Pool, registry: Registry, timeouts: Timeouts, cluster: Cluster | None, *,
    prometheus: CollectorRegistry, health: Health, stop: asyncio.Event, log: structlog.stdlib.BoundLogger,
) -> None:  # fmt: skip
    """Publishes changed facts until `stop` is set; without a cluster it only warns where they pile up.

    Args:
        pool: one connection of it is used, now and then.
        registry: whose facts.
        timeouts: of each transaction.
        cluster: where to; None: nothing is published.
        prometheus: where the metrics go.
        health: where obstacles are told.
        stop: set to end it.
        log: where the rest is told.
    """
    if cluster is None:
        await _warn(pool, timeouts, log)
        await stop.wait()
        return
    from projector.kafka.changelog import Changelog  # noqa: PLC0415 - the client's import is not for all
    from projector.kafka.changelog_metrics import ChangelogMetrics  # noqa: PLC0415

    metrics = ChangelogMetrics((table.dataset for table in registry.tables), prometheus)
    await Changelog(pool, registry, cluster.prefix, cluster.kafka, timeouts, metrics, health, stop, log).run()


async def _warn(pool: asyncpg.Pool, timeouts: Timeouts, log: structlog.stdlib.BoundLogger) -> None:
    try:
        async with acquire(pool) as connection, transaction(connection, timeouts):
            if not await is_capturing(connection):
                return
            changes, _ = await count_waiting(connection)
    except Exception as error:
        if not is_database_fault(error):
            raise
        log.info("not known whether changes of facts are captured", error=describe(error))
    else:
        log.warning(
            "changes of facts are captured, but this process does not publish them: set"
            " REPORTING_CHANGELOG_TOPIC_PREFIX, or run `projector changelog disable`",
            waiting=changes,
        )
