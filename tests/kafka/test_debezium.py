"""Debezium's own connector on the outbox: it sends what is on file, which is what other tests rely on."""

from pathlib import Path

import pytest

from projector.demo.embedded import embedded_postgres
from tests.kafka.brokers import Broker
from tests.kafka.connect import DEBEZIUM_POM
from tests.kafka.debezium.record import FORMS, record, recorded, without_changing
from tests.kafka.jars import JarsError, jars


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


def test_what_is_on_file_has_each_kind_of_change() -> None:
    operations = [message["value"] and message["value"]["op"] for message in recorded("envelope_after_snapshot")]
    assert operations == ["r", "c", "u", "u", "d", None]
