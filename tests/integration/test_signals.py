"""Signals until the very end, for each program that runs until one comes."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from tests.processes import daemon_settings, started

DAEMON = ("projector", ("run",), "projecting")
SERVICE = ("backfill_api", ("serve", "--insecure"), "serving")
ANYWHERE = {"reporting_api_host": "127.0.0.1", "reporting_api_port": "0"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(("module", "arguments", "at_work"), [DAEMON, SERVICE], ids=["daemon", "service"])
async def test_signals_until_the_very_end_do_not_take_its_exit_status_from_the_process(
    database: str, tmp_path: Path, number: signal.Signals, module: str, arguments: tuple[str, ...], at_work: str
) -> None:
    settings = daemon_settings(database) | ANYWHERE
    async with started(*arguments, folder=tmp_path, module=module, **settings) as process:
        await process.has_logged(at_work)
        while process.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.send(number)
            await asyncio.sleep(0.001)
        assert await process.end() in {0, 1}
