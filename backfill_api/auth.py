"""Who a request is from, and which org it is about (contract: http.md, who calls)."""

import re
from collections.abc import Awaitable, Callable

from multidict import MultiMapping

from backfill_api.caller import ALL_ORGS, Caller, Policy
from backfill_api.jwts import JwtVerifier, has_jwt_form
from backfill_api.problems import ApiError, Code
from backfill_api.tokens import TokenFile, public_org_id

_CHALLENGE = 'Bearer realm="reports"'
_SCHEMES = {"bearer", "apikey"}
# A token's characters (RFC 9110, token68). Nothing else gets as far as being looked up.
_TOKEN = re.compile("[A-Za-z0-9._~+/-]+=*")

# Names under which only this machine is reached. Another one may be anybody's who made it resolve to 127.0.0.1.
_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


class Authenticator:
    """Authenticates by the token file first, then by JWT, whichever is configured; with neither, nobody comes in."""

    def __init__(self, tokens: TokenFile | None, jwts: JwtVerifier | None) -> None:
        self._tokens = tokens
        self._jwts = jwts

    async def authenticate(self, request_headers: MultiMapping[str]) -> Caller:
        """The caller of a request with these headers (contract: http.md, who calls).

        Args:
            request_headers: names are found whatever their case, as in aiohttp's.

        Raises:
            ApiError: 401, no credentials or none that are known; 503, the keys of JWTs cannot be had just now.
        """
        token = _presented(request_headers)
        caller = self._tokens.find(token) if self._tokens else None
        if caller is None and self._jwts and has_jwt_form(token):
            caller = await self._jwts.verify(token)
        if caller is None:
            raise _unauthorized("the token is not known, or not valid any more", presented=True)
        return caller


class InsecureAuthenticator(Authenticator):
    """Lets everyone do everything in every org. Only for a service that is told so and bound to loopback.

    But for web pages: a browser on this machine would reach the service for any page that it shows.
    """

    def __init__(self) -> None:
        super().__init__(None, None)

    async def authenticate(self, request_headers: MultiMapping[str]) -> Caller:
        """A caller with all policies in all orgs.

        Raises:
            ApiError: 403, the request comes from a web page of another site, or under a name that is not loopback's.
        """
        host = _HOST.fullmatch(request_headers.get("Host", "localhost"))
        if host is None or request_headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise ApiError(Code.FORBIDDEN, "without credentials, only programs and pages of this very service may call")
        return Caller("insecure", frozenset({ALL_ORGS}), frozenset(Policy))


async def resolve_org(caller: Caller, x_org_id: str | None, find_org: Callable[[str], Awaitable[int | None]]) -> int:
    """The org that a request is about (contract: http.md, who calls).

    Args:
        caller: who asks.
        x_org_id: the header `X-Org-Id`, if there is one.
        find_org: finds an org by its public id; None where there is none.

    Raises:
        ApiError: 401, the header is malformed; 400, several orgs and none chosen; 404, the caller is no member of the
            org, or there is none: existence is not told.
    """
    if x_org_id is None:
        chosen = _only_org(caller)
    else:
        named = public_org_id(x_org_id)
        if named is None:
            raise _unauthorized("X-Org-Id is malformed: it must be org_ and 32 hexadecimal digits", presented=False)
        chosen = named
    # Looked up for strangers too: an answer that comes sooner would tell which orgs there are.
    found = await find_org(chosen)
    if found is None or not (caller.platform_wide or chosen in caller.orgs):
        raise ApiError(Code.NOT_FOUND, "Organization not found")
    return found


def _only_org(caller: Caller) -> str:
    if caller.platform_wide or len(caller.orgs) != 1:
        raise ApiError(
            Code.BAD_REQUEST,
            "these credentials are for several orgs: send X-Org-Id (org_ and 32 hexadecimal digits) to choose one",
        )
    (org,) = caller.orgs
    return org


def _presented(headers: MultiMapping[str]) -> str:
    given = headers.getall("Authorization", [])
    if not given:
        raise _unauthorized("no credentials: send Authorization: Bearer <token>", presented=False)
    scheme, _, token = given[0].strip(" \t").partition(" ")
    if scheme.lower() not in _SCHEMES or not token.strip(" "):
        raise _unauthorized("send Authorization: Bearer <token>, or ApiKey <token>", presented=False)
    # Two headers are refused: which of them counts must not depend on what stands in front of the service.
    if len(given) > 1 or not _TOKEN.fullmatch(token.strip(" ")):
        raise _unauthorized("the Authorization header is malformed: send one, with one token", presented=True)
    return token.strip(" ")


def _unauthorized(detail: str, *, presented: bool) -> ApiError:
    challenge = _CHALLENGE + ', error="invalid_token"' if presented else _CHALLENGE
    return ApiError(Code.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
