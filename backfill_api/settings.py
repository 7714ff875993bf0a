"""Settings of the service, from the environment and `.env`; what they share with the projector's is in its module."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from projector.settings import SharedSettings, read_settings


def _empty_is_unset(value: object) -> object:
    """What a deployment leaves empty, it leaves out."""
    return None if value == "" else value


def _words(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


Text = Annotated[str | None, BeforeValidator(_empty_is_unset)]


class ServiceSettings(SharedSettings):
    """All that the service can be told."""

    reporting_api_host: str = Field(default="0.0.0.0", description="Where the service listens.")  # noqa: S104
    reporting_api_port: int = Field(default=8080, ge=0, le=65_535, description="Its port; 0 picks a free one.")
    reporting_api_credentials_file: Annotated[Path | None, BeforeValidator(_empty_is_unset)] = Field(
        default=None, description="The file of bearer tokens; `backfill-api token` makes its entries."
    )
    reporting_api_jwks: Text = Field(
        default=None, description="The keys that JWTs are verified with: an https:// URL, or the path of a file."
    )
    reporting_api_jwt_issuer: Text = Field(default=None, description="What `iss` of a JWT must be.")
    reporting_api_jwt_audience: Text = Field(default=None, description="What `aud` of a JWT must be, or hold.")
    reporting_api_jwt_algorithms: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        default=("RS256", "ES256"), description="The algorithms of signatures that are accepted, with commas between."
    )
    reporting_api_jwt_org_claim: str = Field(default="org", description="The claim that holds the orgs.")
    reporting_api_jwt_policies_claim: str = Field(default="policies", description="The claim that holds the policies.")
    reporting_api_jwt_role_claim: str = Field(
        default="role", description="The claim that holds the role, read where that of the policies is missing."
    )
    reporting_api_org_actions_per_minute: float = Field(
        default=60, gt=0, le=1_000_000, description="Operator actions of one org in the long run, a minute."
    )
    reporting_api_org_actions_burst: int = Field(
        default=30, ge=1, le=1_000_000, description="Operator actions of one org at once, after a rest."
    )
    reporting_api_actions_per_minute: float = Field(
        default=600, gt=0, le=1_000_000, description="Operator actions of all orgs in the long run, a minute."
    )
    reporting_api_actions_burst: int = Field(
        default=200, ge=1, le=1_000_000, description="Operator actions of all orgs at once, after a rest."
    )
    reporting_api_pool_size: int = Field(
        default=10, ge=1, le=1000, description="Connections for requests; two more watch the database."
    )
    reporting_api_operation_secs: float = Field(
        default=25, ge=0.1, le=3600, description="How long an operation works before it answers in part, in seconds."
    )
    reporting_api_max_body_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="The largest body of a request, in bytes."
    )


def load_service_settings() -> ServiceSettings:
    """Reads the service's settings.

    Raises:
        SettingsError: a variable is missing or its value is not allowed. Secrets are not repeated.
    """
    return read_settings(ServiceSettings)
