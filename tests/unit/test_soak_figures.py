"""What a soak judges: what grows does not hold, what only moves does."""

from dataclasses import replace
from typing import Any

import pytest

from tests.soak.figures import Figures, Sample
from tests.soak.plan import Plan

USUAL = Sample(
    seconds=0.0, daemon_rss_bytes=60 << 20, daemon_fds=13, api_rss_bytes=70 << 20, api_fds=11, connections=14,
    lag_seconds=0.02, waiting=5, outbox_rows=6000, outbox_bytes=10 << 20, written=0, completed=0,
)  # fmt: skip
PLAN = Plan(seconds=1800.0, rate=60.0, fault_pause=30.0, seed=1)


def figures(*samples: Sample) -> Figures:
    return Figures(PLAN, [replace(sample, seconds=5.0 * number) for number, sample in enumerate(samples)])


def test_steady_samples_hold_though_some_stand_out() -> None:
    odd = replace(USUAL, lag_seconds=12.0, connections=2, waiting=3000)
    assert figures(*[USUAL, USUAL, odd, USUAL] * 5).holds


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("daemon_rss_bytes", 80 << 20), ("api_rss_bytes", 90 << 20), ("daemon_fds", 16), ("api_fds", 16),
        ("connections", 19), ("lag_seconds", 1.5), ("waiting", 300), ("outbox_rows", 9600), ("outbox_bytes", 24 << 20),
    ],
)  # fmt: skip
def test_what_grows_does_not_hold(name: str, last: Any) -> None:
    between = (getattr(USUAL, name) + last) / 2
    found = figures(
        *(replace(USUAL, **{name: value}) for value in (getattr(USUAL, name), between, last) for _ in range(9))
    )
    assert not found.holds
    assert [verdict.name.partition(":")[0] for verdict in found.verdicts if not verdict.holds] == [name]


def test_one_lag_of_half_a_minute_does_not_hold() -> None:
    assert not figures(*[USUAL] * 9, replace(USUAL, lag_seconds=31.0), *[USUAL] * 9).holds


def test_a_complaint_or_no_sample_at_all_does_not_hold() -> None:
    complained = figures(USUAL, USUAL)
    complained.complaints.append("3 differences")
    assert not complained.holds
    assert not figures().holds
