"""Daemons and backfill API of a run, as processes that also end if the run itself is killed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import psutil

from tests.bench.load import Projecting, ending_with_us
from tests.chaos.service import Service, serving
from tests.processes import Running, daemon_settings, started

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Programs:
    """Two daemons and the service. The first daemon and the service live from begin to end, to show what grows.

    Attributes:
        lasting, replaceable: the daemons.
        service: the backfill API.
    """

    lasting: Running
    replaceable: Running
    service: Service

    def __init__(self, dsn: str, folder: Path, retention_seconds: int) -> None:
        """Args: dsn: of the database; folder: for their logs; retention_seconds: of completed rows."""
        self._folder, self._dsn = folder, dsn
        self._settings = daemon_settings(
            dsn, reporting_projector_interval_secs="5", reporting_outbox_retention_secs=str(retention_seconds)
        )
        self._stack = AsyncExitStack()
        self._completed: dict[int, int] = {}
        self._http: aiohttp.ClientSession

    async def start(self) -> None:
        """Starts all."""
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT))
        self.lasting = await self._start_daemon()
        self.replaceable = await self._start_daemon()
        self.service = await self._stack.enter_async_context(serving(self._folder, self._dsn))
        await self._stack.enter_async_context(ending_with_us(self.service.running))

    async def replace(self, number: signal.Signals) -> int:
        """Ends the second daemon by a signal, and starts another; gives the exit status."""
        self.replaceable.send(number)
        status = await self.replaceable.end()
        self.replaceable = await self._start_daemon()
        return status

    async def stop(self) -> list[int]:
        """Stops all, as Kubernetes does; gives their exit statuses."""
        every = (self.lasting, self.replaceable, self.service.running)
        for running in every:
            running.send(signal.SIGTERM)
        return list(await asyncio.gather(*(running.end() for running in every)))

    async def aclose(self) -> None:
        """Kills what still runs."""
        await self._stack.aclose()

    async def completed(self) -> int:
        """Rows that the daemons have completed. Of one that was killed counts what was last seen."""
        for daemon in (self.lasting, self.replaceable):
            if port := _port(daemon):
                projecting = Projecting(daemon, f"http://127.0.0.1:{port}/metrics", self._http)
                try:
                    self._completed[daemon.process.pid] = (await projecting.counted()).completed
                except RuntimeError:  # it is just starting, paused, or gone
                    continue
        return sum(self._completed.values())

    async def _start_daemon(self) -> Running:
        daemon = await self._stack.enter_async_context(started("run", folder=self._folder, **self._settings))
        await self._stack.enter_async_context(ending_with_us(daemon))
        return daemon


@asynccontextmanager
async def programs(dsn: str, folder: Path, retention_seconds: int) -> AsyncIterator[Programs]:
    """Runs them, from when both daemons project; what still runs at the end is killed."""
    running = Programs(dsn, folder, retention_seconds)
    try:
        await running.start()
        for daemon in (running.lasting, running.replaceable):
            await daemon.has_logged("projecting")
        yield running
    finally:
        await running.aclose()


def process_of(running: Running) -> psutil.Process:
    """What the system knows of it."""
    return psutil.Process(running.process.pid)


def _port(running: Running) -> int | None:
    for line in running.text().rpartition("\n")[0].splitlines():
        found = json.loads(line)
        if "port" in found:
            return int(found["port"])
    return None
