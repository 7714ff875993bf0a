"""The long bench when it is interrupted: it keeps what it has, judges nothing, and leaves nothing running."""

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.processes import started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_an_interrupted_run_keeps_its_samples_and_ends_all_that_it_started(
    number: signal.Signals, tmp_path: Path
) -> None:
    arguments = ("--only", "bloat", "--minutes", "0.2", "--results", str(tmp_path / "kept"))
    async with started(*arguments, folder=tmp_path, module="tests.bench.long", pythonunbuffered="1") as bench:
        await bench.has_written("bloat: retention")
        await asyncio.sleep(4)
        children = psutil.Process(bench.process.pid).children(recursive=True)
        bench.send(number)
        status = await bench.end()
    assert status == 130, bench.text()
    assert "interrupted" in bench.text()
    assert "Traceback" not in bench.text()
    kept = json.loads((tmp_path / "kept" / "bloat.partial.json").read_text(encoding="utf-8"))
    assert kept["whole"] is False
    assert kept["targets"] == []
    assert len(kept["retentions"][0]["samples"]) > 1
    assert not (tmp_path / "kept" / "bloat.json").exists()
    assert len(children) > 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
