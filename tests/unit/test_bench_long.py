"""What long runs are judged by: each target is missed where it should be."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

from tests.bench.bloat import BloatFigures, BloatScale, Kept
from tests.bench.parts import Drained
from tests.bench.pinned_figures import PinnedFigures, PinnedScale
from tests.bench.watch import Sample, Window

NOTHING = Sample(
    seconds=0, written=0, projected=0, otherwise=0, lag_seconds=0, late_seconds=0, heap_bytes=0, indexes={}, live=0,
    dead=0, autovacuums=0, completed=0, batches=0, batch_seconds=0, claims=0, claim_ms=0, claimed=0, rss_bytes=0,
    daemon_cpu_seconds=0, backend_cpu_seconds=0,
)  # fmt: skip


def bloat(**last_third: Any) -> BloatFigures:
    """Ninety seconds at 100 rows a second, all of one size; the last third has other values where they are given."""
    usual = replace(NOTHING, heap_bytes=1000, indexes={"key": 500}, dead=50)
    samples = [replace(usual, seconds=at, written=at * 100, projected=at * 100) for at in range(91)]
    samples[60:] = [replace(sample, **last_third) for sample in samples[60:]]
    return BloatFigures(BloatScale(90, (60,), rows_per_second=100), {}, [Kept(60, samples)])


def missed(figures: BloatFigures | PinnedFigures) -> list[str]:
    names = [target["figure"] for target in figures.targets if not target["reached"]]
    assert figures.reached == (not names)
    return names


def test_an_outbox_that_stays_as_it_is_reaches_all() -> None:
    assert missed(bloat()) == []
    assert missed(bloat(heap_bytes=1300, indexes={"key": 600, "other": 50}, dead=65)) == []


def test_what_grows_in_the_last_third_is_missed() -> None:
    assert missed(bloat(heap_bytes=1310)) == ["heap, last third / second third"]
    assert missed(bloat(indexes={"key": 500, "other": 151})) == ["indexes, last third / second third"]
    assert missed(bloat(dead=66)) == ["dead rows, last third / second third"]


def test_what_grows_steadily_is_missed() -> None:
    figures = bloat()
    samples = figures.kept[0].samples
    samples[:] = [replace(sample, heap_bytes=round(sample.seconds * 10)) for sample in samples]
    assert missed(figures) == ["heap, last third / second third"]


def test_a_projector_that_falls_behind_and_a_writer_that_does_are_missed() -> None:
    assert missed(bloat(projected=8_000)) == ["rows projected / rows written"]
    assert missed(bloat(written=8_000, projected=8_000)) == ["rows written / rows asked for"]


def pinned(
    *, claim_ms: float = 1.0, rate: float = 10_000.0, dead: int = 6_000, waiting: int = 0, **last: Any
) -> PinnedFigures:
    """A minute without a pin, two under it, at 100 rows a second, each claim of 1 ms; what differs is given."""
    samples = [
        replace(NOTHING, seconds=at * 60, written=at * 6000, projected=at * 6000, claims=at * 100, claim_ms=at * 100.0)
        for at in range(4)
    ]
    samples[2:] = [replace(sample, projected=sample.projected - waiting) for sample in samples[2:]]
    samples[3] = replace(samples[3], claim_ms=200 + 100 * claim_ms, **last)
    windows = [Window(first, second) for first, second in pairwise(samples)]
    return PinnedFigures(
        PinnedScale(120, 30, 60, rows_per_second=100), {}, samples, windows[0], windows[1:],
        settled_under_pin=6_000, dead_under_pin=dead,
        drained_before=[Drained(20_000, 2.0)], drained_under=[Drained(20_000, 20_000 / rate)],
        drained_after=[Drained(20_000, 2.0)],
    )  # fmt: skip


def test_a_projector_that_does_not_feel_the_pin_reaches_all() -> None:
    assert missed(pinned()) == []
    assert missed(pinned(claim_ms=1.1, rate=9_100)) == []


def test_slower_claims_and_slower_drains_are_missed() -> None:
    assert missed(pinned(claim_ms=1.12)) == ["claim time before / in the last window"]
    assert missed(pinned(rate=8_900)) == ["draining under the pin / before"]


def test_rows_that_are_not_kept_up_with_are_missed() -> None:
    assert missed(pinned(projected=17_850)) == ["rows projected / written, last window"]
    assert missed(pinned(waiting=210)) == ["rows waiting in the last window, seconds of load"]


def test_a_pin_that_pinned_nothing_and_a_writer_that_fell_behind_are_missed() -> None:
    assert missed(pinned(dead=4_000)) == ["rows left dead / settled under the pin"]
    assert missed(pinned(projected=17_800, written=17_800)) == ["rows written / asked for, last window"]
