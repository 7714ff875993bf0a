"""Apache Kafka itself as one process: broker and controller (KRaft), small, on ports of its own."""

import base64
import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from projector.demo.companion import Companion, CompanionError, bare_environment, free_port
from tests.kafka.certificates import Certificates, write_certificates
from tests.kafka.jars import HERE, java

SUPER_USER, USER, OTHER_USER = "admin", "alice", "bob"
PASSWORDS = {SUPER_USER: "admin-secret", USER: "alice-secret", OTHER_USER: "bob-secret"}

_JVM = [
    "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m", "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
]  # fmt: skip
_START_SECONDS, _STOP_SECONDS, _TOOL_SECONDS, _START_ATTEMPTS = 90.0, 20.0, 60.0, 5

# One node that starts quickly, takes little memory, and lets tests see in seconds what else takes minutes.
SMALL = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # After a kill the controller waits this long for the old process before it lets the new one serve.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "400",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "1",
    "group.coordinator.threads": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.cleaner.io.buffer.size": "65536",
    "log.cleaner.backoff.ms": "200",
    "log.index.size.max.bytes": "1048576",
    "log.segment.delete.delay.ms": "1000",
}


class Listener(StrEnum):
    """How a client may connect. Each but the first is there on a secured broker only."""

    PLAINTEXT = "PLAINTEXT"
    SASL = "SASL_PLAINTEXT"  # PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER
    TLS = "SSL"  # asks for a client's certificate
    SASL_TLS = "SASL_SSL"  # the mechanisms of SASL


class ApacheBroker:
    """A broker that can be killed and started again on its data, on the same ports.

    Its methods block: a test whose clients run in the same event loop calls them by `asyncio.to_thread`.
    """

    def __init__(
        self, folder: Path, jars: Path, *, secured: bool = False, acls: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Prepares it; starts nothing.

        Args:
            folder: Made if absent; for data and logs.
            jars: The folder of `jars(BROKER_POM)`.
            secured: With all listeners, not only PLAINTEXT, and with the users of PASSWORDS.
            acls: Who is not the super user, or on the listener PLAINTEXT, may do what ACLs allow and no more.
            settings: Server settings by name, stronger than those of SMALL.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._jars, self._acls, self._settings = jars, acls, dict(settings or {})
        self._listeners = list(Listener) if secured else [Listener.PLAINTEXT]
        self.certificates: Certificates | None = write_certificates(folder) if secured else None
        self._ports: dict[str, int] = {}
        self._companion: Companion | None = None
        self._starts = 0

    @property
    def bootstrap(self) -> str:
        """The address without TLS or authentication; who comes there may do everything."""
        return self.address(Listener.PLAINTEXT)

    def address(self, listener: Listener) -> str:
        """The address of a listener, host:port."""
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def process_id(self) -> int:
        """Of the server."""
        assert self._companion is not None, "it does not run"
        return self._companion.process_id

    def start(self) -> None:
        """Starts it, on its data where there are any; returns when it serves.

        Raises:
            CompanionError: It does not start; with the last lines of its log.
        """
        assert self._companion is None, "it runs"
        first = self._starts == 0
        for attempts_left in reversed(range(_START_ATTEMPTS if first else 1)):
            if first:
                self._format()
            try:
                self._run()
            except CompanionError as error:
                # Another program may have taken a port since we looked.
                if "already in use" not in str(error) or not attempts_left:
                    raise
            else:
                return

    def kill(self) -> None:
        """Kills it, by a signal that it cannot handle."""
        self._end(grace_seconds=0)

    def shut_down(self) -> None:
        """Ends it as an operator would."""
        self._end(_STOP_SECONDS)

    def restart(self) -> None:
        """Kills it and starts it again on its data, at the same addresses."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Kills it if it runs, and removes its data."""
        if self._companion is not None:
            self.kill()
        shutil.rmtree(self.folder)

    def tool(self, main_class: str, *arguments: str) -> str:
        """Runs one of Kafka's own command classes; gives what it wrote."""
        command = [java(), *_JVM, "-XX:TieredStopAtLevel=1", "-cp", f"{self._jars}/*", main_class, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False, env=bare_environment()
        )
        if done.returncode != 0:
            raise CompanionError(f"{main_class} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def add_scram_user(self, name: str, password: str) -> None:
        """Adds a user, or changes a password, while it runs; for both SCRAM mechanisms."""
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            self.tool(
                "kafka.admin.ConfigCommand", "--bootstrap-server", self.bootstrap, "--alter",
                "--entity-type", "users", "--entity-name", name, "--add-config", f"{mechanism}=[password={password}]",
            )  # fmt: skip

    def _format(self) -> None:
        self._ports = {name: free_port() for name in (*self._listeners, "CONTROLLER")}
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        lines = [f"{name}={value}" for name, value in (self._all_settings() | {"log.dirs": str(data)}).items()]
        self._properties.write_text("\n".join(lines), encoding="utf-8")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [
            argument
            for name, password in (PASSWORDS.items() if self.certificates else ())
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        self.tool("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._properties), *users)

    def _run(self) -> None:
        self._starts += 1
        log = self.folder / f"server-{self._starts}.log"
        command = [java(), *_JVM, "-cp", f"{self._jars}/*", "kafka.Kafka", str(self._properties)]
        companion = Companion(command, log, bare_environment())
        companion.wait_until(lambda: "Kafka Server started" in log.read_text(errors="replace"), _START_SECONDS)
        self._companion = companion

    def _end(self, grace_seconds: float) -> None:
        assert self._companion is not None, "it does not run"
        self._companion.end(grace_seconds)
        self._companion = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _all_settings(self) -> dict[str, str]:
        names = (*self._listeners, "CONTROLLER")
        settings = SMALL | {
            "listeners": ",".join(f"{name}://127.0.0.1:{self._ports[name]}" for name in names),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in names
            ),
            "controller.quorum.voters": f"1@127.0.0.1:{self._ports['CONTROLLER']}",
        }
        if self.certificates is not None:
            settings |= _security(self.certificates)
        if self._acls:
            settings |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": f"User:{SUPER_USER};User:ANONYMOUS",
            }
        return settings | self._settings


def _security(certificates: Certificates) -> dict[str, str]:
    modules = "org.apache.kafka.common.security"
    users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
    logins = {
        "plain": f"{modules}.plain.PlainLoginModule required {users};",
        "scram-sha-256": f"{modules}.scram.ScramLoginModule required;",
        "scram-sha-512": f"{modules}.scram.ScramLoginModule required;",
        # Takes any token that says whom it is for and when it ends, signed by nobody.
        "oauthbearer": f'{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
    }
    listeners = (Listener.SASL, Listener.SASL_TLS)
    return {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        **{
            f"listener.name.{listener.lower()}.{mechanism}.sasl.jaas.config": login
            for listener in listeners
            for mechanism, login in logins.items()
        },
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority),
        "listener.name.ssl.ssl.client.auth": "required",
    }


@contextlib.contextmanager
def apache_broker(
    folder: Path, jars: Path, *, secured: bool = False, acls: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[ApacheBroker]:
    """Runs a broker for as long as the context lasts; removes its data."""
    broker = ApacheBroker(folder, jars, secured=secured, acls=acls, settings=settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
