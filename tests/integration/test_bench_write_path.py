"""The ways that the bench's write path compares are what they are called."""

import asyncpg

from projector.migrate import set_notify_trigger
from tests.bench.write_path import BARE_OUTBOX, HISTORY, INDEXES
from tests.platform_rows import add_org


async def test_a_bare_outbox_keeps_its_primary_key_and_its_unique_key_alone(connection: asyncpg.Connection) -> None:
    ours = (await connection.fetch(INDEXES))[0]["indexes"]
    await connection.execute(BARE_OUTBOX)
    names = [
        record["kind"] for record in await connection.fetch("""
            SELECT contype::text AS kind FROM pg_constraint
            WHERE conrelid = 'reporting_outbox'::regclass AND conindid <> 0 AND contype IN ('p', 'u') ORDER BY contype
        """)
    ]  # fmt: skip
    bare = (await connection.fetch(INDEXES))[0]["indexes"]
    assert names == ["p", "u"]
    assert bare == len(names) < ours


async def test_the_trigger_is_counted_where_it_is_wanted(connection: asyncpg.Connection) -> None:
    assert (await connection.fetch(INDEXES))[0]["triggers"] == 0
    await set_notify_trigger(connection, wanted=True)
    assert (await connection.fetch(INDEXES))[0]["triggers"] == 1


async def test_the_history_is_completed_rows_alone(connection: asyncpg.Connection) -> None:
    for org_id in range(1, 21):
        await add_org(connection, org_id)
    await connection.execute(HISTORY, 40)
    counts = await connection.fetch("SELECT status, count(*) AS rows FROM reporting_outbox GROUP BY status")
    assert [tuple(record) for record in counts] == [("completed", 40)]
