"""What every request gets: an id, a trace, a log line, headers; and how often an operator may act."""

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from backfill_api.endpoints import ENDPOINTS, Endpoint
from tests.api import FakeOperations, RunningApi, assert_problem, public_id, running_api

BACKFILL = "/v1/reports/admin/backfill"
REQUEUE = "/v1/reports/admin/outbox/requeue"
RUN = "/v1/reports/projector/run"
DIAGNOSTICS = "/v1/reports/admin/diagnostics"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def api(operations: FakeOperations) -> AsyncIterator[RunningApi]:
    async with running_api(operations=operations) as running:
        yield running


@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 128])
async def test_a_request_id_is_taken_sent_back_logged_and_given_to_the_operation(
    api: RunningApi, operations: FakeOperations, sent: str
) -> None:
    answer = await api.post(BACKFILL, headers={"X-Request-Id": sent})
    assert answer.headers["X-Request-Id"] == sent
    assert api.logged("request")[-1]["request_id"] == sent
    assert operations.script.asked[0].request_id == sent


@pytest.mark.parametrize("sent", ["", " ", "x" * 129, "a b", "a\tb", "ä", "a/b", '{"a":1}', "a,b"])
async def test_any_other_request_id_is_replaced(api: RunningApi, operations: FakeOperations, sent: str) -> None:
    answer = await api.post(BACKFILL, headers={"X-Request-Id": sent})
    given = answer.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", given)
    assert [given] == [line["request_id"] for line in api.logged("request")] == [operations.script.asked[0].request_id]


async def test_errors_have_a_request_id_too(api: RunningApi) -> None:
    for answer in (await api.get("/nowhere", by=None), await api.get(DIAGNOSTICS, by=None)):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("sent", "trace"),
    [
        (PARENT, TRACE), (f"01-{TRACE}-b7ad6b7169203331-01", TRACE), (f"cc-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", None), (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None), (f"00-{TRACE}-{'0' * 16}-01", None), ("", None),
        (PARENT.upper(), None), (PARENT + " ", TRACE), ("nonsense", None),
        (f"00-{TRACE[1:]}-b7ad6b7169203331-01", None),
    ],
    ids=range(12),
)  # fmt: skip
async def test_a_valid_trace_is_logged(api: RunningApi, sent: str, trace: str | None) -> None:
    assert (await api.get(DIAGNOSTICS, headers={"traceparent": sent})).status == 200
    assert api.logged("request")[-1].get("trace_id") == trace


async def test_every_line_of_a_request_tells_its_id_and_trace(api: RunningApi, operations: FakeOperations) -> None:
    operations.script.raises = ValueError()
    await api.get(DIAGNOSTICS, headers={"traceparent": PARENT, "X-Request-Id": "one"})
    for event in ("request failed", "request"):
        (line,) = api.logged(event)
        assert (line["request_id"], line["trace_id"]) == ("one", TRACE)
    await api.get(DIAGNOSTICS, headers={"X-Request-Id": "two"})
    assert "trace_id" not in api.logged("request")[-1]


async def test_the_access_log_tells_who_did_what_and_never_the_path(api: RunningApi) -> None:
    await api.get(f"{DIAGNOSTICS}?org_id={public_id(1)}")
    await api.get("/nowhere/canary-5ecret?token=canary-5ecret", by=None)
    first, second = api.logged("request")
    assert first["duration_ms"] >= 0
    del first["duration_ms"], first["request_id"], second["duration_ms"], second["request_id"]
    assert first == {
        "event": "request", "log_level": "info", "method": "GET", "route": DIAGNOSTICS, "status": 200,
        "actor": "admin", "org": 1,
    }  # fmt: skip
    assert second == {
        "event": "request", "log_level": "info", "method": "GET", "route": "unmatched", "status": 404,
        "code": "not_found",
    }  # fmt: skip


async def test_probes_are_no_lines_of_the_log_unless_somebody_looks_closely(api: RunningApi) -> None:
    for path in ("/livez", "/metrics"):
        await api.get(path, by=None)
    assert {line["log_level"] for line in api.logged("request")} == {"debug"}


