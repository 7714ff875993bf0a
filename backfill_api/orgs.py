"""Which org a request is about, where it may be named in more than one place (contract: http.md, who calls)."""

from collections.abc import Awaitable, Callable

from backfill_api.auth import resolve_org
from backfill_api.caller import ALL_ORGS, Caller
from backfill_api.problems import ApiError, Code

FindOrg = Callable[[str], Awaitable[int | None]]


async def choose_org(caller: Caller, x_org_id: str | None, named: str | None, find_org: FindOrg) -> int | None:
    """The org that a request is about; None for all of them.

    Args:
        caller: who asks.
        x_org_id: the header `X-Org-Id`, if there is one.
        named: `org_id` of the query or the body, if there is one: a well-formed public id, or `*`.
        find_org: finds an org by its public id; None where there is none.

    Raises:
        ApiError: as `resolve_org`; 403, all orgs, and the caller is not platform-wide; 400, header and `org_id` differ.
    """
    if named is None:
        return await resolve_org(caller, x_org_id, find_org)
    if named == ALL_ORGS and not caller.platform_wide:
        raise ApiError(Code.FORBIDDEN, "Access denied: org_id '*' requires platform-wide credentials")
    chosen = None if named == ALL_ORGS else await resolve_org(caller, named, find_org)
    if x_org_id is not None and await resolve_org(caller, x_org_id, find_org) != chosen:
        raise ApiError(Code.BAD_REQUEST, "X-Org-Id and org_id name different orgs: send one of them")
    return chosen


def has_one_org(caller: Caller) -> bool:
    """Whether a caller need not choose."""
    return not caller.platform_wide and len(caller.orgs) == 1
