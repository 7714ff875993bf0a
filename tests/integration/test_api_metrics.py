"""The service's metrics: names, closed sets of labels, no tenant; and the outbox gauges from a real database."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from backfill_api.problems import ApiError, Code
from tests.api import FakeOperations, RunningApi, public_id, running_api
from tests.obstacles import wait_until
from tests.platform_rows import add_org, enqueue

BACKFILL = "/v1/reports/admin/backfill"
SOURCE_TYPES = {"event", "session", "llm_generation", "usage_ledger", "other"}
OUTCOMES = {"done", "refused", "conflict", "rate_limited", "incomplete", "timeout", "unavailable", "error"}


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def api(operations: FakeOperations) -> AsyncIterator[RunningApi]:
    async with running_api(operations=operations) as running:
        yield running


async def families(api: RunningApi) -> dict[str, Metric]:
    answer = await api.get("/metrics", by=None)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("reporting_backfill_enqueued", "counter", {"source_type"}),
        ("reporting_backfill_requests", "counter", {"outcome"}),
        ("reporting_api_request_seconds", "histogram", {"route", "method", "status", "le"}),
        ("reporting_outbox_lag_seconds", "gauge", {"source_type"}),
        ("reporting_outbox_sampled_timestamp_seconds", "gauge", set()),
        ("reporting_api_build_info", "gauge", {"version", "python"}),
    ],
)
async def test_the_names_that_operators_watch_are_there(
    api: RunningApi, name: str, kind: str, labels: set[str]
) -> None:
    await api.post(BACKFILL)
    family = (await families(api))[name]
    assert (family.type, bool(family.documentation)) == (kind, True)
    assert {label for sample in family.samples for label in sample.labels} == labels


async def test_counters_are_there_from_the_start_so_that_their_first_increase_shows(api: RunningApi) -> None:
    for source_type in SOURCE_TYPES:
        assert api.metric("reporting_backfill_enqueued_total", source_type=source_type) == 0
    for outcome in OUTCOMES:
        assert api.metric("reporting_backfill_requests_total", outcome=outcome) == 0


async def test_source_types_that_nobody_knows_are_other() -> None:
    async with running_api() as api:
        # As the operations tell it: the only thing of theirs that this test needs.
        metrics = api.service.metrics
        metrics.enqueued("event", 3)
        metrics.enqueued("event", 2)
        metrics.enqueued("canary_type", 5)
        assert api.metric("reporting_backfill_enqueued_total", source_type="event") == 5
        assert api.metric("reporting_backfill_enqueued_total", source_type="other") == 5
        assert b"canary_type" not in (await api.get("/metrics", by=None)).body


ENDS = [
    (None, {}, "admin", "done"), (None, {"limit": 0}, "admin", "refused"), (None, {}, "viewer", "refused"),
    (None, {}, None, "refused"), (ApiError(Code.CONFLICT), {}, "admin", "conflict"),
    (ApiError(Code.INCOMPLETE, retry_after=1), {}, "admin", "incomplete"),
    (asyncpg.QueryCanceledError(), {}, "admin", "timeout"), (OSError(), {}, "admin", "unavailable"),
    (ValueError(), {}, "admin", "error"),
]  # fmt: skip


@pytest.mark.parametrize(("raises", "body", "by", "outcome"), ENDS, ids=range(len(ENDS)))
async def test_backfills_are_counted_by_how_they_end(
    api: RunningApi, operations: FakeOperations, raises: Exception | None, body: object, by: str | None, outcome: str
) -> None:
    operations.script.raises = raises
    await api.post(BACKFILL, body, by=by)
    await api.get(BACKFILL)
    await api.get("/v1/reports/admin/diagnostics")
    counts = {other: api.metric("reporting_backfill_requests_total", outcome=other) for other in OUTCOMES}
    assert counts == dict.fromkeys(OUTCOMES, 0.0) | {outcome: 1.0}


async def test_requests_are_counted_by_route_and_never_by_path(api: RunningApi) -> None:
    for path in ("/a", "/b/canary", "/v1/reports/admin/backfill/x"):
        await api.get(path)
    await api.request("BREW", "/a")
    await api.request("PROPFIND", "/a")
    await api.get(f"/v1/reports/admin/diagnostics?org_id={public_id(1)}")
    await api.get("/v1/reports/admin/diagnostics", by=None)
    diagnostics = "/v1/reports/admin/diagnostics"
    name = "reporting_api_request_seconds_count"
    assert api.metric(name, route="unmatched", method="GET", status="4xx") == 3
    assert api.metric(name, route="unmatched", method="other", status="4xx") == 2
    assert api.metric(name, route=diagnostics, method="GET", status="2xx") == 1
    assert api.metric(name, route=diagnostics, method="GET", status="4xx") == 1
    assert b"canary" not in (await api.get("/metrics", by=None)).body


async def test_no_metric_tells_of_a_tenant(api: RunningApi) -> None:
    for by in ("admin", "other", "platform"):
        await api.post(BACKFILL, {"org_id": "*"} if by == "platform" else {}, by=by)
    for family in (await families(api)).values():
        assert family.name.startswith("reporting_")
        for sample in family.samples:
            assert not {"org", "org_id", "organization", "tenant", "actor"} & set(sample.labels)
            assert not {public_id(1), "admin"} & set(sample.labels.values())


async def test_the_outbox_is_sampled(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    await enqueue(connection, "event", uuid4())
    await enqueue(connection, "canary", uuid4())
    async with running_api(database) as api:

        async def sampled() -> bool:
            return api.metric("reporting_outbox_rows", status="pending") == 2

        await wait_until(sampled)
        assert (api.metric("reporting_outbox_lag_seconds", source_type="other") or 0) > 0
        assert (api.metric("reporting_outbox_lag_seconds", source_type="event") or 0) > 0
        assert api.metric("reporting_outbox_lag_seconds", source_type="session") == 0


async def test_sampling_changes_nothing(database: str, connection: asyncpg.Connection) -> None:
    await add_org(connection)
    row = await enqueue(connection, "event", uuid4())
    await connection.execute(
        "UPDATE reporting_outbox SET status = 'processing', claimed_at = now() - interval '1 h' WHERE id = $1", row
    )
    async with running_api(database) as api:

        async def sampled() -> bool:
            return api.metric("reporting_outbox_rows", status="processing") == 1

        await wait_until(sampled)
        await asyncio.sleep(0.3)
    assert await connection.fetchval("SELECT status FROM reporting_outbox") == "processing"


async def test_metrics_are_served_while_the_database_is_away() -> None:
    async with running_api() as api:
        assert "reporting_api_build_info" in await families(api)
        assert json.loads((await api.get("/livez", by=None)).body) == {"status": "alive"}
