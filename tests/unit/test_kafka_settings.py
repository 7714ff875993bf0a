"""Kafka's settings: what does not fit together is told before anything connects, and no secret with it."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from projector.kafka.client import access
from projector.kafka.settings import KafkaSettings, load_kafka_settings
from projector.settings import SettingsError, load_settings
from tests.kafka.certificates import Certificates, write_certificates

SECRET = "pa55-w0rd"
USER = {"SASL_USERNAME": "alice", "SASL_PASSWORD": SECRET}
CLIENT = {"OAUTH_CLIENT_ID": "us", "OAUTH_CLIENT_SECRET": SECRET}
URL = {"OAUTH_TOKEN_URL": "https://login.example/token"}
PLAIN = {"SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
OAUTH = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "OAUTHBEARER"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of Kafka is set but where it is."""
    for name in KafkaSettings.model_fields:
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("REPORTING_KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return write_certificates(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **variables: object) -> KafkaSettings:
    """The settings of these variables, without their prefix."""
    for name, value in variables.items():
        monkeypatch.setenv(f"REPORTING_KAFKA_{name}", str(value))
    return load_kafka_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: object) -> str:
    with pytest.raises(SettingsError) as refused:
        load(monkeypatch, **variables)
    assert SECRET not in str(refused.value)
    return str(refused.value)


def test_only_the_address_is_needed() -> None:
    settings = load_kafka_settings()
    assert access(settings) == {"client_id": "reporting-projector", "security_protocol": "PLAINTEXT"}
    assert settings.reporting_kafka_outbox_topic == "reporting.outbox.v1"


def test_an_address_that_is_not_set_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPORTING_KAFKA_BOOTSTRAP_SERVERS")
    assert "REPORTING_KAFKA_BOOTSTRAP_SERVERS is not set" in refusal(monkeypatch)


@pytest.mark.parametrize(
    "addresses",
    ["kafka", "kafka:", "kafka:0", "kafka:99999", "kafka:9092,other", "kafka://kafka:9092", "", " , ", "::1:9092"],
)
def test_addresses_need_a_port(monkeypatch: pytest.MonkeyPatch, addresses: str) -> None:
    words = refusal(monkeypatch, BOOTSTRAP_SERVERS=addresses)
    assert words.startswith(f"REPORTING_KAFKA_BOOTSTRAP_SERVERS={addresses!r}: must be host:port")


def test_addresses_may_be_several_and_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, BOOTSTRAP_SERVERS="a:9092, b.example:9093, [::1]:9094,")
    assert settings.reporting_kafka_bootstrap_servers == "a:9092,b.example:9093,[::1]:9094"


def test_names_are_taken_in_any_case_and_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, COMPRESSION="ZSTD").reporting_kafka_compression == "zstd"
    words = refusal(monkeypatch, SECURITY_PROTOCOL="tls", COMPRESSION="zip")
    assert "REPORTING_KAFKA_SECURITY_PROTOCOL='TLS': must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL" in words
    assert "REPORTING_KAFKA_COMPRESSION='zip': must be one of none, gzip, snappy, lz4, zstd" in words


def test_texts_and_names_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    words = refusal(monkeypatch, GROUP="", OUTBOX_TOPIC="a topic", PARTITIONS="0")
    assert "REPORTING_KAFKA_GROUP='': must be a text that is not empty" in words
    assert "REPORTING_KAFKA_OUTBOX_TOPIC='a topic': must be of letters" in words
    assert "REPORTING_KAFKA_PARTITIONS='0': must be a whole number from 1 to 10000" in words


