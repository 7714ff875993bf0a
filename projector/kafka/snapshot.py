"""`projector changelog snapshot`: publishes all facts of a dataset, for a new consumer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from projector.database import Timeouts, acquire, operator_transaction, transaction
from projector.registry import Table
from projector.sqlfile import load_sql

SNAPSHOT = load_sql(__file__, "sql/snapshot.sql")
# Without statistics yet, another index and a sort of an org's facts would seem no dearer than the key.
KEEP_TO_THE_KEY = "SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off"
LEFT = load_sql(__file__, "sql/left.sql")
ESTIMATE = load_sql(__file__, "sql/estimate.sql")

_SLICE_FACTS = 1000
_MOST_WAITING = 50
_PAUSE_SECONDS = 0.2
_LOWEST_ORG = -(2**63)


@dataclass(slots=True)
class Snapshot:
    """Enqueues a dataset's facts as if they had just been changed, slice by slice in the order of the primary key.

    Whatever is written meanwhile is captured besides; so it does no harm to be ended anywhere, or run twice.

    Attributes:
        on_published: told how many facts were published since it was told last.
        slice_facts: how many facts a slice has.
    """

    pool: asyncpg.Pool
    timeouts: Timeouts
    table: Table
    on_published: Callable[[int], None]
    slice_facts: int = _SLICE_FACTS

    async def run(self) -> int:
        """Enqueues all, waits until they are published, gives how many there were.

        Raises:
            Exception: a fault of the database.
        """
        waiting: dict[int, int] = {}
        place, facts, more = (_LOWEST_ORG, ""), 0, True
        while more or waiting:
            if more and len(waiting) < _MOST_WAITING:
                record = await self._enqueue(place)
                more = record["facts"] == self.slice_facts
                if record["seq"] is not None:
                    place = (record["org_id"], record["source_key"])
                    waiting[record["seq"]] = record["facts"]
                    facts += record["facts"]
            else:
                await asyncio.sleep(_PAUSE_SECONDS)
            await self._forget_published(waiting)
        return facts

    async def _enqueue(self, place: tuple[int, str]) -> asyncpg.Record:
        async with acquire(self.pool) as connection, operator_transaction(connection, self.timeouts):
            await connection.execute(KEEP_TO_THE_KEY)
            statement = SNAPSHOT.format(table=self.table.name)
            record = await connection.fetchrow(statement, self.table.dataset, *place, self.slice_facts)
        assert record is not None
        return record

    async def _forget_published(self, waiting: dict[int, int]) -> None:
        async with acquire(self.pool) as connection, transaction(connection, self.timeouts):
            left = {record["seq"] for record in await connection.fetch(LEFT, list(waiting))}
        published = [seq for seq in waiting if seq not in left]
        if published:
            self.on_published(sum(waiting.pop(seq) for seq in published))


async def estimate_facts(connection: asyncpg.Connection, table: Table) -> int:
    """About how many facts a table has, by the server's statistics."""
    return int(await connection.fetchval(ESTIMATE, table.name))
