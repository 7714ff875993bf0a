"""Logs: a JSON object a line for machines, readable lines for people."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
import structlog

from projector.batch import BatchResult
from projector.daemon import report_batch
from projector.logs import configure_logs
from projector.outbox import FailedOutcome
from projector.projections import load_registry


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    handlers = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_parse_and_tell_what_when_and_how_bad() -> None:
    stream = io.StringIO()
    log = configure_logs("json", "info", stream)
    row = uuid4()
    log.bind(worker=1).warning("row\nfailed", id=row, text='quoted "ü"', count=3)
    (line,) = lines(stream)
    assert (line["message"], line["level"], line["worker"], line["count"]) == ("row\nfailed", "warning", 1, 3)
    assert line["text"] == 'quoted "ü"'
    assert str(row) in line["id"]
    written = datetime.fromisoformat(line["timestamp"])
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


def test_an_exception_stays_on_its_json_line() -> None:
    stream = io.StringIO()
    log = configure_logs("json", "info", stream)
    log.error("a task failed", exc_info=ValueError("odd"))
    (line,) = lines(stream)
    assert "ValueError: odd" in line["exception"]


def test_what_libraries_log_becomes_json_lines_without_the_text_of_errors() -> None:
    stream = io.StringIO()
    for _ in range(2):  # set up twice, every line still comes once
        configure_logs("json", "info", stream)
    failure = ValueError("canary: a row's content")
    logging.getLogger("some.library").error("a task failed\nfuture: %r", failure, exc_info=failure)
    (line,) = lines(stream)
    assert (line["message"], line["level"], line["logger"]) == ("a task failed", "error", "some.library")
    assert line["error"] == "ValueError"
    assert "canary" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_nothing_below_the_level_is_written(level: str, written: list[str]) -> None:
    stream = io.StringIO()
    log = configure_logs("json", level, stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("said")
    assert [line["level"] for line in lines(stream)] == written


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
    ids=["auto, piped", "auto, on a terminal", "json, on a terminal", "console, piped"],
)
def test_auto_is_console_on_a_terminal_and_json_elsewhere(
    log_format: Literal["auto", "json", "console"], stream: io.StringIO, is_json: bool
) -> None:
    configure_logs(log_format, "info", stream).info("projecting", workers=2)
    assert stream.getvalue().startswith("{") == is_json
    assert "projecting" in stream.getvalue()


def test_console_lines_off_a_terminal_have_no_colours() -> None:
    stream = io.StringIO()
    configure_logs("console", "info", stream).info("projecting", workers=2)
    assert "\x1b" not in stream.getvalue()
    assert "workers=2" in stream.getvalue()


def test_logs_go_to_standard_error_so_that_results_stay_clean(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info").info("projecting")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["message"] == "projecting"


def told(result: BatchResult, seconds: float, slow_seconds: float = 1.0) -> list[dict[str, Any]]:
    """What a batch makes the log say."""
    stream = io.StringIO()
    report_batch(configure_logs("json", "info", stream), load_registry(), result, seconds, slow_seconds)
    return [{key: value for key, value in line.items() if key != "timestamp"} for line in lines(stream)]


def test_a_slow_batch_is_a_warning_with_operation_elapsed_rows_and_source_types() -> None:
    result = BatchResult(limit=500, claimed=30, completed={"session": 10, "event": 20})
    (line,) = told(result, 1.2346)
    assert line == {
        "message": "slow batch", "level": "warning", "operation": "project_batch", "elapsed_ms": 1235, "rows": 30,
        "source_type": ["event", "session"],
    }  # fmt: skip


def test_a_quick_batch_is_not_worth_a_line_and_a_threshold_of_zero_switches_the_warning_off() -> None:
    result = BatchResult(limit=500, claimed=30, completed={"event": 30})
    assert told(result, 0.9) == []
    assert told(result, 1e6, slow_seconds=0) == []


def test_failed_rows_and_dead_letters_are_told_by_id_and_without_content() -> None:
    row = UUID(int=7)
    failed = [FailedOutcome(row, 3, "event", 2, dead=False), FailedOutcome(row, 3, "event", 10, dead=True)]
    first, second = told(BatchResult(limit=500, claimed=2, failed=failed), 0.1)
    assert first == {
        "message": "row failed", "level": "warning", "id": str(row), "org_id": 3, "source_type": "event", "attempts": 2
    }  # fmt: skip
    assert (second["level"], second["attempts"]) == ("error", 10)
    assert "projector requeue" in second["message"]


def test_a_source_type_that_no_projection_knows_is_not_repeated() -> None:
    failed = [FailedOutcome(UUID(int=7), 3, "canary", 2, dead=False)]
    (line,) = told(BatchResult(limit=500, claimed=1, failed=failed), 0.1)
    assert line["source_type"] == "other"


def test_rows_that_something_was_in_the_way_of_are_told() -> None:
    (line,) = told(BatchResult(limit=500, claimed=2, postponed={"event": 2}, contended={"event": 2}), 0.1)
    assert (line["level"], line["rows"]) == ("warning", {"event": 2})


def test_rows_of_a_projection_that_does_not_fit_are_not_told_batch_by_batch() -> None:
    assert told(BatchResult(limit=500, claimed=2, postponed={"event": 2}), 0.1) == []


def test_kafkas_client_repeats_itself_once_a_minute() -> None:
    stream, now = io.StringIO(), 0.0
    configure_logs("json", "info", stream, clock=lambda: now)
    client = logging.getLogger("aiokafka")
    for _ in range(100):
        client.error("Unable connect to node with id %s: %s", 1, "refused")
    client.error("Unable connect to node with id %s: %s", 2, "refused")
    now = 59.0
    client.error("Unable connect to node with id %s: %s", 1, "refused")
    now = 60.0
    client.error("Unable connect to node with id %s: %s", 1, "refused")
    told = lines(stream)
    assert [line["message"][-10:] for line in told] == ["1: refused", "2: refused", "1: refused"]
    assert [line.get("left_out") for line in told] == [None, None, 100]


def test_what_kafkas_client_tries_again_is_a_warning_at_the_most_and_what_surprises_it_an_error() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    logging.getLogger("aiokafka").error("Unable connect")
    logging.getLogger("aiokafka.producer.sender").error("Got error produce response")
    try:
        int("row content")
    except ValueError:
        logging.getLogger("aiokafka.consumer.fetcher").exception("Unexpected error in fetcher routine")
    assert [(line["level"], line["message"]) for line in lines(stream)] == [
        ("warning", "Unable connect"),
        ("error", "Unexpected error in fetcher routine"),
    ]
    assert "row content" not in stream.getvalue()


def test_other_libraries_may_repeat_themselves() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    for _ in range(2):
        logging.getLogger("asyncio").error("the same")
    assert [line["level"] for line in lines(stream)] == ["error", "error"]
