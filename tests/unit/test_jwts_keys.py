"""The keys of JWTs: fetched from a real server, rotated, kept through outages, and never asked for in a flood."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from backfill_api.jwts import JwtRules, JwtSettingsError, JwtVerifier
from backfill_api.problems import ApiError, Code
from tests.credentials import AUDIENCE, ISSUER, Clock, JwksServer, Lines, Signer, jwks, jwks_server

RULES = JwtRules(ISSUER, AUDIENCE)
OLD, NEW = Signer.new("old", "RS256"), Signer.new("new", "ES256")


class Verifying:
    """A verifier at work on a server's keys."""

    def __init__(self, server: JwksServer) -> None:
        self.clock = Clock()
        self.lines = Lines()
        self.verifier = JwtVerifier(
            RULES, server.url, session_factory=server.session, clock=self.clock, log=self.lines.log
        )

    async def accepts(self, signer: Signer) -> bool:
        return await self.verifier.verify(signer.token()) is not None

    async def unavailable(self, signer: Signer) -> int | None:
        """After how many seconds the refusal says to come back."""
        with pytest.raises(ApiError) as refused:
            await self.accepts(signer)
        assert refused.value.code is Code.UNAVAILABLE
        return refused.value.retry_after


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[JwksServer]:
    async with jwks_server(tmp_path, jwks(OLD.jwk())) as server:
        yield server


@pytest.fixture
def verifying(server: JwksServer) -> Verifying:
    return Verifying(server)


async def test_keys_are_fetched_with_the_first_token_and_kept(verifying: Verifying, server: JwksServer) -> None:
    assert server.fetches == 0
    for _ in range(5):
        assert await verifying.accepts(OLD)
    assert server.fetches == 1


async def test_a_new_key_is_found_as_soon_as_a_token_names_it(verifying: Verifying, server: JwksServer) -> None:
    assert await verifying.accepts(OLD)
    server.document = jwks(OLD.jwk(), NEW.jwk())
    verifying.clock.now += 30
    assert await verifying.accepts(NEW)
    assert await verifying.accepts(OLD)
    assert server.fetches == 2


async def test_a_withdrawn_key_is_refused_after_ten_minutes_even_if_nobody_called(
    verifying: Verifying, server: JwksServer
) -> None:
    assert await verifying.accepts(OLD)
    server.document = jwks(NEW.jwk())
    verifying.clock.now += 599
    assert await verifying.accepts(OLD)
    assert server.fetches == 1
    verifying.clock.now += 1
    assert not await verifying.accepts(OLD)
    assert server.fetches == 2


async def test_a_flood_of_unknown_kids_is_one_fetch_in_thirty_seconds(verifying: Verifying, server: JwksServer) -> None:
    assert await verifying.accepts(OLD)
    made_up = [Signer(f"made-up-{n}", "RS256", OLD.private).token() for n in range(60)]
    verifying.clock.now += 30
    for _ in range(2):
        assert not any(await asyncio.gather(*map(verifying.verifier.verify, made_up)))
    assert server.fetches == 2
    verifying.clock.now += 29
    assert not any(await asyncio.gather(*map(verifying.verifier.verify, made_up)))
    assert server.fetches == 2
    verifying.clock.now += 1
    assert not any([await verifying.verifier.verify(token) for token in made_up])
    assert server.fetches == 3


async def test_a_flood_before_any_key_is_known_is_one_fetch(verifying: Verifying, server: JwksServer) -> None:
    assert all(await asyncio.gather(*(verifying.accepts(OLD) for _ in range(40))))
    assert server.fetches == 1


async def test_a_token_of_an_algorithm_that_is_not_allowed_causes_no_fetch(
    verifying: Verifying, server: JwksServer
) -> None:
    assert not await verifying.accepts(Signer("x", "RS512", OLD.private))
    assert await verifying.verifier.verify("eyJhbGciOiJub25lIn0.e30.AAAA") is None
    assert server.fetches == 0


async def test_known_keys_go_on_working_while_they_cannot_be_fetched(verifying: Verifying, server: JwksServer) -> None:
    assert await verifying.accepts(OLD)
    server.answer = "fail"
    for _ in range(10):
        verifying.clock.now += 600
        assert await verifying.accepts(OLD)
    assert server.fetches == 11
    server.answer = "serve"
    verifying.clock.now += 29
    assert await verifying.accepts(OLD)
    assert server.fetches == 11
    server.document = jwks(NEW.jwk())
    verifying.clock.now += 1
    assert await verifying.accepts(NEW)
    assert not await verifying.accepts(OLD)


async def test_without_keys_the_answer_is_unavailable_and_when_to_come_back(
    verifying: Verifying, server: JwksServer
) -> None:
    server.answer = "fail"
    assert await verifying.unavailable(OLD) == 30
    verifying.clock.now += 12.5
    assert await verifying.unavailable(OLD) == 18
    assert server.fetches == 1
    server.answer = "serve"
    verifying.clock.now += 18
    assert await verifying.accepts(OLD)


