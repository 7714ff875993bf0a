"""The daemon inside the test's own process: its settings, its log, its HTTP port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from projector.daemon import Daemon
from projector.registry import Registry
from projector.settings import Settings
from tests.obstacles import wait_until
from tests.roles import PROJECTOR, for_program


def settings_for(dsn: str, **overrides: Any) -> Settings:
    """Settings for a test's database: any free port, quick polls and samples, whatever a `.env` here may say."""
    values: dict[str, Any] = {
        "_env_file": None,
        "database_url": SecretStr(for_program(dsn, PROJECTOR)),
        "reporting_http_host": "127.0.0.1",
        "reporting_http_port": 0,
        "reporting_projector_interval_secs": 0.05,
        "reporting_sample_interval_secs": 0.1,
        "reporting_shutdown_grace_secs": 5,
    }
    return Settings(**(values | overrides))


def captured_log() -> tuple[structlog.stdlib.BoundLogger, LogCapture]:
    """A logger, and what was logged with it."""
    capture = LogCapture()
    log = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return cast("structlog.stdlib.BoundLogger", log), capture


@dataclass
class RunningDaemon:
    """A daemon at work."""

    daemon: Daemon
    task: asyncio.Task[int]
    capture: LogCapture

    async def get(self, path: str) -> tuple[int, str]:
        """Asks its port; gives status and body."""
        url = f"http://127.0.0.1:{self.daemon.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def ready(self) -> bool:
        """Whether it says that it is ready."""
        return (await self.get("/readyz"))[0] == 200

    def metric(self, name: str, **labels: str) -> float | None:
        """One value of its metrics."""
        return self.daemon.prometheus.get_sample_value(name, labels)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it logged in these words."""
        return [dict(entry) for entry in self.capture.entries if entry["event"] == event]

    async def has_logged(self, event: str, times: int = 1) -> None:
        """Waits for words in its log."""

        async def found() -> bool:
            return len(self.logged(event)) >= times

        await wait_until(found)


@asynccontextmanager
async def running(settings: Settings, registry: Registry) -> AsyncIterator[RunningDaemon]:
    """Runs a daemon, from when its port serves; at the end it is stopped as SIGTERM would stop it."""
    log, capture = captured_log()
    daemon = Daemon(settings, registry, log)
    task = asyncio.create_task(daemon.run())

    async def serves() -> bool:
        return daemon.port != 0 or task.done()

    try:
        await wait_until(serves)
        yield RunningDaemon(daemon, task, capture)
    finally:
        daemon.stop.set()
        await asyncio.wait_for(asyncio.wait([task]), settings.reporting_shutdown_grace_secs + 5)
        if not task.exception():
            task.result()
