"""One broker for all Kafka tests; further ones for those that kill theirs, or that need users and ACLs."""

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kafka.apache import ApacheBroker, apache_broker
from tests.kafka.brokers import Broker, best_broker
from tests.kafka.clients import create_topic
from tests.kafka.feeding import Feeding, new_feeding
from tests.kafka.jars import BROKER_POM, JarsError, jars

_numbers = itertools.count(1)
_RUN = secrets.token_hex(3)

MakeTopic = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of all tests that mark what they need of it: `@pytest.mark.needs("transactions")`."""
    with best_broker(tmp_path_factory.mktemp("broker")) as best:
        yield best


@pytest.fixture(autouse=True)
def _skipped_without_what_it_needs(request: pytest.FixtureRequest) -> None:
    needed = [ability for marker in request.node.iter_markers("needs") for ability in marker.args]
    if needed and (reason := request.getfixturevalue("broker").lacks(*needed)):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def apache_jars() -> Path:
    """The jars of Apache Kafka; tests that need a broker of their own are skipped without."""
    try:
        return jars(BROKER_POM)
    except JarsError as error:
        pytest.skip(f"no Apache Kafka: {error}")


@pytest.fixture
def own_broker(apache_jars: Path, tmp_path: Path) -> Iterator[ApacheBroker]:
    """A broker of the test's own, to kill and restart."""
    with apache_broker(tmp_path / "broker", apache_jars) as own:
        yield own


@pytest.fixture(scope="session")
def chaos_broker(apache_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    """A broker that tests kill and silence; each leaves it at work."""
    with apache_broker(tmp_path_factory.mktemp("chaos") / "broker", apache_jars) as doomed:
        yield doomed


@pytest.fixture(scope="session")
def secured(apache_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    """A broker with TLS and SASL, whose users may do what ACLs allow and no more; `clients.options_for`, `allow`."""
    with apache_broker(tmp_path_factory.mktemp("secured") / "broker", apache_jars, secured=True, acls=True) as guarded:
        yield guarded


@pytest.fixture
def prefix() -> str:
    """What the names of a test's topics and groups begin with; no other test's, nor another run's."""
    return f"t{next(_numbers)}-{_RUN}-"


@pytest.fixture
def topic(broker: Broker, prefix: str) -> MakeTopic:
    """Creates a topic of the test's own on its broker: `await topic("events", partitions=3)`; gives its full name."""

    async def make(name: str = "topic", partitions: int = 1, settings: Mapping[str, str] | None = None) -> str:
        await create_topic(broker.bootstrap, prefix + name, partitions, settings)
        return prefix + name

    return make


@pytest.fixture
async def feeding(broker: Broker, database: str, prefix: str) -> Feeding:
    """A topic of outbox messages of the test's own, its dead letters, and the settings of processes on both."""
    made = new_feeding(broker.bootstrap, database, prefix, idempotence="idempotence" in broker.abilities)
    await made.create()
    return made
