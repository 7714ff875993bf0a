"""Debezium's PostgreSQL connector, run by Kafka Connect as one process: the outbox's changes as messages."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from projector.demo.companion import Companion, bare_environment, free_port
from tests.kafka.jars import HERE, java
from tests.obstacles import wait_until

DEBEZIUM_POM = HERE / "debezium/pom.xml"
TABLE = "public.reporting_outbox"
UNWRAPPED = {"transforms": "unwrap", "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState"}
NO_SCHEMA = {"key.converter.schemas.enable": "false", "value.converter.schemas.enable": "false"}

_JVM = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
_START_SECONDS, _STOP_SECONDS, _STREAMING_SECONDS = 90.0, 10.0, 60.0


def topic_of(connector: str) -> str:
    """Where a connector's messages go. Connect makes the topic with the first message, unless it is there."""
    return f"{connector}.{TABLE}"


class Connect:
    """A process with any number of connectors, each from its own replication slot to its own topic.

    It goes on where it ended: offsets and slots are kept. The database needs `wal_level=logical`. Slots outlive it, and
    keep the database's log and the database itself, until `drop_slots`.
    """

    def __init__(
        self, folder: Path, jars: Path, bootstrap: str, dsn: str, connectors: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Prepares it; starts nothing.

        Args:
            folder: Made if absent; for offsets, settings and the log.
            jars: The folder of `jars(DEBEZIUM_POM)`.
            bootstrap: The broker, without TLS or authentication.
            dsn: The database, as a user that may replicate.
            connectors: Debezium's settings by the connector's name (lower-case letters, digits and _), stronger than
                the defaults here: messages in JSON with their schema, in an envelope, nothing of the rows before.
        """
        self._folder, self._jars, self._bootstrap, self._dsn = folder, jars, bootstrap, dsn
        self._connectors = connectors
        self._companion: Companion | None = None

    def start(self) -> None:
        """Starts it; returns before the connectors stream, for which wait with `streaming`.

        Raises:
            CompanionError: It does not start; with the last lines of its log.
        """
        assert self._companion is None, "it runs"
        self._folder.mkdir(parents=True, exist_ok=True)
        files = [self._write("worker", self._worker())]
        files += [self._write(name, self._connector(name, own)) for name, own in self._connectors.items()]
        main_class = "org.apache.kafka.connect.cli.ConnectStandalone"
        command = [java(), *_JVM, "-cp", f"{self._jars}/*", main_class, *files]
        log = self._folder / "connect.log"
        companion = Companion(command, log, bare_environment())
        companion.wait_until(lambda: "Kafka Connect started" in log.read_text(errors="replace"), _START_SECONDS)
        self._companion = companion

    async def streaming(self) -> None:
        """Waits until each connector streams; what is written from then on becomes messages."""
        connection = await asyncpg.connect(self._dsn)

        async def all_stream() -> bool:
            # A slot is active as soon as it is being created, when it does not see yet what is written.
            streaming = (
                "SELECT count(*) FROM pg_replication_slots AS slot"
                " JOIN pg_stat_replication AS sender ON sender.pid = slot.active_pid"
                " WHERE sender.state = 'streaming' AND slot.slot_name = ANY ($1)"
            )
            return bool(await connection.fetchval(streaming, list(self._connectors)) == len(self._connectors))

        try:
            await wait_until(all_stream, _STREAMING_SECONDS)
        finally:
            await connection.close()

    def kill(self) -> None:
        """Kills it, by a signal that it cannot handle."""
        self._end(grace_seconds=0)

    def stop(self) -> None:
        """Ends it if it runs, and removes its files, not its slots."""
        if self._companion is not None:
            self._end(_STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def drop_slots(self) -> None:
        """Removes the slots of all connectors once it has ended; before this, the database cannot be dropped."""
        connection = await asyncpg.connect(self._dsn)

        async def all_dropped() -> bool:
            await connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE NOT active AND slot_name = ANY ($1)",
                list(self._connectors),
            )
            left = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = ANY ($1)"
            return bool(await connection.fetchval(left, list(self._connectors)) == 0)

        try:
            await wait_until(all_dropped, _STREAMING_SECONDS)
        finally:
            await connection.close()

    def _end(self, grace_seconds: float) -> None:
        assert self._companion is not None, "it does not run"
        self._companion.end(grace_seconds)
        self._companion = None

    def _write(self, name: str, settings: Mapping[str, str]) -> str:
        file = self._folder / f"{name}.properties"
        file.write_text("\n".join(f"{key}={value}" for key, value in settings.items()), encoding="utf-8")
        return str(file)

    def _worker(self) -> dict[str, str]:
        return {
            "bootstrap.servers": self._bootstrap,
            "listeners": f"http://127.0.0.1:{free_port()}",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "offset.storage.file.filename": str(self._folder / "offsets"),
            "offset.flush.interval.ms": "500",
        }

    def _connector(self, name: str, own: Mapping[str, str]) -> dict[str, str]:
        database = urlsplit(self._dsn)
        return {
            "name": name,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": database.hostname or "",
            "database.port": str(database.port),
            "database.user": database.username or "",
            "database.password": database.password or "unused",
            "database.dbname": database.path.removeprefix("/"),
            "topic.prefix": name,
            "table.include.list": TABLE,
            "plugin.name": "pgoutput",
            "slot.name": name,
            "publication.name": name,
            "publication.autocreate.mode": "filtered",
            "snapshot.mode": "no_data",
            "poll.interval.ms": "50",
            "topic.creation.default.replication.factor": "1",
            "topic.creation.default.partitions": "1",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            **own,
        }


@contextlib.contextmanager
def connect(
    folder: Path, jars: Path, bootstrap: str, dsn: str, connectors: Mapping[str, Mapping[str, str]]
) -> Iterator[Connect]:
    """Runs Connect for as long as the context lasts; removes its files, not its slots."""
    process = Connect(folder, jars, bootstrap, dsn, connectors)
    try:
        process.start()
        yield process
    finally:
        process.stop()
