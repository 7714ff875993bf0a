"""Settings of the service: names, defaults, and refusals that say what is allowed and keep secrets."""

from pathlib import Path

import pytest

from backfill_api.settings import ServiceSettings, load_service_settings
from projector.settings import OnSourceGone, Settings, SettingsError, SharedSettings

PASSWORD = "pa55-w0rd"
URL = f"postgresql://reporter:{PASSWORD}@db.example:5432/platform"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of ours is set but DATABASE_URL, and the working directory is empty; gives that directory."""
    for name in ServiceSettings.model_fields:
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal() -> str:
    """What is said of the settings as they are."""
    with pytest.raises(SettingsError) as refused:
        load_service_settings()
    assert PASSWORD not in str(refused.value)
    return str(refused.value)


def test_the_defaults() -> None:
    settings = load_service_settings()
    assert (settings.reporting_api_host, settings.reporting_api_port) == ("0.0.0.0", 8080)
    assert (settings.reporting_api_credentials_file, settings.reporting_api_jwks) == (None, None)
    assert settings.reporting_api_jwt_algorithms == ("RS256", "ES256")
    assert (settings.reporting_api_org_actions_per_minute, settings.reporting_api_org_actions_burst) == (60, 30)
    assert (settings.reporting_api_actions_per_minute, settings.reporting_api_actions_burst) == (600, 200)
    assert (settings.reporting_api_pool_size, settings.reporting_api_operation_secs) == (10, 25)
    assert settings.reporting_api_max_body_bytes == 1024 * 1024
    assert settings.reporting_on_source_gone is OnSourceGone.KEEP


def test_what_both_programs_read_means_the_same() -> None:
    for name, field in SharedSettings.model_fields.items():
        for kind in (Settings, ServiceSettings):
            assert kind.model_fields[name].default == field.default
            assert kind.model_fields[name].description == field.description


def test_every_setting_says_what_it_means_and_has_the_prefix() -> None:
    assert all(field.description for field in ServiceSettings.model_fields.values())
    own = set(ServiceSettings.model_fields) - set(SharedSettings.model_fields)
    assert all(name.startswith("reporting_api_") for name in own)


def test_the_environment_and_dot_env_set_them(bare_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare_environment / ".env").write_text("REPORTING_API_PORT=9000\nREPORTING_API_POOL_SIZE=3\n")
    monkeypatch.setenv("REPORTING_API_POOL_SIZE", "4")
    monkeypatch.setenv("REPORTING_API_CREDENTIALS_FILE", "tokens.json")
    monkeypatch.setenv("REPORTING_API_JWT_ALGORITHMS", " ES384 ,EdDSA,")
    settings = load_service_settings()
    assert (settings.reporting_api_port, settings.reporting_api_pool_size) == (9000, 4)
    assert settings.reporting_api_credentials_file == Path("tokens.json")
    assert settings.reporting_api_jwt_algorithms == ("ES384", "EdDSA")


@pytest.mark.parametrize("name", ["CREDENTIALS_FILE", "JWKS", "JWT_ISSUER", "JWT_AUDIENCE"])
def test_what_is_left_empty_is_left_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"REPORTING_API_{name}", "")
    assert getattr(load_service_settings(), f"reporting_api_{name.lower()}") is None


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("REPORTING_API_PORT", "-1", "a whole number from 0 to 65535"),
        ("REPORTING_API_PORT", "http", "a whole number from 0 to 65535"),
        ("REPORTING_API_POOL_SIZE", "0", "a whole number from 1 to 1000"),
        ("REPORTING_API_OPERATION_SECS", "0", "a number from 0.1 to 3600"),
        ("REPORTING_API_OPERATION_SECS", "nan", "a number from 0.1 to 3600"),
        ("REPORTING_API_MAX_BODY_BYTES", "1", "a whole number from 1024 to 67108864"),
        ("REPORTING_API_ACTIONS_PER_MINUTE", "0", "a number above 0 to 1000000"),
        ("REPORTING_API_ORG_ACTIONS_BURST", "0", "a whole number from 1 to 1000000"),
        ("REPORTING_ON_SOURCE_GONE", "drop", "one of keep, remove"),
        ("REPORTING_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    description = ServiceSettings.model_fields[variable.lower()].description
    assert refusal() == f"{variable}={value!r}: must be {allowed}. {description}"


def test_a_wrong_database_url_is_explained_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"mysql://u:{PASSWORD}@h/d")
    assert refusal().startswith("DATABASE_URL (not shown here) must be a URL that begins with postgresql://")
