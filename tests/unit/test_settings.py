"""Settings: the names operators know, their defaults, and refusals that say what is allowed and keep secrets."""

from pathlib import Path

import pytest

from projector.settings import OnSourceGone, Settings, SettingsError, load_settings

PASSWORD = "pa55-w0rd"
URL = f"postgresql://reporter:{PASSWORD}@db.example:5432/platform"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of ours is set but DATABASE_URL, and the working directory is empty; gives that directory."""
    for name in Settings.model_fields:
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal() -> str:
    """What is said of the settings as they are."""
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value)


def test_the_originals_defaults_are_kept() -> None:
    settings = load_settings()
    assert settings.reporting_background_enabled is True
    assert settings.reporting_projector_interval_secs == 5
    assert settings.reporting_projector_limit == 500
    assert settings.reporting_projection_slow_threshold_ms == 1000


def test_our_own_defaults_follow_the_contract() -> None:
    settings = load_settings()
    assert settings.reporting_projector_max_attempts == 10
    assert settings.reporting_on_source_gone is OnSourceGone.KEEP
    assert settings.reporting_outbox_retention_secs == 7 * 24 * 3600


def test_every_name_but_the_database_carries_the_prefix() -> None:
    assert [name for name in Settings.model_fields if not name.startswith("reporting_")] == ["database_url"]
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_BACKGROUND_ENABLED", "false")
    monkeypatch.setenv("REPORTING_PROJECTOR_INTERVAL_SECS", "0.25")
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "7")
    monkeypatch.setenv("REPORTING_PROJECTION_SLOW_THRESHOLD_MS", "20")
    monkeypatch.setenv("REPORTING_ON_SOURCE_GONE", "remove")
    settings = load_settings()
    assert settings.reporting_background_enabled is False
    assert (settings.reporting_projector_interval_secs, settings.reporting_projector_limit) == (0.25, 7)
    assert settings.reporting_projection_slow_threshold_ms == 20
    assert settings.reporting_on_source_gone is OnSourceGone.REMOVE


def test_dot_env_sets_them_and_the_environment_is_stronger(
    bare_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "9")
    (bare_environment / ".env").write_text(
        f"DATABASE_URL={URL}\nREPORTING_PROJECTOR_LIMIT=8\nREPORTING_PROJECTOR_WORKERS=3\nSOMEBODY_ELSES=1\n"
    )
    settings = load_settings()
    assert settings.database_url.get_secret_value() == URL
    assert (settings.reporting_projector_limit, settings.reporting_projector_workers) == (9, 3)


def test_overrides_are_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_BACKGROUND_ENABLED", "false")
    assert load_settings(reporting_background_enabled=True).reporting_background_enabled is True


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("REPORTING_BACKGROUND_ENABLED", "perhaps", "true or false"),
        ("REPORTING_LISTEN", "2", "true or false"),
        ("REPORTING_PROJECTOR_INTERVAL_SECS", "0", "a number from 0.01 to 3600"),
        ("REPORTING_PROJECTOR_INTERVAL_SECS", "nan", "a number from 0.01 to 3600"),
        ("REPORTING_PROJECTOR_INTERVAL_SECS", "5s", "a number from 0.01 to 3600"),
        ("REPORTING_PROJECTOR_LIMIT", "0", "a whole number from 1 to 50000"),
        ("REPORTING_PROJECTOR_LIMIT", "50001", "a whole number from 1 to 50000"),
        ("REPORTING_PROJECTOR_LIMIT", "many", "a whole number from 1 to 50000"),
        ("REPORTING_PROJECTOR_LIMIT", "1.5", "a whole number from 1 to 50000"),
        ("REPORTING_PROJECTOR_LIMIT", "", "a whole number from 1 to 50000"),
        ("REPORTING_PROJECTION_SLOW_THRESHOLD_MS", "-1", "a number from 0"),
        ("REPORTING_OUTBOX_RETENTION_SECS", "-1", "a number from 0 to 3153600000"),
        ("REPORTING_OUTBOX_RETENTION_SECS", "inf", "a number from 0 to 3153600000"),
        ("REPORTING_PROJECTOR_MAX_ATTEMPTS", "0", "a whole number from 1 to 1000000"),
        ("REPORTING_STATEMENT_TIMEOUT_SECS", "0", "a number from 0.1 to 3600"),
        ("REPORTING_SHUTDOWN_GRACE_SECS", "0", "a number above 0 to 3600"),
        ("REPORTING_ON_SOURCE_GONE", "delete", "one of keep, remove"),
        ("REPORTING_HTTP_PORT", "65536", "a whole number from 0 to 65535"),
        ("REPORTING_LOG_FORMAT", "xml", "one of auto, json, console"),
        ("REPORTING_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(variable, value)
    description = Settings.model_fields[variable.lower()].description
    assert refusal() == f"{variable}={value!r}: must be {allowed}. {description}"


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "0")
    monkeypatch.setenv("REPORTING_PROJECTOR_WORKERS", "none")
    monkeypatch.delenv("DATABASE_URL")
    told = refusal().splitlines()
    variables = ("DATABASE_URL", "REPORTING_PROJECTOR_LIMIT", "REPORTING_PROJECTOR_WORKERS")
    assert [line.startswith(variable) for line, variable in zip(told, variables, strict=True)] == [True] * 3


def test_a_bad_value_in_dot_env_is_refused_too(bare_environment: Path) -> None:
    (bare_environment / ".env").write_text("REPORTING_PROJECTOR_WORKERS=0\n")
    assert refusal().startswith("REPORTING_PROJECTOR_WORKERS='0': must be a whole number from 1 to 64")


def test_a_first_batch_larger_than_the_largest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "600")
    monkeypatch.setenv("REPORTING_PROJECTOR_MAX_LIMIT", "599")
    assert refusal() == "REPORTING_PROJECTOR_MAX_LIMIT=599 must not be less than REPORTING_PROJECTOR_LIMIT=600"
    monkeypatch.setenv("REPORTING_PROJECTOR_MAX_LIMIT", "600")
    assert load_settings().reporting_projector_max_limit == 600


def test_the_limit_of_the_original_alone_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "5000")
    monkeypatch.setenv("REPORTING_LOG_LEVEL", "INFO")
    settings = load_settings()
    assert (settings.reporting_projector_limit, settings.reporting_projector_max_limit) == (5000, 5000)
    assert settings.reporting_log_level == "info"


def test_a_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert refusal().startswith("DATABASE_URL is not set. The operational database: postgresql://")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
@pytest.mark.parametrize(
    "rest",
    [f"//u:{PASSWORD}@h/d", "//h", "///d?host=/run/postgresql", f"//u:{PASSWORD}@[::1]:5432,h2:5433/d?sslmode=require"],
)
def test_every_form_of_postgresqls_urls_is_taken(monkeypatch: pytest.MonkeyPatch, scheme: str, rest: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}:{rest}")
    assert load_settings().database_url.get_secret_value() == f"{scheme}:{rest}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"mysql://u:{PASSWORD}@h/d", "begins with postgresql://"),
        (f"u:{PASSWORD}@h/d", "begins with postgresql://"),
        ("", "begins with postgresql://"),
        (f"postgresql://u:{PASSWORD}@h:port/d", "a port that is no number"),
        (f"postgresql://u:{PASSWORD}/more@h/d", "write / as %2F"),
        (f"postgresql://u:{PASSWORD}#more@h/d", "# as %23"),
        (f"postgresql://u:{PASSWORD}[more@h/d", "[ as %5B"),
    ],
)
def test_a_wrong_database_url_is_explained_and_not_shown(monkeypatch: pytest.MonkeyPatch, url: str, why: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    message = refusal()
    assert message.startswith("DATABASE_URL (not shown here) ")
    assert why in message
    assert PASSWORD not in message


def test_secrets_never_print(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert PASSWORD not in text
    monkeypatch.setenv("DATABASE_URL", f"mysql://u:{PASSWORD}@h")
    with pytest.raises(ValueError, match="database_url") as refused:
        Settings()  # type: ignore[call-arg]
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in repr(refused.value)


def test_a_refusal_carries_no_secret_in_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_PROJECTOR_LIMIT", "0")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert PASSWORD not in str(refused.value)
