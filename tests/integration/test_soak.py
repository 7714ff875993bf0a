"""The soak for a few seconds: all of it runs, holds, and leaves its figures."""

import json
import signal
from pathlib import Path

import psutil

from tests.processes import projector, started


async def test_a_short_soak_holds_and_leaves_its_figures(tmp_path: Path) -> None:
    arguments = ("--minutes", "0.05", "--seed", "1", "--results", str(tmp_path / "kept"))
    ran = await projector(*arguments, folder=tmp_path, module="tests.soak")
    assert ran.status == 0, ran.out + ran.err
    kept = json.loads((tmp_path / "kept" / "soak.json").read_text(encoding="utf-8"))
    assert kept["whole"]
    assert kept["complaints"] == []
    assert all(verdict["holds"] for verdict in kept["verdicts"])
    assert len(kept["samples"]) > 5
    assert kept["faults"]
    assert kept["samples"][-1]["completed"] > 0
    assert "Memory (RSS)" in (tmp_path / "kept" / "soak.svg").read_text(encoding="utf-8")


async def test_an_interrupted_soak_keeps_its_samples_and_ends_all_that_it_started(tmp_path: Path) -> None:
    arguments = ("--minutes", "1", "--results", str(tmp_path / "kept"))
    async with started(*arguments, folder=tmp_path, module="tests.soak", pythonunbuffered="1") as soak:
        await soak.has_written("lag ")
        children = psutil.Process(soak.process.pid).children(recursive=True)
        soak.send(signal.SIGINT)
        assert await soak.end() == 130, soak.text()
    kept = json.loads((tmp_path / "kept" / "soak.partial.json").read_text(encoding="utf-8"))
    assert (kept["whole"], kept["verdicts"], bool(kept["samples"])) == (False, [], True)
    assert len(children) > 3
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
