"""Two workers at one source, which changes meanwhile: the facts end in the newest state, whoever commits last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.database import transaction
from projector.registry import Registry
from projector.settings import OnSourceGone
from tests.claimed import claim_ids, complete_ids
from tests.obstacles import gate, open_gate, opened, wait_until_blocked
from tests.platform_rows import add_event, add_session, enqueue
from tests.scenes import SCENES, TURN, Scene, add_cast, assert_facts_follow, count_facts, project

every_scene = pytest.mark.parametrize("scene", SCENES, ids=str)
with_and_without_facts = pytest.mark.parametrize("has_fact", [False, True], ids=["new facts", "facts there before"])


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


class Stopped:
    """A worker, named "first", whose batch has come to a gate; the gate lets all others pass."""

    def __init__(self, keeper: asyncpg.Connection, batch: asyncio.Task[object]) -> None:
        self.keeper = keeper
        self._batch = batch

    async def finish(self) -> None:
        """Lets it go on, and waits until it has committed."""
        await open_gate(self.keeper)
        await self._batch


@asynccontextmanager
async def stopped(database: str, rules: BatchRules, table: str, event: str) -> AsyncIterator[Stopped]:
    """A worker that claims what is due and comes to a stop where it first writes to a table so."""
    first_alone = "current_setting('application_name') = 'first'"
    async with (
        gate(database, table, event, first_alone) as keeper,
        opened(database, application_name="first") as first,
    ):
        batch = asyncio.create_task(run_batch(first, rules, 10))
        await wait_until_blocked(keeper, first.get_server_pid())
        yield Stopped(keeper, batch)
        await batch


@with_and_without_facts
@every_scene
async def test_what_the_first_worker_has_read_does_not_overwrite_what_the_second_has_committed(
    database: str, connection: asyncpg.Connection, rules: BatchRules, scene: Scene, has_fact: bool
) -> None:
    cast = await add_cast(connection)
    source = (scene.source_type, await scene.write(connection, cast))
    if has_fact:
        await project(connection, rules, source)
    await enqueue(connection, *source)
    async with stopped(database, rules, scene.tables[0], "INSERT") as first:
        changed = await scene.change(connection, cast, source[1])
        await project(connection, rules, changed)  # the second worker, from its claim to its commit
        if changed == source:
            await assert_facts_follow(connection, source)
        await first.finish()
    await assert_facts_follow(connection, source, changed)


@with_and_without_facts
@every_scene
async def test_the_second_worker_waits_for_the_first_to_commit_and_then_overwrites_it(
    database: str, connection: asyncpg.Connection, rules: BatchRules, scene: Scene, has_fact: bool
) -> None:
    cast = await add_cast(connection)
    source = (scene.source_type, await scene.write(connection, cast))
    if has_fact:
        await project(connection, rules, source)
    await enqueue(connection, *source)
    async with stopped(database, rules, "reporting_outbox", "UPDATE") as first, opened(database) as second:
        changed = await scene.change(connection, cast, source[1])
        await enqueue(connection, *changed)
        overtaking = asyncio.create_task(run_batch(second, rules, 10))
        await wait_until_blocked(first.keeper, second.get_server_pid())
        await first.finish()
        assert (await overtaking).completed_rows == 1
    await assert_facts_follow(connection, source, changed)


@every_scene
async def test_a_worker_between_its_passes_holds_the_facts_and_reads_what_has_changed_meanwhile(
    database: str, connection: asyncpg.Connection, rules: BatchRules, registry: Registry, scene: Scene
) -> None:
    cast = await add_cast(connection)
    source = (scene.source_type, await scene.write(connection, cast))
    await project(connection, rules, source)
    row = await enqueue(connection, *source)
    projection = registry.get(scene.source_type)
    assert projection is not None
    given = ([1], [str(source[1])])
    async with opened(database) as first, opened(database) as second:
        async with transaction(first, rules.timeouts):
            assert await claim_ids(first, 10) == [row]
            passed = await first.fetch(projection.project, *given, False)
            assert [record["source_id"] for record in passed if record["outcome"] == "existing"] == given[1]
            changed = await scene.change(connection, cast, source[1])
            await enqueue(connection, *changed)
            overtaking = asyncio.create_task(run_batch(second, rules, 10))
            await wait_until_blocked(connection, second.get_server_pid())
            await first.fetch(projection.project, *given, True)
            await complete_ids(first, [row], [1.0])
        assert (await overtaking).completed_rows == 1
    await assert_facts_follow(connection, source, changed)


@every_scene
async def test_of_two_changes_the_last_one_stays_though_its_worker_began_first(
    database: str, connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(connection)
    source = (scene.source_type, await scene.write(connection, cast))
    await project(connection, rules, source)
    await enqueue(connection, *source)
    async with stopped(database, rules, scene.tables[0], "INSERT") as first:
        for _ in range(2):
            await project(connection, rules, await scene.change(connection, cast, source[1]))
        await scene.change(connection, cast, source[1])  # this one only the first worker can still see
        await first.finish()
    await assert_facts_follow(connection, source)


@pytest.mark.parametrize("stop", ["INSERT", "UPDATE"], ids=["reading", "committing"])
@pytest.mark.parametrize("begins", ["turn.completed", "tool.completed"])
async def test_a_turn_and_its_tool_call_that_two_workers_project_at_once_count(
    database: str, connection: asyncpg.Connection, rules: BatchRules, begins: str, stop: str
) -> None:
    await add_cast(connection)
    session = await add_session(connection)
    table = {"turn.completed": "fact_turn", "tool.completed": "fact_tool_call"}[begins]
    after = {"turn.completed": "tool.completed", "tool.completed": "turn.completed"}[begins]
    sources = [("event", await add_event(connection, session, begins, {"turn_id": TURN}))]
    await enqueue(connection, *sources[0])
    gated = table if stop == "INSERT" else "reporting_outbox"
    async with stopped(database, rules, gated, stop) as first, opened(database) as second:
        sources.append(("event", await add_event(connection, session, after, {"turn_id": TURN})))
        await enqueue(connection, *sources[1])
        other = asyncio.create_task(run_batch(second, rules, 10))
        if (begins, stop) == ("turn.completed", "UPDATE"):
            await wait_until_blocked(first.keeper, second.get_server_pid())
        else:
            await other
        await first.finish()
        await other
    await assert_facts_follow(connection, *sources)
    assert await connection.fetchval("SELECT tool_call_count FROM fact_turn") == 1


@pytest.mark.parametrize("stop", ["INSERT", "UPDATE"], ids=["reading", "committing"])
async def test_two_late_tool_calls_that_two_workers_project_at_once_both_count(
    database: str, connection: asyncpg.Connection, rules: BatchRules, stop: str
) -> None:
    await add_cast(connection)
    session = await add_session(connection)
    turn = ("event", await add_event(connection, session, "turn.completed", {"turn_id": TURN}))
    await project(connection, rules, turn)
    await enqueue(connection, "event", await add_event(connection, session, "tool.completed", {"turn_id": TURN}))
    gated = "fact_tool_call" if stop == "INSERT" else "reporting_outbox"
    async with stopped(database, rules, gated, stop) as first, opened(database) as second:
        await enqueue(connection, "event", await add_event(connection, session, "tool.completed", {"turn_id": TURN}))
        other = asyncio.create_task(run_batch(second, rules, 10))
        await wait_until_ended_or_blocked(first.keeper, second, other)
        assert other.done() == (stop == "INSERT")
        await first.finish()
        await other
    assert await connection.fetchval("SELECT tool_call_count FROM fact_turn") == 2
    await assert_facts_follow(connection, turn)


@every_scene
async def test_a_source_that_goes_while_a_worker_projects_it_again_leaves_no_fact_where_they_are_to_be_removed(
    database: str, connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    rules = replace(rules, on_source_gone=OnSourceGone.REMOVE)
    source = (scene.source_type, await scene.write(connection, await add_cast(connection)))
    await project(connection, rules, source)
    await enqueue(connection, *source)
    async with stopped(database, rules, "reporting_outbox", "UPDATE") as first, opened(database) as second:
        await scene.delete(connection, source[1])
        await enqueue(connection, *source)
        removing = asyncio.create_task(run_batch(second, rules, 10))
        await wait_until_ended_or_blocked(connection, second, removing)
        await first.finish()
        assert (await removing).completed_rows == 1
    assert await count_facts(connection) == {}


async def wait_until_ended_or_blocked(
    watcher: asyncpg.Connection, worker: asyncpg.Connection, batch: asyncio.Task[object]
) -> None:
    """Waits until a batch has ended, or waits for somebody."""
    blocked = asyncio.create_task(wait_until_blocked(watcher, worker.get_server_pid()))
    await asyncio.wait([blocked, batch], return_when=asyncio.FIRST_COMPLETED)
    blocked.cancel()