async def test_a_key_not_known_while_none_can_be_fetched_is_unavailable_not_refused(
    verifying: Verifying, server: JwksServer
) -> None:
    assert await verifying.accepts(OLD)
    server.answer = "fail"
    verifying.clock.now += 30
    assert await verifying.unavailable(NEW) == 30
    assert await verifying.accepts(OLD)


@pytest.mark.parametrize(
    "document", ["", "{", "[]", "{}", '{"keys": {}}', '{"keys": null}', "null", "[" * 20_000, " " * (256 * 1024 + 1)],
    ids=range(9),
)  # fmt: skip
async def test_what_is_no_jwks_is_not_taken_for_one(verifying: Verifying, server: JwksServer, document: str) -> None:
    assert await verifying.accepts(OLD)
    server.document = document
    verifying.clock.now += 600
    assert await verifying.accepts(OLD)
    assert server.fetches == 2
    (level, text) = list(verifying.lines)[-1]
    assert (level, "JWKS not fetched, the known keys stand" in text) == ("warning", True)


async def test_a_long_document_is_not_read_to_its_end(verifying: Verifying, server: JwksServer) -> None:
    server.document = json.dumps(jwks(OLD.jwk())) + " " * (256 * 1024)
    assert await verifying.unavailable(OLD) == 30


async def test_a_jwks_that_is_empty_withdraws_all_keys(verifying: Verifying, server: JwksServer) -> None:
    assert await verifying.accepts(OLD)
    server.document = jwks()
    verifying.clock.now += 600
    assert not await verifying.accepts(OLD)
    assert list(verifying.lines)[-2] == ("error", '{"keys": 0, "skipped": 0, "event": "JWKS fetched"}')


async def test_members_that_are_no_usable_keys_are_passed_over(verifying: Verifying, server: JwksServer) -> None:
    bad = [7, None, {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": ["RSA"]}]
    bad += [OLD.jwk(n=7), OLD.jwk(n="!"), NEW.jwk(x=None), NEW.jwk(crv="P-999"), OLD.jwk(alg=["RS256"])]
    server.document = {"keys": [*bad, OLD.jwk(), NEW.jwk(kid=["x"])]}
    assert await verifying.accepts(OLD)
    assert list(verifying.lines)[-1][1] == f'{{"keys": 2, "skipped": {len(bad)}, "event": "JWKS fetched"}}'


async def test_redirects_are_not_followed(verifying: Verifying, server: JwksServer) -> None:
    server.answer = "redirect"
    await verifying.unavailable(OLD)
    assert server.fetches == 1


async def test_a_server_that_cannot_prove_who_it_is_is_not_believed(server: JwksServer) -> None:
    verifying = Verifying(server)
    verifying.verifier = JwtVerifier(
        RULES, server.url, session_factory=aiohttp.ClientSession, clock=verifying.clock, log=verifying.lines.log
    )
    await verifying.unavailable(OLD)
    assert server.fetches == 0
    assert "ClientConnectorCertificateError" in list(verifying.lines)[-1][1]


async def test_a_server_that_does_not_answer_is_given_up(
    verifying: Verifying, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backfill_api.jwts._FETCH_SECONDS", 0.05)
    server.answer = "hang"
    async with asyncio.timeout(3):
        await verifying.unavailable(OLD)


async def test_a_request_that_is_given_up_does_not_take_the_fetch_from_the_others(
    verifying: Verifying, server: JwksServer
) -> None:
    server.answer = "hang"
    first = asyncio.create_task(verifying.accepts(OLD))
    await asyncio.wait_for(server.asked.wait(), 5)
    second = asyncio.create_task(verifying.accepts(OLD))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    server.released.set()
    assert await second
    assert server.fetches == 1


async def test_keys_may_be_in_a_file_which_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    clock, lines = Clock(), Lines()
    verifier = JwtVerifier(RULES, str(path), session_factory=aiohttp.ClientSession, clock=clock, log=lines.log)
    with pytest.raises(ApiError, match="unavailable"):
        await verifier.verify(OLD.token())
    path.write_text(json.dumps(jwks(OLD.jwk())))
    clock.now += 30
    assert await verifier.verify(OLD.token())
    path.write_text(json.dumps(jwks(NEW.jwk())))
    clock.now += 30
    assert await verifier.verify(NEW.token())
    path.unlink()
    clock.now += 600
    assert await verifier.verify(NEW.token())


@pytest.mark.parametrize("source", ["", "http://127.0.0.1/jwks", "ftp://h/x", "https://", "https:///x", "https://[x/y"])
def test_keys_come_by_https_or_from_a_file_only(source: str) -> None:
    with pytest.raises(JwtSettingsError, match="https:// URL or the path of a file"):
        JwtVerifier(RULES, source, session_factory=aiohttp.ClientSession, clock=Clock(), log=Lines().log)


async def test_the_log_does_not_hold_a_password_in_the_url() -> None:
    lines = Lines()
    verifier = JwtVerifier(
        RULES, "https://user:pa55@127.0.0.1:1/jwks", session_factory=aiohttp.ClientSession, clock=Clock(), log=lines.log
    )
    with pytest.raises(ApiError) as refused:
        await verifier.verify(OLD.token())
    assert "pa55" not in str(refused.value.detail)
    assert not any("pa55" in text for _, text in lines)
