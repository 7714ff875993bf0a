"""Columns that are missing or of another type at the start: it is told, nothing spins, the others go on (promise 3)."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from tests.chaos.fleet import Fleet
from tests.chaos.probes import is_ready, metrics, probe, says
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened, wait_until
from tests.processes import Running

# Neither column is one that the writers write.
_DRIFT = """
    ALTER TABLE llm_generations RENAME COLUMN finish_reason TO ending;
    ALTER TABLE usage_ledger ALTER COLUMN user_id TYPE text;
"""
_REPAIR = """
    ALTER TABLE llm_generations RENAME COLUMN ending TO finish_reason;
    ALTER TABLE usage_ledger ALTER COLUMN user_id TYPE uuid USING user_id::uuid;
"""
_OF_OTHERS = """
    SELECT count(*) FROM reporting_outbox WHERE status <> 'completed' AND source_type IN ('event', 'session')
"""
_PUT_OFF = """
    SELECT count(*) FROM reporting_outbox
    WHERE status = 'pending' AND next_attempt_at > now() AND source_type IN ('llm_generation', 'usage_ledger')
"""
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
_ERRORS_AT_THE_START, _ERRORS_A_SECOND = 8, 2
_LINES_A_SECOND = 2
_TRANSACTIONS_A_SECOND = 80
# Looked at every 5 seconds, and put off for half a minute.
_RECOVERS_WITHIN = 45.0


async def test_columns_that_drifted_are_told_and_stop_no_other_projection(
    chaos: Chaos, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with (
        ChaosServer() as server,
        Fleet(server.dsn, tmp_path) as fleet,
        opened(server.dsn) as connection,
    ):
        writers = Writers(server.dsn, chaos.random("writers of schema drift"))
        await connection.execute(_DRIFT)
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            (daemon,) = await fleet.start()
            await _told(daemon)
            await _does_not_spin(daemon, server, chaos.times(10, 1))
            writers.stop.set()
        await _others_settle(connection)
        assert await connection.fetchval(_PUT_OFF) > 0
        if chaos.full:
            await _rests(connection)
        repaired = time.monotonic()
        await connection.execute(_REPAIR)
        await is_ready(daemon)
        record_property("ready again", time.monotonic() - repaired)
        if not chaos.full:
            # Half a minute is too long for CI.
            await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() WHERE status = 'pending'")
        await settled(server.dsn)
        record_property("all settled", time.monotonic() - repaired)
        assert time.monotonic() - repaired < _RECOVERS_WITHIN
        assert len(daemon.logged("a projection does not fit the database")) == 2
        assert await fleet.stop_all() == [0]
        assert await verify(server.dsn) > 0


async def _told(daemon: Running) -> None:
    await says(
        daemon, '"projection llm_generation": "42703 UndefinedColumnError: a column is missing (g.finish_reason)'
    )
    _, body = await probe(daemon)
    assert '"projection usage_ledger": "42804 DatatypeMismatchError: a column has another type' in body
    assert "projection event" not in body
    assert "projection session" not in body
    samples = await metrics(daemon)
    fits = {name: samples["reporting_projector_projection_fits", name] for name in ("event", "llm_generation")}
    assert fits == {"event": 1, "llm_generation": 0}


async def _does_not_spin(daemon: Running, server: ChaosServer, seconds: int) -> None:
    """While rows keep coming, neither the server's log nor the daemon's fills."""
    lines = daemon.text().count("\n")
    await asyncio.sleep(seconds)
    assert daemon.text().count("\n") - lines <= _LINES_A_SECOND * seconds
    assert server.log.count("ERROR:") <= _ERRORS_AT_THE_START + _ERRORS_A_SECOND * seconds


async def _others_settle(connection: asyncpg.Connection) -> None:
    async def others_settled() -> bool:
        return bool(await connection.fetchval(_OF_OTHERS) == 0)

    await wait_until(others_settled)


async def _rests(connection: asyncpg.Connection) -> None:
    """When no rows come any more, the daemon does little more than to poll."""

    async def transactions() -> int:
        # Sessions tell what they have done once a second.
        await asyncio.sleep(1.2)
        return int(await connection.fetchval(_TRANSACTIONS))

    before, began = await transactions(), time.monotonic()
    assert (await transactions() - before) / (time.monotonic() - began) < _TRANSACTIONS_A_SECOND
