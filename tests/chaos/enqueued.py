"""Sources whose outbox rows were never written, and what backfills must have made of them: all, once, and on record."""

import asyncio
from random import Random

import asyncpg

from tests.api import public_id
from tests.backfills import add_postings
from tests.chaos.attacked import Attacked
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened

_WRITING_SECONDS = 1.0
_FINISHING_SECONDS = 120.0
_TWICE = """
    SELECT org_id, source_type, source_id
    FROM reporting_outbox
    GROUP BY org_id, source_type, source_id
    HAVING count(*) > 1
"""
_RECORDED = "SELECT outcome, count(*), sum(rows)::bigint AS rows FROM reporting_actions GROUP BY outcome"


async def write_sources(dsn: str, random: Random, orgs: int, postings: int) -> list[str]:
    """Writers write for a moment, each org gets so many postings, the outbox loses all; gives the orgs' public ids."""
    writers = Writers(dsn, random, Pace(writers=orgs, orgs=orgs))
    async with asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        await asyncio.sleep(_WRITING_SECONDS)
        writers.stop.set()
    async with opened(dsn) as connection:
        for org_id in range(1, orgs + 1):
            await add_postings(connection, postings, org_id)
        await connection.execute("TRUNCATE reporting_outbox")
    return [public_id(org_id) for org_id in range(1, orgs + 1)]


async def finish(api: Attacked, orgs: list[str]) -> None:
    """Calls for each org until nothing is left, as `projector backfill --until-done` does."""

    async def finish_one(org: str) -> None:
        while True:
            answer = await api.backfill(org, 10_000)
            if answer.status == 200 and answer.json["enqueued"] == 0:
                return
            if answer.status != 200:
                await asyncio.sleep(0.1)

    async with asyncio.timeout(_FINISHING_SECONDS):
        await asyncio.gather(*(finish_one(org) for org in orgs))


async def verify_enqueued(dsn: str) -> dict[str, int]:
    """No source was enqueued twice, and the audit has every enqueued row; gives the audit's records by outcome.

    Whether all sources were enqueued is what `verify` tells, once they are projected.
    """
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetch(_TWICE) == []
        records = await connection.fetch(_RECORDED)
        rows = await connection.fetchval("SELECT count(*) FROM reporting_outbox")
        assert sum(record["rows"] for record in records) == rows
        assert rows
        return {record["outcome"]: record["count"] for record in records}
    finally:
        await connection.close()
