"""Errors as the contract shapes them: RFC 9457 Problem Details, one enum of stable codes."""

from collections.abc import Mapping
from enum import StrEnum

from aiohttp import web

from schemas.reports import AllowedAction, Problem

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "https://docs.everruns.com/errors/"


class Code(StrEnum):
    """Every code that the service answers with. Stable: clients branch on them."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    EXPECTATION_FAILED = "expectation_failed"
    UNPROCESSABLE = "unprocessable"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    INCOMPLETE = "incomplete"
    TIMEOUT = "timeout"


STATUSES: Mapping[Code, int] = {
    Code.BAD_REQUEST: 400,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.CONFLICT: 409,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.EXPECTATION_FAILED: 417,
    Code.UNPROCESSABLE: 422,
    Code.RATE_LIMITED: 429,
    Code.HEADERS_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
    Code.UNAVAILABLE: 503,
    Code.INCOMPLETE: 503,
    Code.TIMEOUT: 503,
}

_TITLES: Mapping[Code, str] = {
    Code.BAD_REQUEST: "Bad request",
    Code.UNAUTHORIZED: "Unauthorized",
    Code.FORBIDDEN: "Forbidden",
    Code.NOT_FOUND: "Not found",
    Code.METHOD_NOT_ALLOWED: "Method not allowed",
    Code.REQUEST_TIMEOUT: "Request timeout",
    Code.CONFLICT: "Conflict",
    Code.PAYLOAD_TOO_LARGE: "Payload too large",
    Code.UNSUPPORTED_MEDIA_TYPE: "Unsupported media type",
    Code.EXPECTATION_FAILED: "Expectation failed",
    Code.UNPROCESSABLE: "Unprocessable",
    Code.RATE_LIMITED: "Rate limited",
    Code.HEADERS_TOO_LARGE: "Headers too large",
    Code.INTERNAL_ERROR: "Internal server error",
    Code.UNAVAILABLE: "Service unavailable",
    Code.INCOMPLETE: "Not complete yet",
    Code.TIMEOUT: "Timed out",
}


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        code: which one; gives status and title.
        detail: what happened, to what, and what to do; never row content.
        retry_after: seconds after which to try again, where that makes sense.
        headers: what else goes with it, such as `Allow`.
    """

    def __init__(
        self, code: Code, detail: str | None = None, *, retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(code.value)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.headers = dict(headers or {})


def problem_response(error: ApiError, instance: str | None) -> web.Response:
    """The answer for an error; `instance` is the request's path, None where the request could not be read."""
    actions = None
    if error.code is Code.RATE_LIMITED:
        actions = [AllowedAction(rel="retry-later", hint=f"Try again in {error.retry_after} s.")]
    elif error.retry_after is not None:
        actions = [AllowedAction(rel="retry", hint=f"Try again in {error.retry_after} s.")]
    problem = Problem(
        title=_TITLES[error.code], status=STATUSES[error.code], detail=error.detail, code=error.code.value,
        type=TYPE_PREFIX + error.code.value, instance=instance, retry_after_seconds=error.retry_after,
        allowed_actions=actions,
    )  # fmt: skip
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return web.Response(
        text=problem.model_dump_json(exclude_none=True), status=problem.status, headers=headers,
        content_type=CONTENT_TYPE, charset="utf-8",
    )  # fmt: skip
