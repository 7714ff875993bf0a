"""Kafka clients for tests: closed at the end, with waits that are short."""

import contextlib
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from enum import IntEnum
from typing import Any

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest

from tests.kafka.apache import PASSWORDS, ApacheBroker, Listener
from tests.obstacles import wait_until

# Of a group, so that joins, leaves and deaths show within seconds.
QUICK_GROUP = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 200, "rebalance_timeout_ms": 2000}


@contextlib.asynccontextmanager
async def admin(**options: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administrator's client; options as of aiokafka, `bootstrap_servers` at least."""
    client = AIOKafkaAdminClient(**options)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def producer(**options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A producer; options as of aiokafka, `bootstrap_servers` at least."""
    client = AIOKafkaProducer(**options)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def consumer(*topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that starts at the beginning and commits nothing by itself, unless the options say otherwise."""
    client = AIOKafkaConsumer(*topics, **{"auto_offset_reset": "earliest", "enable_auto_commit": False} | options)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def create_topic(
    bootstrap: str, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None
) -> None:
    """Creates a topic; returns when its partitions serve.

    Raises:
        KafkaError: It cannot be created; aiokafka itself says nothing.
    """
    async with admin(bootstrap_servers=bootstrap) as client:
        reply = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(settings or {}))])
        for _, code, *_ in reply.topic_errors:
            if code:
                raise for_code(code)(name)

        async def serves() -> bool:
            (found,) = await client.describe_topics([name])
            parts = found["partitions"]
            return len(parts) == partitions and all(part["error_code"] == 0 for part in parts)

        await wait_until(serves, 30)


async def read(client: AIOKafkaConsumer, count: int, seconds: float = 30) -> list[ConsumerRecord]:
    """Reads so many messages; fails where they do not come in time."""
    records: list[ConsumerRecord] = []
    deadline = time.monotonic() + seconds
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} messages came in {seconds} s"
        for batch in (await client.getmany(timeout_ms=200)).values():
            records += batch
    return records


async def read_all(bootstrap: str, topic: str, count: int, seconds: float = 30, **options: Any) -> list[ConsumerRecord]:
    """Reads so many messages from a topic's beginning, by a consumer of its own without a group."""
    async with consumer(topic, bootstrap_servers=bootstrap, **options) as client:
        return await read(client, count, seconds)


class _UnsignedToken(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, user: str) -> None:
        self._user = user

    async def token(self) -> str:
        now = int(time.time())
        parts = ({"alg": "none"}, {"sub": self._user, "iat": now, "exp": now + 3600})
        encoded = (urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return ".".join((*encoded, ""))


def options_for(
    broker: ApacheBroker, listener: Listener, mechanism: str = "PLAIN", user: str = "alice", password: str | None = None
) -> dict[str, Any]:
    """The options of an aiokafka client of a listener of a secured broker; the password as in PASSWORDS."""
    options: dict[str, Any] = {"bootstrap_servers": broker.address(listener), "security_protocol": str(listener)}
    if listener in (Listener.TLS, Listener.SASL_TLS):
        options["ssl_context"] = tls_context(broker, with_client=listener is Listener.TLS)
    if listener in (Listener.SASL, Listener.SASL_TLS):
        options["sasl_mechanism"] = mechanism
        if mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = _UnsignedToken(user)
        else:
            options |= {"sasl_plain_username": user, "sasl_plain_password": password or PASSWORDS[user]}
    return options


def tls_context(broker: ApacheBroker, *, with_client: bool) -> ssl.SSLContext:
    """A context that knows the broker's authority, with the client's certificate or without."""
    assert broker.certificates is not None, "the broker is not secured"
    context = ssl.create_default_context(cafile=broker.certificates.authority)
    if with_client:
        context.load_cert_chain(broker.certificates.client)
    return context


class Resource(IntEnum):
    """What an ACL is about, as the protocol counts."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Operation(IntEnum):
    """What an ACL allows, as the protocol counts."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


async def allow(broker: ApacheBroker, user: str, resource: Resource, name: str, *operations: Operation) -> None:
    """Adds ACLs by which a user may do these things, on the resource of exactly this name (`kafka-cluster`)."""
    literal, any_host, allowed = 3, "*", 3
    client = AIOKafkaClient(bootstrap_servers=broker.bootstrap)
    try:
        await client.bootstrap()
        for operation in operations:
            request = CreateAclsRequest(resource, name, literal, f"User:{user}", any_host, operation, allowed)
            reply = await client.send(client.get_random_node(), request)
            for code, message in reply.creation_responses:
                if code:
                    raise for_code(code)(message)
    finally:
        await client.close()
