"""Looks at a cluster before programs start: can we get in, are the topics as they must be, may we do what we will do.

Nothing is changed there, and nothing written.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    NoError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from projector.kafka.client import access
from projector.kafka.errors import describe_kafka
from projector.kafka.findings import Commands, Finding, Level, not_reached
from projector.kafka.questions import (
    ask,
    may_be_idempotent,
    may_join,
    may_read,
    may_use_transactional_id,
    may_write,
    patiently,
)
from projector.kafka.reach import reach
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import Topic

_TOPIC_RESOURCE = 2


@dataclass(frozen=True, slots=True)
class Needs:
    """What programs need of the cluster.

    Attributes:
        topics: how they must be.
        written: names of those that are written to.
        read: names of those that are read.
        group: the consumers' group; empty: none.
        transactional_id: the changelog's; empty: none.
        members: how many consumers one process has.
    """

    topics: Sequence[Topic]
    written: frozenset[str]
    read: frozenset[str]
    group: str = ""
    transactional_id: str = ""
    members: int = 0


@dataclass(slots=True)
class Check:
    """One look at a cluster.

    Attributes:
        findings: what was found so far.
        reached: whether a broker let us in.
    """

    settings: KafkaSettings
    needs: Needs
    findings: list[Finding] = field(default_factory=list)
    reached: bool = False
    _client: AIOKafkaClient | None = None

    async def run(self) -> None:
        """Looks at everything; a cluster that is not reached is a finding, too."""
        try:
            options = access(self.settings)
        except KafkaError as error:
            self.findings.append(not_reached("certificates", error, self.settings))
            return
        self._look_at_secrecy()
        addresses = [_parted(each) for each in self.settings.reporting_kafka_bootstrap_servers.split(",")]
        await self._reach("bootstrap server", addresses, options)
        self.reached = any(finding.level is Level.OK for finding in self.findings)
        if not self.reached:
            return
        client = AIOKafkaClient(bootstrap_servers=self.settings.reporting_kafka_bootstrap_servers, **options)
        try:
            await client.bootstrap()
            self._client = client
            brokers = {(broker.host, broker.port) for broker in client.cluster.brokers()}
            await self._reach("broker", sorted(brokers - set(addresses)), options)
            await self._look_at_topics(client)
            await self._look_at_rights(client)
        except (KafkaError, OSError) as error:
            self._error("cluster", describe_kafka(error), "see to the brokers, then check again")
        finally:
            await client.close()

    @property
    def _commands(self) -> Commands:
        return Commands(self.settings)

    def _ok(self, about: str, found: str) -> None:
        self.findings.append(Finding(Level.OK, about, found))

    def _warn(self, about: str, found: str, todo: str) -> None:
        self.findings.append(Finding(Level.WARNING, about, found, todo))

    def _error(self, about: str, found: str, todo: str) -> None:
        self.findings.append(Finding(Level.ERROR, about, found, todo))

    def _look_at_secrecy(self) -> None:
        settings = self.settings
        if settings.uses_sasl and not settings.uses_tls:
            self._warn(
                "login", "passwords or tokens, and all messages, cross the network unencrypted",
                "use a listener with TLS and REPORTING_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
            )  # fmt: skip

    async def _reach(self, what: str, addresses: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        for host, port in addresses:
            about = f"{what} {host}:{port}"
            try:
                await reach(host, port, options)
            except (KafkaError, OSError) as error:
                self.findings.append(not_reached(about, error, self.settings))
            else:
                self._ok(about, "lets us in")

    async def _look_at_topics(self, client: AIOKafkaClient) -> None:
        names = [topic.name for topic in self.needs.topics]
        reply = await ask(client, MetadataRequest(names, allow_auto_topic_creation=False))
        described = {topic: (for_code(code), partitions) for code, topic, _, partitions in reply.topics}
        there = [name for name in names if described[name][0] is NoError]
        configs = await self._configs(client, there)
        for topic in self.needs.topics:
            error, partitions = described[topic.name]
            if error is NoError:
                self._look_at_topic(topic, partitions, configs.get(topic.name))
            else:
                self._tell_unseen(topic, error)

    def _tell_unseen(self, topic: Topic, error: type[KafkaError]) -> None:
        about = f"topic {topic.name}"
        if error is UnknownTopicOrPartitionError:
            self._error(about, "is not there", "projector kafka create")
        elif error is TopicAuthorizationFailedError:
            todo = self._commands.allow("Describe", "--topic", topic.name)
            self._error(about, "is not there, or the user may not see it", todo)
        else:
            self._error(about, describe_kafka(error()), self._commands.describe_topic(topic.name))

    async def _configs(self, client: AIOKafkaClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Topics' settings by name; those that may not be seen are left out."""
        if not names:
            return {}
        reply = await ask(client, DescribeConfigsRequest([(_TOPIC_RESOURCE, name, None) for name in names]))
        return {
            name: {entry[0]: entry[1] for entry in entries} for code, _, _, name, entries in reply.resources if not code
        }

    def _look_at_topic(self, topic: Topic, partitions: Sequence[Any], config: dict[str, str] | None) -> None:
        about, before = f"topic {topic.name}", len(self.findings)
        if config is None:
            todo = self._commands.allow("DescribeConfigs", "--topic", topic.name)
            self._warn(about, f"not known whether its cleanup.policy is {topic.cleanup}: it may not be seen", todo)
        else:
            self._look_at_cleanup(topic, config.get("cleanup.policy", topic.cleanup))
        self._look_at_replicas(topic, partitions, int((config or {}).get("min.insync.replicas", 1)))
        if topic.name in self.needs.read and len(partitions) < self.needs.members:
            self._warn(
                about, f"has {len(partitions)} partitions for the {self.needs.members} consumers of each process:"
                " some will have nothing to do", self._commands.add_partitions(topic.name, self.needs.members),
            )  # fmt: skip
        if len(self.findings) == before:
            self._ok(about, f"is as it must be: {len(partitions)} partitions, cleanup.policy={topic.cleanup}")

    def _look_at_cleanup(self, topic: Topic, policy: str) -> None:
        compacts = "compact" in policy.split(",")
        todo = self._commands.set_cleanup(topic.name, topic.cleanup)
        if topic.cleanup == "delete" and compacts:
            self._error(f"topic {topic.name}", "is compacted: messages that were not yet read would be lost", todo)
        elif topic.cleanup == "compact" and not compacts:
            self._error(f"topic {topic.name}", "is not compacted: facts would go when they are old", todo)
        elif topic.cleanup == "compact" and "delete" in policy.split(","):
            self._error(f"topic {topic.name}", "deletes beside compacting: facts would go when they are old", todo)

    def _look_at_replicas(self, topic: Topic, partitions: Sequence[Any], least: int) -> None:
        about, todo = f"topic {topic.name}", self._commands.describe_topic(topic.name)
        leaderless = [partition for _, partition, leader, *_ in partitions if leader < 0]
        short = [partition for _, partition, _, replicas, in_sync, *_ in partitions if len(in_sync) < least]
        lagging = [partition for _, partition, _, replicas, in_sync, *_ in partitions if len(in_sync) < len(replicas)]
        if leaderless:
            self._error(about, f"nobody leads partitions {leaderless}: its brokers are away; see to them", todo)
        elif short:
            self._error(
                about, f"partitions {short} have fewer replicas in sync than min.insync.replicas={least}: nothing can"
                " be written; see to the brokers that are away, or give the topic more replicas", todo,
            )  # fmt: skip
        elif lagging:
            self._warn(about, f"some replicas of partitions {lagging} are not in sync; see to their brokers", todo)

    async def _look_at_rights(self, client: AIOKafkaClient) -> None:
        for name in sorted(self.needs.read):
            await self._try(f"reading {name}", partial(may_read, client, name),
                            self._commands.allow("Read", "--topic", name))  # fmt: skip
        for name in sorted(self.needs.written):
            await self._try(f"writing {name}", partial(may_write, client, name),
                            self._commands.allow("Write", "--topic", name))  # fmt: skip
        if self.needs.group:
            await self._try(f"group {self.needs.group}", partial(may_join, client, self.needs.group),
                            self._commands.allow("Read", "--group", self.needs.group))  # fmt: skip
        if self.needs.written and self.settings.reporting_kafka_idempotence:
            await self._try("idempotent producer", partial(may_be_idempotent, client),
                            self._commands.allow("IdempotentWrite", "--cluster"))  # fmt: skip
        if self.needs.transactional_id and self.settings.reporting_kafka_idempotence:
            identity = self.needs.transactional_id
            await self._try(f"transactional id {identity}", partial(may_use_transactional_id, client, identity),
                            self._commands.allow("Write", "--transactional-id", identity))  # fmt: skip

    async def _try(self, about: str, question: Callable[[], Awaitable[type[KafkaError]]], acl: str) -> None:
        """Asks for something that does not exist: what counts is whether it is refused for want of rights."""
        try:
            error = await patiently(question)
        except IncompatibleBrokerVersion:
            self._error(about, "the brokers do not know it", "set REPORTING_KAFKA_IDEMPOTENCE=false, or use newer ones")
            return
        if error in _REFUSALS:
            self._error(about, "is refused: an ACL is missing", acl)
        elif error.retriable and error is not UnknownTopicOrPartitionError:
            self._error(about, describe_kafka(error()), "see to the brokers, then check again")
        else:
            self._ok(about, "is allowed")


_REFUSALS = (
    TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)  # fmt: skip


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
