"""`python -m tests.bench.charts [FOLDER]`: draws the figures that are kept, one SVG beside each JSON file it knows."""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"

# Text stays text, and the same figures give the same file.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "bench", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titlelocation": "left", "legend.frameon": False,
}  # fmt: skip
_NO_METADATA = {"Date": None, "Creator": None}
_OURS, _OTHERS, _SECOND, _GRID = "#0b6e99", "#b8c0c6", "#d1791f", "#e4e7ea"
_BASELINE, _LIMIT = "a", "c"
_MEGABYTE = 1_048_576
_SHORTEST_SECONDS = 0.1

Figures = dict[str, Any]


def main() -> int:
    """Draws what there is; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.charts", description="Draws the figures that are kept."
    )
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS, help="where the JSON files are")
    for path in draw_all(parser.parse_args().folder):
        print(path)  # noqa: T201 - what it has made
    return 0


def draw_all(folder: Path) -> list[Path]:
    """Draws each JSON file of a folder whose name it knows; gives the SVG files. Other files are left alone."""
    return [draw(folder, name) for name in _CHARTS if (folder / f"{name}.json").exists()]


def draw(folder: Path, name: str) -> Path:
    """Draws one JSON file of a folder; gives the SVG file."""
    source = folder / f"{name}.json"
    target = source.with_suffix(".svg")
    with mpl.rc_context(_STYLE):
        _CHARTS[name](json.loads(source.read_text(encoding="utf-8"))).savefig(target, metadata=_NO_METADATA)
    return target


def _draw_drain(figures: Figures) -> Figure:
    """Rows a second by contestant; the ratios that count stand at the bars."""
    contestants = figures["contestants"]
    rates = {one["key"]: one["median_rows_per_second"] for one in contestants}
    figure = Figure(figsize=(8, 1.4 + 0.45 * len(contestants)), layout="constrained")
    axes = figure.subplots()
    places = range(len(contestants))
    colors = [_OURS if one["key"].startswith("b") else _OTHERS for one in contestants]
    axes.barh(places, [one["median_rows_per_second"] for one in contestants], color=colors, height=0.62)
    for place, one in zip(places, contestants, strict=True):
        rate = one["median_rows_per_second"]
        ratios = [
            f"{rate / rates[of]:.{digits}f} × {of}"  # noqa: RUF001 - the sign is meant
            for of, digits in ((_BASELINE, 1), (_LIMIT, 2))
            if of in rates and of != one["key"]
        ]
        label = " · ".join((f"{rate:,}", *ratios))
        axes.annotate(label, (rate, place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [f"{one['title']} ({one['key']})" for one in contestants])
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("outbox rows a second, median of the rounds; only the ratios within one run count")
    axes.set_title(f"Draining a backlog of {figures['backlog']['rows']:,} outbox rows")
    _thousands(axes.xaxis)
    return figure


def _draw_backfill(figures: Figures) -> Figure:
    """What each call cost."""
    milliseconds = figures["calls"]["milliseconds"]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(milliseconds) + 1), milliseconds, color=_OURS, marker=".", linewidth=1)
    _plain(axes, f"{figures['facts_missing']:,} missing facts, backfilled call after call: the time of each", "ms")
    axes.set_xlabel("call")
    return figure


def _draw_bloat(figures: Figures) -> Figure:
    """The outbox's heap, indexes and dead rows over time, for each retention."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    scale = figures["scale"]
    figure.suptitle(
        f"The outbox under {scale['rows_per_second']:,} rows a second for {scale['seconds'] / 60:g} minutes",
        x=0.01, ha="left",
    )  # fmt: skip
    panels: list[tuple[str, str, Callable[[Figures], float]]] = [
        ("Heap", "MB", lambda sample: sample["heap_bytes"] / _MEGABYTE),
        ("Indexes together", "MB", lambda sample: sum(sample["indexes"].values()) / _MEGABYTE),
        ("Dead rows", "rows", lambda sample: sample["dead"]),
    ]
    every_axes = figure.subplots(len(panels), 1, sharex=True)
    for axes, (title, unit, measure) in zip(every_axes, panels, strict=True):
        for one, color in zip(figures["retentions"], (_OURS, _SECOND, _OTHERS), strict=False):
            kept = one["retention_seconds"]
            label = f"completed rows kept for {kept} s" if kept else "completed rows not kept"
            _line(axes, one["samples"], [measure(sample) for sample in one["samples"]], color, label)
        _plain(axes, title, unit)
    every_axes[0].legend(loc="lower right")
    every_axes[-1].set_xlabel("minutes")
    return figure


