"""`projector kafka check` finds each thing that can be wrong with a cluster, and says what mends it."""

import json
from pathlib import Path
from typing import Any

import pytest

from projector.cli import run
from projector.demo.companion import free_port
from projector.kafka.check import Check, Needs
from projector.kafka.commands import CommandSettings, needs_of
from projector.kafka.findings import Finding, Level
from projector.kafka.topics import Topic, changelog_topic, create_missing, outbox_topics, transactional_id
from tests.kafka.apache import PASSWORDS, USER, ApacheBroker, Listener
from tests.kafka.certificates import write_certificates
from tests.kafka.clients import Operation, Resource, allow, create_topic, producer, read_all
from tests.kafka.test_access import settings_for
from tests.kafka.token_server import unsigned_token
from tests.obstacles import wait_until

ROLES = ("relay", "consumer", "changelog")
PLAIN_USER = {"sasl_mechanism": "PLAIN", "sasl_username": USER, "sasl_password": PASSWORDS[USER]}


def command_settings(broker: ApacheBroker, listener: Listener, prefix: str, **values: Any) -> CommandSettings:
    """The settings of the command, with topics and a group of the test's own."""
    values = {"outbox_topic": prefix + "outbox", "group": prefix + "group", "partitions": 3} | values
    given = settings_for(broker, listener, **values).model_dump(exclude_unset=True)
    return CommandSettings(**given, reporting_changelog_topic_prefix=prefix + "facts")


async def look(settings: CommandSettings, *roles: str) -> list[Finding]:
    check = Check(settings, needs_of(settings, roles or ROLES))
    await check.run()
    return check.findings


def bad(findings: list[Finding]) -> dict[str, tuple[str, str]]:
    """What is found and what to do, by what it is about, of all that is not well."""
    return {each.about: (each.found, each.todo) for each in findings if each.level is not Level.OK}


async def comes_to(settings: CommandSettings, expected: set[str]) -> None:
    """Waits until exactly this is not well: brokers take a moment to learn of an ACL."""

    async def has_come() -> bool:
        return set(bad(await look(settings))) == expected

    await wait_until(has_come)


async def create_all(settings: CommandSettings) -> list[Topic]:
    topics = [*needs_of(settings, ROLES).topics]
    await create_missing(settings, topics)
    return topics


