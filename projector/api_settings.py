"""Where the backfill API is and how to call it, from the environment and `.env`; no database is needed for that."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from projector.settings import SettingsError

_LONGEST_TOKEN = 8192


def _http_url(value: str) -> str:
    """The URL without a slash at its end."""
    try:
        url = urlsplit(value)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must be a URL like https://reports.example or http://127.0.0.1:8080")
    if url.username is not None or url.password is not None:
        raise ValueError("must hold no user and no password: the token goes into REPORTING_API_TOKEN")
    if url.query or url.fragment:
        raise ValueError("must hold no ? and no #")
    return value.rstrip("/")


def _token(value: SecretStr) -> SecretStr:
    """The token without white space around it, such as the line end of a file."""
    token = value.get_secret_value().strip()
    if len(token) > _LONGEST_TOKEN or not re.fullmatch("[!-~]+", token):
        raise ValueError(f"must be one token: up to {_LONGEST_TOKEN} printable ASCII characters, no spaces")
    return SecretStr(token)


class ApiSettings(BaseSettings):
    """What `projector backfill` can be told. Field names are the variables' names in lower case; empty is not set."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True,
        hide_input_in_errors=True,
    )  # fmt: skip

    reporting_api_url: Annotated[str, AfterValidator(_http_url)] = Field(
        default="http://127.0.0.1:8080", description="Where the backfill API listens, http or https."
    )
    reporting_api_token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        default=None, description="The bearer token for it."
    )
    reporting_api_token_file: Path | None = Field(
        default=None, description="A file that holds the token, instead of the token itself."
    )


def load_api_settings() -> ApiSettings:
    """Reads the settings; `reporting_api_token` holds the token wherever it came from, None for no token at all.

    Raises:
        SettingsError: a value is not allowed, or the token's file cannot be used. The token is not repeated.
    """
    try:
        settings = ApiSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    file = settings.reporting_api_token_file
    if file is None:
        return settings
    if settings.reporting_api_token is not None:
        raise SettingsError("REPORTING_API_TOKEN and REPORTING_API_TOKEN_FILE are both set: set one of them")
    return settings.model_copy(update={"reporting_api_token": _read_token(file)})


def _read_token(file: Path) -> SecretStr:
    try:
        with file.open("rb") as opened:
            text = opened.read(_LONGEST_TOKEN + 3).decode("ascii", "replace")  # 3: a line end, and one too many
        return _token(SecretStr(text))
    except OSError as error:
        raise SettingsError(f"REPORTING_API_TOKEN_FILE={str(file)!r}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"REPORTING_API_TOKEN_FILE={str(file)!r} (content not shown here) {error}") from None


def _explain(error: ValidationError) -> str:
    """Values are not shown: a URL may hold a password, a token is one."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0])
        said = problem.get("ctx", {}).get("error", problem["msg"])
        lines.append(f"{name.upper()} (not shown here) {said}. {ApiSettings.model_fields[name].description}")
    return "\n".join(lines)
