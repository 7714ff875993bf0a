"""Daemons that are frozen (SIGSTOP) at an instant at which their batches are under way."""

import asyncio
import signal
import time
from collections.abc import Sequence
from random import Random

import asyncpg

from projector.database import APPLICATION_NAME
from tests.processes import Running

# Whoever claims has a transaction id from then on; the gauges' sampler, which only reads, has none.
_BATCHES = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1 AND backend_xid IS NOT NULL AND query <> 'COMMIT'
"""
_LONGEST_PAUSE = 0.05
_PATIENCE_SECONDS = 30.0


def freeze(processes: Sequence[Running]) -> None:
    """Stops processes where they are."""
    for process in processes:
        process.send(signal.SIGSTOP)


def thaw(processes: Sequence[Running]) -> None:
    """Lets processes go on."""
    for process in processes:
        process.send(signal.SIGCONT)


async def batches_under_way(watcher: asyncpg.Connection) -> set[int]:
    """The server processes of the daemons' batches that have claimed rows and not yet begun to commit."""
    return {record["pid"] for record in await watcher.fetch(_BATCHES, APPLICATION_NAME)}


async def freeze_in_batch(daemons: Sequence[Running], watcher: asyncpg.Connection, random: Random) -> set[int]:
    """Freezes daemons, all that there are, at a random instant at which a batch is under way.

    Returns:
        The batches' server processes. A batch that is frozen can only be rolled back, or wait.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE))
        freeze(daemons)
        if batches := await batches_under_way(watcher):
            return batches
        thaw(daemons)
    raise AssertionError("no batch was ever under way")
