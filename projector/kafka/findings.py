"""What `projector kafka check` finds, and how an error on the way into the cluster is explained."""

import shlex
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType

from aiokafka.errors import (
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from projector.kafka.errors import AccessError, describe_kafka
from projector.kafka.settings import KafkaSettings

# OpenSSL's reasons for which a certificate is not taken.
_EXPIRED, _WRONG_NAMES = 10, {62, 64}


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what was looked at.
        found: how it is, and why that matters.
        todo: what mends it; empty where nothing need be.
    """

    level: Level
    about: str
    found: str
    todo: str = ""


def not_reached(about: str, error: BaseException, settings: KafkaSettings) -> Finding:
    """Why a broker lets us not in."""
    return Finding(Level.ERROR, about, *_explain(error, settings))


def _explain(error: BaseException, settings: KafkaSettings) -> tuple[str, str]:
    protocol = settings.reporting_kafka_security_protocol
    if isinstance(error, AccessError):
        return error.words, "mend that, then check again"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error)
    if isinstance(error, ssl.SSLError | ConnectionResetError) and settings.uses_tls:
        return (
            "TLS does not come about: the listener may speak no TLS, or not take our certificate",
            f"check the port, REPORTING_KAFKA_SECURITY_PROTOCOL={protocol} and REPORTING_KAFKA_SSL_CERT_FILE",
        )
    hints: dict[type[BaseException] | UnionType, tuple[str, str]] = {
        socket.gaierror: ("the host name is not known here", "check the name, and the DNS of this host"),
        TimeoutError: ("no answer", f"check the address, the firewall, and whether the listener speaks {protocol}"),
        SaslAuthenticationFailed: (
            "the login was refused",
            "check user and password, or the token, and the user's entry in the cluster",
        ),
        UnsupportedSaslMechanismError: (
            f"the listener does not take {settings.reporting_kafka_sasl_mechanism}",
            "set REPORTING_KAFKA_SASL_MECHANISM to one that it takes",
        ),
        KafkaConnectionError | ConnectionResetError: (
            f"the connection was closed: the listener does not speak {protocol}, or wants a client's certificate",
            "check the port and REPORTING_KAFKA_SECURITY_PROTOCOL against the broker's listeners",
        ),
        OSError: ("nothing listens there, or no way leads there", "check the address, and the broker"),
    }
    other = (describe_kafka(error), "see the broker's log")
    return next((hint for kind, hint in hints.items() if isinstance(error, kind)), other)


def _explain_certificate(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    if error.verify_code in _WRONG_NAMES:
        return (
            "the broker's certificate is for another host name",
            "use a name that is in the certificate, or have one made with this name",
        )
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired", "have it renewed; else check the clock of this host"
    return (
        "the broker's certificate is of an authority that is not trusted here",
        "set REPORTING_KAFKA_SSL_CA_FILE to the certificates of the broker's authority",
    )


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands of Kafka's own tools, for who runs the cluster."""

    settings: KafkaSettings

    @property
    def _server(self) -> str:
        return f"--bootstrap-server {self.settings.reporting_kafka_bootstrap_servers.partition(',')[0]}"

    def allow(self, operation: str, *resource: str) -> str:
        """Adds an ACL, such as `allow("Read", "--topic", name)`."""
        user = self.settings.reporting_kafka_sasl_username or "USER"  # a certificate's or token's is not known here
        asked = shlex.join(["--allow-principal", f"User:{user}", "--operation", operation, *resource])
        return f"kafka-acls.sh {self._server} --add {asked}"

    def set_cleanup(self, topic: str, policy: str) -> str:
        """Changes a topic's cleanup policy."""
        asked = shlex.join(["--entity-type", "topics", "--entity-name", topic])
        return f"kafka-configs.sh {self._server} --alter {asked} --add-config cleanup.policy={policy}"

    def describe_topic(self, topic: str) -> str:
        """Shows where a topic's replicas are."""
        return f"kafka-topics.sh {self._server} --describe --topic {shlex.quote(topic)}"

    def add_partitions(self, topic: str, count: int) -> str:
        """Adds partitions to a topic."""
        return f"kafka-topics.sh {self._server} --alter --topic {shlex.quote(topic)} --partitions {count}"
