"""Claims what has been due for long: the sweep beside a feed that may lose rows (design: promise 7)."""

from datetime import datetime
from uuid import UUID

import asyncpg

from projector.outbox import ClaimedRows, claimed_rows
from projector.sqlfile import load_sql

CLAIM_OVERDUE = load_sql(__file__, "sql/claim_overdue.sql")

_BEFORE_ALL_IDS = UUID(int=0)


class Overdue:
    """One sweep's way through the rows that have been due for some time; after a rest it begins at the oldest again.

    Rows that a live feed is about to bring are left to it, so that the two do not meet.
    """

    exhausted = False

    def __init__(self, seconds: float) -> None:
        """Args: seconds: for how long rows have been due that it claims."""
        self._seconds = seconds
        self._at: datetime | None = None
        self._last_id = _BEFORE_ALL_IDS
        self.more = False

    async def claim(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims up to `limit` rows inside a transaction. The locks are the lease."""
        records = await connection.fetch(CLAIM_OVERDUE, limit, self._seconds, self._at, self._last_id)
        groups = claimed_rows(records)
        last = next(record for record in records if record["source_type"] is None)
        # Entries behind which it has come are not walked again within a sweep, however many are dead.
        self._at, self._last_id = last["at"], last["last_id"] or _BEFORE_ALL_IDS
        self.more = sum(map(len, groups)) == limit
        return groups

    def settled(self) -> None:
        """Tells that the batch was committed."""

    def given_up(self) -> None:
        """Tells that the batch was rolled back: its rows are claimed again."""
        self._at, self._last_id = None, _BEFORE_ALL_IDS
