"""Waits for the client library, which waits for ever where the cluster is away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiokafka.errors import KafkaTimeoutError

# What is on its way when the process is told to stop has so long: all that waits in turn fits into the grace period.
_AFTER_STOP_SECONDS = 3.0
_END_SECONDS = 3.0

T = TypeVar("T")


async def within(seconds: float, stop: asyncio.Event, job: Coroutine[Any, Any, T]) -> T:
    """Awaits something for some seconds, and for a few at the most once `stop` is set; then cancels it.

    Raises:
        aiokafka.errors.KafkaTimeoutError: it has not come.
    """
    task, stopping = asyncio.create_task(job), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await asyncio.wait({task}, timeout=_AFTER_STOP_SECONDS)
        if not task.done():
            raise KafkaTimeoutError
        return task.result()
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Endings:
    """Clients that are being ended. Those that the cluster keeps waiting end beside, by their own timeouts."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def end(self, ending: Coroutine[Any, Any, object]) -> None:
        """Ends a client; waits a few seconds for it. What goes wrong with it concerns nobody any more."""
        task = asyncio.create_task(_quietly(ending))
        # The event loop alone would not keep it.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task}, timeout=_END_SECONDS)


async def _quietly(ending: Coroutine[Any, Any, object]) -> None:
    await asyncio.gather(ending, return_exceptions=True)
