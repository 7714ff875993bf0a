"""Messages about outbox rows, decoded: which rows to try, what is rejected and why, and that nothing raises."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.kafka.decode import Decoded, Reason, Rejected, decode
from schemas.messages import OutboxMessage

Format = Literal["relay", "debezium"]
FORMATS: list[Format] = ["relay", "debezium"]
ID = UUID(int=7)
OTHER = UUID(int=8)
SECRET = "s3cret"

RELAYED: dict[str, Any] = {
    "schema_version": "1.0", "id": str(ID), "org_id": 1, "source_type": "event", "source_id": "x",
    "source_version": "", "reason": "event_projection", "created_at": "2026-05-06T10:00:00.123456Z",
}  # fmt: skip
ROW: dict[str, Any] = {
    "id": str(ID), "org_id": 1, "source_type": "event", "source_id": "x", "source_version": "",
    "reason": "event_projection", "status": "pending", "attempts": 0, "last_error": None, "claimed_at": None,
    "next_attempt_at": "2026-05-06T10:00:00.123456Z", "created_at": "2026-05-06T10:00:00.123456Z",
    "updated_at": "2026-05-06T10:00:00.123456Z",
}  # fmt: skip
CHANGE: dict[str, Any] = {
    "before": None, "after": ROW, "op": "c", "ts_ms": 1_777_777_777_000, "transaction": None,
    "source": {"connector": "postgresql", "schema": "public", "table": "reporting_outbox", "snapshot": "false"},
}  # fmt: skip


@dataclass(frozen=True)
class Consumed:
    value: bytes | None


def read(message_format: Format, *values: Any) -> Decoded:
    """Decodes values: bytes and None as they are, all else as JSON."""
    return decode(
        message_format,
        [
            Consumed(value if value is None or isinstance(value, bytes) else json.dumps(value).encode())
            for value in values
        ],
    )


def rejected(message_format: Format, value: Any) -> Rejected:
    decoded = read(message_format, value)
    assert (decoded.ids, decoded.ignored, len(decoded.rejected)) == ([], 0, 1)
    return decoded.rejected[0]


def test_each_row_comes_once_and_in_order() -> None:
    values = [{**RELAYED, "id": str(one)} for one in (OTHER, ID, OTHER)]
    assert read("relay", *values) == Decoded([OTHER, ID], [], 0)
    assert read("debezium", *[{**ROW, "id": str(one)} for one in (OTHER, ID, OTHER)]) == Decoded([OTHER, ID], [], 0)


def test_what_is_rejected_is_told_by_its_place() -> None:
    decoded = read("relay", None, RELAYED, b"{", RELAYED, b"7")
    assert decoded.ids == [ID]
    assert decoded.ignored == 1
    assert [(one.place, one.reason) for one in decoded.rejected] == [(2, Reason.NOT_JSON), (4, Reason.NOT_AN_OBJECT)]


def test_a_message_that_the_model_writes_is_read() -> None:
    assert read("relay", OutboxMessage(**RELAYED).model_dump_json().encode()).ids == [ID]


@pytest.mark.parametrize("message_format", FORMATS)
@pytest.mark.parametrize("value", [None, b""])
def test_a_tombstone_says_nothing_to_do(message_format: Format, value: bytes | None) -> None:
    assert read(message_format, value) == Decoded([], [], 1)


@pytest.mark.parametrize("message_format", FORMATS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", Reason.NOT_JSON),
        (b"\xff\xfe", Reason.NOT_JSON),
        (b"\x00\x00\x00\x00\x01{}", Reason.NOT_JSON),
        (b'{"id": "\xff"}', Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b'{"id":' * 100_000, Reason.NOT_JSON),
        (b"7", Reason.NOT_AN_OBJECT),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b'"{}"', Reason.NOT_AN_OBJECT),
        (b"9" * 10_000, Reason.NOT_JSON),
    ],
    ids=range(10),
)
def test_what_is_no_message_at_all_is_rejected(message_format: Format, value: bytes, reason: Reason) -> None:
    assert rejected(message_format, value).reason == reason


@pytest.mark.parametrize("name", ["schema_version", "id", "org_id", "source_type", "source_id", "reason", "created_at"])
def test_a_relayed_message_lacks_no_field(name: str) -> None:
    found = rejected("relay", {key: value for key, value in RELAYED.items() if key != name})
    assert (found.reason, found.detail) == (Reason.MISSING_FIELD, f"{name}: missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", SECRET), ("id", None), ("id", 7), ("org_id", SECRET), ("org_id", 1.5), ("source_id", [SECRET]),
        ("created_at", SECRET), ("schema_version", "1"), ("schema_version", 1), ("schema_version", "v2.0"),
        ("schema_version", "².0"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_without_what_it_holds(name: str, value: Any) -> None:
    found = rejected("relay", {**RELAYED, name: value})
    assert found.reason == Reason.INVALID_FIELD
    assert found.detail.startswith(f"{name}: ")
    assert SECRET not in found.detail


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "11.1", "01.0"])
def test_another_major_version_is_rejected_whatever_its_fields(version: str) -> None:
    assert rejected("relay", {**RELAYED, "schema_version": version}).reason == Reason.UNKNOWN_VERSION
    assert rejected("relay", {"schema_version": version, "row": {"id": str(ID)}}).reason == Reason.UNKNOWN_VERSION


def test_null_is_no_object_to_the_relays_readers() -> None:
    assert rejected("relay", b"null").reason == Reason.NOT_AN_OBJECT


def test_a_later_minor_version_is_read_without_the_fields_it_adds() -> None:
    assert read("relay", {**RELAYED, "schema_version": "1.17", "shard": {"of": [1, 2]}}).ids == [ID]


# Debezium


def shapes(operation: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[Any]:
    """A change event in all shapes that settings give it: with and without schema, flattened or not."""
    change = {**CHANGE, "op": operation, "before": before, "after": after}
    row = after or before or {}
    is_gone = "true" if operation == "d" else "false"
    values = [change, {**row, "__op": operation, "__deleted": is_gone}, {**row, "__op": operation}]
    values += [{**row, "__deleted": is_gone, "__table": "reporting_outbox", "__source_ts_ms": 1}]
    return [*values, *({"schema": {"type": "struct", "fields": []}, "payload": value} for value in values)]


@pytest.mark.parametrize("operation", ["c", "r", "u"])
def test_a_row_that_waits_is_to_be_tried(operation: str) -> None:
    for value in [*shapes(operation, None, ROW), *shapes(operation, {**ROW, "status": "failed"}, ROW), ROW]:
        assert read("debezium", value) == Decoded([ID], [], 0), value


@pytest.mark.parametrize("operation", ["c", "r", "u"])
@pytest.mark.parametrize(
    "changed",
    [
        {"status": "completed"},
        {"status": "failed", "last_error": "22003"},
        {"status": "failed"},
        {"status": "processing"},
        {"last_error": "put off"},
    ],
    ids=str,
)
def test_what_settling_writes_back_says_nothing_to_do(operation: str, changed: dict[str, Any]) -> None:
    for value in shapes(operation, ROW, {**ROW, **changed}):
        assert read("debezium", value) == Decoded([], [], 1), value


def test_a_deleted_row_says_nothing_to_do() -> None:
    for value in [*shapes("d", ROW, None), *shapes("d", {"id": str(ID)}, None), {**ROW, "__deleted": True}]:
        assert read("debezium", value) == Decoded([], [], 1), value


@pytest.mark.parametrize(
    "value",
    [
        {**CHANGE, "op": "t", "after": None},
        {"op": "m", "ts_ms": 1, "source": CHANGE["source"], "message": {"prefix": "p", "content": "Yg=="}},
        {"ts_ms": 1_777_777_777_000},
        {"status": "BEGIN", "id": "571:53195829", "ts_ms": 1, "event_count": None, "data_collections": None},
        {"status": "END", "id": "571:53195829", "ts_ms": 1, "event_count": 2, "data_collections": []},
        None,
        {},
    ],
    ids=["truncate", "message", "heartbeat", "begin", "end", "null", "empty"],
)
def test_the_connectors_other_messages_say_nothing_to_do(value: Any) -> None:
    with_schema = {"schema": {"type": "struct"}, "payload": value}
    assert read("debezium", json.dumps(value).encode(), with_schema) == Decoded([], [], 2)


def test_rows_of_other_tables_say_nothing_to_do() -> None:
    others = [
        {**CHANGE, "source": {"schema": "public", "table": "events"}},
        {**CHANGE, "source": {"schema": "public", "table": "events"}, "after": {"id": 7}},
        {"id": 7, "__table": "events"},
        {**ROW, "__source_table": "events"},
    ]
    assert read("debezium", *others) == Decoded([], [], 4)


def test_a_change_event_without_its_source_is_taken_for_the_outboxs() -> None:
    assert read("debezium", {key: value for key, value in CHANGE.items() if key != "source"}).ids == [ID]


@pytest.mark.parametrize(
    ("value", "reason", "name"),
    [
        ({**CHANGE, "op": SECRET}, Reason.INVALID_FIELD, "op"),
        ({**CHANGE, "op": ["c"]}, Reason.INVALID_FIELD, "op"),
        ({**CHANGE, "after": None}, Reason.MISSING_FIELD, "after"),
        ({**CHANGE, "after": SECRET}, Reason.INVALID_FIELD, "after"),
        ({**CHANGE, "after": {**ROW, "id": SECRET}}, Reason.INVALID_FIELD, "id"),
        ({**CHANGE, "after": {**ROW, "id": {SECRET: 1}}}, Reason.INVALID_FIELD, "id"),
        ({**CHANGE, "after": {**ROW, "id": None}}, Reason.INVALID_FIELD, "id"),
        ({**CHANGE, "after": {"status": "pending"}}, Reason.MISSING_FIELD, "id"),
        ({"id": str(ID)}, Reason.MISSING_FIELD, "status"),
        ({**ROW, "status": SECRET}, Reason.INVALID_FIELD, "status"),
        ({**ROW, "status": [SECRET]}, Reason.INVALID_FIELD, "status"),
        ({"schema": None, "payload": SECRET}, Reason.INVALID_FIELD, "payload"),
        (RELAYED, Reason.MISSING_FIELD, "status"),
    ],
)
def test_a_change_event_that_is_none_is_rejected(value: Any, reason: Reason, name: str) -> None:
    found = rejected("debezium", value)
    assert found.reason == reason
    assert found.detail.startswith(f"{name}: ")
    assert SECRET not in found.detail


REAL = sorted((Path(__file__).parent.parent / "kafka" / "debezium").glob("*.json"))


def test_there_are_real_messages_of_the_connector() -> None:
    assert len(REAL) >= 9


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_of_what_the_connector_itself_has_sent_the_rows_that_wait_are_to_be_tried(path: Path) -> None:
    """A row is created, leased, fails for good and is deleted; a snapshot shows one more that waits."""
    values = [record["value"] for record in json.loads(path.read_text(encoding="utf-8"))]
    rows = [UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + number) for number in (1, 2)]
    expected = rows if path.stem == "envelope_after_snapshot" else rows[1:]
    assert read("debezium", *values) == Decoded(expected, [], len(values) - len(expected))


# Whatever comes


def json_values(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([str(ID), "1.0", "u"])
    )
    return st.recursive(leaves, lambda some: st.lists(some, max_size=4) | st.dictionaries(names, some, max_size=6))


NAMES = st.sampled_from(
    [*RELAYED, *ROW, *CHANGE, "schema", "payload", "__op", "__deleted", "__table", "__source_table", "event_count"]
)


@pytest.mark.parametrize("message_format", FORMATS)
@given(values=st.lists(st.none() | st.binary() | json_values(NAMES | st.text()), max_size=5))
@settings(max_examples=500, deadline=None)
def test_nothing_that_comes_raises_and_all_is_accounted_for(message_format: Format, values: list[Any]) -> None:
    decoded = read(message_format, *values)
    assert len(decoded.ids) + len(decoded.rejected) + decoded.ignored <= len(values)
    assert len({one.place for one in decoded.rejected}) == len(decoded.rejected)
    assert all(0 <= one.place < len(values) for one in decoded.rejected)
    if not decoded.ids:
        assert len(decoded.rejected) + decoded.ignored == len(values)


@pytest.mark.parametrize("message_format", FORMATS)
@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_a_message_of_which_one_part_is_changed_raises_nothing(message_format: Format, data: st.DataObject) -> None:
    whole: dict[str, Any] = RELAYED if message_format == "relay" else data.draw(st.sampled_from([ROW, CHANGE]))
    name = data.draw(st.sampled_from(sorted(whole)))
    changed = {**whole, name: data.draw(json_values(NAMES))}
    decoded = read(message_format, changed)
    assert len(decoded.ids) + len(decoded.rejected) + decoded.ignored == 1
