"""The bench's charts: they show what the figures say, and the same figures give the same file."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.charts import draw_all


def sample(seconds: float, **values: Any) -> dict[str, Any]:
    usual = {"heap_bytes": 1_048_576, "indexes": {"one": 1_048_576, "two": 2_097_152}, "dead": 1000, "projected": 0}
    return {"seconds": seconds, "claims": 0, "claim_ms": 0.0} | usual | values


def contestant(key: str, title: str, rate: int) -> dict[str, Any]:
    return {"key": key, "title": title, "median_rows_per_second": rate}


FIGURES: dict[str, dict[str, Any]] = {
    "drain": {
        "backlog": {"rows": 104_095},
        "contestants": [
            contestant("a", "row at a time", 1_000),
            contestant("b2", "projector, 2 workers", 25_500),
            contestant("c", "limit: no outbox", 51_000),
        ],
    },
    "backfill": {"facts_missing": 1_574_198, "calls": {"milliseconds": [300.0, 310.5, 280.0]}},
    "bloat": {
        "scale": {"rows_per_second": 800, "seconds": 600},
        "retentions": [
            {"retention_seconds": 60, "samples": [sample(0), sample(300, heap_bytes=41_943_040), sample(600)]},
            {"retention_seconds": 0, "samples": [sample(0), sample(300), sample(600)]},
        ],
    },
    "pinned": {
        "scale": {"rows_per_second": 800, "backlog_rows": 20_000},
        "pinned_at_seconds": 60.0,
        "released_at_seconds": 240.0,
        "draining_seconds": [[30.0, 60.0]],
        "drained": {
            "before the pin": [{"rows_per_second": 30_000}, {"rows_per_second": 31_000}, {"rows_per_second": 90_000}],
            "at its end": [{"rows_per_second": 12_345}],
            "after it": [],
        },
        "samples": [
            sample(0),
            sample(30, projected=24_000, claims=100, claim_ms=50.0),
            sample(60, projected=90_000, claims=200, claim_ms=90_000.0),
            sample(150, projected=162_000, claims=300, claim_ms=90_700.0),
            sample(240, projected=234_000, claims=400, claim_ms=91_000.0),
        ],
    },
}
SHOWN = {
    "drain": (
        "Draining a backlog of 104,095 outbox rows",
        "only the ratios within one run count",
        "projector, 2 workers (b2)",
        "25,500 · 25.5 × a · 0.50 × c",  # noqa: RUF001 - the sign is meant
        "51,000 · 51.0 × a",  # noqa: RUF001
    ),
    "backfill": ("1,574,198 missing facts", "call"),
    "bloat": (
        "The outbox under 800 rows a second for 10 minutes",
        "completed rows kept for 60 s",
        "completed rows not kept",
        "Heap",
        ">40<",
        "Indexes together",
        "Dead rows",
    ),
    "pinned": (
        "800 rows a second, with a long transaction",
        "it begins",
        "it ends",
        "Grey: backlogs of 20,000 rows, rows/s 31,000 before the pin, 12,345 at its end",
        ">800<",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, figures in FIGURES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(figures), encoding="utf-8")
    return tmp_path


def test_every_chart_shows_its_labels_and_values(folder: Path) -> None:
    drawn = draw_all(folder)
    assert [path.name for path in drawn] == ["drain.svg", "backfill.svg", "bloat.svg", "pinned.svg"]
    for name, texts in SHOWN.items():
        svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
        missing = [text for text in texts if text not in svg]
        assert not missing, f"{name}.svg lacks {missing}"


def test_a_claims_time_while_a_backlog_is_drained_is_not_drawn(folder: Path) -> None:
    """It is 900 ms in these figures; all others are below 10."""
    draw_all(folder)
    svg = (folder / "pinned.svg").read_text(encoding="utf-8")
    assert ">6<" in svg
    assert ">400<" not in svg.partition('id="axes_2"')[0]


def test_the_same_figures_give_the_same_file(folder: Path) -> None:
    first = [path.read_bytes() for path in draw_all(folder)]
    assert [path.read_bytes() for path in draw_all(folder)] == first
    assert not any(b"<dc:date>" in content for content in first)


def test_files_that_it_does_not_know_are_left_alone(tmp_path: Path) -> None:
    for name in ("fairness", "bloat.partial"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    assert draw_all(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bloat.partial.json", "fairness.json"]
