"""Debezium's own connector on the outbox: it sends what is on file, which is what other tests rely on."""

import signal
from pathlib import Path
from random import Random

import pytest

from projector.demo.embedded import embedded_postgres
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.conftest import SOURCES_SQL, run_on
from tests.kafka.brokers import Broker
from tests.kafka.clients import create_topic
from tests.kafka.connect import DEBEZIUM_POM, NO_SCHEMA, connect, topic_of
from tests.kafka.debezium.record import FORMS, record, recorded, without_changing
from tests.kafka.feeding import PARTITIONS, metric, new_feeding, write
from tests.kafka.jars import JarsError, jars
from tests.roles import add_users, migrate_by_role


@pytest.fixture(scope="module")
def debezium_jars() -> Path:
    try:
        return jars(DEBEZIUM_POM)
    except JarsError as error:
        pytest.skip(f"no Debezium: {error}")


async def test_debezium_sends_what_is_on_file(debezium_jars: Path, broker: Broker, tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "postgres", {"wal_level": "logical", "fsync": "off"}) as server:
        sent = await record(tmp_path / "connect", debezium_jars, broker.bootstrap, server.dsn)
    assert {form: without_changing(messages) for form, messages in sent.items()} == {
        form: without_changing(recorded(form)) for form in FORMS
    }


async def test_what_debezium_tells_consumers_project_without_a_relay(
    debezium_jars: Path, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    with embedded_postgres(tmp_path / "postgres", {"wal_level": "logical", "fsync": "off"}) as server:
        dsn = await add_users(server.dsn)
        await run_on(dsn, SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate_by_role(dsn)
        topic = topic_of("cdc")
        await create_topic(broker.bootstrap, topic, PARTITIONS)
        await create_topic(broker.bootstrap, f"{topic}.dlq")
        feeding = new_feeding(broker.bootstrap, dsn, prefix, idempotence="idempotence" in broker.abilities)
        cdc = {"reporting_kafka_message_format": "debezium", "reporting_kafka_outbox_topic": topic}
        writers = Writers(dsn, Random(1))
        with connect(tmp_path / "connect", debezium_jars, broker.bootstrap, server.dsn, {"cdc": NO_SCHEMA}) as process:
            await process.streaming()
            async with feeding.consumers(tmp_path, **cdc) as consumer:
                await write(writers, 200)
                # The sweep is an hour away: nothing but messages tells of these rows.
                await settled(dsn)
                assert await metric(consumer, "reporting_kafka_dead_letters_total") == 0
                consumer.send(signal.SIGTERM)
                assert await consumer.end() == 0
        await process.drop_slots()
        assert await verify(dsn) > 0


def test_what_is_on_file_has_each_kind_of_change() -> None:
    operations = [message["value"] and message["value"]["op"] for message in recorded("envelope_after_snapshot")]
    assert operations == ["r", "c", "u", "u", "d", None]
