"""JWTs: which are accepted, which are not, and what their claims mean."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import jwt
import pytest

from backfill_api.caller import Caller, Policy
from backfill_api.jwts import ALGORITHMS, JwtRules, JwtSettingsError, JwtVerifier, has_jwt_form
from tests.credentials import AUDIENCE, ISSUER, ORG, OTHER_ORG, Clock, Lines, Signer, claims_with, jwks

RSA, EC = Signer.new("rsa-1", "RS256"), Signer.new("ec-1", "ES256")
VIEW, MANAGE, ADMIN = Policy.REPORT_VIEW, Policy.REPORT_MANAGE, Policy.REPORT_ADMIN


def rules(**more: object) -> JwtRules:
    return JwtRules(**{"issuer": ISSUER, "audience": AUDIENCE, **more})  # type: ignore[arg-type]


class Verifying:
    """A verifier whose keys are in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = Lines()
        self.publish(RSA.jwk(), EC.jwk())

    def publish(self, *members: Mapping[str, object]) -> None:
        self.path.write_text(json.dumps(jwks(*members)))

    async def verify(self, token: str, used: JwtRules | None = None) -> Caller | None:
        verifier = JwtVerifier(
            used or rules(), str(self.path), session_factory=aiohttp.ClientSession, clock=Clock(), log=self.lines.log
        )
        return await verifier.verify(token)


@pytest.fixture
def verifying(tmp_path: Path) -> Verifying:
    return Verifying(tmp_path / "jwks.json")


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def hmac_token(secret: bytes, **header: object) -> str:
    """A token signed with HMAC by hand: libraries refuse to take a public key for its secret."""
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', **header})}.{encoded(claims_with())}"
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@pytest.mark.parametrize("signer", [RSA, EC], ids=lambda signer: signer.algorithm)
async def test_a_valid_token_is_its_caller(verifying: Verifying, signer: Signer) -> None:
    caller = await verifying.verify(signer.token(sub="alice", org=ORG, policies=["REPORT_VIEW"]))
    assert caller == Caller("alice", frozenset({ORG}), frozenset({VIEW}))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("told", [True, False], ids=["alg in the key", "no alg in the key"])
async def test_every_algorithm_that_is_offered_works(verifying: Verifying, algorithm: str, told: bool) -> None:
    signer = Signer("k", algorithm, RSA.private) if algorithm[:2] in {"RS", "PS"} else Signer.new("k", algorithm)
    verifying.publish(signer.jwk() if told else signer.jwk(alg=None, use=None))
    assert await verifying.verify(signer.token(), rules(algorithms=(algorithm,)))
    assert not await verifying.verify(signer.token(), rules(algorithms=tuple(ALGORITHMS - {algorithm})))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://else.example"}, {"iss": ISSUER + "/"}, {"iss": None}, {"iss": [ISSUER]},
        {"aud": "else"}, {"aud": None}, {"aud": ["else", "other"]}, {"aud": []}, {"aud": {"a": AUDIENCE}},
        {"exp": None}, {"exp": int(time.time()) - 11}, {"exp": "soon"}, {"exp": float("nan")},
        {"nbf": 4_102_444_800}, {"iat": 4_102_444_800},
        {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "a\0b"}, {"sub": "a\nb"}, {"sub": "x" * 201}, {"sub": "\ud800"},
    ],
    ids=lambda claims: next(iter(claims)),
)  # fmt: skip
@pytest.mark.parametrize("signer", [RSA, EC], ids=lambda signer: signer.algorithm)
async def test_a_genuine_token_with_a_wrong_claim_is_refused(
    verifying: Verifying, signer: Signer, claims: dict[str, object]
) -> None:
    assert await verifying.verify(signer.token(**claims)) is None


async def test_clocks_may_differ_by_seconds(verifying: Verifying) -> None:
    now = int(time.time())
    assert await verifying.verify(RSA.token(exp=now - 5, nbf=now + 5, iat=now + 5))


