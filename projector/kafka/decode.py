"""Reads messages about outbox rows, the relay's or Debezium's: which rows to try, which are no use, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from schemas.messages import OUTBOX_SCHEMA_VERSION, OutboxMessage
from schemas.outbox import OutboxStatus

_MAJOR = OUTBOX_SCHEMA_VERSION.partition(".")[0] + "."
_TABLE = "reporting_outbox"
_STATUSES = frozenset(status.value for status in OutboxStatus)
_NO_ROW_OPERATIONS = ("d", "t", "m")  # delete, truncate, a message that an application wrote to the WAL
_ROW_OPERATIONS = ("c", "r", "u")  # create, read by a snapshot, update


class Record(Protocol):
    """What is read of a consumed record."""

    @property
    def value(self) -> bytes | None:
        """As it came over the wire."""


class Reason(StrEnum):
    """Why a message is no use, now and whenever it is read again."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    UNKNOWN_VERSION = "unknown_version"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message for the dead letters: its place among those decoded (from 0), why, and details without its content."""

    place: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Outbox rows to try (in the messages' order, each once), rejected messages, and how many say nothing to do."""

    ids: list[UUID]
    rejected: list[Rejected]
    ignored: int


class _RejectedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def decode(message_format: Literal["relay", "debezium"], records: Iterable[Record]) -> Decoded:
    """Reads messages. Raises nothing, whatever they hold.

    Args:
        message_format: who wrote them: `projector relay`, or Debezium's PostgreSQL connector (JSON with or without
            schemas, change events whole or flattened by ExtractNewRecordState).
        records: the messages.
    """
    read = _read_relay if message_format == "relay" else _read_debezium
    ids: dict[UUID, None] = {}
    rejected: list[Rejected] = []
    ignored = 0
    for place, record in enumerate(records):
        value = record.value
        try:
            row_id = read(value) if value else None
        except _RejectedError as error:
            rejected.append(Rejected(place, error.reason, error.detail))
            continue
        if row_id is None:
            ignored += 1
        else:
            ids[row_id] = None
    return Decoded(list(ids), rejected, ignored)


def _read_relay(value: bytes) -> UUID:
    try:
        message = OutboxMessage.model_validate_json(value)
    except ValidationError as error:
        raise _why_not(value, error) from None
    if not message.schema_version.startswith(_MAJOR):
        raise _unknown_version()
    return message.id


def _why_not(value: bytes, error: ValidationError) -> _RejectedError:
    """Why a message is none: its version first, since another version may have other fields."""
    document = _parse(value)
    version = document.get("schema_version")
    major, dot, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if dot and _is_number(major) and _is_number(minor) and major + dot != _MAJOR:
        return _unknown_version()
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = Reason.MISSING_FIELD if first["type"] == "missing" else Reason.INVALID_FIELD
    return _RejectedError(reason, f"{'.'.join(map(str, first['loc']))}: {first['type']}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _unknown_version() -> _RejectedError:
    return _RejectedError(Reason.UNKNOWN_VERSION, f"schema_version: this program reads {_MAJOR}x")


def _read_debezium(value: bytes) -> UUID | None:
    document = _parse(value, null_is_empty=True)
    if document.keys() == {"schema", "payload"}:  # JsonConverter with schemas.enable
        document = _object(document, "payload") if document["payload"] is not None else {}
    if not document or _is_bookkeeping(document):
        return None
    if "op" in document and ("after" in document or "before" in document or "source" in document):
        return _read_change(document)
    if document.get("__table", _TABLE) != _TABLE or document.get("__source_table", _TABLE) != _TABLE:
        return None
    if document.get("__op") in _NO_ROW_OPERATIONS or document.get("__deleted") in (True, "true"):
        return None
    return _read_row(document)


def _is_bookkeeping(document: dict[str, Any]) -> bool:
    """Whether this is a heartbeat, or tells where a transaction begins or ends."""
    return document.keys() == {"ts_ms"} or (document.get("status") in ("BEGIN", "END") and "event_count" in document)


def _read_change(change: dict[str, Any]) -> UUID | None:
    """Reads a whole change event. One topic may hold those of many tables: the others say nothing to do."""
    source = change.get("source")
    if isinstance(source, dict) and source.get("table", _TABLE) not in (_TABLE, None):
        return None
    operation = change["op"]
    if operation in _NO_ROW_OPERATIONS:
        return None
    if operation not in _ROW_OPERATIONS:
        raise _RejectedError(Reason.INVALID_FIELD, "op: none of c, r, u, d, t, m")
    return _read_row(_object(change, "after"))


def _read_row(row: dict[str, Any]) -> UUID | None:
    """Reads an outbox row: to try are those that wait and have not failed.

    Our own settling of a row comes back as an update. Were failed rows and those put off tried at that, nothing would
    be left of their backoff; the sweep of the outbox finds them when due. Leased ones belong to who leased them.
    """
    for name in ("id", "status"):
        if name not in row:
            raise _RejectedError(Reason.MISSING_FIELD, f"{name}: missing")
    status = row["status"]
    if not isinstance(status, str) or status not in _STATUSES:
        raise _RejectedError(Reason.INVALID_FIELD, "status: none of the outbox's")
    if status != OutboxStatus.PENDING or row.get("last_error") is not None:
        return None
    try:
        return UUID(row["id"])
    except (ValueError, TypeError, AttributeError):
        raise _RejectedError(Reason.INVALID_FIELD, "id: no UUID") from None


def _object(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        raise _RejectedError(Reason.MISSING_FIELD, f"{name}: missing")
    if not isinstance(value, dict):
        raise _RejectedError(Reason.INVALID_FIELD, f"{name}: no JSON object")
    return value


def _parse(value: bytes, *, null_is_empty: bool = False) -> dict[str, Any]:
    try:
        document = from_json(value)
    except ValueError:
        raise _RejectedError(Reason.NOT_JSON, "no JSON in UTF-8, nested too deep, or a number too long") from None
    if document is None and null_is_empty:
        return {}
    if not isinstance(document, dict):
        raise _RejectedError(Reason.NOT_AN_OBJECT, "the value is JSON, but no object") from None
    return document