def _draw_pinned(figures: Figures) -> Figure:
    """What a claim costs, and what is projected, before, under and after a long transaction."""
    samples = figures["samples"]
    # Two windows meet in two samples at nearly the same time: too short a while for a rate.
    pairs = [(one, other) for one, other in pairwise(samples) if other["seconds"] - one["seconds"] > _SHORTEST_SECONDS]

    def steady(pair: tuple[Figures, Figures], value: float) -> float:
        # What goes on while a backlog is drained is another thing: a gap in the line.
        return nan if any(begin <= pair[0]["seconds"] < end for begin, end in figures["draining_seconds"]) else value

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    figure.suptitle(
        f"{figures['scale']['rows_per_second']:,} rows a second, with a long transaction that holds vacuum back",
        x=0.01, ha="left",
    )  # fmt: skip
    panels = [
        ("The server's time for a claim", "ms",
         [steady(pair, _change(pair, "claim_ms") / max(_change(pair, "claims"), 1)) for pair in pairs]),
        (f"Projected. {_drained(figures)}", "rows/s",
         [steady(pair, _change(pair, "projected") / _change(pair, "seconds")) for pair in pairs]),
    ]  # fmt: skip
    marks = [("it begins", figures["pinned_at_seconds"]), ("it ends", figures["released_at_seconds"])]
    every_axes = figure.subplots(len(panels), 1, sharex=True)
    for axes, (title, unit, values) in zip(every_axes, panels, strict=True):
        _line(axes, [other for _, other in pairs], values, _OURS, title)
        _plain(axes, title, unit)
        for begin, end in figures["draining_seconds"]:
            axes.axvspan(begin / 60, end / 60, color=_GRID, linewidth=0)
        for _, seconds in marks:
            if seconds is not None:
                axes.axvline(seconds / 60, color=_SECOND, linewidth=1, linestyle="--")
    for label, seconds in marks:
        if seconds is not None:
            every_axes[0].annotate(
                label, (seconds / 60, 1), (3, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                va="top", color=_SECOND,
            )  # fmt: skip
    every_axes[-1].set_xlabel("minutes")
    return figure


def _drained(figures: Figures) -> str:
    """How fast backlogs were drained, in words."""
    medians = [
        f"{median(one['rows_per_second'] for one in series):,.0f} {name}"
        for name, series in figures["drained"].items()
        if series
    ]
    return f"Grey: backlogs of {figures['scale']['backlog_rows']:,} rows, rows/s " + ", ".join(medians)


def _draw_soak(figures: Figures) -> Figure:
    """What could grow in a long run, over time; a line at each fault."""
    samples, plan = figures["samples"], figures["plan"]
    figure = Figure(figsize=(8, 11), layout="constrained")
    figure.suptitle(
        f"{plan['seconds'] / 60:g} minutes, {figures['rows_per_second']:,.0f} rows a second,"
        f" {len(figures['faults'])} faults (dashed), completed rows kept for {plan['retention_seconds']} s",
        x=0.01, ha="left",
    )  # fmt: skip
    panels = [
        ("Memory (RSS)", "MB", _MEGABYTE, [("daemon_rss_bytes", "daemon"), ("api_rss_bytes", "backfill API")]),
        ("File descriptors", "", 1, [("daemon_fds", "daemon"), ("api_fds", "backfill API")]),
        ("Connections", "", 1, [("connections", "of all programs")]),
        ("Lag", "s", 1, [("lag_seconds", "age of the oldest due row")]),
        ("Outbox", "rows", 1, [("outbox_rows", "all"), ("waiting", "not completed")]),
        ("Outbox with its indexes", "MB", _MEGABYTE, [("outbox_bytes", "on the disk")]),
    ]  # fmt: skip
    every_axes = figure.subplots(len(panels), 1, sharex=True)
    for axes, (title, unit, scale, lines) in zip(every_axes, panels, strict=True):
        for (name, label), color in zip(lines, (_OURS, _SECOND), strict=False):
            _line(axes, samples, [sample[name] / scale for sample in samples], color, label)
        for fault in figures["faults"]:
            axes.axvline(fault["seconds"] / 60, color=_OTHERS, linewidth=0.6, linestyle="--")
        _plain(axes, title, unit)
        axes.legend(loc="lower right")
    every_axes[-1].set_xlabel("minutes")
    return figure


def _change(pair: tuple[Figures, Figures], name: str) -> float:
    return float(pair[1][name] - pair[0][name])


def _line(axes: Axes, samples: Sequence[Figures], values: Sequence[float], color: str, label: str) -> None:
    axes.plot([sample["seconds"] / 60 for sample in samples], values, color=color, linewidth=1.4, label=label)


def _plain(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(axis="y", color=_GRID)
    _thousands(axes.yaxis)


def _thousands(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:,g}" if value < 1_000_000 else f"{value:,.0f}")


_CHARTS: dict[str, Callable[[Figures], Figure]] = {
    "drain": _draw_drain,
    "backfill": _draw_backfill,
    "bloat": _draw_bloat,
    "pinned": _draw_pinned,
    "soak": _draw_soak,
}


if __name__ == "__main__":
    raise SystemExit(main())
