"""Budget postings, from the usage ledger (contract: facts.md, fact_budget_posting)."""

import math
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, fact, facts_of, long_text
from tests.obstacles import opened
from tests.platform_rows import add_named, add_org, add_posting, add_session
from tests.scenes import project

TABLE = "fact_budget_posting"


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def postings(
    connection: asyncpg.Connection, rules: BatchRules, rows: list[dict[str, Any]], *columns: str
) -> list[Any]:
    """Columns of the facts that rows of the ledger give, in order."""
    await add_org(connection)
    written = [await add_posting(connection, **row) for row in rows]
    await project(connection, rules, *(("usage_ledger", posting) for posting in written))
    return await facts_of(connection, TABLE, [f"usage_ledger:{posting}" for posting in written], *columns)


async def test_a_posting_has_its_own_dimensions_and_app_and_blueprint_of_its_session(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    agent, other_agent = [await add_named(connection, "agents", 1, name) for name in ("Ada", "Eve")]
    harness, other_harness = [await add_named(connection, "harnesses", 1, name) for name in ("Shell", "Other")]
    user, principal, app = uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=other_agent, harness_id=other_harness, resolved_owner_user_id=uuid4(), app_id=app,
        blueprint_id="blue",
    )  # fmt: skip
    budget = await connection.fetchval(
        "INSERT INTO budgets (org_id, subject_type, subject_id, currency) VALUES (1, 'agent', 'ada', 'EUR')"
        " RETURNING id"
    )
    posting = await add_posting(
        connection, session_id=session, budget_id=budget, user_id=user, principal_id=principal, agent_id=agent,
        harness_id=harness, currency="USD", amount=1.25, meter_source="llm", ref_type="generation", created_at=EARLY,
    )  # fmt: skip
    async with opened(database, timezone="Pacific/Kiritimati") as elsewhere:
        result = await project(elsewhere, rules, ("usage_ledger", posting))
    assert result.facts == {"budget_postings": 1}
    assert await fact(connection, TABLE, f"usage_ledger:{posting}") == {
        "org_id": 1, "source_key": f"usage_ledger:{posting}", "session_id": session, "user_id": user,
        "principal_id": principal, "agent_id": agent, "agent_name_snapshot": "Ada", "harness_id": harness,
        "harness_name_snapshot": "Shell", "app_id": app, "blueprint_id": "blue", "created_at": EARLY,
        "time_bucket_day": EARLY_DAY, "budget_id": budget, "budget_subject_type": "agent",
        "budget_subject_id": "ada", "currency": "USD", "meter_source": "llm", "ref_type": "generation",
        "amount": 1.25, "debit_count": 1, "credit_count": 0,
    }  # fmt: skip


async def test_a_posting_that_refers_to_nothing_or_to_rows_that_are_gone_is_projected(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    ids = {name: uuid4() for name in ("session_id", "budget_id", "user_id", "principal_id", "agent_id", "harness_id")}
    read = (
        "agent_name_snapshot", "harness_name_snapshot", "app_id", "blueprint_id", "budget_subject_type",
        "budget_subject_id", "ref_type",
    )  # fmt: skip
    found = await postings(connection, rules, [{}, ids], *ids, *read)
    nothing = (None,) * len(read)
    assert found == [(*dict.fromkeys(ids).values(), *nothing), (*ids.values(), *nothing)]


async def test_an_amount_from_0_up_is_a_debit_and_one_below_a_credit(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    amounts = [1.5, 0.0, -0.0, -1.5, 5e-324, -5e-324, 1.7e308, -1.7e308, math.inf, -math.inf]
    found = await postings(
        connection, rules, [{"amount": amount} for amount in amounts], "amount", "debit_count", "credit_count"
    )
    debits = [1, 1, 1, 0, 1, 0, 1, 0, 1, 0]
    assert found == [(amount, debit, 1 - debit) for amount, debit in zip(amounts, debits, strict=True)]


async def test_an_amount_that_is_no_number_is_projected(connection: asyncpg.Connection, rules: BatchRules) -> None:
    ((amount, debits, credits_),) = await postings(
        connection, rules, [{"amount": math.nan}], "amount", "debit_count", "credit_count"
    )
    assert math.isnan(amount)
    assert debits + credits_ == 1


async def test_texts_of_any_length_are_projected(connection: asyncpg.Connection, rules: BatchRules) -> None:
    row = {"currency": long_text(), "meter_source": long_text(), "ref_type": long_text()}
    assert await postings(connection, rules, [row], *row) == [tuple(row.values())]
