"""Settings of `projector backfill`: names, defaults, and refusals that say what is allowed and keep secrets."""

from pathlib import Path

import pytest

from projector.api_settings import ApiSettings, load_api_settings
from projector.settings import SettingsError

TOKEN = "rpt_s3cret-token"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of ours is set, not even DATABASE_URL, and the working directory is empty; gives that directory."""
    for name in (*ApiSettings.model_fields, "database_url"):
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal() -> str:
    """What is said of the settings as they are."""
    with pytest.raises(SettingsError) as refused:
        load_api_settings()
    assert TOKEN not in str(refused.value)
    return str(refused.value)


def token() -> str | None:
    read = load_api_settings().reporting_api_token
    return None if read is None else read.get_secret_value()


def test_without_any_the_service_on_this_machine_is_asked_without_a_token() -> None:
    settings = load_api_settings()
    assert settings.reporting_api_url == "http://127.0.0.1:8080"
    assert settings.reporting_api_token is None


def test_every_setting_says_what_it_means() -> None:
    assert all(name.startswith("reporting_api_") for name in ApiSettings.model_fields)
    assert all(field.description for field in ApiSettings.model_fields.values())


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://reports.example", "https://reports.example"),
        ("HTTPS://reports.example:8443/", "HTTPS://reports.example:8443"),
        ("http://[::1]:8080/api/", "http://[::1]:8080/api"),
        ("", "http://127.0.0.1:8080"),
    ],
)
def test_urls_that_are_taken(monkeypatch: pytest.MonkeyPatch, given: str, used: str) -> None:
    monkeypatch.setenv("REPORTING_API_URL", given)
    assert load_api_settings().reporting_api_url == used


@pytest.mark.parametrize(
    "given",
    [
        "ftp://reports.example", "reports.example", "//reports.example", "http://", "http:///path", "http://:8080",
        "http://host:port", "http://host:0", "http://host:65536", "http://[::1", "http://ho st", "http://host/\n",
        "file:///etc/passwd", "http://host/?a=b", "http://host/#a",
    ],
)  # fmt: skip
def test_urls_that_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("REPORTING_API_URL", given)
    assert refusal().startswith("REPORTING_API_URL (not shown here) must ")


def test_a_url_with_a_password_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTING_API_URL", f"https://ops:{TOKEN}@reports.example")
    assert "the token goes into REPORTING_API_TOKEN" in refusal()


def test_the_token_comes_from_its_variable_or_from_a_file(
    monkeypatch: pytest.MonkeyPatch, bare_environment: Path
) -> None:
    file = bare_environment / "token"
    file.write_text(f"{TOKEN}\r\n")
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", str(file))
    assert token() == TOKEN
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", "")
    monkeypatch.setenv("REPORTING_API_TOKEN", f" {TOKEN} ")
    assert token() == TOKEN
    assert TOKEN not in repr(load_api_settings())


def test_dot_env_sets_them_too(bare_environment: Path) -> None:
    (bare_environment / ".env").write_text(f"REPORTING_API_URL=https://a.example\nREPORTING_API_TOKEN={TOKEN}\n")
    assert load_api_settings().reporting_api_url == "https://a.example"
    assert token() == TOKEN


def test_two_places_for_the_token_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPORTING_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", str(tmp_path / "token"))
    assert "are both set: set one of them" in refusal()


@pytest.mark.parametrize("given", ["a b", "a\nb", "tök", "\x7f", "x" * 8193, " "], ids=repr)
def test_a_text_that_is_no_token_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    monkeypatch.setenv("REPORTING_API_TOKEN", given + TOKEN if given.strip() else given)
    assert "REPORTING_API_TOKEN (not shown here) must be one token" in refusal()
    monkeypatch.delenv("REPORTING_API_TOKEN")
    (tmp_path / "token").write_text(given, encoding="utf-8")
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", str(tmp_path / "token"))
    assert "(content not shown here) must be one token" in refusal()
    assert given not in refusal().replace("must be one token", "") or not given.strip()


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", str(tmp_path / "absent"))
    assert refusal() == f"REPORTING_API_TOKEN_FILE='{tmp_path}/absent': No such file or directory"
    monkeypatch.setenv("REPORTING_API_TOKEN_FILE", str(tmp_path))
    assert "Is a directory" in refusal()
