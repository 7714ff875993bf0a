"""Which due rows a worker claims next: fresh ones, then a backlog, org by org (design: promise 8).

Two lanes. A fresh row became due since the last look: such rows are claimed by themselves, in the order in which they
became due, so that live work waits for the batches that are under way and for nothing else. What has been due for
longer is a backlog: its orgs are known, take turns, and each goes on where its last claim ended. A sweep from the
bottom finds these orgs, now and then: rows that were committed late, those that were left by a process that died, and
whatever came faster than it was claimed. Where such a sweep is dear, what a look had to leave is gone on with, oldest
first, once no org is known to have a backlog. The first look, and the one after a sweep that found a backlog, is for
all rows of the last minute: such late ones do not queue behind their org's backlog, either.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from uuid import UUID

import asyncpg

from projector.outbox import ClaimedRows, claimed_rows
from projector.sqlfile import load_sql

CLAIM_FRESH = load_sql(__file__, "sql/claim_fresh.sql")
CLAIM_BACKLOG = load_sql(__file__, "sql/claim_backlog.sql")
FIND_BACKLOG = load_sql(__file__, "sql/find_backlog.sql")

# How far a look reaches back behind the last one: rows become due when their transactions begin, and are there when
# these commit. Most looks reach back a little; every so many seconds one reaches further. Sweeps find the rest.
_REACH = timedelta(seconds=0.025)
_FURTHER = (
    (timedelta(seconds=0.2), 0.05),
    (timedelta(seconds=2), 1.0),
    (timedelta(seconds=20), 10.0),
)
# Looks of several workers may end out of order, but not by so much: then the server's clock was set.
_CLOCK_WENT_BACK = timedelta(seconds=1)
_BEFORE_ALL_ORGS = -(2**63)
_BEFORE_ALL_IDS = UUID(int=0)
_ORGS_OF_A_SWEEP = 1000
_ROWS_FOR_EACH_ORG = 4
_SWEEP_SECONDS = 1.0
# A sweep walks whatever a long transaction elsewhere keeps from vacuum: it takes a fiftieth of the time at the most.
_SWEEP_SHARE = 0.02


@dataclass(slots=True)
class Place:
    """Where in an org's backlog the next claim goes on: with this row, if it still waits; `turn` orders the orgs."""

    org_id: int
    at: datetime
    id: UUID
    turn: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """The last row of a look that took as many as it could: what is behind it may be due as well."""

    at: datetime
    id: UUID


