"""What the long bench and the soak share: how long they last, how a signal ends them, how their figures are kept."""

import argparse
import asyncio
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_MINUTES = 24 * 60


def minutes(text: str) -> float:
    """An option's minutes.

    Raises:
        argparse.ArgumentTypeError: less than three seconds, or more than a day.
    """
    given = float(text)
    if not 0.05 <= given <= _MOST_MINUTES:
        raise argparse.ArgumentTypeError("must be from 0.05 to 1440")
    return given


async def until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end, or until SIGINT or SIGTERM.

    Raises:
        asyncio.CancelledError: a signal came.
    """
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    # Both set here: a background job of a shell begins with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def keep(folder: Path, name: str, figures: dict[str, Any], *, whole: bool) -> None:
    """Writes figures as <name>.json; those of a run that was broken off beside it, as <name>.partial.json."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, partial = folder / f"{name}.json", folder / f"{name}.partial.json"
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (kept if whole else partial).write_text(text, encoding="utf-8")
    if whole:
        partial.unlink(missing_ok=True)
