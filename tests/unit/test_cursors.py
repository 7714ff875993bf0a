"""Cursors of paged lists come back as they were given, and nothing else is taken."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

from backfill_api import cursors
from backfill_api.problems import ApiError, Code

ROW = "0198a5c0-0000-7000-8000-000000000000"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize("microsecond", [0, 1, 120_000, 999_999])
def test_a_failed_rows_cursor_comes_back_as_it_was_given(microsecond: int) -> None:
    moment, row = datetime(2026, 5, 6, 10, 0, 0, microsecond, tzinfo=UTC), uuid4()
    assert cursors.failed_row(cursors.of_failed_row(moment, row)) == (moment, row)


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    moment = datetime(2026, 5, 6, 10, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert cursors.failed_row(cursors.of_failed_row(moment, UUID(ROW))) == (moment, UUID(ROW))


def test_an_actions_cursor_comes_back_as_it_was_given() -> None:
    action = uuid4()
    assert cursors.action(cursors.of_action(action)) == action


@pytest.mark.parametrize(
    "text",
    [
        "", "x", ROW, f"2026-05-06T10:00:00 {ROW}", f"2026-05-06T10:00:00+00:00 {ROW} more",
        f"more 2026-05-06T10:00:00+00:00 {ROW}", f"2026-13-06T10:00:00+00:00 {ROW}",
        f"2026-05-06T10:00:00+00:00 {'-' * 36}", f"0001-01-01T00:00:00+14:00 {ROW}",
        f"9999-12-31T23:59:59-14:00 {ROW}", f"2026-05-06T10:00:00+00:00 {ROW}\n",
    ],
)  # fmt: skip
def test_a_text_that_is_no_place_in_a_list_of_failed_rows_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        cursors.failed_row(encoded(text))
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "spoil", [lambda good: good[:8] + "****" + good[8:], lambda good: good + "é", lambda good: good + "A"]
)
def test_what_is_not_our_encoding_is_refused(spoil: object) -> None:
    good = encoded(f"2026-05-06T10:00:00+00:00 {ROW}")
    assert callable(spoil)
    with pytest.raises(ApiError):
        cursors.failed_row(spoil(good))


@pytest.mark.parametrize("text", ["", "x", "-" * 36, ROW + "0"])
def test_a_text_that_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(ApiError):
        cursors.action(encoded(text))