async def test_one_of_several_audiences_is_enough(verifying: Verifying) -> None:
    assert await verifying.verify(RSA.token(aud=["else", AUDIENCE]))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 1, ["RS256"], {"a": 1}, "HS256"], ids=str
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_a_token_without_a_signature_is_refused(verifying: Verifying, algorithm: object, signature: str) -> None:
    token = f"{encoded({'alg': algorithm, 'kid': 'rsa-1'})}.{encoded(claims_with())}.{signature}"
    assert await verifying.verify(token) is None


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1", None])
async def test_a_public_key_is_no_hmac_secret(verifying: Verifying, kid: str | None) -> None:
    for signer in (RSA, EC):
        as_jwk = json.dumps(signer.jwk()).encode()
        for secret in (signer.pem(), signer.pem().strip(), as_jwk, b""):
            assert await verifying.verify(hmac_token(secret, kid=kid) if kid else hmac_token(secret)) is None


async def test_a_secret_that_is_published_signs_nothing(verifying: Verifying) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    member = {"kty": "oct", "kid": "oct-1", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
    verifying.publish(RSA.jwk(), member, member | {"alg": "HS256"}, member | {"alg": "RS256"})
    assert await verifying.verify(hmac_token(secret, kid="oct-1")) is None
    assert await verifying.verify(RSA.token())


async def test_a_signature_by_another_key_is_refused(verifying: Verifying) -> None:
    assert await verifying.verify(Signer.new("rsa-1", "RS256").token()) is None
    assert await verifying.verify(Signer.new("ec-1", "ES256").token()) is None
    assert await verifying.verify(Signer("ec-1", "RS256", RSA.private).token()) is None


async def test_a_token_changed_after_it_was_signed_is_refused(verifying: Verifying) -> None:
    header, _, signature = RSA.token().split(".")
    assert await verifying.verify(f"{header}.{encoded(claims_with(org='*'))}.{signature}") is None


async def test_a_key_that_comes_with_the_token_is_not_used(verifying: Verifying) -> None:
    forged = Signer.new("rsa-1", "RS256")
    for header in ({"jwk": forged.jwk()}, {"jku": "https://127.0.0.1:1/jwks"}, {"x5u": "https://127.0.0.1:1/x"}):
        assert await verifying.verify(forged.signed({"kid": "rsa-1", **header}, claims_with())) is None


async def test_critical_extensions_that_are_not_known_are_refused(verifying: Verifying) -> None:
    assert await verifying.verify(RSA.signed({"kid": "rsa-1", "crit": ["exp"], "exp": 1}, claims_with())) is None


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "a" * 9000, "ä.ö.ü", "e30.e30.AAAA", "W10.e30.AAAA", "\ud800.a.b"],
)
async def test_what_is_no_token_is_refused(verifying: Verifying, token: str) -> None:
    assert await verifying.verify(token) is None


async def test_keys_for_other_uses_private_ones_and_weak_ones_are_not_used(verifying: Verifying) -> None:
    weak = Signer.new("weak", "RS256", bits=1024)
    for member in (RSA.jwk(use="enc"), RSA.jwk(alg="PS256"), RSA.private_jwk()):
        verifying.publish(member)
        assert await verifying.verify(RSA.token()) is None
    verifying.publish(weak.jwk())
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = weak.token()
    assert await verifying.verify(token) is None


async def test_a_token_that_names_no_key_is_tried_with_each(verifying: Verifying) -> None:
    second = Signer.new("rsa-2", "RS256")
    verifying.publish(RSA.jwk(), second.jwk(kid=None), EC.jwk())
    for signer in (RSA, second, EC):
        assert await verifying.verify(signer.signed({}, claims_with()))
    assert await verifying.verify(Signer.new("x", "RS256").signed({}, claims_with())) is None
    assert await verifying.verify(second.token()) is None


