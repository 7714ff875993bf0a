"""`projector backfill`, run as an operator runs it, against a service that answers as each test tells it."""

import asyncio
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.credentials import ORG
from tests.processes import Finished, projector, projector_on_terminal, started
from tests.scripted_api import (
    Answer,
    ScriptedApi,
    break_off,
    hang,
    nothing,
    plain,
    problem,
    result,
    scripted,
    slowly,
    text,
)

TOKEN = "rpt_s3cret-token"
COUNTS = {"enqueued": 10, "events": 4, "llm_generations": 3, "sessions": 2, "usage_ledger": 1}
SOON = problem(429, "rate_limited", "too many operator actions", retry_after=1)


async def backfill(api: ScriptedApi, *options: str, folder: Path, **variables: str) -> Finished:
    """Runs the command to its end. Nothing names a database."""
    settings = {"reporting_api_url": api.url, "reporting_api_token": TOKEN, **variables}
    ran = await projector("backfill", *options, folder=folder, **settings)
    assert TOKEN not in ran.out + ran.err
    assert "Traceback" not in ran.err
    return ran


async def answered(folder: Path, answer: Answer, *options: str) -> Finished:
    """Runs the command against a service that always answers so."""
    async with scripted(answer) as api:
        return await backfill(api, *options, folder=folder)


def told(ran: Finished) -> dict[str, Any]:
    """The one line of its output, without the seconds."""
    (line,) = ran.out.splitlines()
    document: dict[str, Any] = json.loads(line)
    assert document.pop("seconds") >= 0
    return document


def on_screen(ran: Finished) -> list[str]:
    """What a terminal was sent, line by line, without colours and the like."""
    plain_text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.out)
    return [line for line in plain_text.replace("\r", "\n").split("\n") if line]


