"""What every request passes through: its id and trace, its time, its errors, its headers, its log line, its metrics."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from backfill_api.endpoints import BACKFILL
from backfill_api.facts import Facts, keep_facts
from backfill_api.faults import as_api_error, timed_out
from backfill_api.metrics import NO_ROUTE, ApiMetrics
from backfill_api.problems import ApiError, Code, problem_response
from backfill_api.tracing import Tracer, new_request_id, request_id
from projector.errors import describe

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_SERVER_ERROR = 500

# On every answer. `Server` tells no version. What a handler has set itself stays.
_HEADERS: Mapping[str, str] = {
    "Server": "backfill-api",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# Asked for every few seconds by machines: worth a line only when something looks into it.
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})


@dataclass(slots=True)
class Shell:
    """Around the application; also answers what is no HTTP.

    Attributes:
        seconds: how long a request may take in all, its body included.
        at_work: how many requests are at work.
    """

    log: structlog.stdlib.BoundLogger
    metrics: ApiMetrics
    tracer: Tracer
    seconds: float
    at_work: int = field(default=0, init=False)

    def around(self, handler: Handler) -> Handler:
        """A handler that never raises: whatever happens becomes an answer in the contract's shape."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self.at_work += 1
            try:
                with self.tracer.span(request) as traced:
                    facts = Facts(request_id(request.headers), traced.trace_id)
                    keep_facts(request, facts)
                    with structlog.contextvars.bound_contextvars(**_bound(facts)):
                        started = time.monotonic()
                        response, code = await self._answer(handler, request, facts)
                        self._finish(request, facts, response, code, time.monotonic() - started)
                    traced.route, traced.status = _route(request), response.status
                    return response
            finally:
                self.at_work -= 1

        return handle

    def malformed(self, request: web.BaseRequest, error: ApiError, cause: BaseException | None) -> web.Response:
        """The answer for what could not be read as a request."""
        facts = Facts(new_request_id(), None)
        if isinstance(cause, Exception) and error.code is Code.INTERNAL_ERROR:
            self._tell(cause, error, facts)
        response = problem_response(error, None)
        self._finish(request, facts, response, error.code, 0.0)
        return response

    async def _answer(
        self, handler: Handler, request: web.BaseRequest, facts: Facts
    ) -> tuple[web.StreamResponse, Code | None]:
        try:
            async with asyncio.timeout(self.seconds) as limit:
                return await handler(request), None
        except web.HTTPMethodNotAllowed as error:
            if request.method == "OPTIONS":
                allowed = as_api_error(error).headers
                return web.Response(status=204, headers=allowed), None
            refusal = as_api_error(error)
        except TimeoutError as error:
            refusal = timed_out() if limit.expired() else as_api_error(error)
            self._tell(error, refusal, facts)
        except Exception as error:  # noqa: BLE001 - nothing may get out in another shape
            refusal = as_api_error(error)
            self._tell(error, refusal, facts)
        return problem_response(refusal, request.rel_url.raw_path or None), refusal.code

    def _tell(self, error: Exception, refusal: ApiError, facts: Facts) -> None:
        """Logs what lies behind a fault of the server: class and place, never what the error says."""
        if isinstance(error, ApiError | web.HTTPException):
            return
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        place = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        say = self.log.error if refusal.code is Code.INTERNAL_ERROR else self.log.warning
        say("request failed", error=describe(error), code=refusal.code.value, at=place, request_id=facts.request_id)

    def _finish(
        self, request: web.BaseRequest, facts: Facts, response: web.StreamResponse, code: Code | None, seconds: float
    ) -> None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = facts.request_id
        route = _route(request)
        self.metrics.request(route, request.method, response.status, seconds)
        if facts.operation == BACKFILL.operation_id:
            self.metrics.backfill(code)
        say = self.log.debug if route in _PROBES and response.status < _SERVER_ERROR else self.log.info
        told = {
            "method": request.method, "route": route, "status": response.status, "code": code and code.value,
            "duration_ms": round(seconds * 1000, 1), "actor": facts.actor, "org": facts.org,
            "request_id": facts.request_id, "trace_id": facts.trace_id,
        }  # fmt: skip
        say("request", **{name: value for name, value in told.items() if value is not None})


def _bound(facts: Facts) -> dict[str, str]:
    """What every line that is logged meanwhile tells."""
    return {"request_id": facts.request_id} | ({"trace_id": facts.trace_id} if facts.trace_id else {})


def _route(request: web.BaseRequest) -> str:
    """The pattern of a request's route: never its path, which anybody can make up."""
    if not isinstance(request, web.Request) or request._match_info is None:  # noqa: SLF001 - the property asserts
        return NO_ROUTE
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical
