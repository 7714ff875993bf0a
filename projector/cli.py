"""The command line: `projector migrate | run | relay | drain | status | requeue | backfill | changelog | kafka | demo`.

Exit status: 0 done, 1 done but something needs an operator (dead letters, an unclean stop), 2 wrong usage or settings,
3 the database could not be reached or refused. `backfill` speaks to the service and `kafka` to the cluster instead,
see backfill_command.py and kafka/commands.py.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from uuid import UUID

import asyncpg
import structlog
from rich.console import Console

from projector import backfill_command, changelog_command, outbox
from projector.batch import BatchResult
from projector.daemon import Daemon, batch_size, report_batch, worker_rules
from projector.database import Timeouts, acquire, connect, open_pool, operator_transaction
from projector.drain import DrainResult, drain
from projector.errors import PoolerError, describe, is_database_fault
from projector.failed import Selection, count_requeueable, requeue
from projector.health import PortError
from projector.kafka import commands as kafka_commands
from projector.kafka.capture import CaptureError, enable
from projector.kafka.changelog_task import changelog_cluster
from projector.kafka.relay import Relay
from projector.kafka.settings import load_kafka_settings
from projector.logs import configure_logs
from projector.migrate import MigrationError, migrate, set_notify_trigger
from projector.pooler import fitted, refuse_shared_sessions
from projector.process import Process
from projector.progress import RowsProgress
from projector.projections import load_registry
from projector.registry import RegistryError
from projector.settings import Settings, SettingsError, load_settings
from projector.signals import run_until_signal
from projector.status import as_json, read_status, show

Log = structlog.stdlib.BoundLogger
Command = Callable[[argparse.Namespace, Settings, Log], Awaitable[int]]

_NO_LIMIT = 2**31 - 1

DONE, NEEDS_OPERATOR, WRONG_USAGE, NO_DATABASE = range(4)


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command; gives the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "demo":
        from projector.demo.run import demo  # noqa: PLC0415 - needs the extra that only the demo needs

        return demo(with_kafka=options.kafka)
    if options.command == "backfill":
        return backfill_command.backfill(options)
    if options.command == "kafka":
        return kafka_commands.kafka(options)
    try:
        settings = load_settings(**({"reporting_feed": options.feed} if getattr(options, "feed", None) else {}))
    except SettingsError as error:
        _complain(str(error))
        return WRONG_USAGE
    log = configure_logs(settings.reporting_log_format, settings.reporting_log_level)
    commands: dict[str, Command] = {
        "migrate": _migrate, "run": _run, "relay": _relay, "drain": _drain, "status": _status, "requeue": _requeue,
        "changelog": changelog_command.changelog,
    }  # fmt: skip
    return _guarded(commands[options.command], options, settings, log)


def _guarded(command: Command, options: argparse.Namespace, settings: Settings, log: Log) -> int:
    try:
        return asyncio.run(_as_coroutine(command(options, settings, log)))
    except KeyboardInterrupt:
        return 130
    except (MigrationError, CaptureError, RegistryError) as error:
        _complain(str(error))
        return NEEDS_OPERATOR
    except (PortError, PoolerError, SettingsError) as error:
        _complain(str(error))
        return WRONG_USAGE
    except asyncpg.UndefinedTableError:
        _complain("the reporting tables are not there: run `projector migrate` first")
        return NO_DATABASE
    except Exception as error:
        if not is_database_fault(error):
            raise
        _complain(
            f"the database could not be reached, or refused: {describe(error)}. Check DATABASE_URL and the server."
        )
        return NO_DATABASE


async def _as_coroutine(awaitable: Awaitable[int]) -> int:
    return await awaitable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="projector",
        description="Drains the reporting outbox into fact tables. Settings come from the environment and .env.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    migration = commands.add_parser("migrate", help="bring the database up to date")
    migration.add_argument(
        "--notify-trigger", choices=("on", "off"),
        help="also install or remove the trigger on the outbox that wakes the projector after each INSERT",
    )  # fmt: skip
    daemon = commands.add_parser("run", help="the daemon: project until SIGTERM or SIGINT")
    daemon.add_argument(
        "--feed", choices=("poll", "kafka"),
        help="what tells which rows to project: polling the outbox, or messages of `projector relay`; "
        "whatever REPORTING_FEED says",
    )  # fmt: skip
    commands.add_parser("relay", help="publish due rows to Kafka until SIGTERM or SIGINT, for `run --feed kafka`")
    commands.add_parser("drain", help="project until nothing is due; exit status 1 if dead letters appeared")
    status = commands.add_parser("status", help="show lag, counts, freshness and the latest failures")
    status.add_argument("--json", action="store_true", help="as JSON")
    requeue = commands.add_parser("requeue", help="make failed rows pending again, with all attempts before them")
    which = requeue.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", type=UUID, default=[], metavar="ID", help="outbox rows that have failed")
    which.add_argument("--source-type", help="all dead letters of this source type")
    which.add_argument("--all-dead", action="store_true", help="all dead letters")
    requeue.add_argument("--dry-run", action="store_true", help="count, change nothing")
    backfill_command.add_parser(commands)
    changelog_command.add_parser(commands)
    kafka_commands.add_parser(commands)
    demo = commands.add_parser("demo", help="watch the projector at work on an embedded PostgreSQL")
    demo.add_argument("--kafka", action="store_true", help="by relay, consumers and changelog on a light broker")
    return parser


async def _migrate(options: argparse.Namespace, settings: Settings, log: Log) -> int:
    connection = await connect(settings)
    try:
        await refuse_shared_sessions(connection, settings)
        applied = await migrate(connection, log)
        if options.notify_trigger:
            await set_notify_trigger(connection, wanted=options.notify_trigger == "on")
            log.info("notify trigger set", state=options.notify_trigger)
        if settings.reporting_changelog_topic_prefix:
            captured = await enable(connection, load_registry(), log)
            log.info("changes of facts are captured", newly=[table.name for table in captured])
    finally:
        await connection.close()
    log.info("database is up to date", applied=len(applied))
    return DONE


async def _run(_: argparse.Namespace, settings: Settings, log: Log) -> int:
    kafka = load_kafka_settings() if settings.reporting_feed == "kafka" else None
    return await _until_signal(
        Daemon(settings, load_registry(), log, kafka=kafka, changelog=changelog_cluster(settings))
    )


async def _relay(_: argparse.Namespace, settings: Settings, log: Log) -> int:
    return await _until_signal(Relay(settings, load_registry(), log, kafka=load_kafka_settings()))


async def _until_signal(program: Process) -> int:
    return await run_until_signal(
        program,
        stopping="stopping: batches at work end, none begins",
        at_once="second signal, stopping at once; batches at work are rolled back",
    )


async def _drain(_: argparse.Namespace, settings: Settings, log: Log) -> int:
    rules = worker_rules(settings, load_registry())
    slow_seconds = settings.reporting_projection_slow_threshold_ms / 1000
    pool = await open_pool(await fitted(settings, log), settings.reporting_projector_workers)
    try:
        async with acquire(pool) as connection, connection.transaction():
            due = await outbox.count_due(connection)
        with RowsProgress("projecting", due, sys.stdout.isatty()) as progress:

            def on_batch(result: BatchResult, seconds: float) -> None:
                progress.advance(result.claimed)
                for source_type, words in result.misfits.items():
                    if source_type not in rules.misfits:
                        rules.misfits[source_type] = words
                        log.error("a projection does not fit the database", source_type=source_type, why=words)
                report_batch(log, rules.registry, result, seconds, slow_seconds)

            result = await drain(
                pool, rules, workers=settings.reporting_projector_workers,
                new_size=lambda: batch_size(settings), on_batch=on_batch, log=log,
            )  # fmt: skip
    finally:
        pool.terminate()
    _tell(result)
    return NEEDS_OPERATOR if result.dead else DONE


def _tell(result: DrainResult) -> None:
    if not sys.stdout.isatty():
        print(json.dumps(asdict(result)))  # noqa: T201
        return
    rate = result.claimed / result.seconds if result.seconds else 0
    Console().print(
        f"{result.claimed:,} rows in {result.seconds:.1f} s ({rate:,.0f} a second): {result.completed:,} completed, "
        f"{result.failed:,} failed, {result.dead:,} of them dead, {result.postponed:,} put off"
    )


async def _status(options: argparse.Namespace, settings: Settings, _: Log) -> int:
    connection = await connect(settings)
    try:
        status = await read_status(connection, load_registry())
    finally:
        await connection.close()
    if status is None:
        _complain("the reporting tables are not there: run `projector migrate` first")
        return NO_DATABASE
    if options.json:
        print(json.dumps(as_json(status), indent=2))  # noqa: T201
    else:
        show(status, Console(), publishes=bool(settings.reporting_changelog_topic_prefix))
    return DONE


async def _requeue(options: argparse.Namespace, settings: Settings, _: Log) -> int:
    selection = Selection(ids=options.ids or None, source_type=options.source_type)
    timeouts = Timeouts(settings.reporting_statement_timeout_secs)
    connection = await connect(settings)
    try:
        if options.dry_run:
            async with operator_transaction(connection, timeouts):
                count = await count_requeueable(connection, selection, _NO_LIMIT)
        else:
            count = (await requeue(connection, selection, limit=_NO_LIMIT, timeouts=timeouts)).rows
    finally:
        await connection.close()
    done = "would be requeued" if options.dry_run else "requeued"
    print(f"{count} rows {done}")  # noqa: T201
    if options.ids and count < len(set(options.ids)):
        _complain(f"{len(set(options.ids)) - count} of the ids are unknown or have not failed; they stay as they are")
        return NEEDS_OPERATOR
    return DONE


def _complain(message: str) -> None:
    print(f"projector: {message}", file=sys.stderr)  # noqa: T201
