"""Who calls: every way to present a credential, and the org that a call is about."""

import json
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from backfill_api.auth import Authenticator, InsecureAuthenticator, resolve_org
from backfill_api.caller import Caller, Policy
from backfill_api.jwts import JwtRules, JwtVerifier
from backfill_api.problems import ApiError, Code, problem_response
from backfill_api.tokens import TokenFile
from tests.credentials import AUDIENCE, ISSUER, ORG, OTHER_ORG, Clock, Lines, Signer, entry, jwks, write_tokens

TOKEN = "rpt_of-ops"
STRANGE_ORG, NO_ORG = "org_" + "cc" * 16, "org_" + "dd" * 16
ORGS = {ORG: 1, OTHER_ORG: 2, STRANGE_ORG: 3}
SIGNER = Signer.new("k", "ES256")
# Valid until 2100: tests may run long after they were collected.
JWT = SIGNER.token(sub="alice", exp=4_102_444_800)
DOTTED = Signer.new("another", "ES256").token()
"""A token of the file that could be a JWT."""
SPACED, QUOTED = "a b", '"quoted"'
"""Tokens of the file that no header can carry."""
PLAIN = 'Bearer realm="reports"'
INVALID = 'Bearer realm="reports", error="invalid_token"'


class Calls:
    """Authenticators of all configurations."""

    def __init__(self, folder: Path) -> None:
        self.lines = Lines()
        write_tokens(
            folder / "tokens.json", entry(TOKEN, name="ops"), entry(DOTTED, name="dotted"), entry(SPACED), entry(QUOTED)
        )
        (folder / "jwks.json").write_text(json.dumps(jwks(SIGNER.jwk())))
        self.tokens = TokenFile(folder / "tokens.json", clock=Clock(), log=self.lines.log)
        self.jwts = self.verifier(folder / "jwks.json")

    def verifier(self, path: Path) -> JwtVerifier:
        return JwtVerifier(
            JwtRules(ISSUER, AUDIENCE, ("ES256",)), str(path),
            session_factory=aiohttp.ClientSession, clock=Clock(), log=self.lines.log,
        )  # fmt: skip

    async def by(self, *authorization: str, tokens: bool = True, jwts: bool = True) -> Caller:
        authenticator = Authenticator(self.tokens if tokens else None, self.jwts if jwts else None)
        return await authenticator.authenticate(headers(authorization))


def headers(authorization: Iterable[str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("AUTHORIZATION", value) for value in authorization]))


def assert_unauthorized(error: ApiError, challenge: str) -> None:
    assert error.code is Code.UNAUTHORIZED
    answer = problem_response(error, "/v1/reports/admin/backfill")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge)
    assert '"code":"unauthorized"' in (answer.text or "")


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "ApiKey", "apikey", "APIKEY", "Bearer  "])
@pytest.mark.parametrize(
    ("token", "name"), [(TOKEN, "ops"), (DOTTED, "dotted"), (JWT, "alice")], ids=["token", "dotted", "jwt"]
)
async def test_both_schemes_carry_both_kinds_of_token(calls: Calls, scheme: str, token: str, name: str) -> None:
    assert (await calls.by(f"{scheme} {token}")).name == name
    assert (await calls.by(f" {scheme} {token} ")).name == name


