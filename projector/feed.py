"""When the next batch is worth trying: polling that adapts, and wake-ups that shorten it.

Polling is what makes every row be found; a wake-up is a hint. While rows keep coming the next look follows at once.
After that the pause grows with the quiet: a tenth of it, up to a limit, so that a row waits at most about a tenth of
the quiet before it and an idle projector costs next to nothing. Idle workers take turns: one looks, the others rest.
"""

import asyncio
from collections.abc import Callable

_SHORTEST_PAUSE = 0.001
_SHARE_OF_QUIET = 0.1


class Feed:
    """Paces the workers of one process."""

    def __init__(self, longest_pause: float, clock: Callable[[], float]) -> None:
        """Args: longest_pause: seconds between two looks of an idle process; clock: monotonic seconds."""
        self._longest_pause = longest_pause
        self._clock = clock
        self._turn = asyncio.Lock()
        self._woken = asyncio.Event()
        self._last_rows = clock()
        self._pause_ends = self._last_rows
        self._closed = False

    def close(self) -> None:
        """Ends all pauses for good: the process stops."""
        self._closed = True
        self._woken.set()

    def found(self, *, more: bool) -> None:
        """Tells that a batch had rows; with `more`, that it was full and another worker should join in."""
        self._last_rows = self._clock()
        # A pause that began in the quiet before these rows would now be far too long.
        if more or self._pause_ends - self._last_rows > _SHORTEST_PAUSE:
            self.wake()

    def wake(self) -> None:
        """Ends the pause of the worker whose turn it is."""
        self._woken.set()

    def pause(self) -> float:
        """How long the next pause may last, in seconds."""
        quiet = self._clock() - self._last_rows
        return min(max(quiet * _SHARE_OF_QUIET, _SHORTEST_PAUSE), self._longest_pause)

    async def wait(self) -> None:
        """Waits for this worker's turn, then for a wake-up or the end of the pause."""
        async with self._turn:
            if self._closed:
                return
            pause = self.pause()
            self._pause_ends = self._clock() + pause
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                return
            if not self._closed:
                self._woken.clear()