@pytest.mark.parametrize(
    ("org", "orgs"),
    [
        (ORG, {ORG}), ("org_" + ORG[4:].upper(), {ORG}), ([ORG], {ORG}), ([ORG, OTHER_ORG], {ORG, OTHER_ORG}),
        ("*", {"*"}), (["*"], {"*"}), ([ORG, "*"], {"*"}),
        *((bad, None) for bad in (None, "", [], "acme", [ORG, "acme"], [ORG, 7], 7, {"id": ORG}, f"{ORG} {OTHER_ORG}")),
    ],
    ids=str,
)  # fmt: skip
async def test_orgs_are_read_from_their_claim(verifying: Verifying, org: object, orgs: set[str] | None) -> None:
    caller = await verifying.verify(RSA.token(org=org))
    assert (set(caller.orgs) if caller else None) == orgs


@pytest.mark.parametrize(
    ("claims", "policies"),
    [
        ({"role": "owner"}, {VIEW, MANAGE, ADMIN}),
        ({"role": "admin"}, {VIEW, MANAGE}),
        ({"role": "member"}, {VIEW}),
        *(({"role": role}, set()) for role in ("guest", "Owner", "", 7, ["owner"], None)),
        ({"policies": ["REPORT_VIEW", "REPORT_ADMIN"]}, {VIEW, ADMIN}),
        ({"policies": "REPORT_MANAGE"}, {MANAGE}),
        ({"policies": "openid REPORT_MANAGE  profile REPORT_VIEW"}, {MANAGE, VIEW}),
        ({"policies": "report_view REPORT_VIEWER"}, set()),
        ({"policies": [], "role": "owner"}, set()),
        ({"policies": "openid", "role": "owner"}, set()),
        ({"policies": ["REPORT_VIEW", 7]}, None),
        ({"policies": 7}, None),
        ({"policies": {"REPORT_VIEW": True}}, None),
    ],
    ids=str,
)
async def test_policies_are_read_from_their_claim_or_the_role(
    verifying: Verifying, claims: dict[str, object], policies: set[Policy] | None
) -> None:
    caller = await verifying.verify(RSA.token(**({"role": None} | claims)))
    assert (set(caller.policies) if caller else None) == policies


async def test_claims_may_have_other_names(verifying: Verifying) -> None:
    named = rules(org_claim="https://x/org_id", policies_claim="scope", role_claim="org_role")
    caller = await verifying.verify(
        RSA.token(org=OTHER_ORG, role="owner", org_role="member", **{"https://x/org_id": ORG}), named
    )
    assert caller == Caller("alice", frozenset({ORG}), frozenset({VIEW}))
    caller = await verifying.verify(RSA.token(scope="REPORT_ADMIN", **{"https://x/org_id": ORG}), named)
    assert caller == Caller("alice", frozenset({ORG}), frozenset({ADMIN}))


async def test_the_log_says_why_a_token_was_refused_and_never_holds_one(verifying: Verifying) -> None:
    for token, reason in (
        (RSA.token(exp=1), "ExpiredSignatureError"),
        (RSA.token(iss="x"), "InvalidIssuerError"),
        (RSA.token(org="acme"), "subject, org or policies are missing or malformed"),
    ):
        assert await verifying.verify(token) is None
        assert reason in list(verifying.lines)[-1][1]
        assert not any(part in text for _, text in verifying.lines for part in token.split("."))


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": ""}, {"audience": ""}, {"algorithms": ()}, {"algorithms": ("none",)}, {"algorithms": ("HS512",)},
        {"algorithms": ("RS256", "HS256")}, {"algorithms": ("rs256",)}, {"algorithms": ("",)},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_would_let_anyone_in_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(
        JwtSettingsError, match=r"both an issuer and an audience|must be of ES256, ES384, ES512, EdDSA, PS256"
    ):
        rules(**wrong)


@pytest.mark.parametrize(
    ("token", "is_one"),
    [("a.b.c", True), (RSA.token(), True), ("a.b.", False), ("rpt_x", False), ("a.b.c.d.e", False), ("a.b.c\n", False)],
)
def test_the_form_of_a_token_tells_whether_it_may_be_one(token: str, is_one: bool) -> None:
    assert has_jwt_form(token) is is_one
