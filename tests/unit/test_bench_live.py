"""The targets of the bench's parts on live rows, fairness and the write path: each can be missed."""

import json
from typing import Any

import pytest

from tests.bench import fairness, lag, write_path
from tests.bench.fairness import FairnessFigures
from tests.bench.idle import Count, Idle, difference
from tests.bench.lag import LagFigures, LiveRun
from tests.bench.live_writers import Load, Written
from tests.bench.parts import Spread
from tests.bench.write_path import WritePathFigures

UNIT = 0.001
LOAD = Load(rate=10, seconds=10, writers=1, orgs=1)


def missed(figures: Any) -> list[str]:
    """The targets that were not reached; what is kept must be JSON."""
    json.dumps(figures.as_json())
    assert figures.reached == all(target["reached"] for target in figures.targets)
    return [target["figure"] for target in figures.targets if not target["reached"]]


def lags(median: float = 4, p99: float = 10, unseen: int = 0, late: float = 0.0, way: str = "polling") -> LagFigures:
    """Figures of one run, lags in units."""
    waits = Spread([median * UNIT] * 97 + [p99 * UNIT] * 3)
    run = LiveRun(way, LOAD, waits, Written([UNIT] * 100, [late] * 100), unseen)
    return LagFigures(lag.FULL, {}, Spread([UNIT] * 3), Spread([UNIT] * 3), [run], idle())


def idle(calls: int = 30, daemon_seconds: float = 0.01) -> Idle:
    """Ten seconds of two workers."""
    return Idle(60, 10, 2, {"SELECT": calls}, 10, daemon_seconds, None)


def test_lag_within_its_targets_is_reached() -> None:
    assert missed(lags()) == []


@pytest.mark.parametrize(
    ("figures", "figure"),
    [
        (lags(median=5.1), "median lag / unit, polling, 10 rows/s"),
        (lags(p99=20.1), "p99 lag / unit, polling, 10 rows/s"),
        (lags(unseen=1), "rows without a fact, polling, 10 rows/s"),
        (lags(late=1.1), "writers behind schedule, polling, 10 rows/s, s"),
    ],
)
def test_each_target_of_the_lag_can_be_missed(figures: LagFigures, figure: str) -> None:
    assert missed(figures) == [figure]


def test_lag_with_notify_is_told_but_is_no_target() -> None:
    assert missed(lags(median=100, p99=1000, way="notify")) == []


def test_an_idle_daemon_can_miss_its_targets() -> None:
    figures = lags()
    figures.idle = idle(calls=41, daemon_seconds=0.11)
    assert missed(figures) == ["idle daemon, share of a core", "idle daemon, statements/s/worker"]


def test_what_an_idle_daemon_used_is_the_difference_of_two_counts() -> None:
    before = Count({"a": 3, "b": 1}, 7, 1.0, {11: 0.5})
    after = Count({"a": 5, "b": 1, "c": 2}, 10, 1.25, {11: 0.75, 12: 0.25})
    used = difference(before, after, quiet=60, seconds=2, workers=2)
    assert used.calls == {"a": 2, "c": 2}
    assert used.statements_per_worker == 1
    assert (used.transactions, used.daemon_seconds, used.backend_seconds) == (3, 0.25, 0.5)


def test_statements_that_the_server_cannot_count_are_no_target() -> None:
    used = difference(Count(None, 0, 0.0), Count(None, 0, 0.0), quiet=60, seconds=2, workers=2)
    assert used.statements_per_worker is None
    assert used.backend_seconds is None


@pytest.mark.parametrize(("beside", "expected"), [((2.9, 2.9), 0), ((3.1, 3.1), 2), ((2.9, 3.1), 1)])
def test_fairness_can_be_missed_by_the_median_and_by_the_p99(beside: tuple[float, float], expected: int) -> None:
    figures = FairnessFigures(fairness.FULL, {}, [Spread([1.0] * 100)] * 3, [1.0] * 3)
    figures.beside = Spread([beside[0]] * 97 + [beside[1]] * 3)
    assert len(missed(figures)) == expected


def writes(indexes: float = 1.0, trigger: float = 1.0, by_default: int = 0) -> WritePathFigures:
    """Figures of three rounds, the dearest with 8 writers."""
    figures = WritePathFigures(write_path.FULL, {}, triggers_by_default=by_default)
    for writers in (1, 8):
        dear = writers == 8
        costs = {"a": 1.0, "b": 2.0, "c": 2.0 * (indexes if dear else 1)}
        costs["d"] = costs["c"] * (trigger if dear else 1)
        for way, cost in costs.items():
            figures.measured[way, writers] = [Spread([cost * UNIT] * 2)] * 3
    return figures


def test_dear_indexes_miss_their_target() -> None:
    assert missed(writes(indexes=1.1)) == []
    assert missed(writes(indexes=1.2)) == ["our indexes, 8 writers"]


def test_a_dear_trigger_must_be_an_option() -> None:
    assert missed(writes(trigger=1.8)) == []
    assert missed(writes(trigger=1.8, by_default=1)) == ["notify trigger, or it is an option"]
    assert missed(writes(trigger=1.0, by_default=1)) == []
