"""A service on a socket that plays the backfill API: it answers as it was told, and keeps what it was asked."""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

RESULT = {"enqueued": 10, "events": 4, "llm_generations": 3, "sessions": 2, "usage_ledger": 1}
NOTHING = dict.fromkeys(RESULT, 0)


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class ScriptedApi:
    """What it answers next, and what it was asked; after its last answer it repeats that."""

    url: str
    answers: deque[Answer]
    asked: list[Asked] = field(default_factory=list)


def result(**fields: object) -> Answer:
    """200 with a result: RESULT, but for these fields."""
    return plain(200, RESULT | fields)


def nothing() -> Answer:
    """200: nothing was left to enqueue."""
    return plain(200, NOTHING)


def problem(
    status: int, code: str, detail: str | None = None, *, retry_after: int | None = None, **headers: str
) -> Answer:
    """A problem as the contract shapes it."""
    document: dict[str, object] = {"title": f"Title of {code}", "status": status, "code": code}
    if detail is not None:
        document["detail"] = detail
    if retry_after is not None:
        document["retry_after_seconds"] = retry_after
        headers["Retry-After"] = str(retry_after)
    return plain(status, document, content_type="application/problem+json", **headers)


def plain(status: int, document: object, *, content_type: str = "application/json", **headers: str) -> Answer:
    """Any JSON; underscores in names of headers stand for dashes."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.Response:
        response = web.json_response(document, status=status, headers=sent)
        response.content_type = content_type
        return response

    return answer


def text(status: int, body: str, **headers: str) -> Answer:
    """What is no JSON."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, content_type="text/html", headers=headers)

    return answer


def slowly(answer: Answer, seconds: float) -> Answer:
    """That answer, after so many seconds."""

    async def later(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await answer(request)

    return later


async def hang(_: web.Request) -> web.Response:
    """Never answers."""
    await asyncio.sleep(3600)
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    """200, and a body without an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client has had enough
        while True:
            await response.write(b" " * 65_536)
    return response


async def break_off(request: web.Request) -> web.Response:
    """Ends the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@asynccontextmanager
async def scripted(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedApi]:
    """Runs such a service on a free port."""
    api = ScriptedApi("", deque(answers))

    async def handle(request: web.Request) -> web.StreamResponse:
        api.asked.append(Asked(request.method, request.path_qs, dict(request.headers), await request.json()))
        answer = api.answers.popleft() if len(api.answers) > 1 else api.answers[0]
        return await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()
