"""`projector`, with the process's clock off by as many seconds as the file CLOCK_FILE says, at any moment anew.

Shifts what Python tells of the time of day: `time.time`, `time.time_ns`, `datetime.now` and the like. Monotonic clocks
go on, as they do on a machine whose clock is set.
"""

import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import Self

import asyncpg  # noqa: F401 - before the shift: compiled code of its looks at what a datetime is, at its import

_FILE = Path(os.environ["CLOCK_FILE"])
_time, _time_ns = time.time, time.time_ns


def _offset() -> float:
    return float(_FILE.read_text(encoding="ascii") or 0)


class _Shifted(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Self:
        return cls.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)


def _shift() -> None:
    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + int(_offset() * 1e9)
    dt.datetime = _Shifted  # type: ignore[misc]


if __name__ == "__main__":
    _shift()
    # Only now: what a module takes from `datetime` it takes at its import.
    from projector.cli import run

    sys.exit(run(sys.argv[1:]))
