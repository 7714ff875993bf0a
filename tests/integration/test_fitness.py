"""A projection that does not fit the database: /readyz, a metric and one log line tell, the others go on."""

import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import fitness
from projector.batch import BatchRules, run_batch
from projector.database import Savepoint, Timeouts, transaction
from projector.misfit import find_misfit
from projector.registry import Registry
from projector.settings import OnSourceGone
from tests.daemons import RunningDaemon, running, settings_for
from tests.obstacles import enqueue_tools, heard, opened, recorded, set_columns, statuses, wait_until
from tests.platform_rows import enqueue_generations, outbox_row

_AWAY = "ALTER TABLE llm_generations RENAME COLUMN finish_reason TO ending"
_BACK = "ALTER TABLE llm_generations RENAME COLUMN ending TO finish_reason"
_SAID = "a projection does not fit the database"
_TOPIC = "projection llm_generation"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "_SECONDS_WHILE_UNFIT", 0.05)


async def obstacles(projector: RunningDaemon) -> dict[str, str]:
    """What /readyz says is in the way."""
    status, body = await projector.get("/readyz")
    found: dict[str, str] = json.loads(body)["obstacles"]
    assert status == (503 if found else 200)
    return found


async def is_said(projector: RunningDaemon) -> None:
    async def said() -> bool:
        return _TOPIC in await obstacles(projector)

    await wait_until(said)


async def are(connection: asyncpg.Connection, rows: list[UUID], status: str) -> None:
    async def so() -> bool:
        return set(await statuses(connection, rows)) == {status}

    await wait_until(so)


def fits(projector: RunningDaemon) -> dict[str, float | None]:
    return {
        name: projector.metric("reporting_projector_projection_fits", projection=name)
        for name in ("event", "session", "llm_generation", "usage_ledger")
    }


