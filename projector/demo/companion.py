"""Servers that run beside us as processes of their own: started, watched, and ended at the latest when we end."""

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

# Below the ports that the kernel gives to outgoing connections: there a client that calls a server which is just
# being restarted may be given the server's own port, and then is connected with itself.
_PORTS = range(20_000, 32_000)
_POLL_SECONDS, _KILLED_SECONDS, _PORT_ATTEMPTS = 0.01, 5.0, 100
# Its input ends when our process is killed. (The kernel's parent-death signal also fires when just the thread that
# started the server ends.)
_WATCHDOG = 'read -r line; kill -KILL "$0"'


class CompanionError(Exception):
    """A server cannot be started; the message says what happened and what to do."""


class Companion:
    """A running server."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            log: Gets all that it writes; overwritten.
            environment: Of the server, in place of ours.

        Raises:
            CompanionError: The program cannot be run.
        """
        self.log = log
        try:
            with log.open("wb") as output:
                self._server = Popen(  # noqa: S603 - no shell; our own programs and arguments
                    command,
                    stdin=DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # a terminal's Ctrl-C must not come before its clients have left it
                )
        except OSError as error:
            raise CompanionError(f"Cannot run {command[0]}: {error}.") from error
        self._watchdog = Popen(  # noqa: S603 - no shell input but a process id
            ["/bin/sh", "-c", _WATCHDOG, str(self._server.pid)], stdin=PIPE, start_new_session=True
        )

    @property
    def process_id(self) -> int:
        """Of the server."""
        return self._server.pid

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._server.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it is ready; end it if it is not in time.

        Raises:
            CompanionError: It has ended, or is not ready in time; with the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.runs() or time.monotonic() > deadline:
                event = f"was not ready after {seconds:.0f} s" if self.runs() else "ended while starting"
                self.end(grace_seconds=0)
                raise CompanionError(f"The server {event}. The last lines of {self.log}:\n{self._last_lines()}")
            time.sleep(_POLL_SECONDS)

    def end(self, grace_seconds: float) -> None:
        """Ask it to end, kill it if it does not in time (at once where there is none), and wait for its end."""
        # The watchdog first: once the server is waited for, its process id may become somebody else's.
        self._watchdog.kill()
        self._watchdog.communicate()
        self._server.send_signal(signal.SIGTERM if grace_seconds else signal.SIGKILL)
        try:
            self._server.wait(grace_seconds or _KILLED_SECONDS)
        except TimeoutExpired:
            self._server.kill()
            self._server.wait(_KILLED_SECONDS)

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no server has now and that no client is given by chance.

    Raises:
        CompanionError: None is found.
    """
    for _ in range(_PORT_ATTEMPTS):
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise CompanionError(f"No free TCP port from {_PORTS.start} to {_PORTS.stop}.")


def answers(port: int) -> bool:
    """Whether a server on 127.0.0.1 takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bare_environment() -> dict[str, str]:
    """Return what a server needs of our environment: none of our settings, nothing secret."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "JAVA_HOME") if name in os.environ}
