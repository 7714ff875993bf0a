"""One call of the backfill API over HTTP, and what may come of it."""

import json
import os
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import ConfigDict, SecretStr, ValidationError

from schemas.reports import Problem, ReportingBackfillRequest, ReportingBackfillResult

PATH = "/v1/reports/admin/backfill"

_CALL_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_MOST_BYTES = 65_536
_MOST_SHOWN = 500

_INCOMPLETE = "incomplete"


class CallError(Exception):
    """A call that gave no result; `str()` is one line for an operator and holds no secret.

    Attributes:
        status: of the answer; None where none came.
        code: the problem's code, if the answer was a problem.
        retry_after: seconds that the service asks to wait.
        uncertain: whether the call may have enqueued rows all the same.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: int | None = None,
        uncertain: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.uncertain = uncertain

    @property
    def incomplete(self) -> bool:
        """Whether the service only ran out of time and goes on from there when called again."""
        return self.status == 503 and self.code == _INCOMPLETE  # noqa: PLR2004


# A newer service may answer with more than we know.


class _Result(ReportingBackfillResult):
    model_config = ConfigDict(extra="ignore")


class _Problem(Problem):
    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class BackfillClient:
    """The way to one backfill API.

    Attributes:
        session: sends the requests; verifies certificates as it was told.
        url: where the service is, without a slash at the end.
        token: for `Authorization`; None for a service that asks for none.
        org_id: public id of the org, for `X-Org-Id`; None for the token's own.
        call_seconds: how long one call may take.
    """

    session: aiohttp.ClientSession
    url: str
    token: SecretStr | None = None
    org_id: str | None = None
    call_seconds: float = _CALL_SECONDS

    async def backfill(self, request: ReportingBackfillRequest) -> ReportingBackfillResult:
        """Calls the operation once.

        Raises:
            CallError: the service refused, could not be reached, took too long, or answered with something else.
        """
        # Only what was set: the original service knows `limit` alone.
        body = request.model_dump_json(by_alias=True, exclude_unset=True)
        timeout = aiohttp.ClientTimeout(total=self.call_seconds, sock_connect=min(_CONNECT_SECONDS, self.call_seconds))
        try:
            # A redirect is not followed: it would take the token elsewhere.
            async with self.session.post(
                self.url + PATH, data=body, headers=self._headers(), timeout=timeout, allow_redirects=False
            ) as response:
                return _read_answer(response, await _read_body(response))
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            what = "could not be reached" if connecting else f"gave no answer within {self.call_seconds:g} s"
            raise CallError(f"{self.url} {what}", uncertain=not connecting) from None
        except aiohttp.ClientConnectorCertificateError as error:
            reason = _shown(str(error.certificate_error))
            raise CallError(f"{self.url} could not be reached: its certificate was refused: {reason}") from None
        except aiohttp.ClientConnectorError as error:
            raise CallError(f"{self.url} could not be reached: {_reason(error.os_error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise CallError(f"{self.url} broke the call off: {type(error).__name__}", uncertain=True) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, application/problem+json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        if self.org_id is not None:
            headers["X-Org-Id"] = self.org_id
        return headers


def _reason(error: OSError) -> str:
    """Why there is no connection, in the system's words."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    # The event loop words a refused connection in its own way; the resolver's numbers are below 0 and not the system's.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or type(error).__name__


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body, or as much of it as shows that it is none of the service's."""
    read = bytearray()
    async for chunk in response.content.iter_chunked(_MOST_BYTES):
        read += chunk
        if len(read) > _MOST_BYTES:
            break
    return bytes(read)


def _read_answer(response: aiohttp.ClientResponse, body: bytes) -> ReportingBackfillResult:
    """The result that an answer holds.

    Raises:
        CallError: it holds a problem, or is none of the service's answers.
    """
    document = _parse(body)
    request_id = response.headers.get("X-Request-Id")
    suffix = f" (request {_shown(request_id)})" if request_id else ""
    if response.status == 200:  # noqa: PLR2004
        try:
            return _Result.model_validate(document)
        except ValidationError:
            message = f"status 200, but the body is no result of a backfill{suffix}"
            raise CallError(message, status=200, uncertain=True) from None
    try:
        problem = _Problem.model_validate(document)
    except ValidationError:
        problem = _Problem(title="not an answer of the backfill API", status=response.status)
    said = _shown(problem.title) + (f": {_shown(problem.detail)}" if problem.detail else "")
    raise CallError(
        f"{said} [{response.status}{' ' + _shown(problem.code) if problem.code else ''}]{suffix}",
        status=response.status, code=problem.code, retry_after=_retry_after(response, problem),
        uncertain=response.status in {502, 504},
    )  # fmt: skip


def _parse(body: bytes) -> Any:  # noqa: ANN401 - any JSON there may be
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _retry_after(response: aiohttp.ClientResponse, problem: Problem) -> int | None:
    """Seconds that the service asks to wait; a date in the header counts as nothing."""
    header = response.headers.get("Retry-After", "")
    seconds = int(header) if header.isascii() and header.isdigit() else problem.retry_after_seconds
    return None if seconds is None else max(0, seconds)


def _shown(text: str) -> str:
    """A text of the service as one line of a terminal: no control characters, and not endless."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= _MOST_SHOWN else line[:_MOST_SHOWN] + "…"
