"""The HTTP server beneath the application: bounds of connections, and answers to what is no HTTP.

aiohttp answers a malformed request by itself, in plain text; here it gets the contract's shape (contract: http.md,
errors). It bounds a connection's time without a request, but the head of a request only by that time, and by the size
of each header: here it has bounds of its own. Needs aiohttp 3.14: older ones do not bound a first request's time.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from backfill_api.faults import INTERNAL
from backfill_api.problems import STATUSES, ApiError, Code
from backfill_api.shell import Shell
from projector.health import PortError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may do.

    Attributes:
        idle_seconds: how long it may be idle; longer than a proxy in front keeps it.
        head_seconds: how long the head of a request may take to arrive, from its first byte on.
        body_seconds: how long a body may take to arrive.
        answer_seconds: how long the client may take to receive an answer.
        linger_seconds: how long the rest of a body is received after an answer that did not wait for it.
        line_bytes: the longest request line, and the longest header.
        headers: the most headers.
        head_bytes: the most bytes of a head that comes in pieces; each connection may make the service keep so many.
    """

    idle_seconds: float = 75
    head_seconds: float = 10
    body_seconds: float = 10
    answer_seconds: float = 30
    linger_seconds: float = 2
    line_bytes: int = 8190
    headers: int = 64
    head_bytes: int = 64 * 1024


# What was sent is not repeated: it may hold credentials.
_MALFORMED: Mapping[type[BaseException], str] = {
    http_exceptions.BadHttpMethod: "the request line does not begin with a known method",
    http_exceptions.InvalidURLError: "the request line holds no valid URL",
    http_exceptions.InvalidHeader: "a header is malformed",
}


class _Connection(RequestHandler):
    """One connection."""

    shell: Shell
    limits: Limits
    _head_bytes: int = 0
    _head_ends: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Takes what has come; bounds the head of a request, which aiohttp would wait for as long as for a new one."""
        super().data_received(data)
        if self._waiter is None or self._waiter.done():
            # A request is at work, or has come to its end just now.
            self._forget_head()
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.limits.head_bytes:
            self._refuse(
                ApiError(Code.HEADERS_TOO_LARGE, f"the head may have {self.limits.head_bytes} bytes at the most")
            )
        elif self._head_ends is None:
            seconds = self.limits.head_seconds
            late = ApiError(Code.REQUEST_TIMEOUT, f"the head of the request did not arrive within {seconds:g} s")
            self._head_ends = asyncio.get_running_loop().call_later(seconds, self._refuse, late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forgets what it waited for."""
        self._forget_head()
        super().connection_lost(exc)

    def _forget_head(self) -> None:
        self._head_bytes = 0
        if self._head_ends is not None:
            self._head_ends.cancel()
            self._head_ends = None

    def _refuse(self, error: ApiError) -> None:
        """Answers a head that has not come to its end, as aiohttp answers one that it cannot read."""
        self._forget_head()
        if self._waiter is not None and not self._waiter.done():
            self._messages.append((_ErrInfo(STATUSES[error.code], error, ""), EMPTY_PAYLOAD))
            self._waiter.set_result(None)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers what could not be read as a request, and closes."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = self.shell.malformed(request, _malformed(status, exc), exc)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends an answer; a client that does not take it in time is cut off."""
        transport = self.transport
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if transport is not None:
                transport.abort()
            return resp, True


def _malformed(status: int, error: BaseException | None) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, http_exceptions.LineTooLong):
        return ApiError(Code.HEADERS_TOO_LARGE, "the request line or a header is too long")
    if isinstance(error, http_exceptions.BadHttpMessage) and "many headers" in str(error.message):
        return ApiError(Code.HEADERS_TOO_LARGE, "the request has too many headers")
    if status < 500:  # noqa: PLR2004
        words = next((words for kind, words in _MALFORMED.items() if isinstance(error, kind)), None)
        return ApiError(Code.BAD_REQUEST, words or "the request is no valid HTTP")
    return ApiError(Code.INTERNAL_ERROR, INTERNAL)


class _Server(web.Server):
    """Makes our kind of connections, each request within the shell."""

    def __init__(self, plain: web.Server, shell: Shell, limits: Limits, options: Mapping[str, Any]) -> None:
        super().__init__(
            shell.around(plain.request_handler), request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
        )  # fmt: skip
        self._shell = shell
        self._limits = limits
        self._options = dict(options)

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=asyncio.get_running_loop(), **self._options)
        connection.shell = self._shell
        connection.limits = self._limits
        return connection


class Runner(web.AppRunner):
    """Runs an application within a shell, under limits."""

    def __init__(self, app: web.Application, shell: Shell, limits: Limits, *, shutdown_seconds: float) -> None:
        super().__init__(app, shutdown_timeout=shutdown_seconds)
        self._shell = shell
        self._limits = limits

    async def _make_server(self) -> web.Server:
        limits = self._limits
        options = {
            "keepalive_timeout": limits.idle_seconds, "lingering_time": limits.linger_seconds, "access_log": None,
            "max_line_size": limits.line_bytes, "max_field_size": limits.line_bytes, "max_headers": limits.headers,
            # A body that unpacks to more than it seems is not unpacked at all.
            "auto_decompress": False,
        }  # fmt: skip
        return _Server(await super()._make_server(), self._shell, limits, options)


async def listen(runner: Runner, host: str, port: int) -> int:
    """Starts to serve; gives the port.

    Raises:
        PortError: the port is taken or may not be used, or the host is none of this machine's.
    """
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError as error:
        await runner.cleanup()
        raise PortError(f"REPORTING_API_HOST={host} REPORTING_API_PORT={port}: {error.strerror}") from error
    return int(runner.addresses[0][1])