@pytest.mark.parametrize(
    ("presented", "challenge"),
    [
        ((), PLAIN),
        (("",), PLAIN),
        (("Bearer",), PLAIN),
        (("Bearer ",), PLAIN),
        ((TOKEN,), PLAIN),
        ((f"Basic {TOKEN}",), PLAIN),
        ((f"Bearer:{TOKEN}",), PLAIN),
        ((f"Bearer\t{TOKEN}",), PLAIN),
        ((f"Token {TOKEN}",), PLAIN),
        ((f"Bearerx {TOKEN}",), PLAIN),
        (("Bearer wrong",), INVALID),
        (("ApiKey wrong",), INVALID),
        ((f"Bearer {TOKEN}x",), INVALID),
        ((f"Bearer {TOKEN} {TOKEN}",), INVALID),
        ((f"Bearer {TOKEN}, Bearer {TOKEN}",), INVALID),
        ((f"Bearer {QUOTED}",), INVALID),
        ((f"Bearer {SPACED}",), INVALID),
        ((f"Bearer {TOKEN}\x00",), INVALID),
        (("Bearer tökén",), INVALID),
        (("Bearer \udcff",), INVALID),
        ((f"Bearer {TOKEN}", f"Bearer {TOKEN}"), INVALID),
        ((f"Bearer {TOKEN}", "Bearer wrong"), INVALID),
        ((f"Bearer {SIGNER.token(exp=1)}",), INVALID),
        ((f"Bearer {Signer.new('k', 'ES256').token()}",), INVALID),
        (("Bearer a.b.c",), INVALID),
    ],
    ids=range(25),
)
async def test_anything_else_is_unauthorized_with_a_challenge(
    calls: Calls, presented: tuple[str, ...], challenge: str
) -> None:
    with pytest.raises(ApiError) as refused:
        await calls.by(*presented)
    assert_unauthorized(refused.value, challenge)
    said = f"{refused.value.detail} {list(calls.lines)}"
    assert TOKEN not in said
    assert "eyJ" not in said


@pytest.mark.parametrize(
    ("token", "tokens", "jwts", "enters"),
    [
        (TOKEN, True, False, True), (TOKEN, False, True, False), (TOKEN, False, False, False),
        (JWT, True, False, False), (JWT, False, True, True), (JWT, False, False, False),
    ],
    ids=range(6),
)  # fmt: skip
async def test_what_is_not_configured_lets_nobody_in(
    calls: Calls, token: str, tokens: bool, jwts: bool, enters: bool
) -> None:
    if enters:
        await calls.by(f"Bearer {token}", tokens=tokens, jwts=jwts)
        return
    with pytest.raises(ApiError) as refused:
        await calls.by(f"Bearer {token}", tokens=tokens, jwts=jwts)
    assert_unauthorized(refused.value, INVALID)


async def test_an_outage_of_the_keys_is_unavailable_for_jwts_alone(calls: Calls, tmp_path: Path) -> None:
    calls.jwts = calls.verifier(tmp_path / "missing.json")
    with pytest.raises(ApiError) as refused:
        await calls.by(f"Bearer {SIGNER.token()}")
    assert (refused.value.code, refused.value.retry_after) == (Code.UNAVAILABLE, 30)
    assert (await calls.by(f"Bearer {TOKEN}")).name == "ops"
    assert (await calls.by(f"Bearer {DOTTED}")).name == "dotted"
    with pytest.raises(ApiError) as refused:
        await calls.by("Bearer rpt_wrong")
    assert_unauthorized(refused.value, INVALID)


async def test_only_what_could_be_a_jwt_is_taken_for_one(calls: Calls) -> None:
    for token, lines in (("rpt_wrong", 0), ("a.b", 0), ("a.b.c", 1)):
        with pytest.raises(ApiError):
            await calls.by(f"Bearer {token}")
        assert len(list(calls.lines)) == lines


@pytest.mark.parametrize("presented", [(), ("Bearer wrong",), ("x", "y")])
async def test_the_insecure_one_lets_everyone_do_everything(presented: tuple[str, ...]) -> None:
    caller = await InsecureAuthenticator().authenticate(headers(presented))
    assert caller.platform_wide
    assert caller.policies == set(Policy)


