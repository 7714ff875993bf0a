"""The other endpoints on a database, over a socket: run, diagnose, list, requeue, audit (contract: http.md)."""

import base64
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.api import RunningApi, assert_problem, public_id, running_api
from tests.claimed import fail
from tests.obstacles import opened, statuses
from tests.platform_rows import add_event, add_org, add_session, enqueue, enqueue_generations

RUN = "/v1/reports/projector/run"
DIAGNOSTICS = "/v1/reports/admin/diagnostics"
OUTBOX = "/v1/reports/admin/outbox"
REQUEUE = "/v1/reports/admin/outbox/requeue"
ACTIONS = "/v1/reports/admin/actions"
BACKFILL = "/v1/reports/admin/backfill"
DATASETS = ["llm_generations", "tool_calls", "turns", "sessions", "budget_postings", "capability_usage"]


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def test_a_run_projects_due_rows_of_the_callers_org_alone(database: str, connection: asyncpg.Connection) -> None:
    ours, theirs = [await enqueue_generations(connection, 3, org_id) for org_id in (1, 2)]
    bad = await enqueue(connection, "llm_generation", "no uuid")
    async with running_api(database) as api:
        answer = await api.post(RUN)
        assert (answer.status, answer.json) == (200, {"claimed": 4, "completed": 3, "failed": 1})
        assert (await api.post(RUN)).json == {"claimed": 0, "completed": 0, "failed": 0}
    assert await statuses(connection, [*ours, bad, *theirs]) == ["completed"] * 3 + ["failed"] + ["pending"] * 3
    assert await connection.fetchval("SELECT count(*) FROM fact_llm_generation") == 3


@pytest.mark.parametrize(("query", "claimed"), [("", 100), ("?limit=7", 7), ("?limit=10000", 130)])
async def test_a_run_claims_no_more_than_its_limit(
    database: str, connection: asyncpg.Connection, query: str, claimed: int
) -> None:
    await enqueue_generations(connection, 130)
    async with running_api(database) as api:
        assert (await api.post(RUN + query)).json == {"claimed": claimed, "completed": claimed, "failed": 0}


async def test_a_run_of_several_batches_adds_them_up(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    await connection.execute("""
        INSERT INTO reporting_outbox (org_id, source_type, source_id, reason)
        SELECT 1, 'llm_generation', gen_random_uuid()::text, 'test' FROM generate_series(1, 2500)
    """)
    async with running_api(database) as api:
        assert (await api.post(f"{RUN}?limit=2400")).json == {"claimed": 2400, "completed": 2400, "failed": 0}


async def test_a_run_of_all_orgs_is_for_platform_wide_callers(database: str, connection: asyncpg.Connection) -> None:
    for org_id in (1, 2):
        await enqueue_generations(connection, 2, org_id)
    async with running_api(database) as api:
        assert_problem(await api.post(RUN, by="platform"), 400, "bad_request")
        assert_problem(await api.post(f"{RUN}?org_id=*"), 403, "forbidden")
        assert (await api.post(f"{RUN}?org_id=*", by="platform")).json["completed"] == 4


async def test_a_run_leaves_rows_that_a_worker_holds_and_releases_leases_that_ran_out(
    database: str, connection: asyncpg.Connection
) -> None:
    held, leased, free = await enqueue_generations(connection, 3)
    await connection.execute(
        "UPDATE reporting_outbox SET status = 'processing', claimed_at = now() - interval '16 minutes' WHERE id = $1",
        leased,
    )
    async with running_api(database) as api, opened(database) as worker, worker.transaction():
        await worker.execute("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", held)
        assert (await api.post(RUN)).json["completed"] == 2
    assert await statuses(connection, [held, leased, free]) == ["pending", "completed", "completed"]


async def test_failed_rows_are_listed_page_by_page_within_the_org(
    database: str, connection: asyncpg.Connection
) -> None:
    rows = await enqueue_generations(connection, 5)
    await fail(connection, rows)
    await fail(connection, await enqueue_generations(connection, 2), dead=False)
    await fail(connection, await enqueue_generations(connection, 3, org_id=2))
    seen: list[dict[str, Any]] = []
    async with running_api(database) as api:
        path = f"{OUTBOX}?status=dead&source_type=llm_generation&limit=2"
        page = (await api.get(path)).json
        while "next_cursor" in page:
            seen += page["rows"]
            page = (await api.get(f"{path}&cursor={page['next_cursor']}")).json
        seen += page["rows"]
        assert len((await api.get(f"{OUTBOX}?status=failed")).json["rows"]) == 2
        assert len((await api.get(OUTBOX)).json["rows"]) == 7
        assert len((await api.get(f"{OUTBOX}?org_id=*", by="platform")).json["rows"]) == 10
        assert (await api.get(f"{OUTBOX}?source_type=session")).json == {"rows": []}
    assert [UUID(row["id"]) for row in seen] == sorted(rows, reverse=True)
    assert {row["status"] for row in seen} == {"dead"}
    assert all("next_attempt_at" not in row and row["last_error"] == "22003" for row in seen)


@pytest.mark.parametrize(
    "cursor", ["x", "e30", "bm8", "MjAyNi0wMS0wMQ", "%00", "a" * 400, "MjAyNi0wMS0wMVQwMDowMDowMCB4"]
)
@pytest.mark.parametrize("path", [OUTBOX, ACTIONS])
async def test_a_cursor_that_is_none_of_ours_is_refused(database: str, path: str, cursor: str) -> None:
    async with opened(database) as connection:
        await add_org(connection)
    async with running_api(database) as api:
        assert_problem(await api.get(f"{path}?cursor={cursor}"), 400, "bad_request")


async def test_failed_rows_are_requeued_by_id_by_type_or_all_within_the_org(
    database: str, connection: asyncpg.Connection
) -> None:
    ours, theirs = [await enqueue_generations(connection, 4, org_id) for org_id in (1, 2)]
    await fail(connection, [*ours, *theirs])
    async with running_api(database) as api:
        named = {"ids": [str(row) for row in (ours[0], theirs[0], uuid4())]}
        assert (await api.post(REQUEUE, named | {"dry_run": True})).json == {"requeued": 1, "more": False}
        assert await statuses(connection, ours) == ["failed"] * 4
        assert (await api.post(REQUEUE, named)).json == {"requeued": 1, "more": False}
        assert (await api.post(REQUEUE, {"source_type": "session"})).json == {"requeued": 0, "more": False}
        one = {"source_type": "llm_generation", "limit": 1}
        assert (await api.post(REQUEUE, one | {"dry_run": True})).json == {"requeued": 1, "more": True}
        assert (await api.post(REQUEUE, one)).json == {"requeued": 1, "more": True}
        assert (await api.post(REQUEUE, {"all_dead": True})).json == {"requeued": 2, "more": False}
        assert await statuses(connection, [*ours, *theirs]) == ["pending"] * 4 + ["failed"] * 4
        everywhere = {"all_dead": True, "org_id": "*"}
        assert_problem(await api.post(REQUEUE, everywhere), 403, "forbidden")
        assert (await api.post(REQUEUE, everywhere, by="platform")).json == {"requeued": 4, "more": False}


@pytest.mark.parametrize(
    "body",
    [{}, {"all_dead": False}, {"all_dead": True, "source_type": "event"}, {"ids": []}, {"ids": ["x"]}, {"limit": 5}],
    ids=str,
)
async def test_a_requeue_names_exactly_one_kind_of_rows(database: str, body: dict[str, Any]) -> None:
    async with opened(database) as connection:
        await add_org(connection)
    async with running_api(database) as api:
        assert_problem(await api.post(REQUEUE, body), 400, "bad_request")


async def actions(api: RunningApi, query: str = "", by: str = "admin") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await api.get(ACTIONS + query, by=by)).json["actions"]
    return listed


async def test_every_action_leaves_a_record_of_who_what_when_how_many_and_how_it_ended(
    database: str, connection: asyncpg.Connection
) -> None:
    (dead,) = await enqueue_generations(connection, 1)
    await fail(connection, [dead])
    async with running_api(database) as api:
        await api.post(BACKFILL, {"limit": 10, "mode": "all"}, headers={"X-Request-Id": "req-1"})
        await api.post(REQUEUE, {"ids": [str(dead)]})
        await api.post(f"{RUN}?limit=5")
        await api.post(BACKFILL, {"dry_run": True})
        listed = await actions(api)
        logged = api.logged("operator action")
    assert [(entry["operation"], entry["rows"], entry["outcome"]) for entry in listed] == [
        ("backfill_reporting", 0, "done"),
        ("run_projector", 1, "done"),
        ("requeue_outbox", 1, "done"),
        ("backfill_reporting", 0, "done"),
    ]
    assert {entry["actor"] for entry in listed} == {"admin"}
    assert {entry["org_id"] for entry in listed} == {1}
    assert listed[-1]["parameters"] == {"limit": 10, "mode": "all"}
    assert listed[-1]["request_id"] == "req-1"
    assert all(entry["started_at"] <= entry["finished_at"] for entry in listed)
    assert [entry["action"] for entry in logged] == [entry["operation"] for entry in reversed(listed)]
    assert {(entry["actor"], entry["org_id"]) for entry in logged} == {("admin", 1)}


async def test_the_audit_of_an_org_is_its_own_and_comes_in_pages(database: str, connection: asyncpg.Connection) -> None:
    for org_id in (1, 2):
        await add_org(connection, org_id)
    async with running_api(database) as api:
        for number in range(1, 6):
            await api.post(f"{RUN}?limit={number}")
        await api.post(RUN, by="other")
        await api.post(f"{RUN}?org_id=*", by="platform")
        page = (await api.get(f"{ACTIONS}?limit=3")).json
        rest = (await api.get(f"{ACTIONS}?limit=3&cursor={page['next_cursor']}")).json
        limits = [entry["parameters"]["limit"] for entry in (*page["actions"], *rest["actions"])]
        assert limits == [5, 4, 3, 2, 1]
        assert "next_cursor" not in rest
        assert [entry["actor"] for entry in await actions(api, by="other")] == ["other"]
        whole = await actions(api, "?org_id=*", by="platform")
        assert len(whole) == 7
        assert "org_id" not in whole[0]


async def test_an_action_that_ends_in_an_error_is_recorded_as_failed_with_what_it_had_done(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    await add_event(connection, session, "tool.completed")
    await connection.execute("ALTER TABLE usage_ledger RENAME TO usage_ledger_away")
    try:
        async with running_api(database) as api:
            assert (await api.post(BACKFILL, {})).status == 503
            (record,) = await actions(api)
            (line,) = api.logged("operator action failed; what it had done stands")
    finally:
        await connection.execute("ALTER TABLE usage_ledger_away RENAME TO usage_ledger")
    assert (record["outcome"], record["rows"]) == ("failed", 2)
    assert line["error"] == "42P01 UndefinedTableError: the database's schema does not fit the projection"


async def test_a_refused_backfill_is_recorded_as_such(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    async with running_api(database) as api:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('reporting_backfill:1', 0))")
        assert (await api.post(BACKFILL, {})).status == 409
        await connection.execute("SELECT pg_advisory_unlock_all()")
        assert [record["outcome"] for record in await actions(api)] == ["refused"]


async def test_an_org_is_found_by_its_public_id_in_either_case(database: str, connection: asyncpg.Connection) -> None:
    await connection.execute("INSERT INTO organizations VALUES (11, $1, 'x')", "org_" + "AB" * 16)
    async with running_api(database) as api:
        for public in ("org_" + "ab" * 16, "org_" + "AB" * 16):
            assert (await api.post(RUN, by="platform", headers={"X-Org-Id": public})).status == 200
        unknown = await api.post(RUN, by="platform", headers={"X-Org-Id": public_id(12)})
        assert_problem(unknown, 404, "not_found")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_cursor_whose_moment_is_beyond_the_calendar_is_refused(
    database: str, connection: asyncpg.Connection, moment: str
) -> None:
    await add_org(connection)
    text = f"{moment} 00000000-0000-0000-0000-000000000000"
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    async with running_api(database) as api:
        assert_problem(await api.get(f"{OUTBOX}?cursor={cursor}"), 400, "bad_request")


async def test_a_run_that_an_error_ends_records_the_rows_of_the_batches_before(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    await connection.execute(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, reason)"
        " SELECT 1, 'llm_generation', gen_random_uuid()::text, 'test' FROM generate_series(1, 1500)"
    )
    await connection.execute("""
        CREATE FUNCTION refuse_the_second_batch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM reporting_outbox WHERE status = 'completed') > 1000 THEN
                RAISE EXCEPTION USING ERRCODE = '57P03';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER refuse_the_second_batch AFTER UPDATE ON reporting_outbox
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_the_second_batch();
    """)
    try:
        async with running_api(database) as api:
            assert_problem(await api.post(f"{RUN}?limit=1500"), 503, "unavailable")
            (record,) = await actions(api)
    finally:
        await connection.execute("DROP FUNCTION refuse_the_second_batch CASCADE")
    assert (record["outcome"], record["rows"]) == ("failed", 1000)


async def test_a_requeue_by_ids_keeps_its_limit_and_tells_of_more(
    database: str, connection: asyncpg.Connection
) -> None:
    rows = await enqueue_generations(connection, 3)
    await fail(connection, rows)
    body: dict[str, Any] = {"ids": [str(row) for row in rows], "limit": 2}
    async with running_api(database) as api:
        for dry_run in (True, False):
            answer = await api.post(REQUEUE, body | {"dry_run": dry_run})
            assert answer.json == {"requeued": 2, "more": True}, dry_run
        assert (await api.post(REQUEUE, body)).json == {"requeued": 1, "more": False}
    assert await statuses(connection, rows) == ["pending"] * 3
