"""Backfills by the hundred, without a database, and killed: nothing is half-enqueued, and all is on record."""

import asyncio
import signal
from pathlib import Path

import aiohttp

from tests.chaos.attacked import UNLIMITED, Attacked, attacked, doomed
from tests.chaos.enqueued import finish, verify_enqueued, write_sources
from tests.chaos.fleet import Fleet
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify


async def project(dsn: str, folder: Path) -> None:
    """What was enqueued is projected, and the facts are those of all sources."""
    async with Fleet(dsn, folder) as fleet:
        await fleet.start()
        await settled(dsn)
        assert await fleet.stop_all() == [0]
    await verify(dsn)


async def test_a_thousand_backfills_at_once_enqueue_everything_once(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    calls = chaos.times(1000, 200)
    orgs = await write_sources(database, chaos.random("sources of backfills"), 5, chaos.times(5000, 500))
    limits = {"reporting_api_org_actions_burst": str(calls // 8), "reporting_api_actions_burst": str(calls // 2)}
    async with attacked(tmp_path, database, **limits) as api:
        await asyncio.gather(*(api.backfill(orgs[number % len(orgs)], 200) for number in range(calls)))
        assert set(api.statuses) <= {200, 409, 429, 503}, api.statuses
        assert {200, 409, 429} <= set(api.statuses), api.statuses
        outcomes = await verify_enqueued(database)
        assert "running" not in outcomes
        assert outcomes["refused"] == api.statuses[409]
        assert sum(outcomes.values()) >= api.statuses[200] + api.statuses[409]
        assert sum(outcomes.values()) <= calls - api.statuses[429]
    async with attacked(tmp_path, database, **UNLIMITED) as api:
        await finish(api, orgs)
    await verify_enqueued(database)
    await project(database, tmp_path)


async def _call_on(api: Attacked, orgs: list[str], stop: asyncio.Event) -> None:
    """Backfills of one org after another, until told to stop."""
    while not stop.is_set():
        for org in orgs:
            await api.backfill(org, 1500)


async def test_the_database_goes_down_while_backfills_are_at_work(chaos: Chaos, tmp_path: Path) -> None:
    random = chaos.random("outages")
    loop = asyncio.get_running_loop()
    async with ChaosServer() as server:
        orgs = await write_sources(server.dsn, chaos.random("sources of outages"), 3, chaos.times(40_000, 4000))
        async with attacked(tmp_path, server.dsn, **UNLIMITED) as api:
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(_call_on(api, random.sample(orgs, len(orgs)), stop), name=f"caller {number}")
                for _ in range(chaos.times(8, 1)):
                    await asyncio.sleep(random.uniform(0.05, 0.6))
                    await server.down(random.choice([signal.SIGQUIT, signal.SIGINT]))
                    await asyncio.sleep(random.uniform(0, 0.5))
                    await server.up()
                    began = loop.time()
                    while (await api.request("GET", "/v1/reports/admin/diagnostics")).status != 200:
                        assert loop.time() - began < 20
                        await asyncio.sleep(0.02)
                stop.set()
            assert set(api.statuses) <= {200, 409, 503}, api.statuses
            assert api.statuses[503]
            await finish(api, orgs)
            unfinished = len(api.process.logged("an action's end was not recorded, its record stays `running`"))
        outcomes = await verify_enqueued(server.dsn)
        assert outcomes.get("running", 0) <= unfinished
        await project(server.dsn, tmp_path)


async def test_an_api_that_is_killed_has_enqueued_what_its_records_say(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    random = chaos.random("kills of the API")
    kills = chaos.times(20, 1)
    orgs = await write_sources(database, chaos.random("sources of killed APIs"), 3, chaos.times(20_000, 3000))
    for _ in range(kills):
        async with doomed(tmp_path, database, **UNLIMITED) as api:
            calls = [asyncio.create_task(api.backfill(org, 1500)) for org in orgs * 2]
            await asyncio.sleep(random.uniform(0, 0.2))
            api.process.send(signal.SIGKILL)
            ended = await asyncio.gather(*calls, return_exceptions=True)
        strange = [
            error for error in ended if isinstance(error, Exception) and not isinstance(error, aiohttp.ClientError)
        ]
        assert not strange, strange
    async with attacked(tmp_path, database, **UNLIMITED) as api:
        await finish(api, orgs)
    outcomes = await verify_enqueued(database)
    assert 0 < outcomes["running"] <= kills * len(orgs) * 2
    await project(database, tmp_path)
