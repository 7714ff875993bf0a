"""Daemons that are killed at any instruction: what they held is as it was, and others take it at once (promise 1)."""

import asyncio
from pathlib import Path

from tests.chaos.conftest import Chaos
from tests.chaos.fleet import Fleet
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers

_DAEMONS = 3


async def test_daemons_killed_at_random_instants_lose_nothing(chaos: Chaos, database: str, tmp_path: Path) -> None:
    random = chaos.random("kills")
    kills = chaos.times(120, 10)
    writers = Writers(database, chaos.random("writers of kills"))
    async with Fleet(database, tmp_path, reporting_projector_limit="20") as fleet, asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        await fleet.start(_DAEMONS)
        for _ in range(kills):
            await asyncio.sleep(random.uniform(0, 0.3))
            await fleet.kill(random.choice(fleet.running))
            await fleet.start(projecting=False)
        writers.stop.set()
        await settled(database)
        assert await fleet.stop_all() == [0] * _DAEMONS
    assert writers.committed > kills
    assert await verify(database) > kills
