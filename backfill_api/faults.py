"""Which answer an exception becomes (contract: http.md, errors). Nothing that it says is repeated."""

import asyncpg
from aiohttp import web

from backfill_api.problems import ApiError, Code
from projector.errors import ErrorKind, PoolerError, classify, is_database_fault

INTERNAL = "Internal server error"

_RETRY_SECONDS = 5
_RETRY_SCHEMA_SECONDS = 30

# A text of the request that PostgreSQL cannot hold: NUL, or what has no place in the database's encoding.
_UNSTORABLE = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


def as_api_error(error: Exception) -> ApiError:
    """The answer for whatever ended a request."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPException):
        return _of_aiohttp(error)
    if isinstance(error, _UNSTORABLE):
        return ApiError(Code.BAD_REQUEST, "a text holds a character that the database cannot store, such as U+0000")
    if is_database_fault(error):
        return _of_database(error)
    return ApiError(Code.INTERNAL_ERROR, INTERNAL)


def timed_out() -> ApiError:
    """The answer for a request that took too long."""
    return ApiError(Code.TIMEOUT, "it took too long; what was done stands, so try again", retry_after=_RETRY_SECONDS)


def _of_aiohttp(error: web.HTTPException) -> ApiError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
        return ApiError(Code.METHOD_NOT_ALLOWED, f"this path takes {allowed}", headers={"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return ApiError(Code.NOT_FOUND, "there is no such path; /docs lists those there are")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return ApiError(Code.PAYLOAD_TOO_LARGE, "the body is too large")
    if isinstance(error, web.HTTPExpectationFailed):
        return ApiError(Code.EXPECTATION_FAILED, "the only Expect that can be met is 100-continue")
    if isinstance(error, web.HTTPClientError):
        return ApiError(Code.BAD_REQUEST, "the request is not valid")
    return ApiError(Code.INTERNAL_ERROR, INTERNAL)


def _of_database(error: Exception) -> ApiError:
    if isinstance(error, asyncpg.QueryCanceledError):
        return timed_out()
    if isinstance(error, PoolerError):
        return ApiError(Code.UNAVAILABLE, f"{PoolerError.WORDS}; nothing was done", retry_after=_RETRY_SCHEMA_SECONDS)
    kind = classify(error)
    if kind is ErrorKind.ROW:
        # Neither the moment's fault nor the schema's: ours.
        return ApiError(Code.INTERNAL_ERROR, INTERNAL)
    if kind is ErrorKind.BROKEN:
        return ApiError(
            Code.UNAVAILABLE, "the database's schema or grants do not fit this program: run `projector migrate`",
            retry_after=_RETRY_SCHEMA_SECONDS,
        )  # fmt: skip
    return ApiError(Code.UNAVAILABLE, "the database cannot be reached, or is busy", retry_after=_RETRY_SECONDS)
