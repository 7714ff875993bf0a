"""A bad network between daemons and database: nothing is lost, nothing is done twice (promises 1, 2, 3 and 9)."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Self

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.proxy import CommitFault, Link, Proxy
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened, wait_until

_DAEMONS = 2
_STATEMENT_SECONDS = 2.0
# When a statement that was lost on the way is given up: some seconds after the server should have ended it.
_GIVEN_UP_SECONDS = _STATEMENT_SECONDS + 5
# Rows that wait for facts which a lost transaction still holds are put off meanwhile.
_PUT_OFF_SECONDS = 30.0

_NEW_ONES_ARE_COMPLETED = "SELECT true FROM reporting_outbox WHERE status = 'completed' AND created_at > $1 LIMIT 1"
_OLD_ONES_ARE_COMPLETED = "SELECT count(*) = 0 FROM reporting_outbox WHERE status <> 'completed' AND created_at < $1"


class Stage:
    """Writers that write directly, and daemons that reach the database through the proxy alone."""

    def __init__(self, database: str, folder: Path, random: Random, **settings: str) -> None:
        self.database = database
        self.proxy = Proxy(database, random)
        self.writers = Writers(database, random)
        self.fleet: Fleet
        self._folder = folder
        self._settings = {"reporting_projector_limit": "20", "reporting_sample_interval_secs": "0.2", **settings}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.proxy)
        fleet = Fleet(self.proxy.dsn, self._folder, **self._settings)
        self.fleet = await self._stack.enter_async_context(fleet)
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(self.writers.run())
        self._stack.callback(self.writers.stop.set)
        await self.fleet.start(_DAEMONS)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def all_is_well(self) -> int:
        """The network has become good: everything settles, and is as it should be. Gives the outbox's rows."""
        self.writers.stop.set()
        await settled(self.database)
        assert await self.fleet.stop_all() == [0] * _DAEMONS
        return await verify(self.database)

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        async def come() -> bool:
            return condition()

        await wait_until(come, seconds)

    async def goes_on(self) -> float:
        """Waits until something is projected that is written from now on; gives the seconds that took."""
        return await self._until_found(_NEW_ONES_ARE_COMPLETED)

    async def completed(self) -> float:
        """Waits until all that is committed by now is projected; gives the seconds that took. The writers go on."""
        return await self._until_found(_OLD_ONES_ARE_COMPLETED)

    async def _until_found(self, query: str) -> float:
        began = time.monotonic()
        async with opened(self.database) as connection:
            now = await connection.fetchval("SELECT clock_timestamp()")

            async def found() -> bool:
                return bool(await connection.fetchval(query, now))

            await wait_until(found, 2 * (_GIVEN_UP_SECONDS + _PUT_OFF_SECONDS))
        return time.monotonic() - began


def _client_hears_an_end(link: Link) -> None:
    link.half_close(toward_client=True)


def _server_hears_an_end(link: Link) -> None:
    link.half_close(toward_client=False)


async def test_connections_that_are_cut_or_half_closed_lose_nothing(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random("cuts")
    cuts = chaos.times(300, 15)
    async with Stage(database, tmp_path, random) as stage:
        for _ in range(cuts):
            await asyncio.sleep(random.uniform(0, 0.15))
            stage.proxy.delay = random.choice([0, 0, 0.001, 0.01])
            if links := stage.proxy.links():
                random.choice([Link.cut, _client_hears_an_end, _server_hears_an_end])(random.choice(links))
        stage.proxy.delay = 0
        for link in stage.proxy.links():
            link.cut()
        record_property("all connections cut, until others go on", await stage.goes_on())
        assert await stage.all_is_well() > cuts


@pytest.mark.parametrize("retention", ["604800", "0"])
async def test_commits_whose_outcome_is_unknown_double_and_lose_nothing(
    chaos: Chaos, database: str, tmp_path: Path, retention: str
) -> None:
    random = chaos.random(f"commits {retention}")
    faults = [CommitFault.DROP, CommitFault.DROP_ANSWER]
    times = chaos.times(60, 4)
    async with Stage(database, tmp_path, random, reporting_outbox_retention_secs=retention) as stage:
        stage.proxy.on_commit = lambda: random.choices([CommitFault.PASS, *faults], [8, 1, 1])[0]
        await stage.until(lambda: all(stage.proxy.commits[fault] >= times for fault in faults))
        stage.proxy.on_commit = lambda: CommitFault.PASS
        left = await stage.all_is_well()
        assert left == 0 if retention == "0" else left > times


@pytest.mark.full_only
async def test_a_connection_that_falls_silent_is_given_up_when_the_statement_should_have_ended(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random("silence")
    settings = {"reporting_statement_timeout_secs": str(_STATEMENT_SECONDS)}
    async with Stage(database, tmp_path, random, **settings) as stage:
        for _ in range(2):
            await asyncio.sleep(random.uniform(0.2, 0.5))
            stage.proxy.silence()
            took = await stage.goes_on()
            record_property("silent connections, until others go on", took)
            assert took < 2 * _GIVEN_UP_SECONDS
            record_property("and all is done", await stage.completed())
        stage.proxy.on_commit = lambda: CommitFault.SILENCE
        await stage.until(lambda: stage.proxy.commits[CommitFault.SILENCE] >= 2 * _DAEMONS)
        stage.proxy.on_commit = lambda: CommitFault.PASS
        took = await stage.goes_on()
        record_property("silent commits, until others go on", took)
        assert took < 2 * _GIVEN_UP_SECONDS
        assert await stage.all_is_well() > 0


@pytest.mark.full_only
async def test_a_network_that_is_silent_for_longer_than_all_timeouts(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random("long silence")
    settings = {"reporting_statement_timeout_secs": str(_STATEMENT_SECONDS)}
    async with Stage(database, tmp_path, random, **settings) as stage:
        await asyncio.sleep(0.5)
        stage.proxy.silent = True
        stage.proxy.silence()
        await asyncio.sleep(2 * _GIVEN_UP_SECONDS)
        stage.proxy.silent = False
        record_property("silent network, after it ended", await stage.completed())
        assert await stage.all_is_well() > 0


@pytest.mark.full_only
async def test_what_arrives_long_after_it_was_given_up_changes_nothing(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = chaos.random("late")
    settings = {"reporting_statement_timeout_secs": str(_STATEMENT_SECONDS)}
    async with Stage(database, tmp_path, random, **settings) as stage:
        for _ in range(2):
            await asyncio.sleep(random.uniform(0.2, 0.5))
            stage.proxy.passes.clear()
            await asyncio.sleep(_GIVEN_UP_SECONDS + random.uniform(0, 2))
            stage.proxy.passes.set()
            record_property("stalled network, after it went on", await stage.completed())
        assert await stage.all_is_well() > 0
