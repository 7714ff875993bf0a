"""The stage that histories are played on: one writer, and workers beside it."""

import asyncio

import asyncpg

from projector.batch import BatchRules, run_batch
from projector.errors import ErrorKind, classify
from projector.settings import OnSourceGone
from tests.backfills import assert_nothing_is_missing
from tests.histories import History, Phase, Step
from tests.oracle import differences, expected_facts, read_facts, read_sources
from tests.scenes import add_cast

_MOST_FAULTS = 50


class Stage:
    """Plays histories on a database: one writer, and workers beside it."""

    def __init__(self, dsn: str, rules: BatchRules) -> None:
        self._dsn = dsn
        self._rules = rules
        self._connections: list[asyncpg.Connection] = []

    async def open(self, workers: int) -> None:
        """Opens the writer's connection and the workers'."""
        for _ in range(workers + 1):
            self._connections.append(await asyncpg.connect(self._dsn, server_settings={"deadlock_timeout": "20ms"}))

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections))

    async def play(self, phases: list[Phase]) -> None:
        """Plays a history from an empty database, and looks at the facts after each phase."""
        writer, *workers = self._connections
        history = History(writer, {org_id: await add_cast(writer, org_id) for org_id in (1, 2)})
        for org_id in history.casts:
            await history.play(Step("add_session", org_id, 4, False, "web", (0,), False))
        for phase in phases:
            news = _News()
            async with asyncio.TaskGroup() as group:
                for worker, limit in zip(workers, phase.workers, strict=False):
                    group.create_task(self._work(worker, limit, news))
                group.create_task(_write(history, phase, news))
            assert not await writer.fetchval("SELECT count(*) FROM reporting_outbox WHERE status <> 'completed'")
            facts = await read_facts(writer)
            if self._rules.on_source_gone is OnSourceGone.KEEP:
                kept = [(table, key) for table, rows in facts.items() for key in rows if history.is_gone(key[1])]
                assert history.had_facts <= {key[1] for _, key in kept}, "facts of sources that are gone were removed"
                for table, key in kept:
                    del facts[table][key]
            wrong = differences(expected_facts(await read_sources(writer)), facts)
            assert not wrong, "\n".join(wrong)
            await assert_nothing_is_missing(writer)

    async def _work(self, connection: asyncpg.Connection, limit: int, news: "_News") -> None:
        """Runs batches until all is written and nothing is due."""
        faults = 0
        while True:
            ended = news.ended
            try:
                result = await run_batch(connection, self._rules, limit)
            except asyncpg.PostgresError as error:
                faults += 1
                if classify(error) is not ErrorKind.TRANSIENT or faults > _MOST_FAULTS:
                    raise
                continue
            assert not result.failed, result.failed
            assert not result.postponed, result.postponed
            if not result.claimed:
                if ended:
                    return
                await news.wait()


class _News:
    """Tells the workers that something was written."""

    def __init__(self) -> None:
        self.ended = False
        self._condition = asyncio.Condition()

    async def tell(self, *, ended: bool) -> None:
        async with self._condition:
            self.ended = ended
            self._condition.notify_all()

    async def wait(self) -> None:
        async with self._condition:
            if not self.ended:
                await self._condition.wait()


async def _write(history: History, phase: Phase, news: _News) -> None:
    for step in phase.steps:
        await history.play(step)
        await news.tell(ended=False)
    await history.enqueue_waiting()
    await news.tell(ended=True)
