"""How signals end a process that works until it is told to stop."""

import asyncio
import signal
from typing import Protocol

import structlog


class Program(Protocol):
    """What runs until a signal ends it."""

    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger

    async def run(self) -> int:
        """Works until `stop` is set; gives the process's exit status."""


async def run_until_signal(program: Program, *, stopping: str, at_once: str) -> int:
    """Runs a program until SIGTERM or SIGINT; a second signal stops it at once (status 1). The process must end then.

    Args:
        program: what to run.
        stopping: what to log at the first signal.
        at_once: what to log at the second.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(program.run())

    def on_signal(name: str) -> None:
        if program.stop.is_set():
            program.log.warning(at_once, signal=name)
            task.cancel()
            return
        program.log.info(stopping, signal=name)
        program.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        return await task
    except asyncio.CancelledError:
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # What is left is to leave: a signal that comes now must not take the exit status from the process.
            signal.signal(number, signal.SIG_IGN)
