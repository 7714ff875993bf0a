"""One call of the backfill API: what is sent, and what every kind of answer becomes."""

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from projector.backfill_client import PATH, BackfillClient, CallError
from schemas.reports import BackfillMode, ReportingBackfillRequest
from tests.credentials import ORG, jwks_server
from tests.scripted_api import RESULT, Answer, break_off, endless, hang, plain, problem, result, scripted, text

TOKEN = "rpt_s3cret-token"
REQUEST = ReportingBackfillRequest(limit=10)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def failure_of(client: BackfillClient) -> CallError:
    with pytest.raises(CallError) as failed:
        await client.backfill(REQUEST)
    assert TOKEN not in str(failed.value)
    assert str(failed.value).isprintable()
    return failed.value


async def failure(session: aiohttp.ClientSession, answer: Answer, call_seconds: float = 10) -> CallError:
    """What becomes of a call that is answered so."""
    async with scripted(answer) as api:
        return await failure_of(BackfillClient(session, api.url, SecretStr(TOKEN), call_seconds=call_seconds))


async def test_a_call_carries_request_token_and_org(session: aiohttp.ClientSession) -> None:
    request = ReportingBackfillRequest.model_validate(
        {
            "limit": 5, "source_types": ["event"], "from": datetime(2026, 5, 6, tzinfo=UTC), "mode": BackfillMode.ALL,
            "dry_run": True, "org_id": "*",
        }
    )  # fmt: skip
    async with scripted(result()) as api:
        await BackfillClient(session, api.url + "/below", SecretStr(TOKEN), ORG).backfill(request)
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("POST", "/below" + PATH)
    assert asked.body == {
        "limit": 5, "source_types": ["event"], "from": "2026-05-06T00:00:00Z", "mode": "all", "dry_run": True,
        "org_id": "*",
    }  # fmt: skip
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["X-Org-Id"] == ORG
    assert asked.headers["Content-Type"] == "application/json"


async def test_what_was_not_asked_for_is_not_sent(session: aiohttp.ClientSession) -> None:
    async with scripted(result()) as api:
        await BackfillClient(session, api.url).backfill(REQUEST)
    (asked,) = api.asked
    assert asked.body == {"limit": 10}
    assert not {"Authorization", "X-Org-Id"} & set(asked.headers)


async def test_the_result_is_given_back_and_news_of_a_newer_service_ignored(session: aiohttp.ClientSession) -> None:
    async with scripted(result(), result(others=7), result(mood="good")) as api:
        client = BackfillClient(session, api.url)
        first, with_others, newer = [await client.backfill(REQUEST) for _ in range(3)]
    assert first.model_dump(exclude_none=True) == newer.model_dump(exclude_none=True) == RESULT
    assert with_others.others == 7


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (409, "conflict"),
        (500, "internal_error"), (503, "unavailable"), (599, "of_tomorrow"),
    ],
)  # fmt: skip
async def test_a_problem_is_told_with_title_detail_and_code(
    session: aiohttp.ClientSession, status: int, code: str
) -> None:
    failed = await failure(session, problem(status, code, "what happened", X_Request_Id="req-7"))
    assert str(failed) == f"Title of {code}: what happened [{status} {code}] (request req-7)"
    assert (failed.status, failed.code, failed.retry_after) == (status, code, None)
    assert not failed.incomplete


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (problem(429, "rate_limited", retry_after=7), 7),
        (plain(429, {"title": "Slow", "status": 429}, Retry_After="8"), 8),
        (plain(429, {"title": "Slow", "status": 429, "retry_after_seconds": 9}), 9),
        (plain(429, {"title": "Slow", "status": 429, "retry_after_seconds": -9}), 0),
        (plain(503, {"title": "Away", "status": 503}, Retry_After="Fri, 31 Dec 2027 23:59:59 GMT"), None),
        (plain(503, {"title": "Away", "status": 503}, Retry_After="-1"), None),
        (plain(503, {"title": "Away", "status": 503}), None),
        (text(503, "Away", **{"Retry-After": "10"}), 10),
    ],
    ids=["both", "header", "body", "before now", "date", "negative", "none", "no JSON"],
)
async def test_the_seconds_to_wait_are_read(
    session: aiohttp.ClientSession, answer: Answer, seconds: int | None
) -> None:
    assert (await failure(session, answer)).retry_after == seconds