async def test_a_projection_that_does_not_fit_at_the_start_is_told_and_put_off_and_the_others_go_on(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    await connection.execute(_AWAY)
    generations = await enqueue_generations(connection, 3)
    async with running(settings_for(database), registry) as projector:
        await are(connection, await enqueue_tools(connection, ["search"]), "completed")
        (told,) = (await obstacles(projector)).items()
        assert told[0] == _TOPIC
        assert told[1] == (
            "42703 UndefinedColumnError: a column is missing (g.finish_reason); its rows are put off and lose no"
            " attempt, until tables and grants are what this version expects"
        )
        assert fits(projector) == {"event": 1, "session": 1, "llm_generation": 0, "usage_ledger": 1}

        async def put_off() -> bool:
            return projector.metric(
                "reporting_projector_rows_total", source_type="llm_generation", outcome="postponed"
            ) == len(generations)

        await wait_until(put_off)
        await connection.execute(_BACK)
        await wait_until(projector.ready)
        await set_columns(
            connection, generations, next_attempt_at=(await outbox_row(connection, generations[0]))["created_at"]
        )
        await are(connection, generations, "completed")
        assert fits(projector)["llm_generation"] == 1
        assert len(projector.logged(_SAID)) == 1
        assert len(projector.logged("the projection fits the database again")) == 1
    assert [(await outbox_row(connection, row))["attempts"] for row in generations] == [0] * 3


async def test_it_is_never_ready_before_the_projections_were_tried(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    await connection.execute(_AWAY)
    async with running(settings_for(database), registry) as projector:
        while "start" in (found := await obstacles(projector)):
            pass
        assert _TOPIC in found


async def test_a_misfit_that_a_batch_meets_is_told_at_once_and_only_once(
    database: str, connection: asyncpg.Connection, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "_SECONDS_WHILE_UNFIT", 3600)
    async with running(settings_for(database), registry) as projector:
        await wait_until(projector.ready)
        await connection.execute(_AWAY)
        for number in range(1, 6):
            rows = await enqueue_generations(connection, 1)

            async def put_off(wanted: float = number) -> bool:
                found = projector.metric(
                    "reporting_projector_rows_total", source_type="llm_generation", outcome="postponed"
                )
                return found == wanted

            await wait_until(put_off)
            assert _TOPIC in await obstacles(projector)
            assert (await outbox_row(connection, rows[0]))["attempts"] == 0
        assert len(projector.logged(_SAID)) == 1


async def test_rows_of_a_known_misfit_are_put_off_without_a_try(
    connection: asyncpg.Connection, rules: BatchRules, registry: Registry
) -> None:
    rows = await enqueue_generations(connection, 2)
    rules.misfits["llm_generation"] = "42703 UndefinedColumnError: a column is missing"
    with recorded(connection) as statements:
        result = await run_batch(connection, rules, 10)
        await heard()
    assert (result.postponed, result.misfits) == ({"llm_generation": 2}, {})
    projection = registry.get("llm_generation")
    assert projection is not None
    assert projection.project not in statements
    row = await outbox_row(connection, rows[0])
    assert (row["attempts"], row["last_error"]) == (0, "42703 UndefinedColumnError: a column is missing")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "ALTER TABLE llm_generations DROP COLUMN finish_reason",
            "42703 UndefinedColumnError: a column is missing (g.",
        ),
        ("DROP TABLE fact_llm_generation", "42P01 UndefinedTableError: a table is missing (fact_llm_generation)"),
        (
            "ALTER TABLE llm_generations RENAME TO gone",
            "42P01 UndefinedTableError: a table is missing (llm_generations)",
        ),
        (
            "ALTER TABLE llm_generations ALTER session_id TYPE text",
            "42883 UndefinedFunctionError: a column has another type than the projection expects",
        ),
        (
            "ALTER TABLE llm_generations ALTER duration_ms TYPE boolean USING true",
            "42846 CannotCoerceError: a column has another type than the projection expects (near: g.cache_cr",
        ),
        (
            "ALTER TABLE fact_llm_generation ALTER session_id TYPE integer USING 1",
            "42804 DatatypeMismatchError: a column has another type than the projection expects (g.session_id)",
        ),
        (
            "ALTER TABLE fact_llm_generation DROP CONSTRAINT fact_llm_generation_pkey",
            "42P10 InvalidColumnReferenceError: a fact table's unique index is missing",
        ),
    ],
)
async def test_what_is_wrong_is_told_in_our_own_words(
    connection: asyncpg.Connection, rules: BatchRules, change: str, expected: str
) -> None:
    await connection.execute("ALTER TABLE llm_generations DROP CONSTRAINT llm_generations_session_id_fkey")
    await connection.execute(change)
    found = await misfits(connection, rules)
    assert set(found) == {"llm_generation"}
    assert found["llm_generation"].startswith(expected)


async def misfits(
    connection: asyncpg.Connection, rules: BatchRules, on_source_gone: OnSourceGone = OnSourceGone.KEEP
) -> dict[str, str]:
    """What is wrong with the projections that do not fit, by name."""
    async with transaction(connection, Timeouts(10)):
        savepoint = Savepoint(connection)
        found = {item.name: await find_misfit(savepoint, item, on_source_gone) for item in rules.registry}
    return {name: words for name, words in found.items() if words}


async def test_a_missing_grant_is_told_that_of_removing_only_where_facts_are_removed(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    role = f"projector_{uuid4().hex}"
    await connection.execute(f"""
        CREATE ROLE {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
        REVOKE DELETE ON fact_llm_generation FROM {role};
        SET ROLE {role};
    """)
    try:
        assert await misfits(connection, rules) == {}
        found = await misfits(connection, rules, OnSourceGone.REMOVE)
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert found["llm_generation"].startswith("42501 InsufficientPrivilegeError: a grant is missing")


async def test_a_lock_in_the_way_of_one_projection_leaves_the_others_to_be_tried(
    database: str, connection: asyncpg.Connection, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "_LOCK_SECONDS", 0.05)
    await connection.execute(_AWAY)
    first = next(iter(registry))
    assert first.source_type == "event"
    async with running(settings_for(database), registry) as projector:
        await is_said(projector)
        async with opened(database) as holder, holder.transaction():
            await holder.execute("LOCK TABLE fact_tool_call IN ACCESS EXCLUSIVE MODE")
            await connection.execute(_BACK)

            async def mended() -> bool:
                return _TOPIC not in await obstacles(projector)

            await wait_until(mended)
