"""JWTs, verified against a JWKS (contract: http.md, who calls)."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import structlog

from backfill_api.caller import ALL_ORGS, Caller, Policy
from backfill_api.problems import ApiError, Code
from backfill_api.tokens import public_org_id

# Signatures with a public key. HMAC is not among them: with a JWKS its secret would be published. Neither is `none`.
ALGORITHMS = frozenset({
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
})  # fmt: skip

_LEEWAY_SECONDS = 10
_REFRESH_SECONDS = 600.0
_PAUSE_SECONDS = 30.0
_FETCH_SECONDS = 5.0
_LARGEST_JWKS = 256 * 1024
_LONGEST_NAME = 200
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_ROLES = {
    "owner": frozenset(Policy),
    "admin": frozenset({Policy.REPORT_VIEW, Policy.REPORT_MANAGE}),
    "member": frozenset({Policy.REPORT_VIEW}),
}


class JwtSettingsError(Exception):
    """JWTs cannot be verified as told; the message says what is wrong and what is allowed."""


def has_jwt_form(token: str) -> bool:
    """Whether a token looks like a signed JWT: three parts in base64url."""
    return _FORM.fullmatch(token) is not None


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What a JWT must be, and how its claims are read (contract: http.md, who calls).

    Attributes:
        issuer: what `iss` must be.
        audience: what `aud` must be, or hold.
        algorithms: those that are accepted, of `ALGORITHMS`.
        org_claim: the orgs: a public id, a list of them, or `*`.
        policies_claim: the policies: a list, or a text with spaces between; others' words in it are passed over.
        role_claim: read where the policies' claim is missing: `owner`, `admin` or `member`.

    Raises:
        JwtSettingsError: something is missing, or an algorithm cannot be accepted.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    org_claim: str = "org"
    policies_claim: str = "policies"
    role_claim: str = "role"

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise JwtSettingsError("JWTs need both an issuer and an audience")
        refused = sorted(set(self.algorithms) - ALGORITHMS)
        if refused or not self.algorithms:
            raise JwtSettingsError(f"algorithms {refused} of JWTs: must be of {', '.join(sorted(ALGORITHMS))}")

    def caller(self, claims: dict[str, Any]) -> Caller | None:
        """Whom the claims of a verified token describe; None where they are not as they must be."""
        name, orgs, policies = claims.get("sub"), self._orgs(claims), self._policies(claims)
        # The name goes to logs and to a table, which cannot hold every character.
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
            return None
        return None if orgs is None or policies is None else Caller(name, orgs, policies)

    def _orgs(self, claims: dict[str, Any]) -> frozenset[str] | None:
        words = _words(claims.get(self.org_claim), split=False)
        if not words:
            return None
        if ALL_ORGS in words:
            return frozenset({ALL_ORGS})
        orgs = frozenset(org for org in map(public_org_id, words) if org is not None)
        # One id that is none spoils the claim: a misread list must not pass for a shorter one.
        return orgs if all(map(public_org_id, words)) else None

    def _policies(self, claims: dict[str, Any]) -> frozenset[Policy] | None:
        if claims.get(self.policies_claim) is not None:
            words = _words(claims[self.policies_claim], split=True)
            return None if words is None else frozenset(policy for policy in Policy if policy in words)
        role = claims.get(self.role_claim)
        # Authenticated all the same: without a policy the answer is 403, which says what is missing.
        return _ROLES.get(role, frozenset()) if isinstance(role, str) else frozenset()


def _words(value: object, *, split: bool) -> list[str] | None:
    """The texts of a claim that holds one or a list; None for anything else."""
    if isinstance(value, str):
        return value.split() if split else [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _allowed_source(source: str) -> bool:
    try:
        url = urlsplit(source)
    except ValueError:
        return False
    return bool(url.scheme == "https" and url.hostname) if "://" in source else bool(source)


class JwtVerifier:
    """Verifies JWTs (contract: http.md, who calls).

    Keys are fetched when the first token comes, and kept: read again after 10 minutes, and when a token names a key
    that is not known, which a rotation brings. Never twice within 30 seconds: made-up tokens must not become a flood
    of fetches. While they cannot be fetched, the known ones go on working.

    Args:
        rules: what a token must be.
        source: the JWKS: an https URL, or the path of a file.
        session_factory: makes the HTTP session of one fetch; closed after it.
        clock: seconds that never go back, such as `time.monotonic`.
        log: told of fetches, and why a token was refused; never of a token.

    Raises:
        JwtSettingsError: the source is neither.
    """

    def __init__(
        self, rules: JwtRules, source: str, *, session_factory: Callable[[], aiohttp.ClientSession],
        clock: Callable[[], float], log: structlog.stdlib.BoundLogger,
    ) -> None:  # fmt: skip
        if not _allowed_source(source):
            raise JwtSettingsError("the JWKS must be an https:// URL or the path of a file")
        self._rules = rules
        self._log = log
        self._keys = _Keys(source, rules.algorithms, session_factory, clock, log)

    async def verify(self, token: str) -> Caller | None:
        """The caller that a token describes; None if it is not valid.

        Raises:
            ApiError: 503, its key is not known and the keys cannot be fetched just now.
        """
        try:
            if not has_jwt_form(token):
                raise jwt.DecodeError
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            # Before any key is looked for: only a token that could be valid may cause a fetch.
            if algorithm not in self._rules.algorithms:
                raise jwt.InvalidAlgorithmError
            candidates = await self._keys.find(header.get("kid"), algorithm)
            caller = self._rules.caller(self._claims(token, candidates))
        except jwt.PyJWTError as error:
            self._log.info("JWT refused", error=type(error).__name__)
            return None
        if caller is None:
            self._log.info("JWT refused: it is genuine, but subject, org or policies are missing or malformed")
        return caller

    def _claims(self, token: str, candidates: list[jwt.PyJWK]) -> dict[str, Any]:
        refusal: jwt.PyJWTError = jwt.InvalidKeyError()
        for key in candidates:
            try:
                return jwt.decode(
                    token, key, algorithms=self._rules.algorithms, issuer=self._rules.issuer,
                    audience=self._rules.audience, leeway=_LEEWAY_SECONDS,
                    options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
                )  # fmt: skip
            except jwt.PyJWTError as error:
                refusal = error
        raise refusal


class _Unusable(Exception):  # noqa: N818
    """What was fetched is no JWKS."""


class _Keys:
    """The keys of a JWKS, by id and algorithm."""

    def __init__(
        self, source: str, algorithms: tuple[str, ...], session_factory: Callable[[], aiohttp.ClientSession],
        clock: Callable[[], float], log: structlog.stdlib.BoundLogger,
    ) -> None:  # fmt: skip
        self._source = source
        self._algorithms = algorithms
        self._session_factory = session_factory
        self._clock = clock
        self._log = log
        self._keys: list[jwt.PyJWK] = []
        self._fetched_at = self._tried_at = -math.inf
        self._failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that a token may be signed with. One that names no key is tried with each."""
        # Waited for, so that a key withdrawn while nobody called is not accepted once more.
        if self._clock() - self._fetched_at >= _REFRESH_SECONDS:
            await self._refresh()
        keys = self._fitting(kid, algorithm)
        if not keys:
            await self._refresh()
            keys = self._fitting(kid, algorithm)
        if not keys and self._failing:
            # Whether the token is valid is not known: 401 would make its holder throw it away.
            wait = max(1, math.ceil(self._tried_at + _PAUSE_SECONDS - self._clock()))
            raise ApiError(Code.UNAVAILABLE, "the keys that JWTs are checked with cannot be fetched", retry_after=wait)
        return keys

    def _fitting(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        return [key for key in self._keys if key.algorithm_name == algorithm and (kid is None or kid == key.key_id)]

    async def _refresh(self) -> None:
        """Fetches the keys, unless that was just tried; all who ask meanwhile wait for the same fetch."""
        if self._fetching is None or self._fetching.done():
            if self._clock() - self._tried_at < _PAUSE_SECONDS:
                return
            self._tried_at = self._clock()
            self._failing = True
            self._fetching = asyncio.create_task(self._fetch())
        # A request that is given up must not take the fetch away from the others.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            body = await (self._download() if "://" in self._source else asyncio.to_thread(self._read))
            self._keys, skipped = _parse(body, self._algorithms)
        except (_Unusable, aiohttp.ClientError, OSError, TimeoutError) as error:
            # The class alone: messages may repeat the URL, and with it a password.
            reason = str(error) if isinstance(error, _Unusable) else type(error).__name__
            self._log.warning("JWKS not fetched, the known keys stand", error=reason, keys=len(self._keys))
            return
        self._failing = False
        self._fetched_at = self._clock()
        say = self._log.info if self._keys else self._log.error
        say("JWKS fetched", keys=len(self._keys), skipped=skipped)

    def _read(self) -> bytes:
        return Path(self._source).read_bytes()

    async def _download(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        # No redirects: they could lead away from https, or to whoever is named in them.
        async with (
            self._session_factory() as session,
            session.get(self._source, timeout=timeout, allow_redirects=False) as response,
        ):
            if response.status != 200:  # noqa: PLR2004
                raise _Unusable(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > _LARGEST_JWKS:
                    raise _Unusable(f"longer than {_LARGEST_JWKS} bytes")
            return bytes(body)


def _parse(body: bytes, algorithms: tuple[str, ...]) -> tuple[list[jwt.PyJWK], int]:
    """The usable keys, each once for every algorithm that it may be used with; and how many members are not usable."""
    try:
        members = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        members = None
    if not isinstance(members, list):
        raise _Unusable("no JWKS")
    keys = [[key for algorithm in algorithms if (key := _key(member, algorithm))] for member in members]
    return [key for of_member in keys for key in of_member], sum(not of_member for of_member in keys)


def _key(member: object, algorithm: str) -> jwt.PyJWK | None:
    """A member as a key for one algorithm; None where it is none, as a shared secret is for all that are accepted.

    A private key is none either: whoever reads the JWKS could sign with it.
    """
    if not isinstance(member, dict) or "d" in member:
        return None
    if member.get("use", "sig") != "sig" or member.get("alg", algorithm) != algorithm:
        return None
    try:
        return jwt.PyJWK(member, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
