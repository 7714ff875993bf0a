"""The program as a process of its own: started, signalled, listened to."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from tests.obstacles import wait_until
from tests.roles import API, MIGRATE, PROJECTOR, for_program

ROOT = Path(__file__).parents[1]
LONGEST_RUN = 60.0


@dataclass(frozen=True)
class Finished:
    """What a process gave."""

    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """An environment with nothing of ours but these variables; names in any case."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)} | {name.upper(): value for name, value in variables.items()}


def _with_least_rights(module: str, arguments: Sequence[str], variables: dict[str, str]) -> dict[str, str]:
    """The variables with the user of the program that is started, where they name a test's database."""
    by_owner = arguments[:1] == ("migrate",) or arguments[:2] in {("changelog", "enable"), ("changelog", "disable")}
    user = API if module == "backfill_api" else MIGRATE if by_owner else PROJECTOR
    dsn = variables.get("database_url")
    return variables if dsn is None else variables | {"database_url": for_program(dsn, user)}


async def projector(*arguments: str, folder: Path, module: str = "projector", **variables: str) -> Finished:
    """Runs a command to its end, in a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=folder,
        env=environment(**_with_least_rights(module, arguments, variables)),
        stdin=DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), LONGEST_RUN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def projector_on_terminal(*arguments: str, folder: Path, **variables: str) -> Finished:
    """Runs a command to its end on a terminal of its own; `out` is all that the terminal was sent."""
    terminal, ours = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "projector", *arguments, cwd=folder,
        env=environment(TERM="xterm", COLUMNS="120", **_with_least_rights("projector", arguments, variables)),
        stdin=ours, stdout=ours, stderr=ours,
    )  # fmt: skip
    os.close(ours)
    try:
        sent = await asyncio.wait_for(asyncio.to_thread(_read_all, terminal), LONGEST_RUN)
        status = await process.wait()
    finally:
        os.close(terminal)
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(status, sent.decode(), "")


def _read_all(descriptor: int) -> bytes:
    read = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while more := os.read(descriptor, 65536):
            read += more
    return read


@dataclass
class Running:
    """A process that runs, with its output in a file."""

    process: asyncio.subprocess.Process
    output: Path

    def text(self) -> str:
        """All that it has written."""
        return self.output.read_text(encoding="utf-8")

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Its log lines with this message."""
        whole = self.text().rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, whole) if line["message"] == message]

    async def has_logged(self, message: str) -> None:
        """Waits for a line of its log."""
        await self.until(lambda: bool(self.logged(message)), f"no line {message!r} in the log")

    async def has_written(self, text: str) -> None:
        """Waits for a text in its output."""
        await self.until(lambda: text in self.text(), f"{text!r} was not written")

    async def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Waits for a condition while the process runs."""
        ended = False

        async def come() -> bool:
            nonlocal ended
            if condition():
                return True
            assert not ended, f"{otherwise}; the process ended:\n{self.text()}"
            ended = self.process.returncode is not None
            return False

        await wait_until(come, LONGEST_RUN)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal.

        Raises:
            ProcessLookupError: the process has ended.
        """
        # Not by the process's own method: it asks for the exit status first, and who waits for that gets none then.
        os.kill(self.process.pid, number)

    async def end(self, within: float = LONGEST_RUN) -> int:
        """Waits for its end; gives the exit status."""
        return await asyncio.wait_for(self.process.wait(), within)


@asynccontextmanager
async def started(*arguments: str, folder: Path, module: str = "projector", **variables: str) -> AsyncIterator[Running]:
    """Starts a command in a folder; kills it at the end if it still runs."""
    output = folder / f"output-{time.monotonic_ns()}"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, cwd=folder,
            env=environment(**_with_least_rights(module, arguments, variables)),
            stdin=DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield Running(process, output)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def daemon_settings(dsn: str, **overrides: str) -> dict[str, str]:
    """Variables for `projector run`: any free port, quick polls."""
    return {
        "database_url": dsn,
        "reporting_http_host": "127.0.0.1",
        "reporting_http_port": "0",
        "reporting_projector_interval_secs": "0.05",
        **overrides,
    }
