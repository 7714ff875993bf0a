"""Turns, from events of the types turn.completed, turn.failed and turn.cancelled (contract: facts.md, fact_turn)."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, MOST, NUMBERS, fact, facts_of, long_text, project_events
from tests.obstacles import opened
from tests.platform_rows import add_event, add_named, add_org, add_session
from tests.scenes import project

ENDS = {"turn.completed": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def session(connection: asyncpg.Connection) -> UUID:
    await add_org(connection)
    return await add_session(connection)


async def turns(
    connection: asyncpg.Connection,
    rules: BatchRules,
    session: UUID,
    documents: list[Any],
    *columns: str,
    contexts: list[Any] | None = None,
) -> list[Any]:
    """Columns of the turns that documents give, in order."""
    events, _ = await project_events(connection, rules, session, "turn.completed", documents, contexts or [])
    return await facts_of(connection, "fact_turn", [f"event:{event}" for event in events], *columns)


@pytest.mark.parametrize("event_type", ENDS)
async def test_a_turn_has_these_columns(
    database: str, connection: asyncpg.Connection, rules: BatchRules, event_type: str
) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    user, principal, app = uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=agent, harness_id=harness, resolved_owner_user_id=user, owner_principal_id=principal,
        app_id=app, blueprint_id="blue",
    )  # fmt: skip
    usage = {"input_tokens": 1, "output_tokens": 20, "cache_read_tokens": 300, "cache_creation_tokens": 4000}
    data = {"turn_id": "turn_data", "duration_ms": 5, "iterations": 6, "usage": usage, "answer": "secret"}
    event = await add_event(connection, session, event_type, data, {"turn_id": "turn_context"}, ts=EARLY)
    for _ in range(2):
        await add_event(connection, session, "tool.completed", {"turn_id": "turn_data"})
    async with opened(database, timezone="Pacific/Kiritimati") as elsewhere:
        assert (await project(elsewhere, rules, ("event", event))).facts == {"turns": 1}
    completed = int(event_type == "turn.completed")
    assert await fact(connection, "fact_turn", f"event:{event}") == {
        "org_id": 1, "source_key": f"event:{event}", "session_id": session, "turn_id": "turn_data", "user_id": user,
        "principal_id": principal, "agent_id": agent, "agent_name_snapshot": "Ada", "harness_id": harness,
        "harness_name_snapshot": "Shell", "app_id": app, "blueprint_id": "blue", "created_at": EARLY,
        "time_bucket_day": EARLY_DAY, "turn_status": ENDS[event_type], "turn_count": 1, "duration_ms": 5,
        "iterations": 6, "input_tokens": 1, "output_tokens": 20, "cache_read_tokens": 300,
        "cache_creation_tokens": 4000, "total_tokens": 21, "tool_call_count": 2, "success_count": completed,
        "error_count": 1 - completed,
    }  # fmt: skip


async def test_every_number_of_a_turn_is_digits_alone_that_fit_bigint_or_0(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    usage = '{{"input_tokens": {0}, "output_tokens": {0}, "cache_read_tokens": {0}, "cache_creation_tokens": {0}}}'
    documents = [
        f'{{"duration_ms": {number}, "iterations": {number}, "usage": {usage.format(number)}}}' for number in NUMBERS
    ]
    columns = (
        "duration_ms", "iterations", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens",
        "total_tokens",
    )  # fmt: skip
    found = await turns(connection, rules, session, documents, *columns)
    assert dict(zip(NUMBERS, found, strict=True)) == {
        number: (*[value or 0] * 6, min(2 * (value or 0), MOST)) for number, value in NUMBERS.items()
    }


async def test_usage_that_is_no_object_counts_nothing(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    tokens = {"input_tokens": 5, "output_tokens": 5}
    given: list[Any] = [[tokens], [5, 5], "input_tokens", 5, True, None, {"usage": tokens}, {}]
    documents: list[Any] = [*({"usage": usage} for usage in given), tokens, [{"usage": tokens}], "7", '"usage"']
    found = await turns(connection, rules, session, documents, "input_tokens", "total_tokens")
    assert found == [(0, 0)] * len(documents)


TURN_IDS: list[tuple[Any, Any, str | None]] = [
    ({"turn_id": "data"}, {"turn_id": "context"}, "data"),
    ({"turn_id": "data"}, {}, "data"),
    ({}, {"turn_id": "context"}, "context"),
    ({}, {}, None),
    ({"turn_id": None}, {"turn_id": "context"}, "context"),
    ({"turn_id": ["data"]}, {"turn_id": "context"}, "context"),
    ({"turn_id": {}}, {"turn_id": "context"}, "context"),
    ("[]", {"turn_id": "context"}, "context"),
    ('"turn_id"', {"turn_id": "context"}, "context"),
    ({"turn_id": 7}, {"turn_id": "context"}, "7"),
    ({"turn_id": ""}, {"turn_id": "context"}, ""),
    ({}, {"turn_id": [7]}, None),
]


async def test_the_turn_is_the_datas_else_the_contexts(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    documents, contexts, expected = map(list, zip(*TURN_IDS, strict=True))
    assert await turns(connection, rules, session, documents, "turn_id", contexts=contexts) == expected


async def test_a_turns_tool_calls_are_those_of_its_session_with_its_id_wherever_they_say_it(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    calls: list[tuple[Any, Any]] = [
        ({"turn_id": "one"}, {}),
        ({}, {"turn_id": "one"}),
        ({"turn_id": "two"}, {"turn_id": "one"}),
        ({}, {}),
        ({"turn_id": None}, "[]"),
        ({"turn_id": 7}, {}),
    ]
    for data, context in calls:
        await add_event(connection, session, "tool.completed", data, context)
    await add_event(connection, session, "tool.started", {"turn_id": "one"})
    await add_event(connection, await add_session(connection), "tool.completed", {"turn_id": "one"})
    found = await turns(
        connection, rules, session, [{"turn_id": "one"}, {"turn_id": "two"}, {"turn_id": "7"}, {"turn_id": "ONE"}, {}],
        "tool_call_count",
    )  # fmt: skip
    assert found == [3, 0, 1, 0, 0]


@pytest.mark.parametrize("event_type", ENDS)
@pytest.mark.parametrize("says_turn", ["data", "context"])
async def test_a_tool_call_that_comes_after_its_turn_raises_its_count_and_no_others(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, event_type: str, says_turn: str
) -> None:
    other = await add_session(connection)
    ended = [
        await add_event(connection, of, event_type, {"turn_id": turn, "duration_ms": 5})
        for of, turn in ((session, "one"), (session, "two"), (other, "one"))
    ]
    keys = [f"event:{event}" for event in ended]
    await project(connection, rules, *(("event", event) for event in ended))
    assert await facts_of(connection, "fact_turn", keys, "tool_call_count") == [0, 0, 0]
    await add_event(connection, session, event_type, {"turn_id": "three"})  # never enqueued: no fact, no matter of ours
    for count in (1, 2):
        turn: dict[str, Any] = {"turn_id": "one"}
        data, context = (turn, {}) if says_turn == "data" else ({}, turn)
        _, result = await project_events(connection, rules, session, "tool.completed", [data], [context])
        assert result.facts == {"tool_calls": 1, "turns": 1}
        assert await facts_of(connection, "fact_turn", keys, "tool_call_count") == [count, 0, 0]
    assert await fact(connection, "fact_turn", keys[0], "duration_ms", "turn_status") == (5, ENDS[event_type])


TOUCHED: list[tuple[Any, Any, str | None]] = [
    ({"turn_id": "one"}, {"turn_id": "two"}, "one"),
    ({"turn_id": "two"}, {"turn_id": "one"}, "two"),
    ({}, {"turn_id": "one"}, "one"),
    ({"turn_id": ["one"]}, {"turn_id": "one"}, "one"),
    ({"turn_id": "one"}, "[]", "one"),
    ({"turn_id": None}, {}, None),
]


@pytest.mark.parametrize(("data", "context", "turn"), TOUCHED)
async def test_a_late_tool_call_finds_its_turn_wherever_that_says_its_id(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, data: Any, context: Any, turn: str | None
) -> None:
    (event,), _ = await project_events(connection, rules, session, "turn.failed", [data], [context])
    await project_events(connection, rules, session, "tool.completed", [{"turn_id": "one"}])
    found = await fact(connection, "fact_turn", f"event:{event}", "turn_id", "tool_call_count")
    assert found == (turn, int(turn == "one"))


async def test_a_turn_and_its_tool_calls_in_one_batch_count_each_other(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    kinds = ["tool.completed", "turn.completed", "tool.completed"]
    events = [await add_event(connection, session, kind, {"turn_id": "one"}) for kind in kinds]
    for _ in range(2):
        await project(connection, rules, *(("event", event) for event in events))
        assert await fact(connection, "fact_turn", f"event:{events[1]}", "tool_call_count") == 2


async def test_tool_calls_without_a_turn_touch_no_turn(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    await turns(connection, rules, session, [{}, {"turn_id": ""}])
    _, result = await project_events(connection, rules, session, "tool.completed", [{}, {"turn_id": None}])
    assert result.facts == {"tool_calls": 2}


async def test_a_turn_id_of_any_length_is_projected_and_counted(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    text = long_text()
    await add_event(connection, session, "tool.completed", {"turn_id": text})
    found = await turns(connection, rules, session, [{"turn_id": text}], "turn_id", "tool_call_count")
    assert found == [(text, 1)]