async def test_all_is_well_where_all_is_there(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    topics = await create_all(settings)
    findings = await look(settings)
    assert bad(findings) == {}
    assert {f"topic {topic.name}" for topic in topics} <= {each.about for each in findings}
    assert {"idempotent producer", f"transactional id {transactional_id(prefix + 'facts')}"} <= {
        each.about for each in findings
    }


async def test_nothing_is_written_and_a_publisher_at_work_is_not_fenced(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    await create_all(settings)
    identity, name = transactional_id(prefix + "facts"), changelog_topic(prefix + "facts", "turns")
    async with producer(bootstrap_servers=secured.bootstrap, transactional_id=identity) as publisher:
        await publisher.begin_transaction()
        await publisher.send_and_wait(name, b"before", key=b"k")
        assert bad(await look(settings)) == {}
        await publisher.send_and_wait(name, b"after", key=b"k")
        await publisher.commit_transaction()
    records = await read_all(secured.bootstrap, name, 2, isolation_level="read_committed")
    assert sorted(record.value or b"" for record in records) == [b"after", b"before"]


async def test_missing_topics_are_found_and_not_created(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    for _ in range(2):
        found = bad(await look(settings, "relay", "consumer"))
        for name in (prefix + "outbox", prefix + "outbox.dlq"):
            assert found[f"topic {name}"] == ("is not there", "projector kafka create")


async def test_a_wrong_cleanup_policy_is_found(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    facts = changelog_topic(prefix + "facts", "turns")
    names = {each.name for each in needs_of(settings, ROLES).topics}
    both = next(name for name in sorted(names) if name.startswith(prefix + "facts") and name != facts)
    await create_topic(secured.bootstrap, prefix + "outbox", 3, {"cleanup.policy": "compact"})
    await create_topic(secured.bootstrap, facts, 3, {"cleanup.policy": "delete"})
    await create_topic(secured.bootstrap, both, 3, {"cleanup.policy": "compact,delete"})
    await create_all(settings)
    found = bad(await look(settings))
    assert set(found) == {f"topic {name}" for name in (prefix + "outbox", facts, both)}
    assert "is compacted" in found[f"topic {prefix}outbox"][0]
    assert found[f"topic {prefix}outbox"][1].endswith("--add-config cleanup.policy=delete")
    assert "is not compacted" in found[f"topic {facts}"][0]
    assert found[f"topic {facts}"][1].startswith(f"kafka-configs.sh --bootstrap-server {secured.bootstrap} --alter")
    assert "deletes beside compacting" in found[f"topic {both}"][0]


async def test_too_few_replicas_in_sync_and_too_few_partitions_are_found(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    await create_topic(secured.bootstrap, prefix + "outbox", 1)
    await create_topic(secured.bootstrap, prefix + "outbox.dlq", 1, {"min.insync.replicas": "2"})
    findings = await look(settings, "consumer")
    found = bad(findings)
    assert "has 1 partitions for the 2 consumers" in found[f"topic {prefix}outbox"][0]
    assert "--partitions 2" in found[f"topic {prefix}outbox"][1]
    level = {each.about: each.level for each in findings}
    assert level[f"topic {prefix}outbox"] is Level.WARNING
    assert "min.insync.replicas=2: nothing can be written" in found[f"topic {prefix}outbox.dlq"][0]


async def test_each_missing_acl_is_found_with_the_command_that_adds_it(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.SASL, prefix, **PLAIN_USER)
    outbox, letters = prefix + "outbox", prefix + "outbox.dlq"
    await create_all(command_settings(secured, Listener.PLAINTEXT, prefix))
    found = bad(await look(settings))
    assert found[f"topic {outbox}"][0] == "is not there, or the user may not see it"
    identity = transactional_id(prefix + "facts")
    for about, asked in {
        f"topic {outbox}": f"Describe --topic {outbox}",
        f"reading {outbox}": f"Read --topic {outbox}",
        f"writing {outbox}": f"Write --topic {outbox}",
        f"writing {letters}": f"Write --topic {letters}",
        f"group {prefix}group": f"Read --group {prefix}group",
        f"transactional id {identity}": f"Write --transactional-id {identity}",
    }.items():
        command = f"kafka-acls.sh --bootstrap-server {secured.address(Listener.SASL)} --add"
        assert found[about][1] == f"{command} --allow-principal User:alice --operation {asked}"


async def test_what_acls_allow_is_allowed_and_no_more(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.SASL, prefix, **PLAIN_USER)
    topics = await create_all(command_settings(secured, Listener.PLAINTEXT, prefix))
    for topic in topics:
        await allow(secured, USER, Resource.TOPIC, topic.name, Operation.WRITE, Operation.DESCRIBE_CONFIGS)
    identity = transactional_id(prefix + "facts")
    lacking = {f"reading {prefix}outbox", f"group {prefix}group", f"transactional id {identity}"}
    unencrypted = {"login"}  # whatever is allowed
    await comes_to(settings, unencrypted | lacking)
    await allow(secured, USER, Resource.TOPIC, prefix + "outbox", Operation.READ)
    await allow(secured, USER, Resource.GROUP, prefix + "group", Operation.READ)
    await allow(secured, USER, Resource.TRANSACTIONAL_ID, identity, Operation.DESCRIBE)
    await comes_to(settings, unencrypted | {f"transactional id {identity}"})
    await allow(secured, USER, Resource.TRANSACTIONAL_ID, identity, Operation.WRITE)
    await comes_to(settings, unencrypted)


async def test_settings_of_a_topic_that_may_not_be_seen_are_a_warning(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.SASL, prefix, **PLAIN_USER)
    await create_missing(command_settings(secured, Listener.PLAINTEXT, prefix), outbox_topics(settings))
    await allow(secured, USER, Resource.TOPIC, prefix + "outbox", Operation.WRITE)
    todo = f"--operation DescribeConfigs --topic {prefix}outbox"

    async def is_a_warning() -> bool:
        found = [each for each in await look(settings, "relay") if each.about == f"topic {prefix}outbox"]
        return [each.level for each in found] == [Level.WARNING] and todo in found[0].todo

    await wait_until(is_a_warning)


async def the_barred_way(settings: CommandSettings) -> str:
    check = Check(settings, needs_of(settings, ROLES))
    await check.run()
    assert not check.reached
    (finding,) = (each for each in check.findings if each.level is Level.ERROR)
    return finding.found


async def test_why_the_cluster_is_not_reached_is_told(secured: ApacheBroker, prefix: str, tmp_path: Path) -> None:
    other = write_certificates(tmp_path)

    def barred(listener: Listener, **values: Any) -> Any:
        return the_barred_way(command_settings(secured, listener, prefix, **values))

    tls, plain = secured.address(Listener.TLS), secured.address(Listener.PLAINTEXT)
    port = tls.partition(":")[2]
    assert "nothing listens" in await barred(Listener.PLAINTEXT, bootstrap_servers=f"127.0.0.1:{free_port()}")
    assert "host name is not known" in await barred(Listener.PLAINTEXT, bootstrap_servers="no-such-host.invalid:9092")
    assert "authority that is not trusted" in await barred(Listener.TLS, ssl_ca_file=other.authority)
    assert "another host name" in await barred(Listener.TLS, bootstrap_servers=f"127.1:{port}")
    assert "TLS does not come about" in await barred(Listener.TLS, bootstrap_servers=plain)
    assert "does not speak PLAINTEXT" in await barred(Listener.PLAINTEXT, bootstrap_servers=tls)
    assert "client's certificate" in await barred(Listener.TLS, ssl_cert_file=None)
    wrong = PLAIN_USER | {"sasl_password": "wr0ng"}
    assert "login was refused" in await barred(Listener.SASL_TLS, **wrong)
    token = tmp_path / "token"
    token.write_text(unsigned_token(USER, -60))
    by_token = {"sasl_mechanism": "OAUTHBEARER", "oauth_token_file": token}
    assert "has run out" in await barred(Listener.SASL_TLS, **by_token)
    token.write_text("none")
    assert "login was refused" in await barred(Listener.SASL_TLS, **by_token)


async def test_a_role_is_looked_at_alone(secured: ApacheBroker, prefix: str) -> None:
    settings = command_settings(secured, Listener.PLAINTEXT, prefix)
    assert needs_of(settings, ["relay"]) == Needs(
        topics=[Topic(prefix + "outbox", "delete")], written=frozenset({prefix + "outbox"}), read=frozenset()
    )
    assert set(bad(await look(settings, "relay"))) == {f"topic {prefix}outbox"}


def test_the_command_tells_its_status(
    secured: ApacheBroker,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for name in CommandSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert run(["kafka", "check"]) == 2
    assert "REPORTING_KAFKA_BOOTSTRAP_SERVERS is not set" in capsys.readouterr().err
    monkeypatch.setenv("REPORTING_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    assert run(["kafka", "check"]) == 3
    assert run(["kafka", "create"]) == 3
    monkeypatch.setenv("REPORTING_KAFKA_BOOTSTRAP_SERVERS", secured.bootstrap)
    monkeypatch.setenv("REPORTING_KAFKA_OUTBOX_TOPIC", prefix + "outbox")
    capsys.readouterr()
    assert run(["kafka", "check"]) == 1
    assert f"error: topic {prefix}outbox: is not there; to do: projector kafka create" in capsys.readouterr().out
    assert run(["kafka", "create"]) == 0
    assert capsys.readouterr().out == f"{prefix}outbox: created\n{prefix}outbox.dlq: created\n"
    assert run(["kafka", "create"]) == 0
    assert capsys.readouterr().out == f"{prefix}outbox: was there\n{prefix}outbox.dlq: was there\n"
    assert run(["kafka", "check", "--json"]) == 0
    assert {each["level"] for each in json.loads(capsys.readouterr().out)} == {"ok"}
    assert run(["kafka", "check", "--changelog"]) == 2
