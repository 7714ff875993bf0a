"""Which rows of a set are bad: found with as few attempts as possible (design: promise 3)."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg

from projector.outbox import ClaimedRows

Attempt = Callable[[ClaimedRows], Awaitable[asyncpg.PostgresError | None]]
"""Projects rows as a set: gives None where that stands, or the error that undid all of it."""

_SOURCE_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def isolate(
    rows: ClaimedRows, error: asyncpg.PostgresError, attempt: Attempt
) -> AsyncIterator[tuple[ClaimedRows, asyncpg.PostgresError]]:
    """Projects all rows that can be, and gives each that cannot, alone, with its error.

    It walks the rows. Of a stretch that is known to fail the first bad row is found by halving: where the first half
    stands, the bad row is in the second, which need not be tried. What is behind it is tried as a stretch that is as
    long as the way was from one bad row to the next, and twice as long after each that stands. So the others are
    projected once, a bad row among a hundred costs some nine attempts, and rows that are all bad one each. Where an
    error quotes the fact that it refused, as those of constraints do, that row is tried first: about three attempts.

    Args:
        rows: of one projection, which failed as a set.
        error: with which they did.
        attempt: tries some of them.
    """
    begin, end, walked_from = 0, len(rows), 0
    found: asyncpg.PostgresError | None = error
    suspect = -1
    while begin < len(rows):
        # Here the rows from begin to end are known to fail, with `found` where that is known too.
        while end - begin > 1:
            if found is not None:
                suspect = _suspect(rows, begin, end, found)
            middle = _middle(begin, end, suspect)
            found = await attempt(rows.part(begin, middle))
            begin, end = (middle, end) if found is None else (begin, middle)
        if found is None:
            found = await attempt(rows.part(begin, end))
        if found is not None:
            yield rows.part(begin, end), found
        length, begin, walked_from = end - walked_from, end, end
        found = None
        while found is None and begin < len(rows):
            end = min(begin + length, len(rows))
            found = await attempt(rows.part(begin, end))
            if found is None:
                begin, length = end, length * 2


def _middle(begin: int, end: int, suspect: int) -> int:
    """Where to part a stretch: before the suspect, behind it where it comes first, or in the middle without one."""
    if suspect == begin:
        return begin + 1
    return suspect if begin < suspect < end else (begin + end) // 2


def _suspect(rows: ClaimedRows, begin: int, end: int, error: asyncpg.PostgresError) -> int:
    """Which row of a stretch an error's detail names by its source id; -1 for none. The text is never kept."""
    named = set(_SOURCE_ID.findall(getattr(error, "detail", None) or ""))
    return next((place for place in range(begin, end) if rows.source_ids[place] in named), -1) if named else -1
