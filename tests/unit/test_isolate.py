"""Isolating bad rows: each is found, the others are projected once, and it takes few attempts."""

from collections.abc import Callable
from random import Random
from uuid import UUID

import asyncpg
import pytest

from projector.isolate import isolate
from projector.outbox import ClaimedRows

Names = Callable[[list[int]], int]
"""Which row an error names, given the bad ones of an attempt."""


def refused(bad: list[int], names: Names | None) -> asyncpg.PostgresError:
    """An error, with a detail as constraints give it if it names a row."""
    error = asyncpg.CheckViolationError("no")
    if names and bad:
        error.detail = f"Failing row contains (event:{UUID(int=names(bad))}, 1, null)."
    return error


async def isolated(count: int, bad: set[int], names: Names | None = None) -> tuple[list[int], list[int], int]:
    """Isolates among so many rows; gives the bad ones, those that were projected, and how many attempts it took."""
    attempts = 0
    projected: list[int] = []
    found: list[int] = []

    async def attempt(rows: ClaimedRows) -> asyncpg.PostgresError | None:
        nonlocal attempts
        attempts += 1
        if its_bad := sorted(bad & set(rows.org_ids)):
            return refused(its_bad, names)
        projected.extend(rows.org_ids)
        return None

    rows = ClaimedRows(
        "event", False, True, [(0, n) for n in range(count)], range(count), [str(UUID(int=n)) for n in range(count)]
    )
    async for row, error in isolate(rows, refused(sorted(bad), names), attempt):
        assert isinstance(error, asyncpg.CheckViolationError)
        found.extend(row.org_ids)
    return found, projected, attempts


@pytest.mark.parametrize(
    "names",
    [None, min, max, lambda bad: bad[len(bad) // 2], lambda bad: bad[0] + 1, lambda bad: bad[0] // 2, lambda _: 10**6],
    ids=["nobody", "the first", "the last", "one", "the next", "another", "a stranger"],
)
@pytest.mark.parametrize("seed", range(100))
async def test_bad_rows_are_found_and_the_others_are_projected_once(seed: int, names: Names | None) -> None:
    random = Random(seed)
    count = random.randrange(1, 60)
    bad = set(random.sample(range(count), random.randrange(0, count + 1)))
    found, projected, _ = await isolated(count, bad, names)
    assert found == sorted(bad)
    assert sorted(projected) == [row for row in range(count) if row not in bad]


@pytest.mark.parametrize(
    ("count", "bad", "most"),
    [
        (1, {0}, 1), (64, {20}, 9), (64, set(range(64)), 70), (1000, set(), 11), (1000, {999}, 11),
        (1000, set(range(0, 1000, 100)), 100), (1000, set(range(0, 1000, 2)), 2500),
    ],
)  # fmt: skip
async def test_it_takes_few_attempts(count: int, bad: set[int], most: int) -> None:
    assert (await isolated(count, bad))[2] <= most


@pytest.mark.parametrize("names", [min, max])
async def test_where_errors_name_rows_it_takes_three_attempts_for_each(names: Names) -> None:
    bad = set(range(50, 4000, 100))
    _, _, attempts = await isolated(4000, bad, names)
    assert attempts <= 4 * len(bad)
    assert attempts < (await isolated(4000, bad))[2] / 2
