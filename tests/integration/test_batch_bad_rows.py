"""Bad rows are isolated: they fail alone, the rest of their batch commits (design: promise 3)."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.projections import event as event_projection
from projector.worker import isolating
from tests.obstacles import (
    enqueue_tools,
    heard,
    recorded,
    refuse_at_commit,
    refuse_by_check,
    refuse_by_trigger,
    set_columns,
    statuses,
    tool_names,
)
from tests.platform_rows import add_generation, add_org, add_posting, add_session, enqueue, facts, outbox_row

Refuse = Callable[[asyncpg.Connection, str, str], Awaitable[None]]

REFUSALS: list[tuple[Refuse, str]] = [
    (refuse_by_check, "tool_name LIKE 'bad%'"),
    (refuse_by_trigger, "NEW.tool_name LIKE 'bad%'"),
    (refuse_at_commit, "NEW.tool_name LIKE 'bad%'"),
]
refusals = pytest.mark.parametrize(("refuse", "condition"), REFUSALS, ids=["check", "trigger", "deferred trigger"])

BAD_PLACES = {
    "the first": {0}, "the last": {16}, "one in the middle": {6}, "two neighbours": {8, 9},
    "many": set(range(0, 17, 3)), "all": set(range(17)),
}  # fmt: skip


@refusals
@pytest.mark.parametrize("bad", BAD_PLACES.values(), ids=list(BAD_PLACES))
async def test_bad_rows_fail_and_the_others_of_their_batch_are_completed(
    connection: asyncpg.Connection, rules: BatchRules, refuse: Refuse, condition: str, bad: set[int]
) -> None:
    names = [f"bad-{number}" if number in bad else f"good-{number}" for number in range(17)]
    rows = await enqueue_tools(connection, names)
    await refuse(connection, "fact_tool_call", condition)
    result = await run_batch(connection, rules, 100)
    good = sorted(name for name in names if name.startswith("good"))
    assert await statuses(connection, rows) == ["failed" if number in bad else "completed" for number in range(17)]
    assert await tool_names(connection) == good
    assert {outcome.id for outcome in result.failed} == {rows[number] for number in bad}
    assert (result.claimed, result.completed_rows, result.facts.get("tool_calls", 0)) == (17, len(good), len(good))
    for number in bad:
        row = await outbox_row(connection, rows[number])
        assert (row["attempts"], row["last_error"] is None) == (1, False)


@refusals
async def test_a_bad_row_costs_a_few_statements_not_one_for_each_row(
    connection: asyncpg.Connection, rules: BatchRules, refuse: Refuse, condition: str
) -> None:
    await enqueue_tools(connection, ["bad" if number == 20 else "good" for number in range(64)])
    await refuse(connection, "fact_tool_call", condition)
    with recorded(connection) as statements:
        await run_batch(connection, rules, 100)
        await heard()
    assert statements.count(event_projection.PROJECTION.project) <= 1 + 6 + 2  # 64 is 2^6


async def test_a_row_that_failed_before_does_not_make_fresh_rows_be_halved(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_tools(connection, ["bad", *["good"] * 32])
    await set_columns(connection, rows[:1], attempts=1, status="failed")
    await refuse_by_check(connection, "fact_tool_call", "tool_name = 'bad'")
    with recorded(connection) as statements:
        await run_batch(connection, rules, 100)
        await heard()
    assert statements.count(event_projection.PROJECTION.project) == 2
    assert await statuses(connection, rows) == ["failed"] + ["completed"] * 32


@refusals
async def test_a_bad_fact_that_is_there_already_fails_its_row_too(
    connection: asyncpg.Connection, rules: BatchRules, refuse: Refuse, condition: str
) -> None:
    rows = await enqueue_tools(connection, ["bad", "good"])
    await run_batch(connection, rules, 10)
    if refuse is refuse_by_check:
        await connection.execute(f"ALTER TABLE fact_tool_call ADD CHECK (NOT ({condition})) NOT VALID")
    else:
        await refuse(connection, "fact_tool_call", condition)
    before = await facts(connection, "fact_tool_call")
    await set_columns(connection, rows, status="pending")
    await run_batch(connection, rules, 10)
    assert await statuses(connection, rows) == ["failed", "completed"]
    after = await facts(connection, "fact_tool_call")
    assert [fact for fact in after if fact["tool_name"] == "bad"] == [f for f in before if f["tool_name"] == "bad"]


async def test_a_bad_row_of_one_type_leaves_the_other_types_alone(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_tools(connection, ["search"])
    session = await add_session(connection)
    bad = await enqueue(connection, "llm_generation", await add_generation(connection, model="bad"))
    rows += [
        await enqueue(connection, "llm_generation", await add_generation(connection, model="good")),
        await enqueue(connection, "session", session),
        await enqueue(connection, "usage_ledger", await add_posting(connection)),
    ]
    await refuse_by_check(connection, "fact_llm_generation", "model = 'bad'")
    result = await run_batch(connection, rules, 10)
    assert await statuses(connection, [*rows, bad]) == ["completed"] * 4 + ["failed"]
    assert result.completed == {"event": 1, "llm_generation": 1, "session": 1, "usage_ledger": 1}
    assert [(outcome.id, outcome.source_type) for outcome in result.failed] == [(bad, "llm_generation")]


async def test_two_rows_of_one_bad_source_both_fail(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    bad = await add_generation(connection, model="bad")
    good = await add_generation(connection, model="good")
    rows = [await enqueue(connection, "llm_generation", source) for source in (bad, good, bad)]
    await refuse_by_check(connection, "fact_llm_generation", "model = 'bad'")
    await run_batch(connection, rules, 10)
    assert await statuses(connection, rows) == ["failed", "completed", "failed"]


async def test_a_source_of_an_org_that_facts_do_not_admit_fails_alone(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    # The outbox of some other program may lack the foreign key; facts of ours have it.
    rows = await enqueue_tools(connection, ["search"])
    await connection.execute("ALTER TABLE reporting_outbox DROP CONSTRAINT reporting_outbox_org_id_fkey")
    stranger = await enqueue(connection, "event", uuid4(), org_id=99)
    await run_batch(connection, rules, 10)
    assert await statuses(connection, [*rows, stranger]) == ["completed", "completed"]  # nothing of that org: gone


# Whatever SQLSTATE somebody's trigger makes up for one row's data, that row must not hold up the others for good.
SOMEBODYS_STATES = ["P0001", "P0002", "23514", "22023", "ZZ001", "42501", "42846", "0A000", "XX000", "38000"]


@pytest.mark.parametrize("state", SOMEBODYS_STATES)
async def test_whatever_a_trigger_raises_for_one_row_the_others_are_completed(
    connection: asyncpg.Connection, rules: BatchRules, state: str
) -> None:
    rows = await enqueue_tools(connection, ["good", "bad", "good", "good"])
    raising = f"RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'"
    await refuse_by_trigger(connection, "fact_tool_call", "NEW.tool_name = 'bad'", raising=raising)
    try:
        await run_batch(connection, rules, 10)
    except asyncpg.PostgresError:
        await run_batch(connection, isolating(rules), 10)  # as a worker does after some faults
    found = await statuses(connection, rows)
    assert [found[0], *found[2:]] == ["completed"] * 3
    assert found[1] != "completed"


async def test_a_row_that_row_level_security_refuses_fails_alone(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_tools(connection, ["good", "bad", "good"])
    role = f"reader_{uuid4().hex}"
    await connection.execute(f"""
        CREATE ROLE {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
        ALTER TABLE fact_tool_call ENABLE ROW LEVEL SECURITY;
        CREATE POLICY only_good ON fact_tool_call USING (true) WITH CHECK (tool_name = 'good');
        SET ROLE {role};
    """)
    try:
        await run_batch(connection, rules, 10)
        found = await statuses(connection, rows)
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert [found[0], found[2]] == ["completed"] * 2
    assert found[1] != "completed"
