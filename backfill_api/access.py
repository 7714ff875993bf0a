"""Who is let in, by the settings: the token file, JWTs, or everybody where the service is told so."""

import ipaddress
from collections.abc import Callable

import aiohttp
import structlog

from backfill_api.auth import Authenticator, InsecureAuthenticator
from backfill_api.jwts import JwtRules, JwtSettingsError, JwtVerifier
from backfill_api.settings import ServiceSettings
from backfill_api.tokens import TokenFile, TokenFileError
from projector.settings import SettingsError

_NOBODY = (
    "no credentials are configured: set REPORTING_API_CREDENTIALS_FILE (`backfill-api token` makes its entries), or "
    "REPORTING_API_JWKS with REPORTING_API_JWT_ISSUER and REPORTING_API_JWT_AUDIENCE. To try it out without, start it "
    "with --insecure and REPORTING_API_HOST=127.0.0.1"
)


def make_authenticator(
    settings: ServiceSettings, *, insecure: bool, clock: Callable[[], float], log: structlog.stdlib.BoundLogger
) -> Authenticator:
    """The authenticator that the settings ask for.

    Args:
        settings: which credentials there are.
        insecure: whether everybody is let in; only without credentials, and only on loopback.
        clock: seconds that never go back, such as `time.monotonic`.
        log: told of changes of the token file and of the keys.

    Raises:
        SettingsError: nobody could come in, or everybody could from outside; or credentials are not as they must be.
    """
    configured = settings.reporting_api_credentials_file or settings.reporting_api_jwks
    if insecure:
        _require_harmless(settings, configured=bool(configured))
        log.warning("--insecure: everybody who reaches this port may do everything in every org")
        return InsecureAuthenticator()
    tokens = None
    try:
        if settings.reporting_api_credentials_file:
            tokens = TokenFile(settings.reporting_api_credentials_file, clock=clock, log=log)
    except TokenFileError as error:
        raise SettingsError(f"REPORTING_API_CREDENTIALS_FILE: {error}") from None
    jwts = _jwts(settings, clock, log)
    if not configured:
        raise SettingsError(_NOBODY)
    return Authenticator(tokens, jwts)


def _jwts(
    settings: ServiceSettings, clock: Callable[[], float], log: structlog.stdlib.BoundLogger
) -> JwtVerifier | None:
    source = settings.reporting_api_jwks
    if not source:
        if settings.reporting_api_jwt_issuer or settings.reporting_api_jwt_audience:
            raise SettingsError("REPORTING_API_JWT_ISSUER and _AUDIENCE are of no use without REPORTING_API_JWKS")
        return None
    try:
        rules = JwtRules(
            issuer=settings.reporting_api_jwt_issuer or "",
            audience=settings.reporting_api_jwt_audience or "",
            algorithms=settings.reporting_api_jwt_algorithms,
            org_claim=settings.reporting_api_jwt_org_claim,
            policies_claim=settings.reporting_api_jwt_policies_claim,
            role_claim=settings.reporting_api_jwt_role_claim,
        )
        return JwtVerifier(rules, source, session_factory=aiohttp.ClientSession, clock=clock, log=log)
    except JwtSettingsError as error:
        raise SettingsError(
            f"{error}. See REPORTING_API_JWKS, REPORTING_API_JWT_ISSUER, _AUDIENCE and _ALGORITHMS"
        ) from None


def _require_harmless(settings: ServiceSettings, *, configured: bool) -> None:
    if configured:
        raise SettingsError("--insecure lets everybody in, but credentials are configured: leave one of them out")
    host = settings.reporting_api_host
    if not _is_loopback(host):
        raise SettingsError(
            f"REPORTING_API_HOST={host!r}: with --insecure it must be 127.0.0.1, ::1 or localhost, so that nobody else "
            "reaches the service"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