async def test_one_call_piped_gives_one_json_line(tmp_path: Path) -> None:
    async with scripted(result()) as api:
        ran = await backfill(api, folder=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert told(ran) == COUNTS | {"calls": 1, "uncertain": 0, "dry_run": False, "done": True}
    (asked,) = api.asked
    assert (asked.body, asked.headers["Authorization"]) == ({"limit": 1000}, f"Bearer {TOKEN}")


async def test_all_options_reach_the_service(tmp_path: Path) -> None:
    options = (
        "--limit", "7", "--org", ORG.upper().replace("ORG", "org"), "--source-type", "event", "session",
        "--source-type", "usage_ledger", "--from", "2026-05-06", "--to", "2026-05-07T02:00:00+02:00",
        "--mode", "stale", "--dry-run",
    )  # fmt: skip
    async with scripted(result()) as api:
        ran = await backfill(api, *options, folder=tmp_path, tz="Asia/Tokyo")
    assert (ran.status, told(ran)["dry_run"]) == (0, True)
    (asked,) = api.asked
    assert asked.headers["X-Org-Id"] == ORG
    assert asked.body == {
        "limit": 7, "source_types": ["event", "session", "usage_ledger"], "from": "2026-05-06T00:00:00Z",
        "to": "2026-05-07T00:00:00Z", "mode": "stale", "dry_run": True,
    }  # fmt: skip


async def test_all_orgs_are_asked_for_in_the_body(tmp_path: Path) -> None:
    async with scripted(nothing()) as api:
        await backfill(api, "--org", "*", "--limit", "5", folder=tmp_path)
    (asked,) = api.asked
    assert asked.body == {"limit": 5, "org_id": "*"}
    assert "X-Org-Id" not in asked.headers


async def test_url_and_token_may_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with scripted(result()) as api:
        (tmp_path / ".env").write_text(f"REPORTING_API_URL={api.url}\nREPORTING_API_TOKEN_FILE=token\n")
        assert (await projector("backfill", folder=tmp_path)).status == 0
    assert api.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_a_terminal_is_told_in_words(tmp_path: Path) -> None:
    async with scripted(result()) as api:
        settings = {"reporting_api_url": api.url, "reporting_api_token": TOKEN}
        ran, dry, as_json = await asyncio.gather(
            projector_on_terminal("backfill", folder=tmp_path, **settings),
            projector_on_terminal("backfill", "--limit", "10", "--dry-run", folder=tmp_path, **settings),
            projector_on_terminal("backfill", "--json", folder=tmp_path, **settings),
        )
    assert (ran.status, dry.status, as_json.status) == (0, 0, 0)
    counts = "4 events, 3 llm_generations, 2 sessions, 1 usage_ledger"
    assert re.fullmatch(rf"10 rows enqueued by 1 call in \d+\.\d s: {counts}", on_screen(ran)[-1])
    assert re.fullmatch(rf"10 rows would be enqueued by 1 call in .* s: {counts}\. .*may be more", on_screen(dry)[-1])
    assert json.loads(on_screen(as_json)[-1])["enqueued"] == 10
    assert "{" not in ran.out


async def test_until_done_calls_until_nothing_is_left(tmp_path: Path) -> None:
    async with scripted(result(), result(others=5, enqueued=15), result(), nothing()) as api:
        ran = await backfill(api, "--until-done", "--limit", "20", "--mode", "all", folder=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert told(ran) == {
        "enqueued": 35, "events": 12, "llm_generations": 9, "sessions": 6, "usage_ledger": 3, "others": 5,
        "calls": 4, "uncertain": 0, "dry_run": False, "done": True,
    }  # fmt: skip
    assert [asked.body for asked in api.asked] == [{"limit": 20, "mode": "all"}] * 4


async def test_until_done_on_a_terminal_shows_rows_rate_and_counts(tmp_path: Path) -> None:
    large = result(enqueued=2010, sessions=2002)
    async with scripted(result(), slowly(SOON, 0.5), large, nothing()) as api:
        settings = {"reporting_api_url": api.url, "reporting_api_token": TOKEN}
        ran = await projector_on_terminal("backfill", "--until-done", folder=tmp_path, **settings)
    assert ran.status == 0
    lines = on_screen(ran)
    bars = [line for line in lines if line.startswith("backfilling")]
    assert any("10 rows" in bar and "4 events, 3 llm_generations" in bar for bar in bars)
    assert any("waiting 1 s: Title of rate_limited" in bar for bar in bars)
    assert "2,020 rows" in bars[-1]
    assert "rows/s" in bars[-1]
    assert "8 events, 6 llm_generations, 2,004 sessions" in bars[-1]
    assert lines[-1].startswith("2,020 rows enqueued by 3 calls in ")
    assert "{" not in ran.out
    assert not any(line.startswith("projector:") for line in lines)


async def test_until_done_waits_out_what_passes(tmp_path: Path) -> None:
    incomplete = problem(503, "incomplete", "goes on from there")
    conflict = problem(409, "conflict", "another backfill of this org is at work", retry_after=1)
    away = text(502, "<html>Bad gateway</html>")
    async with scripted(incomplete, SOON, result(), conflict, away, incomplete, nothing()) as api:
        ran = await backfill(api, "--until-done", folder=tmp_path)
    assert (ran.status, len(api.asked)) == (0, 7)
    assert told(ran) == COUNTS | {"calls": 2, "uncertain": 1, "dry_run": False, "done": True}
    waits = re.findall(r"^projector: waiting ([\d.]+) s: (?:Title of )?(\w+)", ran.err, re.MULTILINE)
    assert waits == [
        ("0.1", "incomplete"), ("1", "rate_limited"), ("1", "conflict"), ("2", "not"), ("0.1", "incomplete"),
    ]  # fmt: skip


async def test_until_done_outlives_a_restart_of_the_service(tmp_path: Path) -> None:
    async with scripted(result(), break_off, break_off, nothing()) as api:
        ran = await backfill(api, "--until-done", folder=tmp_path)
    assert ran.status == 0
    assert told(ran) == COUNTS | {"calls": 2, "uncertain": 2, "dry_run": False, "done": True}


async def test_until_done_that_ends_in_a_refusal_tells_what_was_done(tmp_path: Path) -> None:
    async with scripted(result(), problem(403, "forbidden", "Access denied")) as api:
        ran = await backfill(api, "--until-done", folder=tmp_path)
    assert ran.status == 1
    assert told(ran) == COUNTS | {"calls": 1, "uncertain": 0, "dry_run": False, "done": False}
    assert ran.err.startswith("projector: Title of forbidden: Access denied [403 forbidden]. ")


async def test_one_call_goes_on_where_the_service_ran_out_of_time(tmp_path: Path) -> None:
    async with scripted(problem(503, "incomplete"), problem(503, "incomplete"), result()) as api:
        ran = await backfill(api, folder=tmp_path)
    assert (ran.status, told(ran)["enqueued"], len(api.asked)) == (0, 10, 3)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (problem(400, "bad_request", "no such type"), 2, "Title of bad_request: no such type [400 bad_request]. Check"),
        (problem(401, "unauthorized"), 2, "Title of unauthorized [401 unauthorized]. Check REPORTING_API_TOKEN or"),
        (problem(403, "forbidden", "denied"), 1, "Title of forbidden: denied [403 forbidden]. Use a token that has"),
        (problem(404, "not_found"), 1, "Title of not_found [404 not_found]. Check --org and REPORTING_API_URL."),
        (problem(405, "method_not_allowed"), 1, "Title of method_not_allowed [405 method_not_allowed]. Check REPO"),
        (problem(409, "conflict"), 1, "Title of conflict [409 conflict]. Another backfill of this org is at work"),
        (problem(422, "unprocessable"), 2, "Title of unprocessable [422 unprocessable]. Check the options."),
        (problem(429, "rate_limited", retry_after=7), 1, "[429 rate_limited]. Call again in 7 s."),
        (problem(500, "internal_error"), 3, "[500 internal_error]. Call again later; the service's log says more."),
        (problem(503, "unavailable", retry_after=5), 3, "[503 unavailable]. Call again in 5 s."),
        (text(504, "<html>"), 3, "not an answer of the backfill API [504]. It may have enqueued rows all the same."),
        (text(308, "", Location="https://elsewhere.example"), 2, "backfill API [308]. Check REPORTING_API_URL."),
        (text(200, "<html>Welcome</html>"), 2, "status 200, but the body is no result of a backfill. It may have"),
        (plain(200, {"ok": True}), 2, "status 200, but the body is no result of a backfill. It may have"),
        (break_off, 3, "broke the call off: ServerDisconnectedError. It may have enqueued rows all the same. Check"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
async def test_a_failure_is_one_line_with_what_to_do(tmp_path: Path, answer: Answer, status: int, said: str) -> None:
    ran = await answered(tmp_path, answer)
    assert (ran.status, ran.out) == (status, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("projector: ")
    assert said in line


async def test_a_dry_run_that_is_too_much_at_once_is_told(tmp_path: Path) -> None:
    ran = await answered(tmp_path, problem(503, "incomplete", retry_after=1), "--dry-run")
    assert (ran.status, ran.out) == (3, "")
    assert "Narrow it down with --source-type, --from and --to" in ran.err


async def test_a_dry_run_without_an_answer_has_enqueued_nothing(tmp_path: Path) -> None:
    ran = await answered(tmp_path, break_off, "--dry-run")
    assert ran.status == 3
    assert "may have enqueued" not in ran.err


async def test_a_missing_token_is_named(tmp_path: Path) -> None:
    async with scripted(problem(401, "unauthorized")) as api:
        ran = await projector("backfill", folder=tmp_path, reporting_api_url=api.url)
    assert ran.status == 2
    assert "Set REPORTING_API_TOKEN or REPORTING_API_TOKEN_FILE." in ran.err


async def test_a_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    for options in ((), ("--until-done",)):
        ran = await projector("backfill", *options, folder=tmp_path, reporting_api_url=url)
        assert (ran.status, ran.out) == (3, "")
        expected = f"projector: {url} could not be reached: Connection refused. Check REPORTING_API_URL, and whether "
        assert ran.err.startswith(expected)
        assert len(ran.err.splitlines()) == 1


async def test_a_host_that_is_not_there_is_told(tmp_path: Path) -> None:
    ran = await projector("backfill", folder=tmp_path, reporting_api_url="http://nowhere.invalid")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("projector: http://nowhere.invalid could not be reached: ")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"reporting_api_url": "ftp://reports.example"}, "REPORTING_API_URL (not shown here) must be a URL like"),
        ({"reporting_api_token": "two words"}, "REPORTING_API_TOKEN (not shown here) must be one token"),
        ({"reporting_api_token_file": "absent"}, "REPORTING_API_TOKEN_FILE='absent': No such file or directory"),
    ],
    ids=["url", "token", "file"],
)
async def test_wrong_settings_are_refused(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    ran = await projector("backfill", folder=tmp_path, **variables)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"projector: {said}")
    assert "two words" not in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--until-done", "--dry-run"], "not allowed with argument"),
        (["--limit", "0"], "must be a whole number from 1 to 100000: '0'"),
        (["--limit", "100001"], "must be a whole number from 1 to 100000"),
        (["--limit", "1e3"], "must be a whole number from 1 to 100000"),
        (["--org", "7"], "must be org_ and 32 hexadecimal digits, or '*' for all orgs: '7'"),
        (["--org", f"{ORG}0"], "must be org_ and 32 hexadecimal digits"),
        (["--from", "yesterday"], "must be like 2026-05-06 or 2026-05-06T10:00:00Z: 'yesterday'"),
        (["--from", "0001-01-01T00:00+14:00"], "must be like 2026-05-06"),
        (["--from", "2026-05-07", "--to", "2026-05-06"], "from must be before to"),
        (["--source-type", *["event"] * 51], "at most 50"),
        (["--mode", "some"], "invalid choice: 'some'"),
        (["--source-type"], "expected at least one argument"),
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_refused_before_anything_is_sent(tmp_path: Path, options: list[str], said: str) -> None:
    async with scripted(result()) as api:
        ran = await backfill(api, *options, folder=tmp_path)
    assert (ran.status, ran.out, api.asked) == (2, "", [])
    assert said in ran.err


@pytest.mark.parametrize(
    ("answers", "uncertain"), [((result(), hang), 1), ((result(), SOON), 0)], ids=["in a call", "while it waits"]
)
async def test_ctrl_c_tells_what_was_done(tmp_path: Path, answers: tuple[Answer, ...], uncertain: int) -> None:
    async with (
        scripted(*answers) as api,
        started("backfill", "--until-done", folder=tmp_path, reporting_api_url=api.url) as running,
    ):
        await running.until(lambda: len(api.asked) > 1, "no second call")
        if not uncertain:
            await running.has_written("waiting")
        running.send(signal.SIGINT)
        assert await running.end(within=10) == 130
        lines = running.text().splitlines()
    assert "Traceback" not in running.text()
    (line,) = [line for line in lines if line.startswith("{")]
    document = json.loads(line)
    assert {name: document[name] for name in COUNTS} == COUNTS
    assert (document["calls"], document["uncertain"], document["done"]) == (1, uncertain, False)
    assert lines[-1] == "projector: stopped; what was enqueued stays"
