"""Several daemons or relays as processes of their own, which are killed, stopped and started again."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from tests.processes import Running, daemon_settings, started


class Fleet:
    """Daemons on one database. Used as a context; what still runs at its end is killed."""

    def __init__(self, dsn: str, folder: Path, **settings: str) -> None:
        """Args: dsn: of the database; folder: for their logs; settings: variables beside those of `daemon_settings`."""
        self.running: list[Running] = []
        self.all: list[Running] = []
        self._folder = folder
        self._settings = daemon_settings(dsn, **settings)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def start(self, count: int = 1, *arguments: str, projecting: bool = True, **settings: str) -> list[Running]:
        """Starts so many more; waits until they project, unless told not to.

        Args:
            count: how many.
            arguments: of the program; `run` by default.
            projecting: whether to wait until they are at work.
            settings: of these alone, stronger than those of all.
        """
        arguments = arguments or ("run",)
        new = [
            await self._stack.enter_async_context(started(*arguments, folder=self._folder, **self._settings | settings))
            for _ in range(count)
        ]
        self.running += new
        self.all += new
        if projecting:
            at_work = "relaying" if arguments == ("relay",) else "projecting"
            await asyncio.gather(*(daemon.has_logged(at_work) for daemon in new))
        return new

    async def kill(self, daemon: Running) -> None:
        """Kills one, as `kill -9` does."""
        self.running.remove(daemon)
        daemon.send(signal.SIGKILL)
        await daemon.end()

    async def stop(self, daemon: Running) -> int:
        """Stops one, as Kubernetes does; gives its exit status."""
        self.running.remove(daemon)
        daemon.send(signal.SIGTERM)
        return await daemon.end()

    async def stop_all(self) -> list[int]:
        """Stops those that run; gives their exit statuses."""
        return list(await asyncio.gather(*(self.stop(daemon) for daemon in list(self.running))))
