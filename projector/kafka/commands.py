"""`projector kafka check | create`: what is wrong with a cluster, and its topics. Needs no database.

Exit status: 0 all is well (warnings allowed), 1 something must be mended, 2 wrong usage or settings, 3 the cluster was
not reached.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from aiokafka.errors import KafkaConnectionError, KafkaError
from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from projector.kafka.check import Check, Needs
from projector.kafka.errors import describe_kafka
from projector.kafka.findings import Finding, Level
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import Topic, changelog_topics, create_missing, outbox_topics, transactional_id
from projector.logs import configure_logs
from projector.projections import load_registry
from projector.settings import SettingsError, TopicPrefix, read_settings

DONE, NEEDS_OPERATOR, WRONG_USAGE, NO_CLUSTER = range(4)

ROLES = ("relay", "consumer", "changelog")
_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}


class CommandSettings(KafkaSettings):
    """What these commands read beside the cluster's settings; the daemon's are the same."""

    reporting_changelog_topic_prefix: TopicPrefix = Field(
        default=None, description="What the changelog topics' names begin with; unset: there is no changelog."
    )
    reporting_projector_workers: int = Field(default=2, ge=1, le=64, description="Consumers in each process.")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("kafka", help="check a Kafka cluster before programs start, or create the topics")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="tell what is wrong with the cluster; changes nothing there")
    for role in ROLES:
        check.add_argument(f"--{role}", action="store_true", help=f"what the {role} needs")
    check.add_argument("--json", action="store_true", help="as JSON")
    actions.add_parser("create", help="create the topics that are missing; those that are there stay as they are")


def kafka(options: argparse.Namespace) -> int:
    """Runs one of the actions; gives the exit status."""
    try:
        settings = read_settings(CommandSettings)
        roles = [role for role in ROLES if getattr(options, role, False)] or _configured(settings)
        if "changelog" in roles and not settings.reporting_changelog_topic_prefix:
            raise SettingsError("REPORTING_CHANGELOG_TOPIC_PREFIX is not set: there is no changelog")  # noqa: TRY301
    except SettingsError as error:
        _complain(str(error))
        return WRONG_USAGE
    # What the client logs is told by the findings, and better.
    configure_logs("auto", "critical")
    if options.action == "create":
        return asyncio.run(_create(settings))
    return asyncio.run(_check(settings, roles, as_json=options.json))


def needs_of(settings: CommandSettings, roles: Sequence[str]) -> Needs:
    """What these programs need of the cluster."""
    outbox, dead_letters = outbox_topics(settings)
    facts = _changelog_topics(settings) if "changelog" in roles else []
    consumes = "consumer" in roles
    written = [topic.name for topic in facts]
    if "relay" in roles:
        written.append(outbox.name)
    if consumes:
        written.append(dead_letters.name)
    topics = [*([outbox] if consumes or "relay" in roles else []), *([dead_letters] if consumes else []), *facts]
    prefix = settings.reporting_changelog_topic_prefix
    return Needs(
        topics=topics, written=frozenset(written), read=frozenset({outbox.name} if consumes else ()),
        group=settings.reporting_kafka_group if consumes else "",
        transactional_id=transactional_id(prefix) if facts and prefix else "",
        members=settings.reporting_projector_workers if consumes else 0,
    )  # fmt: skip


def _configured(settings: CommandSettings) -> list[str]:
    roles = ["consumer"]
    if settings.reporting_kafka_message_format == "relay":
        roles.append("relay")
    if settings.reporting_changelog_topic_prefix:
        roles.append("changelog")
    return roles


def _changelog_topics(settings: CommandSettings) -> list[Topic]:
    prefix = settings.reporting_changelog_topic_prefix
    return changelog_topics(prefix, [table.dataset for table in load_registry().tables]) if prefix else []


async def _create(settings: CommandSettings) -> int:
    topics = [*outbox_topics(settings), *_changelog_topics(settings)]
    try:
        created = await create_missing(settings, topics)
    except KafkaError as error:
        _complain(f"not created: {describe_kafka(error)}")
        return NO_CLUSTER if isinstance(error, KafkaConnectionError) else NEEDS_OPERATOR
    for topic in topics:
        print(f"{topic.name}: {'created' if topic.name in created else 'was there'}")  # noqa: T201
    return DONE


async def _check(settings: CommandSettings, roles: Sequence[str], *, as_json: bool) -> int:
    check = Check(settings, needs_of(settings, roles))
    await check.run()
    _show(check.findings, as_json=as_json)
    if not check.reached:
        return NO_CLUSTER
    return NEEDS_OPERATOR if any(finding.level is Level.ERROR for finding in check.findings) else DONE


def _show(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))  # noqa: T201
    elif sys.stdout.isatty():
        table = Table("", "what", "found", "to do")
        for each in findings:
            table.add_row(Text(each.level, style=_COLOURS[each.level]), Text(each.about), Text(each.found), each.todo)
        Console().print(table)
    else:
        for each in findings:
            todo = f"; to do: {each.todo}" if each.todo else ""
            print(f"{each.level}: {each.about}: {each.found}{todo}")  # noqa: T201


def _complain(message: str) -> None:
    print(f"projector: {message}", file=sys.stderr)  # noqa: T201