async def test_a_service_that_ran_out_of_time_is_known_by_its_code(session: aiohttp.ClientSession) -> None:
    assert (await failure(session, problem(503, "incomplete", retry_after=1))).incomplete
    assert not (await failure(session, problem(400, "incomplete"))).incomplete


@pytest.mark.parametrize(
    "document",
    [None, {}, [], "enqueued", RESULT | {"events": None}, RESULT | {"enqueued": "many"}, {"title": "x", "status": 200}],
    ids=["null", "empty", "a list", "a text", "a null", "no number", "a problem"],
)
async def test_a_success_of_another_shape_is_no_result(session: aiohttp.ClientSession, document: object) -> None:
    failed = await failure(session, plain(200, document))
    assert str(failed) == "status 200, but the body is no result of a backfill"
    assert (failed.status, failed.code, failed.uncertain) == (200, None, True)


@pytest.mark.parametrize("status", [200, 204, 304, 401, 404, 502])
@pytest.mark.parametrize(
    "body", ["", "<html>Nginx</html>", "{", "[" * 60_000, "x" * 1_000_000], ids=["none", "html", "half", "deep", "long"]
)
async def test_a_body_that_is_no_json_is_told_by_its_status(
    session: aiohttp.ClientSession, status: int, body: str
) -> None:
    failed = await failure(session, text(status, body))
    said = "the body is no result" if status == 200 else f"not an answer of the backfill API [{status}]"
    assert said in str(failed)
    assert failed.status == status
    assert "html" not in str(failed)


async def test_a_body_without_an_end_is_not_read_to_its_end(session: aiohttp.ClientSession) -> None:
    assert (await failure(session, endless)).status == 200


async def test_texts_of_the_service_cannot_act_on_the_terminal_or_flood_it(session: aiohttp.ClientSession) -> None:
    failed = await failure(session, problem(400, "bad\x1b[2J", "first\nsecond\x1b]0;pwned\x07" + "x" * 5000))
    assert "first second ]0;pwned xxx" in str(failed)
    assert len(str(failed)) < 600


async def test_a_service_that_does_not_answer_is_not_waited_for_without_end(session: aiohttp.ClientSession) -> None:
    failed = await failure(session, hang, call_seconds=0.2)
    assert str(failed).endswith("gave no answer within 0.2 s")
    assert (failed.status, failed.uncertain) == (None, True)


async def test_a_connection_that_breaks_leaves_open_what_was_enqueued(session: aiohttp.ClientSession) -> None:
    failed = await failure(session, break_off)
    assert str(failed).endswith("broke the call off: ServerDisconnectedError")
    assert (failed.status, failed.uncertain) == (None, True)


async def test_a_port_that_nobody_listens_on_is_told_in_the_systems_words(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    failed = await failure_of(BackfillClient(session, f"http://127.0.0.1:{port}", SecretStr(TOKEN)))
    assert str(failed) == f"http://127.0.0.1:{port} could not be reached: Connection refused"
    assert (failed.status, failed.uncertain) == (None, False)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_does_not_take_the_token_elsewhere(session: aiohttp.ClientSession, status: int) -> None:
    async with scripted(result()) as elsewhere:
        failed = await failure(session, text(status, "", Location=elsewhere.url + PATH))
    assert failed.status == status
    assert elsewhere.asked == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with jwks_server(tmp_path, {}) as server:
        url = server.url.removesuffix("/jwks")
        failed = await failure_of(BackfillClient(session, url, SecretStr(TOKEN)))
        assert "its certificate was refused: " in str(failed)
        assert (failed.status, failed.uncertain) == (None, False)
        async with server.session() as trusting:
            assert (await failure_of(BackfillClient(trusting, url))).status == 404


async def test_https_to_a_port_that_speaks_http_is_told(session: aiohttp.ClientSession) -> None:
    async with scripted(result()) as api:
        client = BackfillClient(session, api.url.replace("http:", "https:"), SecretStr(TOKEN))
        failed = await failure_of(client)
    assert "could not be reached: TLS failed: " in str(failed)
    assert api.asked == []
