"""Backfills over a network that loses commits: rows and audit agree, and calling again reaches everything."""

from random import Random

import asyncpg

from projector.batch import BatchRules
from tests.api import RunningApi, running_api
from tests.backfills import add_postings, assert_nothing_is_missing, drain
from tests.chaos.proxy import CommitFault, Proxy
from tests.chaos.share import Chaos
from tests.obstacles import wait_until

_LEDGER = {"source_types": ["usage_ledger"]}
_BACKFILL = "/v1/reports/admin/backfill"
_AUDITED = "SELECT COALESCE(sum(rows), 0) FROM reporting_actions"
_ENQUEUED = "SELECT count(*) FROM reporting_outbox"
_TWICE = "SELECT count(*) FROM (SELECT source_id FROM reporting_outbox GROUP BY source_id HAVING count(*) > 1) AS twice"


async def until_done(api: RunningApi, connection: asyncpg.Connection, limit: int) -> tuple[int, int]:
    """Calls until nothing is left; gives how many rows the answers told of, and how many calls failed."""
    told = failed = 0
    while True:
        answer = await api.post(_BACKFILL, {"limit": limit})
        assert await connection.fetchval(_AUDITED) == await connection.fetchval(_ENQUEUED)
        if answer.status == 200:
            told += answer.json["enqueued"]
            if not answer.json["enqueued"]:
                return told, failed
        else:
            # 409: the server has not noticed yet that the connection which holds the lock is gone.
            assert answer.status in {409, 503}, answer.json
            failed += 1


async def all_have_ended(connection: asyncpg.Connection) -> None:
    """No lock is left, and no action is said to run, but those whose end could not be recorded."""

    async def free() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"))

    await wait_until(free)


async def test_backfills_whose_commits_are_lost_on_the_way_reach_everything_once(
    chaos: Chaos, database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    random = chaos.random("backfills")
    sources, limit = chaos.times(20_000, 800), chaos.times(100, 50)
    await add_postings(connection, sources)
    async with Proxy(database, random) as proxy, running_api(proxy.dsn) as api:
        proxy.on_commit = lambda: _fate(random)
        told, failed = await until_done(api, connection, limit)
        proxy.on_commit = lambda: CommitFault.PASS
        assert (await api.post(_BACKFILL, {})).json["enqueued"] == 0
        await all_have_ended(connection)
    assert proxy.commits[CommitFault.DROP] > 0
    assert proxy.commits[CommitFault.DROP_ANSWER] > 0
    assert failed > 0
    assert told <= sources  # an answer that was lost on the way told nothing
    assert await connection.fetchval(_ENQUEUED) == sources
    assert await connection.fetchval(_AUDITED) == sources
    assert await connection.fetchval(_TWICE) == 0
    await drain(connection, rules)
    await assert_nothing_is_missing(connection)


def _fate(random: Random) -> CommitFault:
    return random.choices([CommitFault.PASS, CommitFault.DROP, CommitFault.DROP_ANSWER], [10, 1, 1])[0]


async def test_one_lost_answer_leaves_what_the_audit_says(database: str, connection: asyncpg.Connection) -> None:
    await add_postings(connection, 10)
    async with Proxy(database, Random(0)) as proxy, running_api(proxy.dsn) as api:
        proxy.on_commit = lambda: CommitFault.DROP_ANSWER
        assert (await api.post(_BACKFILL, {"limit": 4, **_LEDGER})).status == 503
        proxy.on_commit = lambda: CommitFault.PASS
        assert await connection.fetchval(_ENQUEUED) == 4
        latest = "SELECT rows, outcome FROM reporting_actions ORDER BY id DESC LIMIT 1"
        assert [tuple(record) for record in await connection.fetch(latest)] == [(4, "failed")]
        await all_have_ended(connection)
        assert (await api.post(_BACKFILL, {"limit": 10, **_LEDGER})).json["enqueued"] == 6
