"""Structured logs: JSON for machines, or a console's lines for people. Never row content, never secrets."""

import logging
import sys
from typing import Literal, TextIO

import structlog


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
    target = stream or sys.stderr
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
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
