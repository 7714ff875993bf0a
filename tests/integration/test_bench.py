"""The bench's quick mode: its contestants give the same facts, ours is not slow, and backfills come to an end."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_bench_reaches_its_loose_targets() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All contestants gave the same facts" in done.stdout
    assert "missing facts filled by" in done.stdout
    assert not done.stderr
