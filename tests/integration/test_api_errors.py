"""Every error of the service in the contract's shape (contract: http.md, errors), over a real socket."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from backfill_api.endpoints import ENDPOINTS, Endpoint
from backfill_api.problems import ApiError, Code
from backfill_api.server import Limits
from tests.api import FakeOperations, RunningApi, assert_problem, public_id, running_api

BACKFILL = "/v1/reports/admin/backfill"
REQUEUE = "/v1/reports/admin/outbox/requeue"
RUN = "/v1/reports/projector/run"
OUTBOX = "/v1/reports/admin/outbox"
ACTIONS = "/v1/reports/admin/actions"
SECRET = "canary-5ecret"
LARGEST = 2048


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def api(operations: FakeOperations) -> AsyncIterator[RunningApi]:
    limits = Limits(body_seconds=0.5)
    async with running_api(operations=operations, limits=limits, reporting_api_max_body_bytes=LARGEST) as running:
        yield running


async def call(api: RunningApi, endpoint: Endpoint, **more: Any) -> Any:
    body = {"requeue_outbox": b'{"all_dead": true}'}.get(endpoint.operation_id)
    headers = {"Content-Type": "application/json"} if body else {}
    return await api.request(endpoint.method, endpoint.path, data=body, headers=headers, **more)


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", BACKFILL + "/", "/v1/reports/%00", "/docs/../x", "/v1//reports", "/%ff%fe"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
async def test_a_path_that_is_not_there(api: RunningApi, method: str, path: str) -> None:
    answer = await api.request(method, path, by=None)
    assert assert_problem(answer, 404, "not_found")["instance"].startswith("/")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
async def test_a_wrong_method_names_the_right_ones(api: RunningApi, endpoint: Endpoint, method: str) -> None:
    if method == endpoint.method:
        return
    answer = await api.request(method, endpoint.path)
    body = assert_problem(answer, 405, "method_not_allowed")
    allowed = {"GET": "GET, HEAD, OPTIONS", "POST": "OPTIONS, POST"}[endpoint.method]
    assert answer.headers["Allow"] == allowed
    assert (body["instance"], body["detail"]) == (endpoint.path, f"this path takes {allowed}")


@pytest.mark.parametrize("content_type", [
    "", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/problem+json",
    "application/json; charset=latin-1", "application/jsonx", "multipart/form-data; boundary=x", "nonsense", ";",
])  # fmt: skip
async def test_another_content_type(api: RunningApi, operations: FakeOperations, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    for data in (b"{}", _chunks(b"{}")):
        answer = await api.request("POST", BACKFILL, data=data, headers=headers)
        assert_problem(answer, 415, "unsupported_media_type")
    assert operations.script.asked == []


async def _chunks(*parts: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(pause)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON", "application/json;charset=UTF-8"])
async def test_json_by_any_of_its_names_is_taken(api: RunningApi, content_type: str) -> None:
    answer = await api.request("POST", BACKFILL, data=b'{"limit": 7}', headers={"Content-Type": content_type})
    assert answer.status == 200


@pytest.mark.parametrize("sent", [None, b"", b"{}"])
async def test_no_body_is_the_defaults(api: RunningApi, operations: FakeOperations, sent: bytes | None) -> None:
    assert (
        await api.request("POST", BACKFILL, data=sent, headers={"Content-Type": "x/y"} if not sent else JSON)
    ).status == 200
    (asked,) = operations.script.asked
    assert asked.arguments[0].limit == 1000


JSON = {"Content-Type": "application/json"}


async def test_a_packed_body_is_not_unpacked(api: RunningApi) -> None:
    answer = await api.post(BACKFILL, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["Accept-Encoding"] == "identity"
    assert (await api.post(BACKFILL, b"{}", headers={"Content-Encoding": "identity"})).status == 200
    bomb = gzip.compress(bytes(100 * LARGEST))
    answer = await api.request("POST", BACKFILL, data=_chunks(bomb), headers=JSON | {"Content-Encoding": "gzip"})
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("headers", "status"),
    [("Content-Type: text/plain\r\nContent-Length: 5", 415), (f"Content-Length: {LARGEST + 1}", 413)],
)
async def test_what_the_head_tells_is_refused_before_the_body_comes(api: RunningApi, headers: str, status: int) -> None:
    json_type = "" if status == 415 else "Content-Type: application/json\r\n"
    head = f"POST {BACKFILL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token('admin')}\r\n{json_type}{headers}"
    answer = await api.raw(f"{head}\r\n\r\n".encode())
    assert f" {status} " in answer.decode().splitlines()[0]


async def test_a_body_that_is_too_large(api: RunningApi) -> None:
    whole = b'{"limit": 1}' + b" " * LARGEST
    for data in (whole, _chunks(*[whole[at : at + 100] for at in range(0, len(whole), 100)])):
        answer = await api.request("POST", BACKFILL, data=data, headers=JSON)
        assert str(LARGEST) in assert_problem(answer, 413, "payload_too_large")["detail"]
    fitting = b'{"limit": 1}'.ljust(LARGEST)
    assert (await api.request("POST", BACKFILL, data=fitting, headers=JSON)).status == 200


async def test_a_body_that_comes_too_slowly(api: RunningApi) -> None:
    answer = await api.request("POST", BACKFILL, data=_chunks(*[b"{"] * 40, pause=0.05), headers=JSON)
    assert assert_problem(answer, 408, "request_timeout")["detail"] == "the body did not arrive within 0.5 s"


DEEP = b"[" * 1000 + b"]" * 1000
NOT_JSON = [
    b"{", b"}", b"\xff\xfe", b'{"limit": \xff}', b'{"limit": "\xed\xa0\x80"}', b"nope", b"{'limit': 1}",
    b'{"limit": 1,}',
    b'{"limit": 1}{}', b'{"limit": NaN}', b'{"limit": Infinity}', b'{"limit": 01}', DEEP, b'{"limit": ' + DEEP + b"}",
    b'{"a":' * 300 + b"1" + b"}" * 300, b'\xef\xbb\xbf{"limit": 1}', b'{"limit": "\\ud800"}', b"\x00", b" ",
]  # fmt: skip


@pytest.mark.parametrize("sent", NOT_JSON, ids=range(len(NOT_JSON)))
@pytest.mark.parametrize("path", [BACKFILL, REQUEUE])
async def test_what_is_not_json(api: RunningApi, operations: FakeOperations, path: str, sent: bytes) -> None:
    body = assert_problem(await api.post(path, sent), 400, "bad_request")
    assert body["detail"].startswith("body: ")
    assert operations.script.asked == []


BAD_BODIES: list[tuple[str, Any, str]] = [
    (BACKFILL, [], "must be an object"),
    (BACKFILL, None, "must be an object"),
    (BACKFILL, "x", "must be an object"),
    (BACKFILL, 7, "must be an object"),
    (BACKFILL, {"limit": 0}, "limit must be greater than or equal to 1"),
    (BACKFILL, {"limit": -1}, "limit must be greater than or equal to 1"),
    (BACKFILL, {"limit": 100_001}, "limit must be less than or equal to 100000"),
    (BACKFILL, {"limit": 2**63}, "limit must be less than or equal to "),
    (BACKFILL, {"limit": 10**200}, "limit must be less than or equal to "),
    (BACKFILL, {"limit": 1.5}, "limit must be a valid integer"),
    (BACKFILL, {"limit": 1e300}, "limit must be less than or equal to "),
    (BACKFILL, {"limit": SECRET}, "limit must be a valid integer"),
    (BACKFILL, {"limit": "5"}, "limit must be a valid integer"),
    (BACKFILL, {"limit": True}, "limit must be a valid integer"),
    (BACKFILL, {"limit": None}, "limit must be a valid integer"),
    (BACKFILL, {SECRET: 1}, "a field is not known; known are limit, source_types, from, to, mode, dry_run, org_id"),
    (BACKFILL, {"created_from": "2026-05-06T10:00:00Z"}, "a field is not known"),
    (BACKFILL, {"mode": SECRET}, "mode must be 'missing', 'stale' or 'all'"),
    (BACKFILL, {"source_types": []}, "source_types must have at least 1 item"),
    (BACKFILL, {"source_types": ["event", 7]}, "source_types[1] must be a valid string"),
    (BACKFILL, {"from": SECRET}, "from must be a date and time as in RFC 3339"),
    (BACKFILL, {"from": "2026-05-06T10:00:00"}, "from must end in an offset"),
    (BACKFILL, {"from": "2026-05-06T10:00:00Z", "to": "2026-05-06T10:00:00Z"}, "from must be before to"),
    (BACKFILL, {"dry_run": "yes"}, "dry_run must be a valid boolean"),
    (BACKFILL, {"org_id": SECRET}, "org_id must match pattern"),
    (REQUEUE, {}, "give exactly one of ids, source_type and all_dead"),
    (REQUEUE, {"ids": [SECRET]}, "ids[0] must be a UUID"),
    (REQUEUE, {"ids": [], "all_dead": True}, "ids must have at least 1 item"),
    (REQUEUE, {"all_dead": True, "source_type": "event"}, "give exactly one of"),
]


@pytest.mark.parametrize(("path", "sent", "told"), BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_a_body_that_is_wrong_is_told_where_and_never_repeated(
    api: RunningApi, operations: FakeOperations, path: str, sent: Any, told: str
) -> None:
    body = assert_problem(await api.post(path, json.dumps(sent).encode()), 400, "bad_request")
    assert body["detail"].startswith(f"body: {told}")
    assert SECRET not in json.dumps(body)
    assert SECRET not in str(api.capture.entries)
    assert operations.script.asked == []


async def test_all_faults_are_told_at_once_but_not_without_end(api: RunningApi) -> None:
    both = assert_problem(await api.post(BACKFILL, {"limit": 0, "dry_run": 1}), 400, "bad_request")
    assert both["detail"] == "body: limit must be greater than or equal to 1; dry_run must be a valid boolean"
    many = assert_problem(await api.post(BACKFILL, {"source_types": [1] * 50}), 400, "bad_request")
    assert many["detail"].endswith("; and 40 more")


async def test_the_last_of_two_equal_names_counts(api: RunningApi, operations: FakeOperations) -> None:
    assert (await api.post(BACKFILL, b'{"limit": 5, "limit": 6}')).status == 200
    assert operations.script.asked[0].arguments[0].limit == 6


BAD_QUERIES = [
    (RUN, "limit=0", "limit must be greater than or equal to 1"),
    (RUN, "limit=10001", "limit must be less than or equal to 10000"),
    (RUN, "limit=", "limit must be a whole number"),
    (RUN, f"limit={SECRET}", "limit must be a whole number"),
    (RUN, "limit=1.0", "limit must be a whole number"),
    (RUN, "limit=%201", "limit must be a whole number"),
    (RUN, "limit=1_0", "limit must be a whole number"),
    (RUN, "limit=%D9%A1", "limit must be a whole number"),
    (RUN, "limit=" + "9" * 100, "limit must be "),
    (RUN, "limit=" + "9" * 5000, "limit must be "),
    (RUN, "limit=1&limit=1", "limit is repeated"),
    (RUN, f"{SECRET}=1", "a parameter is not known; known are org_id, limit"),
    (RUN, "limit=1&=", "a parameter is not known"),
    (OUTBOX, "limit=1001", "limit must be less than or equal to 1000"),
    (OUTBOX, "status=pending", "status must be 'failed' or 'dead'"),
    (OUTBOX, "source_type=", "source_type must have at least 1 character"),
    (OUTBOX, "source_type=%00", "source_type must match pattern"),
    (OUTBOX, "cursor=", "cursor must have at least 1 character"),
    (OUTBOX, "cursor=" + "x" * 501, "cursor must have at most 500 characters"),
    (ACTIONS, "limit=-1", "limit must be greater than or equal to 1"),
    (ACTIONS, f"org_id={SECRET}", "org_id must match pattern"),
    (ACTIONS, "org_id=", "org_id must match pattern"),
    (BACKFILL, "limit=5", "a parameter is not known; this path takes none"),
]


@pytest.mark.parametrize(("path", "query", "told"), BAD_QUERIES, ids=range(len(BAD_QUERIES)))
async def test_a_query_that_is_wrong_is_told_where_and_never_repeated(
    api: RunningApi, operations: FakeOperations, path: str, query: str, told: str
) -> None:
    method = next(endpoint.method for endpoint in ENDPOINTS if endpoint.path == path)
    body = assert_problem(await api.request(method, f"{path}?{query}"), 400, "bad_request")
    assert body["detail"].startswith(f"query: {told}")
    assert body["instance"] == path
    assert SECRET not in json.dumps(body) + str(api.capture.entries)
    assert operations.script.asked == []


FAULTS: list[tuple[Exception, int, str, int | None]] = [
    (asyncpg.UndefinedTableError(SECRET), 503, "unavailable", 30),
    (asyncpg.UndefinedColumnError(SECRET), 503, "unavailable", 30),
    (asyncpg.InsufficientPrivilegeError(SECRET), 503, "unavailable", 30),
    (asyncpg.ConnectionDoesNotExistError(SECRET), 503, "unavailable", 5),
    (asyncpg.InterfaceError(SECRET), 503, "unavailable", 5),
    (asyncpg.InternalClientError(SECRET), 503, "unavailable", 5),
    (asyncpg.TooManyConnectionsError(SECRET), 503, "unavailable", 5),
    (asyncpg.CannotConnectNowError(SECRET), 503, "unavailable", 5),
    (asyncpg.DeadlockDetectedError(SECRET), 503, "unavailable", 5),
    (asyncpg.LockNotAvailableError(SECRET), 503, "unavailable", 5),
    (asyncpg.QueryCanceledError(SECRET), 503, "timeout", 5),
    (ConnectionRefusedError(SECRET), 503, "unavailable", 5),
    (TimeoutError(SECRET), 503, "unavailable", 5),
    (asyncpg.CharacterNotInRepertoireError(SECRET), 400, "bad_request", None),
    (asyncpg.UniqueViolationError(SECRET), 500, "internal_error", None),
    (asyncpg.DataError(SECRET), 500, "internal_error", None),
    (ValueError(SECRET), 500, "internal_error", None),
    (KeyError(SECRET), 500, "internal_error", None),
    (NotImplementedError(SECRET), 500, "internal_error", None),
    (RecursionError(SECRET), 500, "internal_error", None),
    (ApiError(Code.CONFLICT, "a backfill of this org is at work"), 409, "conflict", None),
    (ApiError(Code.INCOMPLETE, "call again", retry_after=1), 503, "incomplete", 1),
    (ApiError(Code.UNPROCESSABLE, "no"), 422, "unprocessable", None),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
@pytest.mark.parametrize(("error", "status", "code", "retry_after"), FAULTS, ids=range(len(FAULTS)))
async def test_what_goes_wrong_inside_is_told_without_its_text(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint, error: Exception, status: int, code: str,
    retry_after: int | None,
) -> None:  # fmt: skip
    operations.script.raises = error
    answer = await call(api, endpoint)
    body = assert_problem(answer, status, code)
    assert body.get("retry_after_seconds") == retry_after
    assert SECRET not in answer.body.decode()
    assert SECRET not in str(api.capture.entries)
    if code == "internal_error":
        assert body["detail"] == "Internal server error"
        (line,) = api.logged("request failed")
        assert type(error).__name__ in line["error"]
        assert any("tests" in place or "api.py" in place for place in line["at"])


async def test_a_request_that_takes_too_long(operations: FakeOperations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backfill_api.service._LATER_SECONDS", 0.1)
    operations.script.may_end = asyncio.Event()
    async with running_api(operations=operations, reporting_api_operation_secs=0.1) as api:
        body = assert_problem(await api.get(ACTIONS), 503, "timeout")
        assert body["retry_after_seconds"] == 5


async def test_an_expectation_that_cannot_be_met(api: RunningApi) -> None:
    for path, by in ((BACKFILL, "admin"), (BACKFILL, None), ("/nowhere", None)):
        answer = await api.request("POST", path, by=by, headers={"Expect": f"{SECRET}"})
        assert_problem(answer, 417, "expectation_failed")
        assert SECRET not in answer.body.decode()


async def test_100_continue_is_met(api: RunningApi) -> None:
    answer = await api.post(BACKFILL, {"limit": 1}, headers={"Expect": "100-continue"})
    assert answer.status == 200


async def test_x_org_id_that_is_sent_twice_and_differs(api: RunningApi) -> None:
    head = f"GET {ACTIONS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {api.token('both')}\r\n"
    twice = f"X-Org-Id: {public_id(1)}\r\nX-Org-Id: {public_id(2)}\r\n\r\n"
    assert b" 400 Bad Request" in (await api.raw((head + twice).encode())).splitlines()[0]
