"""`POST /v1/reports/admin/backfill` on a database, over a socket (contract: http.md, backfill)."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from projector.backfill import alone
from projector.batch import BatchRules, run_batch
from tests.api import assert_problem, public_id, running_api
from tests.obstacles import opened, wait_until, wait_until_blocking
from tests.oracle import differences, expected_facts, read_facts, read_sources
from tests.platform_rows import EPOCH, add_event, add_generation, add_org, add_posting, add_session, enqueue

PATH = "/v1/reports/admin/backfill"
COUNTS = ("events", "llm_generations", "sessions", "usage_ledger")
NEWEST_ROW = "SELECT source_id FROM reporting_outbox ORDER BY id DESC LIMIT 1"
NOTHING = dict.fromkeys(("enqueued", *COUNTS), 0)


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def add_sources(connection: asyncpg.Connection, times: int, org_id: int = 1, **columns: Any) -> UUID:
    """So many sources of each type; gives their session."""
    await add_org(connection, org_id)
    for _ in range(times):
        session = await add_session(connection, org_id, **columns)
        await add_event(connection, session, "tool.completed", {"tool_name": "search"}, **columns)
        await add_generation(connection, org_id, session_id=session, **columns)
        await add_posting(connection, org_id, **columns)
    return session


def result(**counts: int) -> dict[str, int]:
    return NOTHING | counts | {"enqueued": sum(counts.values())}


async def test_the_answer_has_the_contracts_five_fields_and_no_others(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_sources(connection, 2)
    async with running_api(database) as api:
        answer = await api.post(PATH, {"limit": 5000})
        assert (answer.status, answer.json) == (
            200, result(events=2, llm_generations=2, sessions=2, usage_ledger=2),
        )  # fmt: skip
        assert (await api.post(PATH, {"limit": 5000})).json == NOTHING


@pytest.mark.parametrize("body", [None, {}], ids=["no body", "an empty object"])
async def test_the_limit_is_a_thousand_where_none_is_given(
    database: str, connection: asyncpg.Connection, body: Any
) -> None:
    await add_org(connection)
    await connection.execute(
        "INSERT INTO usage_ledger (org_id, currency, amount, meter_source) SELECT 1, 'USD', 1, 'llm'"
        " FROM generate_series(1, 1001)"
    )
    async with running_api(database) as api:
        assert (await api.post(PATH, body)).json == result(usage_ledger=1000)
        assert (await api.post(PATH, body)).json == result(usage_ledger=1)


async def test_the_limit_is_spent_on_events_sessions_generations_ledger_the_oldest_first(
    database: str, connection: asyncpg.Connection
) -> None:
    for hour in (2, 1):
        await add_sources(connection, 1, created_at=EPOCH + timedelta(hours=hour))
    async with running_api(database) as api:
        for name, table in (
            ("events", "events"),
            ("sessions", "sessions"),
            ("llm_generations", "llm_generations"),
            ("usage_ledger", "usage_ledger"),
        ):
            oldest_first = await connection.fetch(f"SELECT id FROM {table} ORDER BY created_at")
            for source in oldest_first:
                assert (await api.post(PATH, {"limit": 1})).json == result(**{name: 1})
                assert await connection.fetchval(NEWEST_ROW) == str(source["id"])
        assert (await api.post(PATH, {"limit": 1})).json == NOTHING


async def test_calling_until_nothing_is_enqueued_reaches_everything(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_sources(connection, 20)
    total = 0
    async with running_api(database) as api:
        while enqueued := (await api.post(PATH, {"limit": 7})).json["enqueued"]:
            assert enqueued <= 7
            total += enqueued
            await run_batch(connection, rules, 100)
    assert total == 80
    assert not differences(expected_facts(await read_sources(connection)), await read_facts(connection))


async def test_only_the_callers_org_is_filled(database: str, connection: asyncpg.Connection) -> None:
    for org_id in (1, 2):
        await add_sources(connection, org_id, org_id)
    async with running_api(database) as api:
        assert (await api.post(PATH, {}, by="other")).json["enqueued"] == 8
        assert await connection.fetchval("SELECT array_agg(DISTINCT org_id) FROM reporting_outbox") == [2]
        answer = await api.post(PATH, {}, by="both", headers={"X-Org-Id": public_id(1)})
        assert answer.json["enqueued"] == 4


async def test_a_platform_wide_caller_names_an_org_or_takes_all(database: str, connection: asyncpg.Connection) -> None:
    for org_id in (1, 2, 3):
        await add_sources(connection, 1, org_id)
    async with running_api(database) as api:
        assert_problem(await api.post(PATH, {}, by="platform"), 400, "bad_request")
        assert (await api.post(PATH, {"org_id": public_id(3)}, by="platform")).json["enqueued"] == 4
        assert (await api.post(PATH, {"org_id": "*"}, by="platform")).json["enqueued"] == 8
        assert_problem(await api.post(PATH, {"org_id": "*"}), 403, "forbidden")
        assert_problem(await api.post(PATH, {"org_id": public_id(2)}), 404, "not_found")


async def test_source_types_range_mode_and_dry_run_narrow_it_down(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for hour in range(3):
        await add_sources(connection, 1, created_at=EPOCH + timedelta(hours=hour))
    since, until = ((EPOCH + timedelta(hours=hour)).isoformat() for hour in (1, 2))
    async with running_api(database) as api:
        whole = result(events=3, llm_generations=3, sessions=3, usage_ledger=3)
        assert (await api.post(PATH, {"dry_run": True})).json == whole
        assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 0
        ranged = {"from": since, "to": until, "source_types": ["session", "usage_ledger"]}
        assert (await api.post(PATH, ranged)).json == result(sessions=1, usage_ledger=1)
        assert (await api.post(PATH, {"from": until})).json["enqueued"] == 4
        assert (await api.post(PATH, {})).json["enqueued"] == 6
        await run_batch(connection, rules, 100)
        await connection.execute("UPDATE llm_generations SET input_tokens = 9")
        assert (await api.post(PATH, {})).json == NOTHING
        assert (await api.post(PATH, {"mode": "stale"})).json == result(llm_generations=3)
        await run_batch(connection, rules, 100)
        assert (await api.post(PATH, {"mode": "all"})).json == whole


@pytest.mark.parametrize("source_types", [["weather"], ["event", "Event"]])
async def test_an_unknown_source_type_is_refused_and_the_known_ones_named(
    database: str, source_types: list[str]
) -> None:
    async with opened(database) as connection:
        await add_org(connection)
    async with running_api(database) as api:
        problem = assert_problem(await api.post(PATH, {"source_types": source_types}), 400, "bad_request")
    assert problem["detail"] == "source_types: must be of event, session, llm_generation, usage_ledger"


async def test_a_second_backfill_of_the_same_org_is_a_conflict_others_are_not(
    database: str, connection: asyncpg.Connection
) -> None:
    for org_id in (1, 2):
        await add_sources(connection, 1, org_id)
    async with running_api(database) as api:
        async with alone(connection, 1):
            problem = assert_problem(await api.post(PATH, {}), 409, "conflict")
            assert problem["retry_after_seconds"] == 1
            assert (await api.post(PATH, {}, by="other")).json["enqueued"] == 4
        assert (await api.post(PATH, {})).json["enqueued"] == 4


async def test_of_many_backfills_at_once_each_source_is_enqueued_and_counted_once(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_sources(connection, 25)
    async with running_api(database) as api:
        answers = await asyncio.gather(*(api.post(PATH, {"limit": 1000}) for _ in range(30)))
        assert {answer.status for answer in answers} <= {200, 409}
        assert sum(answer.json["enqueued"] for answer in answers if answer.status == 200) == 100
        assert (await api.post(PATH, {})).json == NOTHING
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 100
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_backfill_while_the_application_writes_and_the_projector_projects(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_sources(connection, 30)
    ended = asyncio.Event()

    async def write() -> None:
        async with opened(database) as application:
            for _ in range(40):
                async with application.transaction():
                    session = await add_session(application)
                    event = await add_event(application, session, "turn.completed", {"turn_id": "t"})
                    await enqueue(application, "session", session)
                    if event.int % 2:  # half of the rows get lost
                        await enqueue(application, "event", event, version=str(event))
        ended.set()

    async def project() -> None:
        async with opened(database) as worker:
            while not ended.is_set():
                await run_batch(worker, rules, 20)

    async with running_api(database) as api:

        async def fill() -> None:
            while not ended.is_set():
                assert (await api.post(PATH, {"limit": 9})).status == 200

        await asyncio.gather(write(), project(), fill())
        while (await api.post(PATH, {"limit": 50})).json["enqueued"]:
            await run_batch(connection, rules, 1000)
    while (await run_batch(connection, rules, 1000)).claimed:
        pass
    assert not differences(expected_facts(await read_sources(connection)), await read_facts(connection))


async def test_time_that_is_up_before_anything_is_found_says_so_and_the_next_call_goes_on(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    await connection.execute(
        "INSERT INTO usage_ledger (org_id, currency, amount, meter_source) SELECT 1, 'USD', 1, 'llm'"
        " FROM generate_series(1, 30000)"
    )
    await connection.execute(
        "INSERT INTO fact_budget_posting (org_id, source_key, created_at, time_bucket_day)"
        " SELECT 1, 'usage_ledger:' || id, now(), now() FROM (SELECT id FROM usage_ledger ORDER BY id LIMIT 29999) AS l"
    )
    answers = []
    async with running_api(database, reporting_api_operation_secs=0.1) as api:
        for _ in range(50):
            answers.append(await api.post(PATH, {"limit": 1}))
            if answers[-1].status == 200:
                break
            problem = assert_problem(answers[-1], 503, "incomplete")
            assert "goes on from there" in problem["detail"]
    assert answers[-1].json == result(usage_ledger=1)


async def test_a_database_that_goes_away_in_the_middle_leaves_whole_slices_and_the_next_call_goes_on(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_sources(connection, 3)
    async with running_api(database) as api, opened(database) as application:
        async with application.transaction():
            source = await application.fetchval("SELECT id::text FROM usage_ledger ORDER BY id LIMIT 1")
            await application.execute(
                "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
                " VALUES (1, 'usage_ledger', $1, $1, 'budget_posting_projection')",
                source,
            )
            call = asyncio.create_task(api.post(PATH, {}))
            await wait_until_blocking(connection, application.get_server_pid())
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'reporting-backfill-api'"
            )
            problem = assert_problem(await call, 503, "unavailable")
            assert problem["retry_after_seconds"] >= 1
        counts = await connection.fetch("SELECT source_type, count(*) FROM reporting_outbox GROUP BY 1 ORDER BY 1")
        assert {record[0]: record[1] for record in counts} == {
            "event": 3, "session": 3, "llm_generation": 3, "usage_ledger": 1,
        }  # fmt: skip

        async def freed() -> bool:
            return (await api.post(PATH, {})).status == 200

        await wait_until(freed)
        actions = (await api.get("/v1/reports/admin/actions")).json["actions"]
        assert (actions[-1]["outcome"], actions[-1]["rows"]) == ("failed", 9)
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 12


async def test_what_was_enqueued_is_counted_by_source_type(database: str, connection: asyncpg.Connection) -> None:
    await add_sources(connection, 2)
    name = "reporting_backfill_enqueued_total"
    async with running_api(database) as api:
        await api.post(PATH, {"dry_run": True})
        assert api.metric(name, source_type="event") == 0
        await api.post(PATH, {"limit": 3})
        assert [api.metric(name, source_type=kind) for kind in ("event", "session")] == [2, 1]