@pytest.mark.parametrize(
    ("host", "site", "enters"),
    [
        ("127.0.0.1:8080", None, True), ("localhost", "same-origin", True), ("[::1]:80", "none", True),
        ("LOCALHOST:1", None, True), ("evil.example:8080", None, False), ("127.0.0.1.evil.example", None, False),
        ("", None, False), ("localhost", "cross-site", False), ("localhost", "same-site", False),
    ],
)  # fmt: skip
async def test_the_insecure_one_lets_no_page_of_another_site_in(host: str, site: str | None, enters: bool) -> None:
    sent = CIMultiDict([("Host", host)] + ([("Sec-Fetch-Site", site)] if site else []))
    if enters:
        await InsecureAuthenticator().authenticate(CIMultiDictProxy(sent))
        return
    with pytest.raises(ApiError) as refused:
        await InsecureAuthenticator().authenticate(CIMultiDictProxy(sent))
    assert refused.value.code is Code.FORBIDDEN


class Finder:
    """Finds orgs, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, public_id: str) -> int | None:
        self.asked.append(public_id)
        return ORGS.get(public_id)


def caller_of(*orgs: str) -> Caller:
    return Caller("x", frozenset(orgs), frozenset(Policy))


ONE, TWO, ALL, GONE = caller_of(ORG), caller_of(ORG, OTHER_ORG), caller_of("*"), caller_of(NO_ORG)
MALFORMED = [
    "",
    "*",
    "1",
    "org_",
    ORG + "0",
    ORG[:-1],
    " " + ORG,
    ORG + "\n",
    "ORG_" + ORG[4:],
    "org_" + "g" * 32,
    "\udcff",
]


@pytest.mark.parametrize(
    ("caller", "header", "org_id"),
    [
        (ONE, None, 1), (ONE, ORG, 1), (ONE, "org_" + ORG[4:].upper(), 1),
        (TWO, ORG, 1), (TWO, OTHER_ORG, 2), (ALL, ORG, 1), (ALL, STRANGE_ORG, 3),
    ],
    ids=range(7),
)  # fmt: skip
async def test_a_member_gets_the_org_it_has_or_chose(caller: Caller, header: str | None, org_id: int) -> None:
    assert await resolve_org(caller, header, Finder()) == org_id


@pytest.mark.parametrize("header", MALFORMED)
@pytest.mark.parametrize("caller", [ONE, TWO, ALL], ids=["one", "two", "all"])
async def test_a_malformed_choice_is_unauthorized(caller: Caller, header: str) -> None:
    finder = Finder()
    with pytest.raises(ApiError) as refused:
        await resolve_org(caller, header, finder)
    assert_unauthorized(refused.value, PLAIN)
    assert "X-Org-Id" in str(refused.value.detail)
    assert finder.asked == []


@pytest.mark.parametrize("caller", [TWO, ALL], ids=["two", "all"])
async def test_several_orgs_and_none_chosen_is_a_bad_request_that_says_what_to_send(caller: Caller) -> None:
    with pytest.raises(ApiError) as refused:
        await resolve_org(caller, None, Finder())
    assert refused.value.code is Code.BAD_REQUEST
    assert "send X-Org-Id" in str(refused.value.detail)


@pytest.mark.parametrize(
    ("caller", "header", "looked_up"),
    [
        (ONE, OTHER_ORG, OTHER_ORG), (ONE, NO_ORG, NO_ORG), (TWO, STRANGE_ORG, STRANGE_ORG), (TWO, NO_ORG, NO_ORG),
        (ALL, NO_ORG, NO_ORG), (GONE, None, NO_ORG), (GONE, NO_ORG, NO_ORG), (GONE, ORG, ORG), (caller_of(), ORG, ORG),
    ],
    ids=range(9),
)  # fmt: skip
async def test_no_member_and_no_org_are_told_alike_after_the_same_work(
    caller: Caller, header: str | None, looked_up: str
) -> None:
    finder = Finder()
    with pytest.raises(ApiError) as refused:
        await resolve_org(caller, header, finder)
    error = refused.value
    assert (error.code, error.detail, error.headers) == (Code.NOT_FOUND, "Organization not found", {})
    assert finder.asked == [looked_up]