class Backlog:
    """What the workers of one process know of due rows; they share it."""

    def __init__(self, clock: Callable[[], float], *, exact: bool = False) -> None:
        """Args: clock: monotonic seconds; exact: whether none is due only where sweeps through all orgs find none."""
        self.exact = exact
        self.workers = 0
        self._clock = clock
        # The last look at fresh rows, by the server's clock; None where the next one is for all of the last minute.
        self._looked_at: datetime | None = None
        # What time the server told last: a transaction's own, which looks go by, stands still while it sweeps.
        self._told_at: datetime | None = None
        self._left: _Left | None = None
        self._places: dict[int, Place] = {}
        self._holders: Counter[int] = Counter()
        self._turn = 0
        # The org after which a sweep goes on; None where the last one has come to the end.
        self._ring_at: int | None = None
        self._sweep_at = clock()
        self._further_at = [self._sweep_at + every for _, every in _FURTHER]
        self._sweep_is_dear = False

    @property
    def is_known(self) -> bool:
        """Whether any org is known to have a backlog, or rows were left by a look."""
        return bool(self._places) or self._left is not None

    @property
    def sweep_is_due(self) -> bool:
        """Whether it is time for a sweep."""
        return self._clock() >= self._sweep_at

    @property
    def sweep_is_open(self) -> bool:
        """Whether the last sweep has left orgs for the next one."""
        return self._ring_at is not None

    def forget(self) -> None:
        """Makes a sweep from the bottom come next: rows may have been left behind the places that are known."""
        self._looked_at = self._left = None
        self._places = {}
        self._ring_at = _BEFORE_ALL_ORGS
        self._sweep_at = self._clock()

    async def sweep(self, connection: asyncpg.Connection) -> None:
        """Looks at the next so many orgs that have rows, in the order of their ids, which of them have due ones."""
        began, left = self._clock(), self._left
        # Until this one ends nobody else begins one; where it fails, the batch is given up, and another comes at once.
        self._sweep_at = inf
        after = _BEFORE_ALL_ORGS if self._ring_at is None else self._ring_at
        found = await connection.fetch(FIND_BACKLOG, after, _ORGS_OF_A_SWEEP)
        self._places = {
            record["org_id"]: Place(record["org_id"], record["next_attempt_at"], record["id"])
            for record in found
            if record["is_due"]
        }
        self._ring_at = max(record["org_id"] for record in found) if len(found) == _ORGS_OF_A_SWEEP else None
        if after == _BEFORE_ALL_ORGS and not self.sweep_is_open and self._left is left:
            self._left = None
        if any(record["is_old"] for record in found):
            self._looked_at = None
        now = self._clock()
        pause = (now - began) / _SWEEP_SHARE
        self._sweep_is_dear = pause > _SWEEP_SECONDS
        self._sweep_at = now + max(_SWEEP_SECONDS, pause)

    async def claim_fresh(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims rows that became due since the last look."""
        began, last = self._clock(), self._looked_at
        since = last and last - self._reach(began)
        groups, look, left = await _look(connection, limit, since, _BEFORE_ALL_IDS)
        if last is None:
            self._sweep_at += (self._clock() - began) / _SWEEP_SHARE
        told_before, self._told_at = self._told_at, look["told_at"]
        if last is not None and told_before is not None and look["told_at"] < told_before - _CLOCK_WENT_BACK:
            # The server's clock was set, or this is another server: looks from the old place on would find nothing.
            self.forget()
        else:
            self._looked_at = max(look["looked_at"], last or look["looked_at"])
        if left is not None:
            # What is left belongs to the backlog, where orgs take turns, if a sweep is cheap enough to find them now.
            if not self._places and not self._sweep_is_dear:
                self._sweep_at = self._clock()
            # A new object, even for the old place: who goes on from there right now has not seen what this look left.
            self._left = replace(self._left) if self._left else left
        return groups

    def _reach(self, now: float) -> timedelta:
        """How far the look that begins now reaches back."""
        reach = _REACH
        for level, (further, every) in enumerate(_FURTHER):
            if now >= self._further_at[level]:
                reach, self._further_at[level] = further, now + every
        return reach

    async def claim_left(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims rows that looks have left, oldest first."""
        if self._left is None:
            return []
        left = self._left
        groups, _, following = await _look(connection, limit, left.at, left.id)
        if self._left is left:
            self._left = following
        return groups

    def take(self, limit: int) -> list[Place]:
        """Whose turn it is in a claim of so many rows: orgs that no other worker is at, if there are any."""
        free = [place for place in self._places.values() if not self._holders[place.org_id]]
        places = sorted(free or self._places.values(), key=lambda place: place.turn)
        # Rounded down: the last of many workers finds an org that no other is at.
        share = max(len(self._places) // max(self.workers, 1), 1)
        taken = places[: min(share, max(limit // _ROWS_FOR_EACH_ORG, 1))]
        self._turn += 1
        for place in taken:
            place.turn = self._turn
            self._holders[place.org_id] += 1
        return taken

    def give_back(self, org_ids: list[int]) -> None:
        """Ends the turn of orgs: their batch has ended."""
        self._holders.subtract(org_ids)
        self._holders += Counter()

    async def claim_from(self, connection: asyncpg.Connection, limit: int, places: list[Place]) -> list[ClaimedRows]:
        """Claims rows of some orgs, of each an equal share from its place on; an org that has no more is forgotten."""
        share = limit // len(places)
        records = await connection.fetch(
            CLAIM_BACKLOG, share,
            [place.org_id for place in places], [place.at for place in places], [place.id for place in places],
        )  # fmt: skip
        last = {record["org_ids"][0]: record for record in records if record["source_type"] is None}
        for place in places:
            record = last.get(place.org_id)
            if record is not None and record["found"] == share:
                place.at, place.id = record["at"], record["last_id"]
            elif self._places.get(place.org_id) is place:
                del self._places[place.org_id]
        return claimed_rows(records)


async def _look(
    connection: asyncpg.Connection, limit: int, at: datetime | None, after: UUID
) -> tuple[list[ClaimedRows], asyncpg.Record, _Left | None]:
    """Claims rows behind a place; gives also the record of the look, and what was left if the limit ended it."""
    records = await connection.fetch(CLAIM_FRESH, limit, at, after)
    groups = claimed_rows(records)
    look = next(record for record in records if record["source_type"] is None)
    is_full = sum(map(len, groups)) == limit
    return groups, look, _Left(look["at"], look["last_id"]) if is_full else None


class Claimer:
    """One worker's way through the due rows."""

    def __init__(self, backlog: Backlog) -> None:
        """Args: backlog: what it shares with the other workers of the process."""
        self._backlog = backlog
        self._held: list[int] = []
        self._was_fresh = False
        backlog.workers += 1

    @property
    def more(self) -> bool:
        """Whether a backlog is known: there is more to claim."""
        return self._backlog.is_known

    @property
    def exhausted(self) -> bool:
        """Never: only a look tells whether more has become due."""
        return False

    async def claim(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims up to `limit` due rows inside a transaction. The locks are the lease.

        Returns:
            The rows; none where none was found that nobody else held.
        """
        if self._backlog.sweep_is_due:
            await self._backlog.sweep(connection)
        # Neither lane goes twice in a row while the other has rows: fresh rows do not starve a backlog.
        lanes = (
            (self._claim_backlog, self._claim_fresh) if self._was_fresh else (self._claim_fresh, self._claim_backlog)
        )
        for lane in lanes:
            if groups := await lane(connection, limit):
                return groups
        if self._backlog.exact:
            self._backlog.forget()
        while self._backlog.sweep_is_open:
            await self._backlog.sweep(connection)
            if groups := await self._claim_backlog(connection, limit):
                return groups
        return []

    def settled(self) -> None:
        """Tells that the batch was committed."""
        self._backlog.give_back(self._held)
        self._held = []

    def given_up(self) -> None:
        """Tells that the batch was rolled back: its rows are due again, behind the places that are known."""
        self.settled()
        self._was_fresh = False
        self._backlog.forget()

    async def _claim_fresh(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        groups = await self._backlog.claim_fresh(connection, limit)
        self._was_fresh = bool(groups)
        return groups

    async def _claim_backlog(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        self._was_fresh = False
        groups: list[ClaimedRows] = []
        left = limit
        # Orgs that had little leave room for others; half a batch is enough.
        while left > limit // 2 and (places := self._backlog.take(left)):
            self._held += [place.org_id for place in places]
            found = await self._backlog.claim_from(connection, left, places)
            groups += found
            left -= sum(map(len, found))
        return groups or await self._backlog.claim_left(connection, limit)


async def claim(connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
    """Claims due rows as a worker does that has seen nothing yet."""
    return await Claimer(Backlog(lambda: 0.0, exact=True)).claim(connection, limit)
