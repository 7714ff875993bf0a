"""Rows that messages have named, until batches have tried them."""

from collections.abc import Callable, Iterable
from uuid import UUID

import asyncpg

from projector import outbox
from projector.outbox import ClaimedRows

# How soon rows that somebody else held are claimed again: a relay's claim holds them for milliseconds.
AGAIN_SECONDS = 0.05


class NamedRows:
    """Gives one worker's batches the rows that messages have named, in their order.

    Rows that somebody else holds are not waited for: later ones go first, and those are claimed again a moment later.
    The message of a row does not come again, and without that nobody would look at the row before its lease ends.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: monotonic seconds."""
        self._clock = clock
        self._ids: list[UUID] = []
        self._at_work = 0
        self._passed_over: list[UUID] = []
        self._held: list[UUID] = []
        self._again_at = 0.0

    def __bool__(self) -> bool:
        """Whether there are rows to claim."""
        return bool(self._ids)

    @property
    def some_are_held(self) -> bool:
        """Whether there are rows to claim a moment later."""
        return bool(self._held)

    def add(self, ids: Iterable[UUID]) -> None:
        """Adds rows behind those that are there."""
        self._ids += ids

    def take_again(self) -> None:
        """Adds the rows that somebody else held, if their moment has come."""
        if self._held and self._clock() >= self._again_at:
            self._ids += self._held
            self._held = []

    async def claim(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims those of the next `limit` rows that are due or leased, inside a transaction."""
        some = self._ids[:limit]
        self._at_work, self._passed_over = len(some), []
        groups = await outbox.claim_ids(connection, some) if some else []
        if sum(map(len, groups)) < len(some):
            claimed = [tid for group in groups for tid in group.tids]
            self._passed_over = await outbox.find_held(connection, some, claimed)
        return groups

    def settled(self) -> None:
        """Tells that the batch was committed."""
        del self._ids[: self._at_work]
        self._at_work = 0
        if self._passed_over:
            self._held += self._passed_over
            self._passed_over = []
            self._again_at = self._clock() + AGAIN_SECONDS

    def given_up(self) -> None:
        """Tells that the batch was rolled back: its rows are claimed again."""
        self._at_work, self._passed_over = 0, []
