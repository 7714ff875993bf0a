"""What the programs can be told about Kafka. Read only where Kafka is used."""

import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from projector.kafka.errors import AccessError
from projector.kafka.tls import tls_context
from projector.settings import read_settings, topic_name

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]{1,253}):([0-9]{1,5})")
_MOST_PORT = 65_535
_TLS_FIELDS = (
    "reporting_kafka_ssl_ca_file", "reporting_kafka_ssl_cert_file", "reporting_kafka_ssl_key_file",
    "reporting_kafka_ssl_key_password",
)  # fmt: skip
_USER_FIELDS: tuple[str, ...] = ("reporting_kafka_sasl_username", "reporting_kafka_sasl_password")
_CLIENT_FIELDS: tuple[str, ...] = ("reporting_kafka_oauth_client_id", "reporting_kafka_oauth_client_secret")
_OAUTH_FIELDS = ("reporting_kafka_oauth_token_file", "reporting_kafka_oauth_token_url", *_CLIENT_FIELDS)


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return value or None


def _addresses(value: str) -> str:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    matches = [_ADDRESS.fullmatch(part) for part in parts]
    if not parts or not all(match and 0 < int(match[2]) <= _MOST_PORT for match in matches):
        raise ValueError("must be host:port, several of them parted by commas, each with its port and without a scheme")
    return ",".join(parts)


def _web_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"https", "http"} or not url.hostname or url.username or url.password:
        raise ValueError("must be a URL that begins with https:// or http://, without user or password")
    return value


OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_none_if_empty)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]


class KafkaSettings(BaseSettings):
    """The cluster, how to get in, and the topics. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    reporting_kafka_bootstrap_servers: Annotated[str, AfterValidator(_addresses)] = Field(
        description="Where the cluster is found: host:port, several of them parted by commas."
    )
    reporting_kafka_client_id: str = Field(
        default="reporting-projector",
        min_length=1,
        description="What the programs call themselves in broker logs and quotas.",
    )
    reporting_kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)
    ] = Field(default="PLAINTEXT", description="Whether connections are encrypted, and whether a login is needed.")
    reporting_kafka_ssl_ca_file: OptionalPath = Field(
        default=None, description="The certificates of the authorities to trust; else those of the system."
    )
    reporting_kafka_ssl_cert_file: OptionalPath = Field(default=None, description="Our certificate, for mutual TLS.")
    reporting_kafka_ssl_key_file: OptionalPath = Field(default=None, description="Its key.")
    reporting_kafka_ssl_key_password: OptionalSecret = Field(default=None, description="What the key is locked with.")
    reporting_kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], BeforeValidator(_upper)
    ] = Field(default="PLAIN", description="How to log in, where the protocol is one of SASL.")
    reporting_kafka_sasl_username: OptionalText = Field(default=None, description="Who logs in, by PLAIN or SCRAM.")
    reporting_kafka_sasl_password: OptionalSecret = Field(default=None, description="The password of that user.")
    reporting_kafka_oauth_token_file: OptionalPath = Field(
        default=None, description="OAUTHBEARER: a file with the token, read anew for each login."
    )
    reporting_kafka_oauth_token_url: Annotated[
        Annotated[str, AfterValidator(_web_url)] | None, BeforeValidator(_none_if_empty)
    ] = Field(default=None, description="OAUTHBEARER: where a token is fetched, with client credentials.")
    reporting_kafka_oauth_client_id: OptionalText = Field(default=None, description="The client id for that.")
    reporting_kafka_oauth_client_secret: OptionalSecret = Field(default=None, description="The client's secret.")
    reporting_kafka_oauth_scope: OptionalText = Field(default=None, description="The scope to ask for, if any.")
    reporting_kafka_outbox_topic: Annotated[str, AfterValidator(topic_name)] = Field(
        default="reporting.outbox.v1", description="The topic that relays publish to and consumers read."
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

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.reporting_kafka_security_protocol in {"SSL", "SASL_SSL"}

    @property
    def uses_sasl(self) -> bool:
        """Whether a login is needed, beside a certificate."""
        return self.reporting_kafka_security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._tls_problems(), *self._login_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _tls_problems(self) -> list[str]:
        if not self.uses_tls:
            why = f"REPORTING_KAFKA_SECURITY_PROTOCOL={self.reporting_kafka_security_protocol} does not encrypt"
            return [f"{name} is set, but {why}; SSL and SASL_SSL do" for name in self._given(_TLS_FIELDS)]
        if not self.reporting_kafka_ssl_cert_file:
            names = self._given(("reporting_kafka_ssl_key_file", "reporting_kafka_ssl_key_password"))
            if names:
                return [f"{name} is set, but not REPORTING_KAFKA_SSL_CERT_FILE, its certificate" for name in names]
        try:
            self.tls_context()
        except AccessError as error:
            return [error.words]
        return []

    def _login_problems(self) -> list[str]:
        if not self.uses_sasl:
            why = f"REPORTING_KAFKA_SECURITY_PROTOCOL={self.reporting_kafka_security_protocol} knows no login"
            names = self._given((*_USER_FIELDS, *_OAUTH_FIELDS))
            return [f"{name} is set, but {why}; SASL_SSL and SASL_PLAINTEXT do" for name in names]
        uses = f"REPORTING_KAFKA_SASL_MECHANISM={self.reporting_kafka_sasl_mechanism}"
        if self.reporting_kafka_sasl_mechanism == "OAUTHBEARER":
            needed = _CLIENT_FIELDS if self.reporting_kafka_oauth_token_url else ()
            strange, problems = _USER_FIELDS, self._token_problems()
        else:
            needed, strange, problems = _USER_FIELDS, _OAUTH_FIELDS, []
        problems += [f"{name} is not set; {uses} needs it" for name in self._lacking(needed)]
        problems += [f"{name} is set, but {uses} does not use it" for name in self._given(strange)]
        return problems

    def _token_problems(self) -> list[str]:
        file, url = self.reporting_kafka_oauth_token_file, self.reporting_kafka_oauth_token_url
        if bool(file) == bool(url):
            which = "REPORTING_KAFKA_OAUTH_TOKEN_FILE or REPORTING_KAFKA_OAUTH_TOKEN_URL"
            return [f"OAUTHBEARER needs either {which}; {'both are' if file else 'none is'} set"]
        if file and not file.is_file():
            return [f"REPORTING_KAFKA_OAUTH_TOKEN_FILE={str(file)!r}: there is no such file"]
        return []

    def tls_context(self) -> ssl.SSLContext:
        """The context of connections that are encrypted, of the files as they are now.

        Raises:
            AccessError: a file cannot be read, or does not hold what it should.
        """
        password = self.reporting_kafka_ssl_key_password
        return tls_context(
            self.reporting_kafka_ssl_ca_file, self.reporting_kafka_ssl_cert_file, self.reporting_kafka_ssl_key_file,
            password.get_secret_value() if password else None,
        )  # fmt: skip

    def _given(self, fields: Iterable[str]) -> list[str]:
        return [field.upper() for field in fields if getattr(self, field)]

    def _lacking(self, fields: Iterable[str]) -> list[str]:
        return [field.upper() for field in fields if not getattr(self, field)]


def load_kafka_settings() -> KafkaSettings:
    """Reads the settings.

    Raises:
        SettingsError: a variable is missing or its value is not allowed. Secrets are not repeated.
    """
    return read_settings(KafkaSettings)
