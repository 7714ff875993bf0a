"""Settings, from the environment and `.env`. Names and defaults of the original keep their meaning."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it, its value and what is allowed."""


class OnSourceGone(StrEnum):
    """What becomes of the facts of a source row that is gone (contract: sources.md, deleted sources)."""

    KEEP = "keep"
    REMOVE = "remove"


_ESCAPES = "in user and password write / as %2F, # as %23, ? as %3F, [ as %5B, @ as %40"


def _postgres_url(value: SecretStr) -> SecretStr:
    try:
        url = urlsplit(value.get_secret_value())
    except ValueError:
        raise ValueError(f"is no URL; {_ESCAPES}") from None
    if url.scheme not in {"postgresql", "postgres"}:
        raise ValueError("must be a URL that begins with postgresql://")
    for host in url.netloc.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if not re.fullmatch("[0-9]*", port):
            raise ValueError(f"has a port that is no number; {_ESCAPES}")
    return value


def topic_name(value: str) -> str:
    """A name, or the beginning of one, that Kafka allows for a topic; it leaves room for what we append.

    Raises:
        ValueError: it does not allow it.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value) or value in {".", ".."}:
        raise ValueError("must be of letters, digits, dots, underscores and hyphens, 200 at the most")
    return value


TopicPrefix = Annotated[Annotated[str, AfterValidator(topic_name)] | None, BeforeValidator(lambda value: value or None)]
"""What topics' names begin with; an empty one is none."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class SharedSettings(BaseSettings):
    """What all programs on the operational database can be told. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(
        description="The operational database: postgresql://user:password@host:port/database."
    )
    reporting_projector_max_attempts: int = Field(
        default=10, ge=1, le=1_000_000, description="Attempts before a failing row is a dead letter."
    )
    reporting_on_source_gone: OnSourceGone = Field(
        default=OnSourceGone.KEEP, description="Facts of deleted sources: keep or remove."
    )
    reporting_statement_timeout_secs: float = Field(
        default=60, ge=0.1, le=3600, description="The longest that one statement of a batch may take, in seconds."
    )
    reporting_statement_cache_size: int = Field(
        default=100, ge=0, le=10_000, description="Prepared statements a connection keeps; 0 behind a pooler."
    )
    reporting_shutdown_grace_secs: float = Field(
        default=25, gt=0, le=3600, description="How long a stop waits for the work that has begun, in seconds."
    )
    reporting_sample_interval_secs: float = Field(
        default=5, ge=0.1, le=3600, description="How often gauges are sampled at the most, in seconds."
    )
    reporting_log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = Field(
        default="auto", description="How logs are written; auto is console on a terminal, else json."
    )
    reporting_log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="The least level that is logged."
    )


class Settings(SharedSettings):
    """All that the projector can be told."""

    reporting_background_enabled: bool = Field(
        default=True, description="Whether the daemon projects; if not, it only serves its metrics."
    )
    reporting_feed: Annotated[Literal["poll", "kafka"], BeforeValidator(_lower)] = Field(
        default="poll", description="What tells the daemon which rows to project: polling the outbox, or Kafka."
    )
    reporting_projector_interval_secs: float = Field(
        default=5, ge=0.01, le=3600, description="The longest idle poll, in seconds."
    )
    reporting_projector_limit: int = Field(
        default=500, ge=1, le=50_000, description="Rows that a batch claims at first; it grows under backlog."
    )
    reporting_projector_max_limit: int = Field(
        default=4000, ge=1, le=50_000, description="Rows that a batch claims at the most."
    )
    reporting_projector_workers: int = Field(
        default=2, ge=1, le=64, description="Workers in this process, each with one connection."
    )
    reporting_projection_slow_threshold_ms: float = Field(
        default=1000, ge=0, description="Operations slower than this are logged as warnings, in milliseconds."
    )
    reporting_outbox_retention_secs: float = Field(
        default=604_800,
        ge=0,
        le=3_153_600_000,
        description="How long completed outbox rows are kept, in seconds; 0 deletes each as it is settled.",
    )
    reporting_listen: bool = Field(
        default=True, description="Whether to LISTEN for wake-ups; needs a direct connection, falls back to polling."
    )
    reporting_changelog_topic_prefix: TopicPrefix = Field(
        default=None,
        description="Changed facts are published to Kafka, each dataset to PREFIX.DATASET; unset: they are not.",
    )
    reporting_http_host: str = Field(default="0.0.0.0", description="Where /metrics, /livez and /readyz listen.")  # noqa: S104
    reporting_http_port: int = Field(default=9464, ge=0, le=65_535, description="Their port; 0 picks a free one.")


_Kind = TypeVar("_Kind", bound=BaseSettings)


def read_settings(kind: type[_Kind], **overrides: SecretStr | Path | bool | float | str | None) -> _Kind:
    """Reads the settings of a program.

    Args:
        kind: its settings.
        overrides: values by field name that stand whatever the environment says.

    Raises:
        SettingsError: a variable is missing or its value is not allowed. Secrets are not repeated.
    """
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_explain(kind, error)) from None


def load_settings(**overrides: SecretStr | bool | int) -> Settings:
    """Reads the projector's settings.

    Args:
        overrides: values by field name that stand whatever the environment says.

    Raises:
        SettingsError: a variable is missing or its value is not allowed. Secrets are not repeated.
    """
    settings = read_settings(Settings, **overrides)
    if "reporting_projector_max_limit" not in settings.model_fields_set:
        # Operators of the original know the limit alone; a large one is a larger most, too.
        most = max(settings.reporting_projector_limit, settings.reporting_projector_max_limit)
        settings = settings.model_copy(update={"reporting_projector_max_limit": most})
    if settings.reporting_projector_max_limit < settings.reporting_projector_limit:
        raise SettingsError(
            f"REPORTING_PROJECTOR_MAX_LIMIT={settings.reporting_projector_max_limit} must not be less than "
            f"REPORTING_PROJECTOR_LIMIT={settings.reporting_projector_limit}"
        )
    return settings


def _explain(kind: type[BaseSettings], error: ValidationError) -> str:
    return "\n".join(_sentence(kind, problem) for problem in error.errors(include_url=False))


def _sentence(kind: type[BaseSettings], problem: ErrorDetails) -> str:
    own_words = problem.get("ctx", {}).get("error")
    if not problem["loc"]:  # of several settings together
        return str(own_words)
    name = str(problem["loc"][0])
    field = kind.model_fields[name]
    if problem["type"] == "missing":
        return f"{name.upper()} is not set. {field.description}"
    words = own_words or f"must be {_allowed(field)}"
    # URLs may hold passwords.
    if name.endswith("_url") or SecretStr in {field.annotation, *get_args(field.annotation)}:
        return f"{name.upper()} (not shown here) {words}. {field.description}"
    return f"{name.upper()}={str(problem['input'])!r}: {words}. {field.description}"


def _allowed(field: FieldInfo) -> str:
    """What values a field may have, in words."""
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "a text that is not empty"
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return "one of " + ", ".join(field.annotation)
    if field.annotation not in {int, float}:
        return "one of " + ", ".join(get_args(field.annotation))
    words = ["a whole number" if field.annotation is int else "a number"]
    for name, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
        words += [f"{word} {getattr(bound, name)}" for bound in field.metadata if hasattr(bound, name)]
    return " ".join(words)
