"""`last_error` tells SQLSTATE and our own words, never what a row holds (design: promise 5)."""

from uuid import UUID

import asyncpg
import pytest

from projector import outbox
from projector.batch import BatchResult, BatchRules, run_batch
from tests.claimed import fail_ids, tids_of
from tests.obstacles import enqueue_tools, refuse_by_check, refuse_by_trigger
from tests.platform_rows import add_event, add_org, add_session, enqueue, outbox_row

CANARY = "canary_3b1f"  # would pass for a name of the database's


async def project_bad_tool(connection: asyncpg.Connection, rules: BatchRules) -> tuple[UUID, BatchResult]:
    """Projects a tool call that holds the canary wherever a tool call can."""
    await add_org(connection)
    session = await add_session(connection, blueprint_id=CANARY)
    data = dict.fromkeys(("tool_name", "display_name", "status", "tool_call_id", "turn_id", "capability_name"), CANARY)
    row = await enqueue(connection, "event", await add_event(connection, session, "tool.completed", data, data))
    return row, await run_batch(connection, rules, 10)


async def last_error(connection: asyncpg.Connection, row: UUID) -> str:
    record = await outbox_row(connection, row)
    assert record["last_error"] is not None
    return str(record["last_error"])


async def test_a_constraints_report_of_the_failing_row_is_left_out(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await refuse_by_check(connection, "fact_tool_call", f"tool_name = '{CANARY}'")
    row, result = await project_bad_tool(connection, rules)
    error = await last_error(connection, row)
    assert error.startswith("23514 CheckViolationError: a constraint of the fact table refused the fact")
    assert CANARY not in error
    assert CANARY not in repr(result)


FIELDS = {
    "message": "RAISE EXCEPTION '%', NEW.tool_name",
    "detail and hint": "RAISE EXCEPTION 'no' USING DETAIL = NEW.tool_name, HINT = NEW.tool_name",
    "names": "RAISE EXCEPTION 'no' USING SCHEMA = NEW.tool_name, TABLE = NEW.tool_name, COLUMN = NEW.tool_name,"
    " DATATYPE = NEW.tool_name",
    "constraint": "RAISE EXCEPTION 'no' USING CONSTRAINT = NEW.tool_name",
    "constraint of a check": "RAISE EXCEPTION 'no' USING ERRCODE = '23514', CONSTRAINT = NEW.tool_name",
    "a value that is no number": "NEW.call_count = NEW.tool_name::bigint",
    "another state": "RAISE EXCEPTION '%', NEW.tool_name USING ERRCODE = '22023'",
    "a broken trigger": """EXECUTE format('SELECT %I', NEW.tool_name)""",
}


@pytest.mark.parametrize("raising", FIELDS.values(), ids=list(FIELDS))
async def test_what_a_trigger_says_is_left_out(connection: asyncpg.Connection, rules: BatchRules, raising: str) -> None:
    await refuse_by_trigger(connection, "fact_tool_call", "true", raising=raising)
    row, result = await project_bad_tool(connection, rules)
    error = await last_error(connection, row)
    assert CANARY not in error
    assert CANARY not in repr(result)
    assert error[:5].isalnum()
    assert error[5] == " "


async def test_ids_and_types_that_are_refused_are_not_repeated(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    malformed = await enqueue(connection, "event", CANARY)
    unknown = await enqueue(connection, CANARY, CANARY)
    await run_batch(connection, rules, 10)
    for row in (malformed, unknown):
        assert CANARY not in await last_error(connection, row)


async def test_an_error_is_cut_at_2000_characters(connection: asyncpg.Connection) -> None:
    failed, postponed = await enqueue_tools(connection, ["search", "read"])
    await fail_ids(connection, [failed], "ä" * 5000, 10)
    await outbox.postpone(connection, await tids_of(connection, [postponed]), "ä" * 5000, 1.0)
    for row in (failed, postponed):
        assert await last_error(connection, row) == "ä" * 2000
