"""Daemons that are killed at any instruction: what they held is as it was, and others take it at once (promise 1)."""

import asyncio
import contextlib
import itertools
import signal
from pathlib import Path
from random import Random

from tests.chaos.audit import install_audit, verify_audit
from tests.chaos.fleet import Fleet
from tests.chaos.frozen import freeze_in_batch, thaw
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened
from tests.processes import Running

_DAEMONS = 3
# How many are killed at once, over and over: all of them now and then, as when their host dies.
_AT_ONCE = (3, 1, 2, 1)
_SIGNALS_PAUSE = 0.003


async def test_daemons_killed_in_the_midst_of_batches_lose_nothing(chaos: Chaos, database: str, tmp_path: Path) -> None:
    random = chaos.random("kills")
    kills = chaos.times(100, 6)
    cut = 0
    writers = Writers(database, chaos.random("writers of kills"))
    await install_audit(database)
    async with (
        opened(database) as watcher,
        Fleet(database, tmp_path, reporting_projector_limit="20") as fleet,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        await fleet.start(_DAEMONS)
        at_once = itertools.cycle(_AT_ONCE)
        while len(fleet.all) - _DAEMONS < kills:
            batches = await freeze_in_batch(fleet.running, watcher, random)
            victims = random.sample(fleet.running, next(at_once))
            for victim in victims:
                await fleet.kill(victim)
            cut += len(batches) if not fleet.running else 0
            thaw(fleet.running)
            await fleet.start(len(victims), projecting=False)
        writers.stop.set()
        await asyncio.gather(*(daemon.has_logged("projecting") for daemon in fleet.running))
        await settled(database)
        assert await fleet.stop_all() == [0] * _DAEMONS
    assert cut >= chaos.times(10, 1), "too few were killed in the midst of a batch, as far as that is certain"
    assert writers.committed > kills
    assert await verify(database) > kills
    await verify_audit(database)


async def test_storms_of_sigterm_end_daemons_in_order_and_lose_nothing(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    random = chaos.random("storms")
    writers = Writers(database, chaos.random("writers of storms"))
    await install_audit(database)
    async with Fleet(database, tmp_path, reporting_projector_limit="20") as fleet, asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        for _ in range(chaos.times(12, 1)):
            await fleet.start(_DAEMONS)
            starting = await fleet.start(random.randrange(2), projecting=False)
            sent = await _storm(fleet.running, random)
            for daemon in fleet.running:
                status = await daemon.end()
                before_it_listens = daemon in starting and not daemon.text()
                allowed = {-signal.SIGTERM} if before_it_listens else {0} if sent[id(daemon)] == 1 else {0, 1}
                assert status in allowed, f"{sent[id(daemon)]} signals, status {status}:\n{daemon.text()}"
            fleet.running.clear()
        writers.stop.set()
        await fleet.start()
        await settled(database)
        assert await fleet.stop_all() == [0]
    assert await verify(database) > 0
    await verify_audit(database)


async def _storm(daemons: list[Running], random: Random) -> dict[int, int]:
    """Sends each daemon one or several SIGTERMs, all in one another's way; gives how many, by the daemon's id()."""
    sent = {id(daemon): random.choice((1, 1, 2, 5)) for daemon in daemons}
    signals = [daemon for daemon in daemons for _ in range(sent[id(daemon)])]
    random.shuffle(signals)
    for daemon in signals:
        with contextlib.suppress(ProcessLookupError):  # it has ended before its last signal
            daemon.send(signal.SIGTERM)
        await asyncio.sleep(random.expovariate(1 / _SIGNALS_PAUSE))
    return sent