def test_the_changelogs_prefix_is_one_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/platform")
    monkeypatch.setenv("REPORTING_CHANGELOG_TOPIC_PREFIX", "our facts")
    with pytest.raises(SettingsError, match="REPORTING_CHANGELOG_TOPIC_PREFIX='our facts': must be of letters"):
        load_settings()
    monkeypatch.setenv("REPORTING_CHANGELOG_TOPIC_PREFIX", "")
    assert load_settings().reporting_changelog_topic_prefix is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (PLAIN, "REPORTING_KAFKA_SASL_USERNAME is not set; REPORTING_KAFKA_SASL_MECHANISM=PLAIN needs it"),
        (PLAIN | {"SASL_USERNAME": "alice"}, "REPORTING_KAFKA_SASL_PASSWORD is not set"),
        (PLAIN | {"SASL_USERNAME": "alice", "SASL_PASSWORD": ""}, "REPORTING_KAFKA_SASL_PASSWORD is not set"),
        (PLAIN | USER | URL, "REPORTING_KAFKA_OAUTH_TOKEN_URL is set, but REPORTING_KAFKA_SASL_MECHANISM=PLAIN"),
        (USER, "REPORTING_KAFKA_SASL_PASSWORD is set, but REPORTING_KAFKA_SECURITY_PROTOCOL=PLAINTEXT knows no login"),
        (USER | {"SECURITY_PROTOCOL": "ssl"}, "REPORTING_KAFKA_SECURITY_PROTOCOL=SSL knows no login"),
        (OAUTH, "OAUTHBEARER needs either REPORTING_KAFKA_OAUTH_TOKEN_FILE or REPORTING_KAFKA_OAUTH_TOKEN_URL; none"),
        (OAUTH | URL | CLIENT | {"OAUTH_TOKEN_FILE": "token"}, "both are set"),
        (OAUTH | URL, "REPORTING_KAFKA_OAUTH_CLIENT_SECRET is not set"),
        (
            OAUTH | URL | CLIENT | USER,
            "REPORTING_KAFKA_SASL_USERNAME is set, but REPORTING_KAFKA_SASL_MECHANISM=OAUTHB",
        ),
        (OAUTH | {"OAUTH_TOKEN_FILE": "none"}, "REPORTING_KAFKA_OAUTH_TOKEN_FILE='none': there is no such file"),
        (OAUTH | CLIENT | {"OAUTH_TOKEN_URL": f"https://us:{SECRET}@login.example/"}, "without user or password"),
        (OAUTH | CLIENT | {"OAUTH_TOKEN_URL": f"file:///{SECRET}"}, "must be a URL that begins with https://"),
        ({"SSL_CA_FILE": "ca.pem"}, "REPORTING_KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not encrypt"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CA_FILE": "none"}, "REPORTING_KAFKA_SSL_CA_FILE='none': cannot be read"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_KEY_FILE": "key"}, "not REPORTING_KAFKA_SSL_CERT_FILE, its certificate"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CERT_FILE": "none"}, "REPORTING_KAFKA_SSL_CERT_FILE='none': cannot be read"),
    ],
)
def test_what_does_not_fit_together_is_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    assert words in refusal(monkeypatch, **variables)


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = refusal(monkeypatch, SECURITY_PROTOCOL="SASL_SSL", SSL_CA_FILE="none")
    assert len(words.splitlines()) == 3


def test_a_file_that_is_no_certificate_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no certificate")
    assert "must hold certificates, as PEM" in refusal(monkeypatch, SECURITY_PROTOCOL="SSL", SSL_CA_FILE=file)


def test_a_certificate_needs_its_own_key(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates, tmp_path: Path
) -> None:
    other = write_certificates(_made(tmp_path / "other"))
    files = {"SSL_CERT_FILE": certificates.client, "SSL_KEY_FILE": other.client}
    assert "a certificate and the key that belongs to it" in refusal(monkeypatch, SECURITY_PROTOCOL="SSL", **files)


def test_a_locked_key_needs_its_password(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates, tmp_path: Path
) -> None:
    key = load_pem_private_key(certificates.client.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    lock = BestAvailableEncryption(SECRET.encode())
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    files = {"SSL_CERT_FILE": certificates.client, "SSL_KEY_FILE": locked, "SECURITY_PROTOCOL": "SSL"}
    assert "a locked key needs REPORTING_KAFKA_SSL_KEY_PASSWORD" in refusal(monkeypatch, **files)
    assert "a locked key needs" in refusal(monkeypatch, **files, SSL_KEY_PASSWORD="wrong")
    assert load(monkeypatch, SSL_KEY_PASSWORD=SECRET).uses_tls


def test_host_names_are_checked_and_authorities_those_of_the_system_or_of_the_file(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    settings = load(monkeypatch, SECURITY_PROTOCOL="SSL", SSL_CERT_FILE=certificates.client)
    assert settings.tls_context().check_hostname
    ours = load(monkeypatch, SSL_CA_FILE=certificates.authority).tls_context()
    assert ours.check_hostname
    assert ours.cert_store_stats()["x509_ca"] == 1


def test_secrets_are_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **OAUTH, **URL, **CLIENT)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(access(settings))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
