"""Tool calls, from events of the type tool.completed (contract: facts.md, fact_tool_call)."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, MOST, NUMBERS, fact, facts_of, long_text, project_events, shortened
from tests.obstacles import opened
from tests.platform_rows import add_event, add_named, add_org, add_session
from tests.scenes import count_facts, project


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def session(connection: asyncpg.Connection) -> UUID:
    await add_org(connection)
    return await add_session(connection)


async def calls(
    connection: asyncpg.Connection,
    rules: BatchRules,
    session: UUID,
    documents: list[Any],
    *columns: str,
    contexts: list[Any] | None = None,
) -> list[Any]:
    """Columns of the tool calls that documents give, in order."""
    events, _ = await project_events(connection, rules, session, "tool.completed", documents, contexts or [])
    return await facts_of(connection, "fact_tool_call", [f"event:{event}" for event in events], *columns)


@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
async def test_a_tool_call_has_these_columns_whatever_the_sessions_time_zone_is(
    database: str, connection: asyncpg.Connection, rules: BatchRules, timezone: str
) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    user, principal, app = uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=agent, harness_id=harness, resolved_owner_user_id=user, owner_principal_id=principal,
        app_id=app, blueprint_id="blue",
    )  # fmt: skip
    data = {
        "tool_call_id": "call_1", "tool_name": "search", "display_name": "Search the web", "status": "success",
        "success": True, "duration_ms": 120, "capability_id": "web", "capability_name": "Web",
        "arguments": "secret", "result": "secret", "turn_id": "turn_data",
    }  # fmt: skip
    context = {"turn_id": "turn_context"}
    event = await add_event(connection, session, "tool.completed", data, context, ts=EARLY)
    async with opened(database, timezone=timezone) as elsewhere:
        result = await project(elsewhere, rules, ("event", event))
    assert result.facts == {"tool_calls": 1, "capability_usage": 1}
    common = {
        "org_id": 1, "session_id": session, "turn_id": "turn_context", "user_id": user,
        "principal_id": principal, "agent_id": agent, "agent_name_snapshot": "Ada", "harness_id": harness,
        "harness_name_snapshot": "Shell", "app_id": app, "blueprint_id": "blue", "created_at": EARLY,
        "time_bucket_day": EARLY_DAY, "capability_id": "web", "capability_name_snapshot": "Web",
        "tool_name": "search", "duration_ms": 120,
    }  # fmt: skip
    assert await fact(connection, "fact_tool_call", f"event:{event}") == common | {
        "source_key": f"event:{event}", "tool_call_id": "call_1", "tool_display_name_snapshot": "Search the web",
        "tool_status": "success", "call_count": 1, "success_count": 1, "error_count": 0, "timeout_count": 0,
        "cancelled_count": 0,
    }  # fmt: skip
    assert await fact(connection, "fact_capability_usage", f"event:{event}:invoked") == common | {
        "source_key": f"event:{event}:invoked", "capability_usage_kind": "invoked", "usage_count": 1,
    }  # fmt: skip


async def test_a_tool_call_that_says_nothing_has_no_status_to_count(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    (row,) = await calls(connection, rules, session, ["{}"])
    assert {name: value for name, value in row.items() if value is not None and value != 0} == {
        "org_id": 1, "source_key": row["source_key"], "session_id": session, "principal_id": row["principal_id"],
        "created_at": row["created_at"], "time_bucket_day": row["time_bucket_day"], "tool_status": "error",
        "call_count": 1,
    }  # fmt: skip


STATUSES: list[tuple[dict[str, Any], tuple[str, int, int, int, int]]] = [
    ({"status": "success"}, ("success", 1, 0, 0, 0)),
    ({"status": "error"}, ("error", 0, 1, 0, 0)),
    ({"status": "timeout"}, ("timeout", 0, 0, 1, 0)),
    ({"status": "cancelled"}, ("cancelled", 0, 0, 0, 1)),
    ({"success": True}, ("success", 1, 0, 0, 0)),
    ({"success": False}, ("error", 0, 1, 0, 0)),
    ({"success": None}, ("error", 0, 0, 0, 0)),
    ({"success": "true"}, ("success", 1, 0, 0, 0)),
    ({"success": "false"}, ("error", 0, 1, 0, 0)),
    ({"success": "TRUE"}, ("error", 0, 0, 0, 0)),
    ({"success": 1}, ("error", 0, 0, 0, 0)),
    ({"success": [True]}, ("error", 0, 0, 0, 0)),
    ({"status": "success", "success": True}, ("success", 1, 0, 0, 0)),
    ({"status": "success", "success": False}, ("success", 1, 1, 0, 0)),
    ({"status": "error", "success": True}, ("error", 1, 1, 0, 0)),
    ({"status": "timeout", "success": True}, ("timeout", 1, 0, 1, 0)),
    ({"status": "timeout", "success": False}, ("timeout", 0, 1, 1, 0)),
    ({"status": "cancelled", "success": False}, ("cancelled", 0, 1, 0, 1)),
    ({"status": None, "success": True}, ("success", 1, 0, 0, 0)),
    ({"status": {"is": "timeout"}, "success": True}, ("success", 1, 0, 0, 0)),
    ({"status": "Success"}, ("Success", 0, 0, 0, 0)),
    ({"status": "odd", "success": True}, ("odd", 1, 0, 0, 0)),
    ({"status": 7}, ("7", 0, 0, 0, 0)),
    ({"status": True}, ("true", 0, 0, 0, 0)),
    ({"status": ""}, ("", 0, 0, 0, 0)),
]


async def test_status_and_counts_come_from_status_and_success(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    columns = ("tool_status", "success_count", "error_count", "timeout_count", "cancelled_count")
    found = await calls(connection, rules, session, [data for data, _ in STATUSES], *columns)
    assert dict(zip(map(str, STATUSES), found, strict=True)) == {str(case): case[1] for case in STATUSES}


async def test_a_duration_is_digits_alone_that_fit_bigint_or_0(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    documents = [f'{{"duration_ms": {number}}}' for number in NUMBERS]
    found = await calls(connection, rules, session, documents, "duration_ms")
    assert dict(zip(NUMBERS, found, strict=True)) == {number: value or 0 for number, value in NUMBERS.items()}
    assert MOST in found


TURN_IDS: list[tuple[Any, Any, str | None]] = [
    ({"turn_id": "data"}, {"turn_id": "context"}, "context"),
    ({"turn_id": "data"}, {}, "data"),
    ({}, {"turn_id": "context"}, "context"),
    ({}, {}, None),
    ({"turn_id": "data"}, {"turn_id": None}, "data"),
    ({"turn_id": "data"}, {"turn_id": ["context"]}, "data"),
    ({"turn_id": "data"}, {"turn_id": {}}, "data"),
    ({"turn_id": "data"}, "[]", "data"),
    ({"turn_id": "data"}, '"turn_id"', "data"),
    ({"turn_id": "data"}, "null", "data"),
    ({"turn_id": "data"}, {"turn_id": 7}, "7"),
    ({"turn_id": "data"}, {"turn_id": ""}, ""),
    ({"turn_id": {"id": "data"}}, {}, None),
]


async def test_the_turn_is_the_contexts_else_the_datas(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    documents, contexts, expected = map(list, zip(*TURN_IDS, strict=True))
    assert await calls(connection, rules, session, documents, "turn_id", contexts=contexts) == expected


@pytest.mark.parametrize("key", ["tool_call_id", "tool_name", "display_name", "capability_name"])
async def test_texts_are_any_scalars_text(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, key: str
) -> None:
    column = {"display_name": "tool_display_name_snapshot", "capability_name": "capability_name_snapshot"}.get(key, key)
    given = ["text", "", 7, 1.50, True, False, None, {"a": 1}, [1], "Ünïcödé 🦀"]
    expected = ["text", "", "7", "1.5", "true", "false", None, None, None, "Ünïcödé 🦀"]
    assert await calls(connection, rules, session, [{key: value} for value in given], column) == expected


async def test_a_capability_is_a_non_empty_json_string_or_none(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    given = ["web", " ", "", None, 7, True, ["web"], {"id": "web"}]
    documents = [{"capability_id": value, "capability_name": "Web"} for value in given]
    found = await calls(connection, rules, session, documents, "capability_id", "capability_name_snapshot")
    assert found == [("web", "Web"), (" ", "Web"), *[(None, "Web")] * 6]
    assert await count_facts(connection) == {"fact_tool_call": len(given), "fact_capability_usage": 2}


@pytest.mark.parametrize("key", ["tool_name", "status", "capability_id"])
async def test_indexed_texts_of_any_length_are_projected_and_bounded(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, key: str
) -> None:
    given = [long_text(), "ü" * 500, "ü" * 501, "x" * 1000, "x" * 1001, "🦀" * 10_000]
    column = "tool_status" if key == "status" else key
    found = await calls(connection, rules, session, [{key: value} for value in given], column)
    assert found == [
        shortened(given[0]), given[1], shortened(given[2]), given[3], shortened(given[4]), shortened(given[5]),
    ]  # fmt: skip


async def test_a_call_with_every_text_very_long_is_projected(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    keys = ("tool_call_id", "tool_name", "display_name", "status", "capability_id", "capability_name", "turn_id")
    data = {key: long_text() for key in keys}
    (row,) = await calls(connection, rules, session, [data])
    assert {key: row[key] for key in ("tool_name", "capability_id", "tool_status")} == {
        "tool_name": shortened(data["tool_name"]),
        "capability_id": shortened(data["capability_id"]),
        "tool_status": shortened(data["status"]),
    }
    usage = await fact(
        connection, "fact_capability_usage", row["source_key"] + ":invoked", "capability_id", "tool_name"
    )
    assert usage == (row["capability_id"], row["tool_name"])
