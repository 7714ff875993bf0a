"""Attacks on the backfill API through its port: it answers in the contract's shape, serves others, and stays small."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.api import public_id
from tests.chaos.attacked import BACKFILL, UNLIMITED, Attacked, attacked
from tests.chaos.share import Chaos
from tests.integration.test_api_fuzz import fill, fuzz
from tests.platform_rows import add_org
from tests.raw_http import closes_of, parsed

_LEVELS = 100_000
_HEAD = b"Host: x\r\nConnection: close\r\nAuthorization: Bearer rpt_of-admin\r\n"
_POST = f"POST {BACKFILL} HTTP/1.1\r\n".encode() + _HEAD + b"Content-Type: application/json\r\n"
_REQUEUE = _POST.replace(b"backfill", b"outbox/requeue", 1)
_MANY = b"".join(b"A%d: a\r\n" % number for number in range(10_000))


def _body(body: bytes, head: bytes = _POST) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _chunks(megabytes: int) -> bytes:
    return _POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * megabytes


_ATTACKS: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a URL of a megabyte": (lambda: b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + _HEAD + b"\r\n", {431}),
    "a query of a megabyte": (lambda: b"GET /livez?" + b"a=b&" * 250_000 + b" HTTP/1.1\r\n" + _HEAD + b"\r\n", {431}),
    "a header of a megabyte": (lambda: b"GET / HTTP/1.1\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n", {431}),
    "ten thousand headers": (lambda: b"GET / HTTP/1.1\r\n" + _MANY + b"\r\n", {431}),
    "a head that does not end": (lambda: b"GET / HTTP/1.1\r\n" + b"A: " + b"a\r\nA: " * 1_000_000, {431}),
    "a body that says it is too large": (lambda: _body(b" " * 2_000_000), {413}),
    "a body of many chunks": (lambda: _chunks(20), {413}),
    "nested arrays": (lambda: _body(b"[" * _LEVELS), {400}),
    "nested arrays that end": (lambda: _body(b"[" * _LEVELS + b"]" * _LEVELS), {400}),
    "nested objects": (lambda: _body(b'{"a":' * _LEVELS + b"1" + b"}" * _LEVELS), {400}),
    "a nested field": (lambda: _body(b'{"source_types":' + b"[" * _LEVELS + b"]" * _LEVELS + b"}"), {400}),
    "a number of many digits": (lambda: _body(b'{"limit":' + b"9" * 500_000 + b"}"), {400}),
    "a field again and again": (lambda: _body(b"{" + b'"limit":1,' * 90_000 + b'"limit":"x"}'), {400}),
    "many unknown fields": (lambda: _body(json.dumps({f"f{n}": n for n in range(50_000)}).encode()), {400}),
    "many ids": (lambda: _body(json.dumps({"ids": list(range(100_000))}).encode(), _REQUEUE), {400}),
    "a body that unpacks": (lambda: _body(b"\x1f\x8b" + b"\0" * 1000, _POST + b"Content-Encoding: gzip\r\n"), {415}),
    "a form of many parts": (lambda: _body(b"--x\r\n" * 100_000, _POST.replace(b"application/", b"multipart/")), {415}),
}  # fmt: skip


async def test_what_is_too_much_is_refused_and_forgotten(
    chaos: Chaos, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await add_org(connection)

    async def attack(api: Attacked, name: str) -> None:
        make, allowed = _ATTACKS[name]
        _, got = await closes_of(api.port, make(), longest=15)
        if got:  # a client that sends on may not see the answer, only the end
            status, headers, body = parsed(got)
            problem = json.loads(body)
            assert (status, problem["status"]) in {(number, number) for number in allowed}, (name, problem)
            assert headers["content-type"].startswith("application/problem+json"), name
            answered.add(name)

    answered: set[str] = set()
    async with attacked(tmp_path, database, **UNLIMITED) as api:
        for _ in range(chaos.times(10, 1)):
            await asyncio.gather(*(attack(api, name) for name in _ATTACKS for _ in range(chaos.times(3, 1))))
        assert len(answered) > len(_ATTACKS) / 2
        assert (await api.request("GET", "/v1/reports/admin/diagnostics")).status == 200
    assert api.slowest < 3


_TRICKLES = (
    # What is sent first, what is sent then every second, and with which status it ends.
    (b"GET /liv", b"e", {408}),
    (b"GET /livez HTTP/1.1\r\n", b"a: b\r\n", {408}),
    (b"GET /livez HTTP/1.1\r\n", (b"a: " + b"b" * 8000 + b"\r\n") * 2, {408, 431}),
    (_POST + b"Content-Length: 100000\r\n\r\n", b" ", {408}),
    (_POST.replace(b"rpt_of-admin", b"nobody") + b"Content-Length: 100000\r\n\r\n", b" ", {401}),
    (_POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", {408}),
)


@pytest.mark.full_only
async def test_hundreds_of_slow_connections_are_cut_and_others_served(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """A head and a body have 10 s each. (That a connection without a request ends is in tests/integration.)"""
    await add_org(connection)
    loop = asyncio.get_running_loop()

    async def trickle(api: Attacked, number: int) -> None:
        first, then, expected = _TRICKLES[number % len(_TRICKLES)]
        lived, got = await closes_of(api.port, first, trickle=then, pause=1, longest=30)
        assert parsed(got)[0] in expected, (first, got[:100])
        assert lived < 20, (first, lived)

    async with attacked(tmp_path, database, **UNLIMITED) as api:
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            slow = [group.create_task(trickle(api, number)) for number in range(700)]
            times = []
            while not all(task.done() for task in slow):
                asked = loop.time()
                assert (await api.request("GET", "/v1/reports/admin/diagnostics")).status == 200
                assert (await api.backfill(public_id(1), 10)).status == 200
                times.append(loop.time() - asked)
                await asyncio.sleep(0.5)
        assert loop.time() - began < 25
        assert sorted(times)[len(times) // 2] < 1
        assert max(times) < 10


@pytest.mark.full_only
async def test_thousands_of_made_up_requests_find_nothing(
    chaos: Chaos, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """The same as in tests/integration, on the process, with other seeds and more of it."""
    await fill(connection)
    async with attacked(tmp_path, database, reporting_api_operation_secs="5", **UNLIMITED) as api:
        await api.process.has_logged("ready")
        status, said = await fuzz(
            api.url, "rpt_of-admin", tmp_path, "examples,coverage,fuzzing", examples=150, seed=chaos.seed
        )
        assert status == 0, said[-20_000:]
        assert len(api.process.logged("request")) > 1000
        assert api.process.logged("request failed") == []
