"""Writes the files with Debezium's messages anew."""

import asyncio
import json
import tempfile
from pathlib import Path

from projector.demo.embedded import embedded_postgres
from tests.kafka.apache import apache_broker
from tests.kafka.connect import DEBEZIUM_POM
from tests.kafka.debezium.record import HERE, record
from tests.kafka.jars import BROKER_POM, jars

with (
    tempfile.TemporaryDirectory() as folder,
    embedded_postgres(Path(folder) / "postgres", {"wal_level": "logical"}) as server,
    apache_broker(Path(folder) / "broker", jars(BROKER_POM)) as broker,
):
    sent = asyncio.run(record(Path(folder) / "connect", jars(DEBEZIUM_POM), broker.bootstrap, server.dsn))
    for form, messages in sent.items():
        text = json.dumps(messages, indent=1, ensure_ascii=False) + "\n"
        (HERE / f"{form}.json").write_text(text, encoding="utf-8")
