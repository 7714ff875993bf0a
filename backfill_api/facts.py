"""What is known of a request while it is handled, for its log line, its metrics and the audit."""

from dataclasses import dataclass

from aiohttp import web


@dataclass(slots=True)
class Facts:
    """What is known of a request.

    Attributes:
        request_id: its id, sent back as `X-Request-Id`.
        trace_id: the W3C trace it belongs to.
        operation: the operation's id, once its route is found.
        actor: the caller's name, once it is known.
        org: organizations.org_id, or `*` for all, once it is known.
    """

    request_id: str
    trace_id: str | None
    operation: str | None = None
    actor: str | None = None
    org: int | str | None = None


_KEY = web.RequestKey("facts", Facts)


def keep_facts(request: web.BaseRequest, facts: Facts) -> None:
    """Puts them down with the request."""
    request[_KEY] = facts


def facts_of(request: web.BaseRequest) -> Facts:
    """What is known of a request that came through the shell."""
    return request[_KEY]
