"""PostgreSQL crashes, loses single backends, or takes no more connections: no row pays (promises 1, 3 and 9)."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from projector.database import APPLICATION_NAME
from tests.chaos.fleet import Fleet
from tests.chaos.probes import is_ready, says
from tests.chaos.recovery import projects_again
from tests.chaos.servers import ChaosServer
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Writers
from tests.obstacles import opened

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
_RECOVERS_WITHIN = 15.0
_ROLE = "chaos_projector"
_LIMIT = 6

Record = Callable[[str, object], None]


async def test_postgresql_crashes_under_load_and_no_row_pays(
    chaos: Chaos, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("crashes")
    crashes = chaos.times(12, 2)
    took = []
    async with ChaosServer() as server, Fleet(server.dsn, tmp_path) as fleet:
        writers = Writers(server.dsn, chaos.random("writers of crashes"))
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            await fleet.start(2)
            for _ in range(crashes):
                await asyncio.sleep(random.uniform(0.2, 1))
                await server.down()
                await asyncio.sleep(random.uniform(0, 0.5))
                await server.up()
                took.append(await projects_again(server.dsn))
            writers.stop.set()
        await settled(server.dsn)
        assert await fleet.stop_all() == [0, 0]
        assert writers.faults > 0
        assert await verify(server.dsn) > crashes
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN


async def test_backends_terminated_at_random_instants_cost_no_row_anything(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Record
) -> None:
    random = chaos.random("terminated backends")
    wanted = chaos.times(400, 25)
    terminated = 0
    writers = Writers(database, chaos.random("writers of terminated backends"))
    async with Fleet(database, tmp_path, reporting_projector_limit="20") as fleet, asyncio.TaskGroup() as group:
        group.create_task(writers.run())
        await fleet.start(2)
        async with opened(database) as killer:
            while terminated < wanted:
                await asyncio.sleep(random.expovariate(20))
                backends = [record["pid"] for record in await killer.fetch(_BACKENDS, APPLICATION_NAME)]
                # Most often one, now and then all at once.
                chosen = backends if random.random() < 0.1 else backends[:1] and [random.choice(backends)]
                for backend in chosen:
                    terminated += await killer.fetchval("SELECT pg_terminate_backend($1)", backend)
        record_property("normal again", await projects_again(database))
        writers.stop.set()
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    assert await verify(database) > wanted


async def _as_role(dsn: str) -> str:
    """The DSN of a role that may do all on the tables, but is no superuser: those no connection limit holds back."""
    async with opened(dsn) as connection:
        await connection.execute(f"""
            DROP ROLE IF EXISTS {_ROLE};
            CREATE ROLE {_ROLE} LOGIN PASSWORD '{_ROLE}' CONNECTION LIMIT {_LIMIT};
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {_ROLE};
        """)
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{_ROLE}:{_ROLE}@{parts.hostname}:{parts.port}").geturl()


async def test_the_connection_limit_is_reached_and_freed(
    chaos: Chaos, database: str, tmp_path: Path, record_property: Record
) -> None:
    rounds = chaos.times(6, 1)
    dsn = await _as_role(database)
    writers = Writers(database, chaos.random("writers of connection limits"))
    took = []
    try:
        async with Fleet(dsn, tmp_path) as fleet, asyncio.TaskGroup() as group, opened(database) as killer:
            group.create_task(writers.run())
            (daemon,) = await fleet.start()
            for _ in range(rounds):
                async with AsyncExitStack() as others:
                    taken = await _take_all(dsn, killer, others)
                    await says(daemon, "53300 TooManyConnectionsError")
                    assert taken == _LIMIT
                took.append(await projects_again(database))
                await is_ready(daemon)
            writers.stop.set()
            await settled(database)
            assert await fleet.stop_all() == [0]
        assert await verify(database) > rounds
    finally:
        async with opened(database) as connection:
            await connection.execute(f"DROP OWNED BY {_ROLE}; DROP ROLE {_ROLE}")
    record_property("normal again", max(took))
    assert max(took) < _RECOVERS_WITHIN


async def _take_all(dsn: str, killer: asyncpg.Connection, others: AsyncExitStack) -> int:
    """Somebody takes each connection of the role, and the daemon's own are lost; gives how many were taken."""
    taken = 0
    while taken < _LIMIT:
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name = $2",
            _ROLE, APPLICATION_NAME,
        )  # fmt: skip
        try:
            while taken < _LIMIT:
                await others.enter_async_context(opened(dsn, application_name="another"))
                taken += 1
        except asyncpg.TooManyConnectionsError:
            continue
    return taken
