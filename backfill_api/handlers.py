"""What every endpoint does before and after its own work: who, may they, which org, how often, with what."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from backfill_api.auth import Authenticator
from backfill_api.bodies import read_body, read_query
from backfill_api.caller import ALL_ORGS, Caller
from backfill_api.endpoints import Call, Endpoint
from backfill_api.facts import facts_of
from backfill_api.operations import Operations, Origin
from backfill_api.orgs import choose_org, has_one_org
from backfill_api.problems import ApiError, Code
from backfill_api.ratelimit import RateLimiter

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ORG_HEADER = "X-Org-Id"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the handlers work with.

    Attributes:
        body_seconds: how long a body may take to arrive.
    """

    operations: Operations
    authenticator: Authenticator
    limiter: RateLimiter
    body_seconds: float


def handler_of(endpoint: Endpoint, parts: Parts) -> Handler:
    """The handler of an endpoint.

    Checks in this order: 401, 403, the query, the org (404, 400), the rate limit (429), the body (415, 413, 408, 400).
    Only where the org can stand in the body alone is the body read before the org is looked for.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        facts = facts_of(request)
        facts.operation = endpoint.operation_id
        caller = await parts.authenticator.authenticate(request.headers)
        facts.actor = caller.name
        caller.require(endpoint.policy)
        query = read_query(request, endpoint.query)
        header = _org_header(request)
        named: str | None = getattr(query, "org_id", None)
        body = None
        if endpoint.body and header is None and not has_one_org(caller):
            body = await read_body(request, endpoint.body, parts.body_seconds)
            named = getattr(body, "org_id", None)
        org_id = await choose_org(caller, header, named, parts.operations.find_org)
        facts.org = ALL_ORGS if org_id is None else org_id
        if endpoint.is_action:
            parts.limiter.check(org_id)
        if endpoint.body and body is None:
            body = await read_body(request, endpoint.body, parts.body_seconds)
            await _require_same_org(parts, caller, header, getattr(body, "org_id", None), org_id)
        origin = Origin(caller.name, facts.request_id)
        answer = await endpoint.act(parts.operations, Call(origin, org_id, query, body))
        return web.Response(
            text=answer.model_dump_json(by_alias=True, exclude_none=True), content_type="application/json"
        )

    return handle


def _org_header(request: web.Request) -> str | None:
    given = request.headers.getall(ORG_HEADER, [])
    if len(set(given)) > 1:
        # Which of them counts must not depend on what stands in front of the service.
        raise ApiError(Code.BAD_REQUEST, f"{ORG_HEADER} is repeated: send one")
    return given[0] if given else None


async def _require_same_org(
    parts: Parts, caller: Caller, header: str | None, named: str | None, org_id: int | None
) -> None:
    if named is not None and await choose_org(caller, header, named, parts.operations.find_org) != org_id:
        raise ApiError(Code.BAD_REQUEST, f"{ORG_HEADER} and org_id name different orgs: send one of them")
