"""Claims while the server's clock goes back, or seems to (design: promise 3)."""

import asyncpg
import pytest

from projector.claims import CLAIM_FRESH, FIND_BACKLOG
from tests.claimed import Clock, complete_ids, ids_of, settle, warmed
from tests.clocks import set_clock, shift_clock
from tests.obstacles import enqueue_tools, heard, opened, recorded


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_rows_are_found_at_once_when_the_server_s_clock_has_gone_back(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    await shift_clock(connection)
    await set_clock(connection, 3600)
    claimer = await warmed(connection, clock)
    await set_clock(connection, 0)
    for number in range(1, 4):
        rows = await enqueue_tools(connection, ["search"] * number)
        async with connection.transaction():
            assert await ids_of(connection, await claimer.claim(connection, 100)) == rows
            await complete_ids(connection, rows, [1.0])
        claimer.settled()


async def test_a_look_in_a_transaction_that_began_long_ago_is_no_clock_that_went_back(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    async with opened(database) as other, other.transaction():
        # Time has to pass in truth: a clock that is set takes a transaction's own time with it.
        await other.execute("SELECT pg_sleep(1.1)")
        await settle(connection, claimer, 100)
        with recorded(other) as statements:
            await claimer.claim(other, 100)
            await heard()
    # A clock that went back would make it sweep.
    assert CLAIM_FRESH in statements
    assert FIND_BACKLOG not in statements
