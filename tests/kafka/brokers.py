"""Which broker the tests run on, and what it can do."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from projector.demo.broker import light_broker
from projector.demo.companion import free_port
from tests.kafka.apache import SMALL, apache_broker
from tests.kafka.jars import BROKER_POM, JarsError, jars

IMAGE = "apache/kafka:4.1.0"
_CONTAINER_PORT, _START_SECONDS = 9092, 120


class Can(StrEnum):
    """What not every broker can do."""

    IDEMPOTENCE = "idempotence"  # idempotent producers
    TRANSACTIONS = "transactions"
    END_OFFSETS = "end_offsets"  # the true ones; without it consumers seek to a wrong end
    COMPACTION = "compaction"
    ADD_PARTITIONS = "add_partitions"  # to a topic that is there
    GROUP_OFFSETS = "group_offsets"  # all of a group, without naming partitions


@dataclass(frozen=True)
class Broker:
    """A broker that runs."""

    name: str
    bootstrap: str  # host:port, without TLS or authentication
    abilities: frozenset[Can]
    why: str  # it is this one and none that can do more; empty where it can do all

    def lacks(self, *needed: str) -> str:
        """Why a test that needs these cannot run on it; empty where it can.

        Raises:
            ValueError: There is no such ability.
        """
        missing = [ability for ability in map(Can, needed) if ability not in self.abilities]
        return f"{self.name} has no {', '.join(missing)}; {self.why}" if missing else ""


@contextlib.contextmanager
def best_broker(folder: Path) -> Iterator[Broker]:
    """Runs a container where Docker runs, else Apache Kafka from Maven where that can be had, else the light broker."""
    if docker_runs():
        with _container() as bootstrap:
            yield Broker("the container", bootstrap, frozenset(Can), "")
        return
    try:
        fetched = jars(BROKER_POM)
    except JarsError as error:
        with light_broker(folder) as light:
            yield Broker("the light broker", light.bootstrap, frozenset(), f"no Docker, and of Apache Kafka {error}")
        return
    with apache_broker(folder / "broker", fetched) as apache:
        yield Broker("Apache Kafka", apache.bootstrap, frozenset(Can), "")


def docker_runs() -> bool:
    """Whether a Docker engine answers."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, timeout=30, check=False).returncode == 0


@contextlib.contextmanager
def _container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    port = free_port()
    settings = SMALL | {
        "listeners": f"PLAINTEXT://:{_CONTAINER_PORT},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": "1@localhost:9093",
    }
    container = DockerContainer(IMAGE).with_bind_ports(_CONTAINER_PORT, port)
    for name, value in settings.items():
        container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_SECONDS))
    with container:
        yield f"127.0.0.1:{port}"