API_POLICY = "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("path", [DIAGNOSTICS, "/nowhere", BACKFILL, "/livez", "/metrics", "/openapi.json", "/docs"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_every_answer_carries_the_headers_that_keep_browsers_safe(
    api: RunningApi, method: str, path: str
) -> None:
    answer = await api.request(method, path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Server"] == "backfill-api"
    page = path == "/docs" and answer.status == 200
    assert answer.headers["Cache-Control"] == ("no-cache" if page else "no-store")
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert page or policy == API_POLICY
    assert "script-src 'unsafe" not in policy
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
async def test_options_tells_the_methods_without_credentials(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint
) -> None:
    answer = await api.request("OPTIONS", endpoint.path, by=None)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Allow"] == {"GET": "GET, HEAD, OPTIONS", "POST": "OPTIONS, POST"}[endpoint.method]
    assert operations.script.asked == []


async def test_head_is_a_get_without_its_body(api: RunningApi) -> None:
    whole = await api.get(DIAGNOSTICS)
    head = await api.request("HEAD", DIAGNOSTICS)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))
    assert (await api.request("HEAD", DIAGNOSTICS, by=None)).status == 401
    assert (await api.request("HEAD", "/nowhere")).status == 404


async def test_an_org_that_acts_too_often_waits_and_others_do_not() -> None:
    async with running_api(
        operations=FakeOperations(), reporting_api_org_actions_burst=2, reporting_api_org_actions_per_minute=6
    ) as api:
        assert (await api.post(BACKFILL, {"dry_run": True})).status == 200
        assert (await api.post(RUN)).status == 200
        for answer in (await api.post(BACKFILL, {}), await api.post(RUN), await api.post(REQUEUE, {"all_dead": True})):
            body = assert_problem(answer, 429, "rate_limited")
            assert 1 <= body["retry_after_seconds"] <= 10
            (action,) = body["allowed_actions"]
            assert action["rel"] == "retry-later"
        for path in (DIAGNOSTICS, "/v1/reports/admin/outbox", "/v1/reports/admin/actions"):
            assert (await api.get(path)).status == 200
        assert (await api.post(RUN, by="other")).status == 200
        assert (await api.post(f"{RUN}?org_id=*", by="platform")).status == 200
        assert (await api.post(f"{RUN}?org_id={public_id(1)}", by="platform")).status == 429


async def test_all_orgs_together_have_a_limit_too() -> None:
    async with running_api(
        operations=FakeOperations(), reporting_api_actions_burst=2, reporting_api_actions_per_minute=6
    ) as api:
        assert (await api.post(RUN)).status == 200
        assert (await api.post(f"{RUN}?org_id=*", by="platform")).status == 200
        assert_problem(await api.post(RUN, by="other"), 429, "rate_limited")


async def test_a_stop_lets_a_request_at_work_end_and_takes_none(operations: FakeOperations) -> None:
    operations.script.may_end = asyncio.Event()
    async with running_api(operations=operations) as api:
        at_work = asyncio.create_task(api.get(DIAGNOSTICS))
        await operations.script.begun.wait()
        api.service.stop.set()
        await asyncio.sleep(0.2)
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", api.service.port)
        operations.script.may_end.set()
        assert (await at_work).status == 200
        assert await asyncio.wait_for(api.task, 5) == 0
        assert api.logged("stopped")


async def test_a_request_that_does_not_end_within_the_grace_period_is_cut_off(operations: FakeOperations) -> None:
    operations.script.may_end = asyncio.Event()
    async with running_api(operations=operations, reporting_shutdown_grace_secs=0.3) as api:
        at_work = asyncio.create_task(api.get(DIAGNOSTICS))
        await operations.script.begun.wait()
        api.service.stop.set()
        assert await asyncio.wait_for(api.task, 5) == 1
        with pytest.raises(aiohttp.ClientConnectionError):
            await at_work
        (line,) = api.logged("requests did not end within the grace period, they are cut off")
        assert line["requests"] == 1
