"""Tries to get into one broker, and tells why that does not work: what clients themselves only log."""

import asyncio
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import SaslAuthenticationFailed
from aiokafka.protocol.metadata import MetadataRequest

_SECONDS = 10.0
_CLOSE_SECONDS = 1.0


async def reach(host: str, port: int, options: dict[str, Any]) -> None:
    """Connects, logs in and asks a question.

    Args:
        host: where.
        port: where.
        options: as `projector.kafka.client.access` gives them.

    Raises:
        aiokafka.errors.KafkaError: the broker refuses, or is none.
        OSError: it cannot be reached, or TLS does not come about.
    """
    connection = await create_conn(host, port, request_timeout_ms=round(_SECONDS * 1000), **options)
    try:
        answer = await connection.send(MetadataRequest([]))
        if not answer.brokers:
            # The client takes the first answer to a token for consent, though it says what is wrong with it.
            raise SaslAuthenticationFailed("the token was refused")
    finally:
        closed = connection.close()
        if closed is not None:
            await asyncio.wait({closed}, timeout=_CLOSE_SECONDS)
