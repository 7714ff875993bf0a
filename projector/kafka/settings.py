"""What the programs can be told about Kafka. Read only where Kafka is used."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from projector.settings import read_settings


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class KafkaSettings(BaseSettings):
    """The cluster, how to get in, and the topics. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    reporting_kafka_bootstrap_servers: str = Field(
        min_length=1, description="Where the cluster is found: host:port, several of them parted by commas."
    )
    reporting_kafka_client_id: str = Field(
        default="reporting-projector",
        min_length=1,
        description="What the programs call themselves in broker logs and quotas.",
    )
    reporting_kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)
    ] = Field(default="PLAINTEXT", description="Whether connections are encrypted, and whether a login is needed.")
    reporting_kafka_ssl_ca_file: Path | None = Field(
        default=None, description="The certificates of the authorities to trust; else those of the system."
    )
    reporting_kafka_ssl_cert_file: Path | None = Field(default=None, description="Our certificate, for mutual TLS.")
    reporting_kafka_ssl_key_file: Path | None = Field(default=None, description="Its key.")
    reporting_kafka_ssl_key_password: SecretStr | None = Field(default=None, description="What the key is locked with.")
    reporting_kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], BeforeValidator(_upper)
    ] = Field(default="PLAIN", description="How to log in, where the protocol is one of SASL.")
    reporting_kafka_sasl_username: str | None = Field(default=None, description="Who logs in, by PLAIN or SCRAM.")
    reporting_kafka_sasl_password: SecretStr | None = Field(default=None, description="The password of that user.")
    reporting_kafka_oauth_token_file: Path | None = Field(
        default=None, description="OAUTHBEARER: a file with the token, read anew for each login."
    )
    reporting_kafka_oauth_token_url: str | None = Field(
        default=None, description="OAUTHBEARER: where a token is fetched, with client credentials."
    )
    reporting_kafka_oauth_client_id: str | None = Field(default=None, description="The client id for that.")
    reporting_kafka_oauth_client_secret: SecretStr | None = Field(default=None, description="The client's secret.")
    reporting_kafka_oauth_scope: str | None = Field(default=None, description="The scope to ask for, if any.")
    reporting_kafka_outbox_topic: str = Field(
        default="reporting.outbox.v1", min_length=1, description="The topic that relays publish to and consumers read."
    )
    reporting_kafka_message_format: Annotated[Literal["relay", "debezium"], BeforeValidator(_lower)] = Field(
        default="relay", description="Who writes that topic: `projector relay`, or Debezium's PostgreSQL connector."
    )
    reporting_kafka_group: str = Field(
        default="reporting-projector", min_length=1, description="The consumer group of the projectors."
    )
    reporting_kafka_session_timeout_secs: float = Field(
        default=30, ge=1, le=1800, description="After how long a silent consumer's partitions go to others, in seconds."
    )
    reporting_kafka_sweep_secs: float = Field(
        default=30, ge=0.1, le=3600,
        description="Kafka feed: how often the outbox is swept for rows that have been due for so long, in seconds.",
    )  # fmt: skip
    reporting_kafka_idempotence: bool = Field(
        default=True,
        description="Idempotent and, for the changelog, transactional producers; off for brokers that lack them.",
    )
    reporting_kafka_compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"], BeforeValidator(_lower)
    ] = Field(default="none", description="How messages are compressed.")
    reporting_kafka_create_topics: bool = Field(
        default=False, description="Whether programs create topics that are missing, at their start."
    )
    reporting_kafka_partitions: int = Field(
        default=12, ge=1, le=10_000, description="Partitions of topics that are created."
    )
    reporting_kafka_replication_factor: int = Field(
        default=-1, ge=-1, le=32_767, description="Replicas of topics that are created; -1 as the cluster has it."
    )


def load_kafka_settings() -> KafkaSettings:
    """Reads the settings.

    Raises:
        SettingsError: a variable is missing or its value is not allowed. Secrets are not repeated.
    """
    return read_settings(KafkaSettings)
