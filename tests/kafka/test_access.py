"""Each way into a secured cluster, by the settings; and what is told where the way is barred."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailed

from projector.kafka.client import access, new_consumer, new_producer
from projector.kafka.errors import AccessError, describe_kafka
from projector.kafka.oauth import TokenFile, TokenUrl
from projector.kafka.producer import Producer
from projector.kafka.reach import reach
from projector.kafka.settings import KafkaSettings
from tests.kafka.apache import PASSWORDS, USER, ApacheBroker, Listener
from tests.kafka.certificates import CLIENT_NAME, write_certificates
from tests.kafka.clients import Operation, Resource, allow, create_topic, read
from tests.kafka.token_server import SECRET, TokenServer, unsigned_token

PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture
async def token_server() -> AsyncIterator[TokenServer]:
    server = TokenServer(USER)
    await server.start()
    yield server
    await server.stop()


def settings_for(broker: ApacheBroker, listener: Listener, **values: Any) -> KafkaSettings:
    """The settings of a way into the broker; values by their names without the prefix."""
    assert broker.certificates is not None
    names = {"bootstrap_servers": broker.address(listener), "security_protocol": str(listener)} | values
    if listener in (Listener.TLS, Listener.SASL_TLS):
        names.setdefault("ssl_ca_file", broker.certificates.authority)
    if listener is Listener.TLS:
        names.setdefault("ssl_cert_file", broker.certificates.client)
    return KafkaSettings(**{f"reporting_kafka_{name}": value for name, value in names.items()})


def with_password(broker: ApacheBroker, listener: Listener, mechanism: str, password: str = "") -> KafkaSettings:
    login = {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": password or PASSWORDS[USER]}
    return settings_for(broker, listener, **login)


async def there_and_back(broker: ApacheBroker, prefix: str, settings: KafkaSettings, user: str = USER) -> None:
    """A message by a producer and a consumer of these settings."""
    topic, group = prefix + "topic", prefix + "group"
    await create_topic(broker.bootstrap, topic)
    await allow(broker, user, Resource.TOPIC, topic, Operation.READ, Operation.WRITE)
    await allow(broker, user, Resource.GROUP, group, Operation.READ)
    settings = settings.model_copy(update={"reporting_kafka_group": group})
    producer, consumer = new_producer(settings), new_consumer(settings)
    consumer.subscribe([topic])
    try:
        await producer.start()
        await producer.send_and_wait(topic, b"value")
        await consumer.start()
        assert [record.value for record in await read(consumer, 1)] == [b"value"]
    finally:
        await producer.stop()
        await consumer.stop()


async def refused(settings: KafkaSettings) -> BaseException:
    """Why a connection is refused, and that a producer has no other luck."""
    host, _, port = settings.reporting_kafka_bootstrap_servers.rpartition(":")
    with pytest.raises((OSError, RuntimeError)) as why:
        await reach(host, int(port), access(settings))
    producer = new_producer(settings)
    with pytest.raises(KafkaConnectionError):
        await asyncio.wait_for(producer.start(), 20)
    await producer.stop()
    return why.value


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
@pytest.mark.parametrize("listener", [Listener.SASL, Listener.SASL_TLS])
async def test_a_password_lets_in(secured: ApacheBroker, prefix: str, listener: Listener, mechanism: str) -> None:
    await there_and_back(secured, prefix, with_password(secured, listener, mechanism))


async def test_a_clients_certificate_lets_in(secured: ApacheBroker, prefix: str) -> None:
    await there_and_back(secured, prefix, settings_for(secured, Listener.TLS), f"CN={CLIENT_NAME}")


async def test_a_token_of_a_file_lets_in_and_is_read_anew(secured: ApacheBroker, prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(unsigned_token(USER, -60))
    settings = settings_for(secured, Listener.SASL_TLS, sasl_mechanism="OAUTHBEARER", oauth_token_file=file)
    assert "has run out" in describe_kafka(await refused(settings))
    file.write_text(unsigned_token(USER) + "\n")
    await there_and_back(secured, prefix, settings)


async def test_a_token_that_the_broker_refuses_is_told(secured: ApacheBroker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("no-token")
    settings = settings_for(secured, Listener.SASL, sasl_mechanism="OAUTHBEARER", oauth_token_file=file)
    host, _, port = settings.reporting_kafka_bootstrap_servers.rpartition(":")
    with pytest.raises(SaslAuthenticationFailed):
        await reach(host, int(port), access(settings))
    producer = Producer(lambda: new_producer(settings), asyncio.Event(), ready_seconds=1)
    with pytest.raises(KafkaTimeoutError):
        await asyncio.wait_for(producer.ready("topic"), 20)
    await producer.close()


async def test_a_token_of_a_server_lets_in(secured: ApacheBroker, prefix: str, token_server: TokenServer) -> None:
    await there_and_back(secured, prefix, by_url(secured, token_server))
    assert token_server.asked == 2  # once for each client, whatever its connections
    assert token_server.last == {"grant_type": "client_credentials", "scope": "kafka"}


def by_url(broker: ApacheBroker, server: TokenServer, **values: Any) -> KafkaSettings:
    login = {"oauth_token_url": server.url, "oauth_client_id": "us", "oauth_client_secret": SECRET} | values
    return settings_for(broker, Listener.SASL, sasl_mechanism="OAUTHBEARER", oauth_scope="kafka", **login)


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
async def test_a_wrong_password_is_told(secured: ApacheBroker, mechanism: str) -> None:
    error = await refused(with_password(secured, Listener.SASL, mechanism, "wr0ng"))
    assert isinstance(error, SaslAuthenticationFailed)
    assert "refused the login" in describe_kafka(error)
    assert "wr0ng" not in describe_kafka(error)


async def test_a_certificate_of_another_authority_is_told(secured: ApacheBroker, tmp_path: Path) -> None:
    other = write_certificates(tmp_path)
    error = await refused(settings_for(secured, Listener.TLS, ssl_ca_file=other.authority))
    assert "REPORTING_KAFKA_SSL_CA_FILE" in describe_kafka(error)


async def test_the_systems_authorities_do_not_know_a_broker_of_ours(secured: ApacheBroker) -> None:
    assert "not trusted" in describe_kafka(await refused(settings_for(secured, Listener.TLS, ssl_ca_file=None)))


async def test_another_host_name_than_the_certificates_is_refused(secured: ApacheBroker) -> None:
    port = secured.address(Listener.TLS).partition(":")[2]
    error = await refused(settings_for(secured, Listener.TLS, bootstrap_servers=f"127.1:{port}"))
    assert "ostname mismatch" in str(error)


async def test_a_missing_token_is_told(secured: ApacheBroker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n")
    settings = settings_for(secured, Listener.SASL, sasl_mechanism="OAUTHBEARER", oauth_token_file=file)
    assert "is empty" in describe_kafka(await refused(settings))
    file.unlink()
    assert "cannot be read: No such file" in describe_kafka(await refused(settings))
    file.write_bytes(b"\xff")
    with pytest.raises(AccessError, match="holds no token"):
        await TokenFile(file).token()


async def test_a_certificate_that_has_gone_is_told_as_a_fault_of_the_cluster(
    secured: ApacheBroker, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    assert secured.certificates is not None
    file.write_bytes(secured.certificates.authority.read_bytes())
    settings = settings_for(secured, Listener.TLS, ssl_ca_file=file)
    file.unlink()
    with pytest.raises(AccessError, match="cannot be read"):
        new_producer(settings)


def provider(server: TokenServer, **values: Any) -> TokenUrl:
    return TokenUrl(**({"url": server.url, "client_id": "us", "client_secret": SECRET} | values))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (web.Response(status=401, text=SECRET), "answered 401: check REPORTING_KAFKA_OAUTH_CLIENT_ID"),
        (web.Response(status=404), "answered 404: is it the token endpoint?"),
        (web.Response(status=302, headers={"Location": "/other"}), "answered 302"),
        (web.Response(text="<html>"), "did not answer with a token"),
        (web.json_response({"token": SECRET}), "did not answer with a token"),
        (web.json_response({"access_token": "t", "expires_in": "soon"}), "did not answer with a token"),
        (web.json_response({"access_token": "t", "expires_in": None}), "did not answer with a token"),
        (web.json_response([]), "did not answer with a token"),
    ],
)
async def test_a_server_that_gives_no_token_is_told(
    token_server: TokenServer, answer: web.Response, words: str
) -> None:
    token_server.answer = answer
    with pytest.raises(AccessError) as told:
        await provider(token_server).token()
    assert words in str(told.value)
    assert SECRET not in str(told.value)


async def test_wrong_credentials_and_a_server_that_is_away_are_told(token_server: TokenServer) -> None:
    with pytest.raises(AccessError, match="answered 401"):
        await provider(token_server, client_secret="wrong").token()
    await token_server.stop()
    with pytest.raises(AccessError, match="cannot be reached"):
        await provider(token_server).token()
    with pytest.raises(AccessError, match="cannot be reached"):
        await provider(token_server, url=token_server.url.replace("http:", "https:")).token()


async def test_a_token_is_used_until_shortly_before_it_runs_out(token_server: TokenServer) -> None:
    now = 0.0
    tokens = provider(token_server, clock=lambda: now)
    first = await asyncio.gather(tokens.token(), tokens.token())
    assert (token_server.asked, first[0]) == (1, first[1])
    now = token_server.seconds * 0.79
    await tokens.token()
    assert token_server.asked == 1
    now = token_server.seconds * 0.81
    await tokens.token()
    assert token_server.asked == 2
