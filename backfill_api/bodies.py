"""Reads what a request brings, query and body, into models; what is wrong is said in our words, never what was sent."""

import asyncio
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backfill_api.problems import ApiError, Code

_Model = TypeVar("_Model", bound=BaseModel)

_MOST_FAULTS = 10
_JSON = "application/json"

# Faults whose message says what is allowed and repeats nothing of what was sent. Others may, such as that of a UUID.
_TELLING = frozenset({
    "missing", "extra_forbidden", "model_type", "list_type", "string_type", "int_type", "int_from_float", "bool_type",
    "enum", "greater_than_equal", "less_than_equal", "too_long", "too_short", "string_too_long", "string_too_short",
    "string_pattern_mismatch", "timezone_aware", "datetime_type", "uuid_type", "value_error",
})  # fmt: skip
_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not known",
    "model_type": "must be an object",
    "json_type": "must be an object",
    "uuid_parsing": "must be a UUID",
    "datetime_parsing": "must be a date and time as in RFC 3339, such as 2026-05-06T10:00:00Z",
    "datetime_from_date_parsing": "must be a date and time as in RFC 3339, such as 2026-05-06T10:00:00Z",
    "timezone_aware": "must end in an offset, such as Z or +02:00",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of 64 bits",
}


def read_query(request: web.Request, model: type[_Model]) -> _Model:
    """The parameters of a request's query.

    Raises:
        ApiError: 400, one is not known, is repeated, or has a value that is not allowed.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in model.model_fields:
            known = f"known are {', '.join(model.model_fields)}" if model.model_fields else "this path takes none"
            raise ApiError(Code.BAD_REQUEST, f"query: a parameter is not known; {known}")
        if name in given:
            raise ApiError(Code.BAD_REQUEST, f"query: {name} is repeated")
        given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ApiError(Code.BAD_REQUEST, "query: " + explain(error, model)) from None


async def read_body(request: web.Request, model: type[_Model], seconds: float) -> _Model:
    """The JSON body of a request; no body at all is read as `{}`.

    Args:
        request: its application bounds the size.
        model: what the body must be.
        seconds: how long the whole body may take to arrive.

    Raises:
        ApiError: 415, it is of another type; 413, it is too large; 408, it comes too slowly; 400, it is not as it must
            be.
    """
    if request.content_length:
        _require_json(request)
    body = await _receive(request, seconds)
    if body:
        _require_json(request)
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise ApiError(Code.BAD_REQUEST, "body: " + explain(error, model)) from None


def _require_json(request: web.Request) -> None:
    charset = request.charset
    if request.content_type != _JSON or (charset is not None and charset.lower() not in {"utf-8", "utf8"}):
        raise ApiError(Code.UNSUPPORTED_MEDIA_TYPE, f"send the body as {_JSON}, in UTF-8")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(
            Code.UNSUPPORTED_MEDIA_TYPE, "send the body as it is, without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )  # fmt: skip


async def _receive(request: web.Request, seconds: float) -> bytes:
    most = request.client_max_size
    too_large = ApiError(Code.PAYLOAD_TOO_LARGE, f"the body may have {most} bytes at the most")
    if request.content_length and request.content_length > most:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise ApiError(Code.REQUEST_TIMEOUT, f"the body did not arrive within {seconds:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except (web.RequestPayloadError, ConnectionError):
        raise ApiError(Code.BAD_REQUEST, "body: it broke off, or its framing is wrong") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Says where each fault is, and what is allowed there."""
    faults: dict[str, None] = {}
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        if fault["type"] == "json_invalid":
            return "it is not JSON: " + fault["msg"].removeprefix("Invalid JSON: ")
        place = fault["loc"]
        if fault["type"] == "extra_forbidden":
            # Names that were made up are what was sent; only known ones are repeated.
            known = [field.alias or name for name, field in model.model_fields.items()]
            faults[f"a field is not known; known are {', '.join(known)}"] = None
            continue
        words = _words(fault)
        faults[f"{_path(place)} {words}" if place else words] = None
    told = list(faults)
    more = f"; and {len(told) - _MOST_FAULTS} more" if len(told) > _MOST_FAULTS else ""
    return "; ".join(told[:_MOST_FAULTS]) + more


def _path(place: tuple[int | str, ...]) -> str:
    path = ""
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _words(fault: ErrorDetails) -> str:
    if fault["type"] in _WORDS:
        return _WORDS[fault["type"]]
    if fault["type"] not in _TELLING:
        return "is not valid"
    message: str = fault["msg"].removeprefix("Value error, ")
    subject, should, rest = message.partition(" should ")
    return f"must {rest}" if should and " " not in subject else message
