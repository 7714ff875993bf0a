"""`projector changelog enable | disable | snapshot`: captures changes of facts for Kafka; publishes a whole dataset.

Exit status as for the other commands on the database, see cli.py; 2 also for a dataset that is not there.
"""

import argparse
import asyncio
import sys

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from projector.database import Timeouts, acquire, connect, open_pool, transaction
from projector.health import Health
from projector.kafka.capture import disable, enable, uncaptured
from projector.kafka.changelog_task import Cluster, changelog_cluster, run_changelog
from projector.kafka.snapshot import Snapshot, estimate_facts
from projector.pooler import fitted, refuse_shared_sessions
from projector.progress import RowsProgress
from projector.projections import load_registry
from projector.registry import Registry, Table
from projector.settings import Settings, SettingsError

DONE, NEEDS_OPERATOR, WRONG_USAGE = range(3)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("changelog", help="publish changed facts to Kafka: switch it on or off, start anew")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("enable", help="capture changes of facts from now on; run it as who runs `projector migrate`")
    actions.add_parser("disable", help="capture nothing any more, and forget the changes that were not yet published")
    snapshot = actions.add_parser("snapshot", help="publish all facts of a dataset, for a new consumer")
    snapshot.add_argument("dataset", metavar="DATASET", help="such as turns; a wrong one tells which there are")


async def changelog(options: argparse.Namespace, settings: Settings, log: structlog.stdlib.BoundLogger) -> int:
    """Runs one of the actions; gives the exit status.

    Raises:
        SettingsError: a snapshot, but no prefix or no cluster is set.
        Exception: a fault of the database.
    """
    registry = load_registry()
    if options.action == "snapshot":
        return await _snapshot(options.dataset, registry, settings, log)
    connection = await connect(settings)
    try:
        await refuse_shared_sessions(connection, settings)
        if options.action == "enable":
            captured = await enable(connection, registry, log)
            log.info("changes of facts are captured", newly=[table.name for table in captured])
        else:
            tables = await disable(connection, log)
            log.info("changes of facts are not captured any more", tables=tables)
    finally:
        await connection.close()
    return DONE


async def _snapshot(dataset: str, registry: Registry, settings: Settings, log: structlog.stdlib.BoundLogger) -> int:
    tables = {table.dataset: table for table in registry.tables}
    if dataset not in tables:
        _complain(f"no dataset {dataset!r}; there are {', '.join(sorted(tables))}")
        return WRONG_USAGE
    cluster = changelog_cluster(settings)
    if cluster is None:
        raise SettingsError("REPORTING_CHANGELOG_TOPIC_PREFIX is not set: there is no topic to publish to")
    pool = await open_pool(await fitted(settings, log), 2)
    try:
        timeouts = Timeouts(settings.reporting_statement_timeout_secs)
        async with acquire(pool) as connection, transaction(connection, timeouts):
            if await uncaptured(connection, [tables[dataset]]):
                _complain(f"changes of {dataset} are not captured: run `projector changelog enable` first")
                return NEEDS_OPERATOR
            expected = await estimate_facts(connection, tables[dataset])
        facts = await _publish(pool, registry, tables[dataset], cluster, timeouts, expected, log)
    finally:
        pool.terminate()
    print(f"{facts} facts of {dataset} published")  # noqa: T201
    return DONE


async def _publish(
    pool: asyncpg.Pool, registry: Registry, table: Table, cluster: Cluster, timeouts: Timeouts, expected: int,
    log: structlog.stdlib.BoundLogger,
) -> int:  # fmt: skip
    """Enqueues a table's facts and publishes beside, where no daemon does."""
    stop = asyncio.Event()
    with RowsProgress(f"publishing {table.dataset}", expected, sys.stdout.isatty()) as progress:
        publisher = asyncio.create_task(
            run_changelog(
                pool, registry, timeouts, cluster, prometheus=CollectorRegistry(), health=Health(), stop=stop, log=log
            )
        )
        snapshot = asyncio.create_task(Snapshot(pool, timeouts, table, progress.advance).run())
        try:
            await asyncio.wait({publisher, snapshot}, return_when=asyncio.FIRST_COMPLETED)
            if publisher.done():
                publisher.result()
            return await snapshot
        finally:
            snapshot.cancel()
            stop.set()
            await asyncio.gather(publisher, snapshot, return_exceptions=True)


def _complain(message: str) -> None:
    print(f"projector: {message}", file=sys.stderr)  # noqa: T201
