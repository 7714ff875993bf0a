"""Any JSON in any place: it never fails a row, and gives what the contract says (facts.md, numbers inside JSON)."""

import hashlib
import itertools
import json

import asyncpg
import pytest

from projector.batch import BatchRules
from projector.projections import BUILT_IN
from tests.backfills import assert_nothing_is_missing, enqueued
from tests.derivations import NUMBERS, long_text
from tests.platform_rows import add_event, add_org, add_session
from tests.scenes import Source, assert_facts_follow, count_facts, project

DEPTH = 500

VALUES = [
    *NUMBERS,
    "1e-5", "-1e400", "1" + "0" * 3000, "0." + "0" * 3000 + "1", "1e131071", "123456789012345678901234567890.5",
    "[]", "[[]]", "[null]", "[{}]", "{}", '{"": null}', '{"a": {"a": {"a": 1}}}',
    "[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + "1" + "}" * DEPTH, '[{"a":' * (DEPTH // 2) + "1" + "}]" * (DEPTH // 2),
    r'"\u0001\u001f\u007f"', r'"\ud83e\udd80"', r'"\u202e\u200b\ufeff\u2028"', r'"e\u0301"', '"\U0010ffff"',
    '"%s %n \\\\ \\" \' ; -- $1 {} :x"', '"success"', '"exposed"', '"records"', '"turn_1"', '"web"', '" "', r'"\t\r\n"',
    '{"input_tokens": 5, "input_tokens": 6}', '{"ref": "web", "ref": "files"}', '{"ref": {"ref": "web"}}',
    '{"capability_id": "web", "usage_kind": "exposed"}', '[{"capability_id": "web", "usage_kind": "exposed"}]',
    '{"records": [{"capability_id": "web", "usage_kind": "exposed"}]}', '{"turn_id": "turn_1"}', '["web"]',
    json.dumps(long_text()), json.dumps("🦀" * 5000), "[" + ", ".join(["1"] * 2000) + "]",
]  # fmt: skip
"""JSON texts of all kinds, to be put in every place."""

EVENT_TYPES = ("tool.completed", "turn.completed", "turn.failed", "capability.usage", "output.message.replaced")

# In each, VALUE is what a value is put for. The rest is as it should be.
DATA = [
    "VALUE",
    '{"turn_id": "turn_1", "turn_id": VALUE}',
    '{"tool_name": VALUE, "tool_call_id": VALUE, "display_name": VALUE, "capability_name": VALUE}',
    '{"status": VALUE, "capability_id": "web", "duration_ms": 1}',
    '{"success": VALUE, "status": "timeout"}',
    '{"success": VALUE}',
    '{"capability_id": VALUE, "tool_name": "search", "guardrail_capability_id": VALUE}',
    '{"duration_ms": VALUE, "iterations": VALUE, "capability_id": "web"}',
    '{"usage": VALUE, "turn_id": "turn_1"}',
    '{"usage": {"input_tokens": VALUE, "output_tokens": VALUE, "cache_read_tokens": VALUE}}',
    '{"usage": {"cache_creation_tokens": VALUE, "input_tokens": "9223372036854775807", "output_tokens": 1}}',
    '{"records": VALUE}',
    '{"records": [VALUE, {"capability_id": "web", "usage_kind": "exposed"}, VALUE]}',
    '{"records": [{"capability_id": VALUE, "usage_kind": "exposed"}, {"capability_id": "web", "usage_kind": VALUE}]}',
    '{"records": [{"capability_id": "web", "usage_kind": "invoked", "capability_name": VALUE, "tool_name": VALUE}]}',
    '{"records": [{"capability_id": "web", "usage_kind": "invoked", "usage_count": VALUE, "duration_ms": VALUE}]}',
]
CONTEXT = ["VALUE", '{"turn_id": VALUE}', '{"turn_id": "turn_1", "turn_id": VALUE}']
CAPABILITIES = ["VALUE", '["web", VALUE]', '["web", {"ref": VALUE}]', '[{"ref": "web", "config": VALUE}, VALUE]']


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def add_events(connection: asyncpg.Connection, rows: list[tuple[str, str, str]]) -> list[Source]:
    """Events of one session, each given as type, data and context."""
    session = await add_session(connection)
    records = await connection.fetch(
        """
        INSERT INTO events (session_id, sequence, event_type, data, context)
        SELECT $1, row_number() OVER (), given.event_type, given.data::jsonb, given.context::jsonb
        FROM unnest($2::text[], $3::text[], $4::text[]) AS given (event_type, data, context)
        RETURNING id
        """,
        session, *map(list, zip(*rows, strict=True)),
    )  # fmt: skip
    return [("event", record["id"]) for record in records]


async def assert_no_event_is_missing(connection: asyncpg.Connection) -> None:
    """A backfill finds no event that was projected: it expects the very facts that projecting gives."""
    assert await enqueued(connection, dry_run=True, projections=BUILT_IN[:1]) == {}


@pytest.mark.parametrize("event_type", EVENT_TYPES)
async def test_any_value_in_any_place_of_an_events_data(
    connection: asyncpg.Connection, rules: BatchRules, event_type: str
) -> None:
    await add_org(connection)
    documents = [document.replace("VALUE", value) for document in DATA for value in VALUES]
    sources = await add_events(connection, [(event_type, document, "{}") for document in documents])
    for _ in range(2):
        await project(connection, rules, *sources)
        await assert_facts_follow(connection, *sources)
    await assert_no_event_is_missing(connection)


async def test_any_value_in_any_place_of_an_events_context(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    places = itertools.product(EVENT_TYPES, CONTEXT, VALUES)
    data = (
        '{"turn_id": "turn_2", "capability_id": "web", "records": [{"capability_id": "web", "usage_kind": "exposed"}]}'
    )
    sources = await add_events(
        connection, [(kind, data, context.replace("VALUE", value)) for kind, context, value in places]
    )
    for _ in range(2):
        await project(connection, rules, *sources)
        await assert_facts_follow(connection, *sources)
    await assert_no_event_is_missing(connection)


async def test_any_value_in_any_place_of_a_sessions_capabilities(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    sources: list[Source] = []
    for document, value in itertools.product(CAPABILITIES, VALUES):
        session = await add_session(connection)
        await connection.execute(
            "UPDATE sessions SET capabilities = $2::text::jsonb WHERE id = $1",
            session,
            document.replace("VALUE", value),
        )
        sources.append(("session", session))
    for _ in range(2):
        await project(connection, rules, *sources)
        await assert_facts_follow(connection, *sources)
    await assert_nothing_is_missing(connection)


async def test_a_thousand_records_and_capabilities_in_one_document(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    names = [f"capability-{number}" for number in range(1000)]
    session = await add_session(connection, capabilities=[*names, *({"ref": name} for name in names)])
    records = [{"capability_id": name, "usage_kind": "exposed"} for name in names]
    event = await add_event(connection, session, "capability.usage", {"records": records})
    result = await project(connection, rules, ("session", session), ("event", event))
    assert result.facts == {"sessions": 1, "capability_usage": 2000}
    await assert_facts_follow(connection)
    await assert_nothing_is_missing(connection)


async def test_a_capability_id_that_looks_like_the_short_form_of_another_is_a_fact_of_its_own(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    text = "x" * 1001
    forged = text[:200] + "#" + hashlib.sha256(text.encode()).hexdigest()
    session = await add_session(connection, capabilities=["web", text, forged])
    for _ in range(2):
        await project(connection, rules, ("session", session))
        assert await count_facts(connection) == {"fact_session": 1, "fact_capability_usage": 3}
    await assert_nothing_is_missing(connection)
