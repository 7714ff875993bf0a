"""The projecting as jobs on procrastinate, with what its documentation recommends, and more.

It recommends several processes, concurrency inside each, a pool with a connection for each job at work and one more,
and deleting jobs when they are done. Beyond that its connections commit each statement by themselves and are not
checked before each use, which its own pool would do, and `synchronous_commit` is off. Nobody listens for new jobs, as
there are none. Tried: concurrencies of 2, 3, 4, 6, 8 and 16 in 1, 2, 3 and 4 processes; jobs kept and deleted.
"""

from collections.abc import Awaitable, Callable, Sequence

from procrastinate import App, PsycopgConnector
from procrastinate.types import JSONDict
from psycopg_pool import AsyncConnectionPool

from projector.sqlfile import load_sql
from tests.bench.hands import NO_WAIT, Row, open_hands

HANDS = 2
_TASK = "project"
_OPTIONS = " ".join(f"-c {name}={value}" for name, value in NO_WAIT.items())


class ProcrastinateJobs:
    """One task; its arguments are the outbox row."""

    name = "procrastinate"
    tables = ("procrastinate_jobs", "procrastinate_events")
    left = load_sql(__file__, "peers/procrastinate_left.sql")

    async def enqueue(self, dsn: str, rows: Sequence[Row]) -> None:
        """Installs the tables, and defers a job for each row in one statement."""
        app = App(connector=PsycopgConnector(conninfo=dsn))
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            jobs: list[JSONDict] = [
                {"org_id": org_id, "source_type": source_type, "source_id": source_id}
                for org_id, source_type, source_id in rows
            ]
            await app.configure_task(_TASK).batch_defer_async(*jobs)

    async def work(self, dsn: str, start: Callable[[], Awaitable[None]]) -> None:
        """Connects, awaits `start`, and works until no job is left."""
        pool = AsyncConnectionPool(
            dsn, min_size=HANDS + 1, max_size=HANDS + 1, open=False, kwargs={"autocommit": True, "options": _OPTIONS}
        )
        async with open_hands(dsn, HANDS) as hands, pool:
            app = App(connector=PsycopgConnector(conninfo=dsn))
            app.task(name=_TASK)(hands.project)
            async with app.open_async(pool):
                await start()
                await app.run_worker_async(
                    concurrency=HANDS, wait=False, listen_notify=False, delete_jobs="successful",
                    install_signal_handlers=False,
                )  # fmt: skip
