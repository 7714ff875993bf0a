"""Cursors of paged lists: opaque to callers, plain to us."""

import base64
import binascii
import re
from datetime import UTC, datetime
from uuid import UUID

from backfill_api.problems import ApiError, Code
from projector.failed import Position

_FAILED_ROW = re.compile(r"([0-9T:.+-]{19,40}) ([0-9a-f-]{36})")


def of_failed_row(updated_at: datetime, row: UUID) -> str:
    """The cursor behind a failed row."""
    return _encode(f"{updated_at.isoformat()} {row}")


def failed_row(cursor: str) -> Position:
    """Where a page of failed rows goes on.

    Raises:
        ApiError: 400, the cursor is none of ours.
    """
    match = _FAILED_ROW.fullmatch(_decode(cursor))
    if match is None:
        raise _unknown()
    try:
        moment, row = datetime.fromisoformat(match[1]), UUID(match[2])
    except ValueError:
        raise _unknown() from None
    if moment.utcoffset() is None:
        raise _unknown()
    try:
        return moment.astimezone(UTC), row
    except OverflowError:
        raise _unknown() from None


def of_action(action: UUID) -> str:
    """The cursor behind an action."""
    return _encode(str(action))


def action(cursor: str) -> UUID:
    """The action behind which a page goes on.

    Raises:
        ApiError: 400, the cursor is none of ours.
    """
    try:
        return UUID(_decode(cursor))
    except ValueError:
        raise _unknown() from None


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (UnicodeError, binascii.Error):
        raise _unknown() from None


def _unknown() -> ApiError:
    return ApiError(Code.BAD_REQUEST, "cursor: is none that this list gave; leave it out to begin anew")
