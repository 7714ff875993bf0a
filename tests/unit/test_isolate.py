"""Isolating bad rows: each is found, the others are projected once, and it takes few attempts."""

from random import Random

import asyncpg
import pytest

from projector.isolate import isolate
from projector.outbox import ClaimedRows


async def isolated(count: int, bad: set[int]) -> tuple[list[int], list[int], int]:
    """Isolates among so many rows; gives the bad ones, those that were projected, and how many attempts it took."""
    attempts = 0
    projected: list[int] = []
    found: list[int] = []

    async def attempt(rows: ClaimedRows) -> asyncpg.PostgresError | None:
        nonlocal attempts
        attempts += 1
        if bad & set(rows.org_ids):
            return asyncpg.CheckViolationError("no")
        projected.extend(rows.org_ids)
        return None

    rows = ClaimedRows(
        "event", False, True, [(0, n) for n in range(count)], range(count), [str(n) for n in range(count)]
    )
    async for row, error in isolate(rows, asyncpg.CheckViolationError("no"), attempt):
        assert isinstance(error, asyncpg.CheckViolationError)
        found.extend(row.org_ids)
    return found, projected, attempts


@pytest.mark.parametrize("seed", range(200))
async def test_bad_rows_are_found_and_the_others_are_projected_once(seed: int) -> None:
    random = Random(seed)
    count = random.randrange(1, 60)
    bad = set(random.sample(range(count), random.randrange(0, count + 1)))
    found, projected, _ = await isolated(count, bad)
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
