"""Clients of the cluster, made from the settings."""

from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from projector.kafka.oauth import token_provider
from projector.kafka.settings import KafkaSettings

_REQUEST_TIMEOUT_MS = 10_000


def new_producer(settings: KafkaSettings, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """A producer that is told of each message when all replicas in sync have it; not started.

    Args:
        settings: the cluster, and whether producers are idempotent.
        transactional_id: for a transactional producer: whoever starts one with the same id fences the others.
    """
    compression = settings.reporting_kafka_compression
    return AIOKafkaProducer(
        **_common(settings),
        acks="all",
        enable_idempotence=settings.reporting_kafka_idempotence,
        transactional_id=transactional_id,
        compression_type=None if compression == "none" else compression,
        max_batch_size=512 * 1024,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
    )


def new_consumer(settings: KafkaSettings) -> AIOKafkaConsumer:
    """A member of the projectors' group, not started and without a topic; offsets are committed by hand."""
    session_ms = round(settings.reporting_kafka_session_timeout_secs * 1000)
    return AIOKafkaConsumer(
        **_common(settings),
        group_id=settings.reporting_kafka_group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=max(session_ms // 10, 100),
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
    )


def new_admin(settings: KafkaSettings) -> AIOKafkaAdminClient:
    """A client for topics and groups, not started."""
    return AIOKafkaAdminClient(**_common(settings), request_timeout_ms=_REQUEST_TIMEOUT_MS)


def _common(settings: KafkaSettings) -> dict[str, Any]:
    return {"bootstrap_servers": settings.reporting_kafka_bootstrap_servers, **access(settings)}


def access(settings: KafkaSettings) -> dict[str, Any]:
    """How a client calls itself and gets in, as aiokafka's clients and connections take it.

    Raises:
        AccessError: a file of certificates or keys cannot be read, or does not hold what it should.
    """
    options: dict[str, Any] = {
        "client_id": settings.reporting_kafka_client_id,
        "security_protocol": settings.reporting_kafka_security_protocol,
    }
    if settings.uses_tls:
        options["ssl_context"] = settings.tls_context()
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.reporting_kafka_sasl_mechanism
        if settings.reporting_kafka_sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_provider(settings)
        else:
            password = settings.reporting_kafka_sasl_password
            options["sasl_plain_username"] = settings.reporting_kafka_sasl_username
            options["sasl_plain_password"] = password.get_secret_value() if password else None
    return options
