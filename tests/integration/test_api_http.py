"""What is no HTTP, or comes too slowly, or is too much: answered in the contract's shape, and cut off in time."""

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import AsyncIterator

import pytest

from backfill_api.problems import CONTENT_TYPE
from backfill_api.server import Limits
from tests.api import FakeOperations, RunningApi, running_api
from tests.raw_http import closes_of, parsed

SECRET = b"canary-5ecret"
HOST = b"Host: x\r\n"
QUICK = Limits(idle_seconds=0.6, body_seconds=0.4, answer_seconds=0.6, linger_seconds=0.3)


@pytest.fixture
async def api() -> AsyncIterator[RunningApi]:
    async with running_api(operations=FakeOperations(), limits=QUICK) as running:
        yield running


BOTH = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
MANY = b"".join(b"A%d: a\r\n" % number for number in range(99))
MALFORMED = [
    (b"GARBAGE\r\n\r\n", 400, "bad_request"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    (b"FOO /" + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    (b"GET / HTTP/3.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    (b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    (b"GET http://x:" + SECRET + b"/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\r\n" + HOST + SECRET + b"\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A b: c\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00" + SECRET + b"\r\n\r\n", 400, "bad_request"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "bad_request"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400, "bad_request"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400, "bad_request"),
    (b"POST / HTTP/1.1\r\n" + HOST + BOTH + b"\r\n0\r\n\r\n", 400, "bad_request"),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A" * 9000 + b": a\r\n\r\n", 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\n" + HOST + MANY + b"\r\n", 431, "headers_too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "code"), MALFORMED, ids=range(len(MALFORMED)))
async def test_what_is_no_http_gets_a_problem_and_the_connection_ends(
    api: RunningApi, sent: bytes, status: int, code: str
) -> None:
    got_status, headers, body = parsed(await api.raw(sent))
    problem = json.loads(body)
    assert (got_status, problem["status"], problem["code"]) == (status, status, code)
    assert headers["content-type"] == f"{CONTENT_TYPE}; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "backfill-api"
    assert headers["x-request-id"]
    assert "instance" not in problem
    assert SECRET not in body
    assert SECRET.decode() not in str(api.capture.entries)
    assert api.metric("reporting_api_request_seconds_count", route="unmatched", method="other", status="4xx") == 1


async def test_garbage_after_a_request_on_the_same_connection(api: RunningApi) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
    writer.write(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"alive" in await reader.readuntil(b"}")
    writer.write(b"GARBAGE\r\n\r\n")
    status, _, body = parsed(await reader.read())
    assert (status, json.loads(body)["code"]) == (400, "bad_request")
    writer.close()


@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize("chunks", [b"zz\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"])
async def test_a_body_whose_chunks_are_malformed(api: RunningApi, chunks: bytes, pause: float) -> None:
    head = b"POST /v1/reports/admin/backfill HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    auth = f"Authorization: Bearer {api.token('admin')}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
    writer.write(head + auth)
    await asyncio.sleep(pause)
    writer.write(chunks)
    status, _, body = parsed(await asyncio.wait_for(reader.read(), 5))
    # aiohttp does not tell who waits for the body; it is then late.
    assert (status, json.loads(body)["code"]) in {(400, "bad_request"), (408, "request_timeout")}
    writer.close()


async def test_connect_and_options_of_everything_are_problems_too(api: RunningApi) -> None:
    for line in (b"CONNECT a:80 HTTP/1.1", b"OPTIONS * HTTP/1.1"):
        status, _, body = parsed(await api.raw(line + b"\r\n" + HOST + b"Connection: close\r\n\r\n"))
        assert (status, json.loads(body)["code"]) == (404, "not_found")


async def test_an_upgrade_is_not_made(api: RunningApi) -> None:
    head = b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert b" 200 OK" in (await api.raw(head)).splitlines()[0]


async def closes(api: RunningApi, sent: bytes, *, trickle: bytes = b"", pause: float = 0.1) -> tuple[float, bytes]:
    return await closes_of(api.service.port, sent, trickle=trickle, pause=pause, longest=10)


async def test_a_connection_without_a_request_ends(api: RunningApi) -> None:
    lived, got = await closes(api, b"")
    assert (lived < 2, got) == (True, b"")


async def test_a_head_that_trickles_in_ends_however_busy_it_looks(api: RunningApi) -> None:
    lived, _ = await closes(api, b"GET /livez HTTP/1.1\r\nHost: x\r\n", trickle=b"a: b\r\n")
    assert lived < 2


QUICK_HEAD = Limits(head_seconds=0.4, head_bytes=10_000)


async def test_a_head_that_trickles_in_is_answered_and_cut_off_though_connections_may_idle() -> None:
    async with running_api(operations=FakeOperations(), limits=QUICK_HEAD) as api:
        lived, got = await closes(api, b"GET /livez HTTP/1.1\r\nHost: x\r\n", trickle=b"a: b\r\n")
        status, _, body = parsed(got)
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
        assert lived < 3
        reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
        for _ in range(3):  # each has its own time, and idleness between them is none of it
            writer.write(b"GET /livez HTTP/1.1\r\n")
            await asyncio.sleep(0.2)
            writer.write(HOST + b"\r\n")
            assert b"alive" in await reader.readuntil(b"}")
            await asyncio.sleep(0.5)
        writer.close()


async def test_a_head_that_comes_in_pieces_may_not_be_large() -> None:
    async with running_api(operations=FakeOperations(), limits=QUICK_HEAD) as api:
        header = b"A: " + b"a" * 3000 + b"\r\n"
        lived, got = await closes(api, b"GET /livez HTTP/1.1\r\nHost: x\r\n", trickle=header, pause=0.01)
        status, _, body = parsed(got)
        assert (status, json.loads(body)["code"]) == (431, "headers_too_large")
        assert lived < 3


async def test_a_body_that_trickles_in_is_answered_and_cut_off(api: RunningApi) -> None:
    head = b"POST /v1/reports/admin/backfill HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    auth = f"Authorization: Bearer {api.token('admin')}\r\nContent-Length: 1000\r\n\r\n".encode()
    lived, got = await closes(api, head + auth, trickle=b" ")
    status, _, body = parsed(got)
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    assert lived < 3


async def test_a_body_that_nobody_waits_for_does_not_keep_the_connection(api: RunningApi) -> None:
    head = b"POST /v1/reports/admin/backfill HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
    lived, got = await closes(api, head, trickle=b" ")
    assert parsed(got)[0] == 401
    assert lived < 3


async def test_a_client_that_does_not_take_its_answer_is_cut_off(api: RunningApi) -> None:
    page = len((await api.get("/docs/swagger-ui-bundle.js", by=None)).body)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port, limit=1)
    # More than the system's buffers hold.
    writer.write((b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\n" + HOST + b"\r\n") * 10)
    await asyncio.sleep(2)
    taken = 0
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.wait_for(reader.read(1 << 20), 5):
            taken += len(part)
    writer.close()
    assert taken < 9 * page
    assert (await api.get("/livez", by=None)).status == 200


async def test_a_thousand_half_open_connections_do_no_harm() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine does not let a process have 4,096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    try:
        async with running_api(operations=FakeOperations(), limits=Limits(idle_seconds=3)) as api:
            halves = await asyncio.gather(*(half_open(api, number) for number in range(1000)))
            started = time.monotonic()
            assert (await api.get("/livez", by=None)).status == 200
            assert (await api.get("/v1/reports/admin/diagnostics")).status == 200
            assert time.monotonic() - started < 1
            ends = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in halves)), 10)
            assert set(ends) == {b""}
            for _, writer in halves:
                writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def half_open(api: RunningApi, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.service.port)
    writer.write(b"GET /v1/reports" if number % 2 else b"")
    return reader, writer


async def test_connections_are_kept_between_requests(api: RunningApi) -> None:
    answers = await api.raw((b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n") * 3)
    assert answers.count(b" 200 OK") == 3
