"""Has Debezium send what it sends for changes of the outbox, in each of its forms."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import ConsumerRecord

import schemas
from tests.kafka.clients import consumer, create_topic, read
from tests.kafka.connect import NO_SCHEMA, UNWRAPPED, connect, topic_of

HERE = Path(__file__).parent
_SQL = Path(schemas.__file__).parent / "sql"
_DELETES = "transforms.unwrap.delete.tombstone.handling.mode"

FORMS: Mapping[str, Mapping[str, str]] = {
    "envelope": NO_SCHEMA,
    "envelope_with_schema": {},
    "envelope_after_snapshot": {**NO_SCHEMA, "snapshot.mode": "initial"},
    "unwrapped": {**UNWRAPPED, **NO_SCHEMA},
    "unwrapped_with_schema": {**UNWRAPPED, "transforms.unwrap.add.fields": "op,source.ts_ms"},
    "unwrapped_drop": {**UNWRAPPED, **NO_SCHEMA, _DELETES: "drop"},
    "unwrapped_rewrite": {**UNWRAPPED, **NO_SCHEMA, _DELETES: "rewrite"},
    "unwrapped_rewrite_with_tombstone": {**UNWRAPPED, **NO_SCHEMA, _DELETES: "rewrite-with-tombstone"},
    "unwrapped_delete_to_tombstone": {**UNWRAPPED, **NO_SCHEMA, _DELETES: "delete-to-tombstone"},
}
"""The connector's settings by the name of the form."""

CHANGING = frozenset({"ts_ms", "ts_us", "ts_ns", "lsn", "txId", "sequence", "__source_ts_ms"})
"""The fields whose values are others each time; they tell when and where in the log."""

_LAST = "01900000-0000-7000-8000-00000000ffff"
_ADD = """
    INSERT INTO reporting_outbox (id, org_id, source_type, source_id, reason, next_attempt_at, created_at, updated_at)
    VALUES ($1, 1, 'llm_generation', $2, 'generation', '2026-01-02T03:04:05.678901Z', '2026-01-02T03:04:05Z',
            '2026-01-02T03:04:05.6Z')
"""
_BEFORE = "01900000-0000-7000-8000-000000000001"
_ROW = "01900000-0000-7000-8000-000000000002"
_CHANGES = (
    "UPDATE reporting_outbox SET status = 'processing', claimed_at = '2026-01-02T03:04:06Z' WHERE id = $1",
    """
    UPDATE reporting_outbox
       SET status = 'failed', claimed_at = NULL, attempts = 10, last_error = '22P02', next_attempt_at = 'infinity'
     WHERE id = $1
    """,
    "DELETE FROM reporting_outbox WHERE id = $1",
)


async def record(folder: Path, jars: Path, bootstrap: str, dsn: str) -> dict[str, list[dict[str, Any]]]:
    """Adds, changes and deletes a row, and gives what was sent for it, by the form's name.

    Args:
        folder: For Connect's files.
        jars: The folder of `jars(DEBEZIUM_POM)`.
        bootstrap: The broker, without TLS or authentication.
        dsn: An empty database with `wal_level=logical`, as superuser.
    """
    connection = await asyncpg.connect(dsn)
    try:
        for file in ("sources.sql", "schema.sql"):
            await connection.execute((_SQL / file).read_text(encoding="utf-8"))
        await connection.execute("INSERT INTO organizations (org_id, name) VALUES (1, 'org')")
        await connection.execute(_ADD, _BEFORE, _BEFORE)
        for form in FORMS:  # or Connect makes them late, and consumers stumble over topics that are being made
            await create_topic(bootstrap, topic_of(form))
        with connect(folder, jars, bootstrap, dsn, FORMS) as process:
            await process.streaming()
            await connection.execute(_ADD, _ROW, _ROW)
            for change in _CHANGES:
                await connection.execute(change, _ROW)
            await connection.execute(_ADD, _LAST, _LAST)
            sent = await asyncio.gather(*(_messages(bootstrap, topic_of(form)) for form in FORMS))
        await process.drop_slots()
    finally:
        await connection.close()
    return dict(zip(FORMS, sent, strict=True))


async def _messages(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """What is in a topic before the message on the last row."""
    messages: list[dict[str, Any]] = []
    async with consumer(topic, bootstrap_servers=bootstrap, max_poll_records=1) as client:
        while True:
            for message in await read(client, 1, seconds=60):
                if _LAST.encode() in message.key:
                    return messages
                messages.append(_readable(message))


def _readable(message: ConsumerRecord) -> dict[str, Any]:
    return {
        "key": json.loads(message.key),
        "value": None if message.value is None else json.loads(message.value),
        "headers": {name: value.decode() for name, value in message.headers},
    }


def without_changing(node: Any) -> Any:
    """The same with the values of CHANGING replaced, at any depth."""
    if isinstance(node, dict):
        return {name: "…" if name in CHANGING else without_changing(value) for name, value in node.items()}
    return [without_changing(item) for item in node] if isinstance(node, list) else node


def recorded(form: str) -> list[dict[str, Any]]:
    """The messages of a form that are on file."""
    messages: list[dict[str, Any]] = json.loads((HERE / f"{form}.json").read_text(encoding="utf-8"))
    return messages
