"""The broker that the bench measures with, and what relays and consumers are told of it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from projector.demo.broker import light_broker
from projector.kafka.settings import KafkaSettings
from tests.kafka.apache import apache_broker
from tests.kafka.clients import create_topic
from tests.kafka.jars import BROKER_POM, JarsError, jars

# Long enough that both consumers of a daemon are there when partitions are first given out; Kafka's own default is 3 s.
_APACHE_SETTINGS = {"group.initial.rebalance.delay.ms": "500"}


@dataclass(frozen=True, slots=True)
class BenchBroker:
    """A broker at work.

    Attributes:
        name: for readers; where it is not Apache Kafka, with the reason.
        bootstrap: host:port.
        process_id: of its process.
        idempotence: whether it takes idempotent producers.
    """

    name: str
    bootstrap: str
    process_id: int
    idempotence: bool

    def processor_seconds(self) -> float:
        """The processor time that it has used."""
        times = psutil.Process(self.process_id).cpu_times()
        return float(times.user + times.system)

    async def new_topic(self) -> KafkaSettings:
        """Creates a topic; gives settings for it and a group of its own, all else as by default."""
        name = f"bench-{secrets.token_hex(4)}"
        settings = KafkaSettings.model_construct(
            reporting_kafka_bootstrap_servers=self.bootstrap,
            reporting_kafka_idempotence=self.idempotence,
            reporting_kafka_outbox_topic=name,
            reporting_kafka_group=name,
        )
        await create_topic(self.bootstrap, name, settings.reporting_kafka_partitions)
        return settings


@contextmanager
def bench_broker(folder: Path) -> Iterator[BenchBroker]:
    """Runs Apache Kafka, or the light broker on a machine without Java and Maven."""
    try:
        fetched = jars(BROKER_POM)
    except JarsError as error:
        with light_broker(folder) as light:
            yield BenchBroker(
                f"the light broker (of Apache Kafka {error})", light.bootstrap, light.process_id, idempotence=False
            )
        return
    with apache_broker(folder / "broker", fetched, settings=_APACHE_SETTINGS) as apache:
        yield BenchBroker("Apache Kafka", apache.bootstrap, apache.process_id, idempotence=True)
