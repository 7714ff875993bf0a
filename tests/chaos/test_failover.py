"""The database's address leads to a standby, which only answers reads, and back (promise 9)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.chaos.probes import is_ready, says
from tests.chaos.recovery import projects_again
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.switch import Switch, standby_of
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers

_RECOVERS_WITHIN = 15.0


async def test_the_address_leads_to_a_standby_and_back(
    chaos: Chaos, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random("failovers")
    took = []
    async with (
        ChaosServer() as primary,
        standby_of(primary.server) as standby,
        Switch(primary.server.port) as switch,
        Fleet(switch.dsn(primary.dsn), tmp_path) as fleet,
    ):
        writers = Writers(primary.dsn, chaos.random("writers of failovers"))
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            (daemon,) = await fleet.start()
            for number in range(chaos.times(6, 2)):
                await asyncio.sleep(random.uniform(0.1, 1))
                switch.target = standby
                await switch.cut()
                await says(daemon, "read-only")
                switch.target = primary.server.port
                if number % 2:
                    # As where the standby was reached by a name: nothing ends what is connected to it.
                    await switch.cut()
                took.append(await projects_again(primary.dsn))
                await is_ready(daemon)
            writers.stop.set()
        await settled(primary.dsn)
        # A daemon may as well come up while the address leads to the standby.
        switch.target = standby
        await switch.cut()
        (late,) = await fleet.start()
        await says(late, "read-only")
        switch.target = primary.server.port
        await is_ready(late)
        assert await fleet.stop_all() == [0, 0]
        assert await verify(primary.dsn) > 0
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN
