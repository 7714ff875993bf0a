"""`GET /v1/reports/admin/diagnostics` on a database, over a socket (contract: http.md, diagnostics)."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from projector import diagnostics
from projector.batch import BatchRules, run_batch
from projector.diagnostics import read_outbox_of_org
from tests.api import running_api
from tests.claimed import fail
from tests.obstacles import set_columns
from tests.platform_rows import EPOCH, add_org, enqueue_generations

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


async def test_diagnostics_of_a_database_without_anything(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    async with running_api(database) as api:
        body = (await api.get(DIAGNOSTICS)).json
    assert sorted(entry["dataset"] for entry in body["projector_lag"]) == sorted(DATASETS)
    assert all(set(entry) == {"dataset"} for entry in body["projector_lag"])  # optional fields are left out
    assert body["outbox"] == {"pending": 0, "processing": 0, "failed": 0, "completed": 0, "failed_rows": []}
    assert abs((datetime.fromisoformat(body["generated_at"]) - datetime.now(UTC)).total_seconds()) < 60


async def test_diagnostics_tell_of_the_callers_org_alone(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await enqueue_generations(connection, 2)
    await run_batch(connection, rules, 10)
    pending, processing, failing, dead = await enqueue_generations(connection, 4)
    await set_columns(connection, [processing], status="processing")
    await fail(connection, [failing], dead=False)
    await fail(connection, [dead])
    await fail(connection, await enqueue_generations(connection, 5, org_id=2))
    created = await connection.fetchval("SELECT created_at FROM reporting_outbox WHERE id = $1", pending)
    async with running_api(database) as api:
        body = (await api.get(DIAGNOSTICS)).json
        theirs = (await api.get(DIAGNOSTICS, by="other")).json
        whole = (await api.get(f"{DIAGNOSTICS}?org_id=*", by="platform")).json
    counts = {name: value for name, value in body["outbox"].items() if isinstance(value, int)}
    assert counts == {"pending": 1, "processing": 1, "failed": 2, "completed": 2}
    assert datetime.fromisoformat(body["outbox"]["oldest_pending_at"]) == created
    assert [UUID(row["id"]) for row in body["outbox"]["failed_rows"]] == [dead, failing]
    assert set(body["outbox"]["failed_rows"][0]) == {
        "id", "org_id", "source_type", "source_id", "attempts", "last_error", "updated_at",
    }  # fmt: skip
    fresh = {entry["dataset"]: entry for entry in body["projector_lag"]}
    assert 0 <= fresh["llm_generations"]["freshness_lag_ms"] < 60_000
    assert set(fresh["turns"]) == {"dataset"}
    assert (theirs["outbox"]["failed"], theirs["outbox"]["completed"]) == (5, 0)
    assert all(set(entry) == {"dataset"} for entry in theirs["projector_lag"])
    assert (whole["outbox"]["failed"], whole["outbox"]["completed"]) == (7, 2)


async def test_diagnostics_count_no_leases_of_another_org_and_date_pending_rows_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    failing, first, second = await enqueue_generations(connection, 3)
    await fail(connection, [failing], dead=False)
    for row, hours in ((failing, 1), (first, 2), (second, 3)):
        await set_columns(connection, [row], created_at=EPOCH + timedelta(hours=hours))
    await set_columns(connection, await enqueue_generations(connection, 2, org_id=2), status="processing")
    async with running_api(database) as api:
        outbox = (await api.get(DIAGNOSTICS)).json["outbox"]
    assert (outbox["pending"], outbox["processing"], outbox["failed"]) == (2, 0, 1)
    assert datetime.fromisoformat(outbox["oldest_pending_at"]) == EPOCH + timedelta(hours=2)


async def test_the_oldest_pending_row_is_dated_alike_for_one_org_and_for_all(
    database: str, connection: asyncpg.Connection
) -> None:
    failing, pending = await enqueue_generations(connection, 2)
    await fail(connection, [failing], dead=False)
    await set_columns(connection, [failing], next_attempt_at=EPOCH)
    await set_columns(connection, [pending], created_at=EPOCH + timedelta(hours=2))
    async with running_api(database) as api:
        ours = (await api.get(DIAGNOSTICS)).json["outbox"]
        whole = (await api.get(f"{DIAGNOSTICS}?org_id=*", by="platform")).json["outbox"]
    assert whole["oldest_pending_at"] == ours["oldest_pending_at"]


@pytest.fixture
def counted_no_further(monkeypatch: pytest.MonkeyPatch) -> int:
    """Completed rows are counted up to so many; beyond that they are estimated."""
    monkeypatch.setattr(diagnostics, "_MOST_COUNTED", 100)
    return 100


async def test_completed_rows_are_counted_up_to_the_bound_itself(
    connection: asyncpg.Connection, counted_no_further: int
) -> None:
    for org_id in (1, 2):
        await add_completed(connection, org_id, counted_no_further)
    await connection.execute("ANALYZE reporting_outbox")
    assert (await read_outbox_of_org(connection, 1)).completed == counted_no_further


@pytest.mark.usefixtures("counted_no_further")
async def test_completed_rows_beyond_the_bound_are_the_orgs_share_of_all(connection: asyncpg.Connection) -> None:
    await add_completed(connection, 1, 4000)
    await add_completed(connection, 2, 12_000)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("ANALYZE reporting_outbox")
    assert 3000 <= (await read_outbox_of_org(connection, 1)).completed <= 5000


@pytest.mark.usefixtures("counted_no_further")
async def test_what_waits_is_not_estimated_to_be_completed(connection: asyncpg.Connection) -> None:
    await add_completed(connection, 1, 2000)
    await add_completed(connection, 1, 6000, status="pending")
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("ANALYZE reporting_outbox")
    counts = await read_outbox_of_org(connection, 1)
    assert 5000 <= counts.pending <= 7000
    assert 1000 <= counts.completed <= 3000


async def add_completed(connection: asyncpg.Connection, org_id: int, rows: int, status: str = "completed") -> None:
    """Outbox rows of an org."""
    await add_org(connection, org_id)
    await connection.execute(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, status)"
        " SELECT $1, 'event', gen_random_uuid()::text, 'test', $3 FROM generate_series(1, $2)",
        org_id, rows, status,
    )  # fmt: skip
