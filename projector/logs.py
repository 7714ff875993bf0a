"""Structured logs: JSON for machines, or a console's lines for people. Never row content, never secrets."""

import io
import logging
import sys
from typing import Literal, TextIO, cast

import structlog

from projector.errors import describe


def configure_logs(
    log_format: Literal["auto", "json", "console"], level: str, stream: TextIO | None = None
) -> structlog.stdlib.BoundLogger:
    """Sets up logging for the process.

    Args:
        log_format: `json`, `console`, or `auto`: console on a terminal, else JSON.
        level: the least level that is written: `debug`, `info`, `warning`, `error`.
        stream: where lines go; standard error by default, so that results on standard output stay clean.

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
    root.addHandler(_LibraryLines(logger))
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

    Of a message the first line alone, of an exception its class and our own words: more may hold row content.
    """

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        told = {"error": describe(error)} if error else {}
        message = record.getMessage().partition("\n")[0]
        self._log.log(record.levelno, message, logger=record.name, **told)
