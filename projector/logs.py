"""Structured logs: JSON for machines, or a console's lines for people. Never row content, never secrets."""

import io
import logging
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO, cast

import structlog

from projector.errors import describe

_KAFKA = "aiokafka"
# Those of its loggers that tell of connections and topics.
_TOLD_OF_KAFKA = {"aiokafka", "aiokafka.cluster"}
_REPEAT_SECONDS = 60.0
_MOST_TOLD = 256


def configure_logs(
    log_format: Literal["auto", "json", "console"],
    level: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> structlog.stdlib.BoundLogger:
    """Sets up logging for the process.

    Args:
        log_format: `json`, `console`, or `auto`: console on a terminal, else JSON.
        level: the least level that is written: `debug`, `info`, `warning`, `error`.
        stream: where lines go; standard error by default, so that results on standard output stay clean.
        clock: seconds, monotonic.

    Returns:
        The logger that is passed on to everything else.
    """
    target = stream or _StandardError()
    if log_format == "auto":
        log_format = "console" if target.isatty() else "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=target.isatty())
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if log_format == "json":
        processors += [structlog.processors.format_exc_info, structlog.processors.EventRenamer("message")]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", target)),
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryLines)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryLines(logger, clock))
    return logger


class _StandardError(io.TextIOBase):
    """Standard error as it is at each write: a progress bar puts itself between, to keep lines above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class _LibraryLines(logging.Handler):
    """Writes what libraries log as lines like ours.

    Of a message the first line alone, of an exception its class and our own words: more may hold row content. Kafka's
    client repeats itself many times a second while a broker is away: a line of its comes once a minute.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Callable[[], float]) -> None:
        super().__init__()
        self._log, self._clock = log, clock
        # When a message may come again, and how often it was left out.
        self._told: dict[str, tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        told: dict[str, str | int] = {"error": describe(error)} if error else {}
        message = record.getMessage().partition("\n")[0]
        if record.name.partition(".")[0] == _KAFKA:
            left_out = self._left_out(message)
            if left_out is None:
                return
            if left_out:
                told["left_out"] = left_out
        self._log.log(_level(record), message, logger=record.name, **told)

    def _left_out(self, message: str) -> int | None:
        """How often a message was left out since it was written last; None: it is left out once more."""
        now = self._clock()
        again_at, times = self._told.get(message, (now, 0))
        if now < again_at:
            self._told[message] = (again_at, times + 1)
            return None
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[message] = (now + _REPEAT_SECONDS, 0)
        return times


def _level(record: logging.LogRecord) -> int:
    """The level as it is for an operator.

    Of Kafka's client, connections that fail are worth a warning. What follows from them is not: what is not published
    or not read is told by the programs, and they try again. What it did not expect itself stays an error.
    """
    if record.name.partition(".")[0] != _KAFKA or record.exc_info:
        return record.levelno
    return min(record.levelno, logging.WARNING if record.name in _TOLD_OF_KAFKA else logging.DEBUG)
