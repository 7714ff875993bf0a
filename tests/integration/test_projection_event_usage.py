"""The usage of capabilities, from events of three types (contract: facts.md, fact_capability_usage)."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, NUMBERS, fact, facts_of, long_text, project_events, shortened
from tests.obstacles import opened
from tests.platform_rows import add_event, add_named, add_org, add_session, facts
from tests.scenes import count_facts, project

USAGE = "fact_capability_usage"


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def session(connection: asyncpg.Connection) -> UUID:
    await add_org(connection)
    return await add_session(connection)


def record(**members: Any) -> dict[str, Any]:
    return {"capability_id": "web", "usage_kind": "exposed", **members}


async def usages(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, records: list[Any], *columns: str
) -> list[Any]:
    """Columns of the facts that the records of one event give, in order; None for a record that gives none."""
    (event,), _ = await project_events(connection, rules, session, "capability.usage", [{"records": records}])
    keys = [f"event:{event}:capability_usage:{number}" for number in range(1, len(records) + 1)]
    return await facts_of(connection, USAGE, keys, *columns)


async def test_a_record_of_usage_has_these_columns(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    user, principal, app = uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=agent, harness_id=harness, resolved_owner_user_id=user, owner_principal_id=principal,
        app_id=app, blueprint_id="blue",
    )  # fmt: skip
    full = {
        "capability_id": "web", "capability_name": "Web", "usage_kind": "resolved", "tool_name": "search",
        "usage_count": 3, "duration_ms": 40, "turn_id": "turn_record", "details": "secret",
    }  # fmt: skip
    bare = {"capability_id": "shell", "usage_kind": "exposed"}
    data, context = {"records": [full, bare], "turn_id": "turn_data"}, {"turn_id": "turn_context"}
    event = await add_event(connection, session, "capability.usage", data, context, ts=EARLY)
    async with opened(database, timezone="Pacific/Kiritimati") as elsewhere:
        assert (await project(elsewhere, rules, ("event", event))).facts == {"capability_usage": 2}
    common = {
        "org_id": 1, "session_id": session, "turn_id": "turn_context", "user_id": user,
        "principal_id": principal, "agent_id": agent, "agent_name_snapshot": "Ada", "harness_id": harness,
        "harness_name_snapshot": "Shell", "app_id": app, "blueprint_id": "blue", "created_at": EARLY,
        "time_bucket_day": EARLY_DAY,
    }  # fmt: skip
    first, second = (f"event:{event}:capability_usage:{number}" for number in (1, 2))
    assert await fact(connection, USAGE, first) == common | {
        "source_key": first, "capability_id": "web", "capability_name_snapshot": "Web",
        "capability_usage_kind": "resolved", "tool_name": "search", "usage_count": 3, "duration_ms": 40,
    }  # fmt: skip
    assert await fact(connection, USAGE, second) == common | {
        "source_key": second, "capability_id": "shell", "capability_name_snapshot": None,
        "capability_usage_kind": "exposed", "tool_name": None, "usage_count": 1, "duration_ms": 0,
    }  # fmt: skip


async def test_each_kind_of_usage_gives_a_fact_and_any_other_is_skipped(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    known = ["configured", "resolved", "exposed", "invoked", "effect_ran"]
    unknown = ["Exposed", "exposed ", "", "used", None, 7, True, ["exposed"], {"kind": "exposed"}]
    records = [record(usage_kind=kind) for kind in (*known, *unknown)]
    found = await usages(connection, rules, session, [*records, record()], "capability_usage_kind")
    assert found == [*known, *[None] * len(unknown), "exposed"]


async def test_a_capability_id_is_a_non_empty_json_string_or_the_record_is_skipped(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    given = ["web", " ", "Ü", "", None, 7, True, ["web"], {"id": "web"}]
    records = [*(record(capability_id=value) for value in given), record()]
    found = await usages(connection, rules, session, records, "capability_id")
    assert found == ["web", " ", "Ü", *[None] * 6, "web"]


async def test_skipped_records_are_counted_by_reason_once_each_time_they_are_projected(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    no_capability: list[Any] = [{"usage_kind": "exposed"}, record(capability_id=""), {}, "web", 7, None, [record()]]
    no_kind: list[Any] = [{"capability_id": "web"}, record(usage_kind="used"), record(usage_kind=None)]
    documents = [{"records": [record(), *no_capability, *no_kind]}, {"records": no_kind}]
    events, result = await project_events(connection, rules, session, "capability.usage", documents)
    expected = {"capability_id": len(no_capability), "usage_kind": 2 * len(no_kind)}
    assert (result.skipped, result.facts) == (expected, {"capability_usage": 1})
    again = await project(connection, rules, *(("event", event) for event in events))
    assert (again.skipped, again.facts) == (expected, {"capability_usage": 1})


async def test_records_that_are_no_array_are_none(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    given: list[Any] = [
        {"records": record()}, {"records": {"0": record()}}, {"records": "[]"}, {"records": json.dumps([record()])},
        {"records": 7}, {"records": None}, {"records": True}, {"records": []}, {"record": [record()]}, {}, [record()],
        [{"records": [record()]}], '"records"', "null", "7",
    ]  # fmt: skip
    _, result = await project_events(connection, rules, session, "capability.usage", given)
    assert (result.skipped, result.facts) == ({}, {})
    assert await count_facts(connection) == {}


async def test_counts_and_durations_of_records_are_digits_alone_or_the_defaults(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    members = (f'"usage_count": {number}, "duration_ms": {number}' for number in NUMBERS)
    records = [f'{{"capability_id": "web", "usage_kind": "exposed", {member}}}' for member in members]
    document = f'{{"records": [{", ".join(records)}]}}'
    (event,), _ = await project_events(connection, rules, session, "capability.usage", [document])
    keys = [f"event:{event}:capability_usage:{number}" for number in range(1, len(records) + 1)]
    found = await facts_of(connection, USAGE, keys, "usage_count", "duration_ms")
    assert dict(zip(NUMBERS, found, strict=True)) == {
        number: (1, 0) if value is None else (value, value) for number, value in NUMBERS.items()
    }


async def test_texts_of_records_are_any_scalars_text(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    given = ["text", "", 7, True, None, {"a": 1}, [1]]
    records = [record(capability_name=value, tool_name=value) for value in given]
    found = await usages(connection, rules, session, records, "capability_name_snapshot", "tool_name")
    assert found == [(text, text) for text in ("text", "", "7", "true", None, None, None)]


async def test_long_texts_of_records_are_projected_and_those_in_an_index_bounded(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    text = long_text()
    records = [record(capability_id=text, capability_name=text, tool_name=text)]
    columns = ("capability_id", "capability_name_snapshot", "tool_name")
    assert await usages(connection, rules, session, records, *columns) == [(shortened(text), text, shortened(text))]


@pytest.mark.parametrize("event_type", ["capability.usage", "output.message.replaced"])
async def test_the_turn_of_usage_is_the_contexts_else_the_datas(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID, event_type: str
) -> None:
    given = {"records": [record()], "guardrail_capability_id": "guard"}
    pairs = [("data", "context"), ("data", None), (None, "context"), (None, None)]
    events, _ = await project_events(
        connection, rules, session, event_type, [given | {"turn_id": data} for data, _ in pairs],
        [{"turn_id": context} for _, context in pairs],
    )  # fmt: skip
    found = {row["source_key"].split(":")[1]: row["turn_id"] for row in await facts(connection, USAGE)}
    assert [found[str(event)] for event in events] == ["context", "data", "context", None]


async def test_a_guardrail_that_replaced_a_message_has_run(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    data = {
        "guardrail_capability_id": "guard", "capability_id": "web", "capability_name": "Web", "tool_name": "search",
        "usage_count": 5, "duration_ms": 40,
    }  # fmt: skip
    (event,), result = await project_events(connection, rules, session, "output.message.replaced", [data])
    assert result.facts == {"capability_usage": 1}
    columns = (
        "capability_id", "capability_name_snapshot", "capability_usage_kind", "tool_name", "usage_count", "duration_ms",
    )  # fmt: skip
    found = await fact(connection, USAGE, f"event:{event}:effect_ran", *columns)
    assert found == ("guard", "guard", "effect_ran", None, 1, 0)


async def test_a_guardrail_is_a_non_empty_json_string_of_any_length_or_none(
    connection: asyncpg.Connection, rules: BatchRules, session: UUID
) -> None:
    text = long_text()
    given = [text, "", None, 7, True, ["guard"], {"id": "guard"}]
    documents = [{"guardrail_capability_id": value} for value in given]
    events, result = await project_events(connection, rules, session, "output.message.replaced", [*documents, {}])
    assert result.facts == {"capability_usage": 1}
    found = await fact(connection, USAGE, f"event:{events[0]}:effect_ran", "capability_id", "capability_name_snapshot")
    assert found == (shortened(text), text)
