"""The checker of compatibility itself: changes of a schema, each breaking or not."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.compatibility import Schema, breaks, changes, normalized

RELEASED: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:x:thing.v1",
    "x-schema-version": "1.2",
    "$defs": {"Kind": {"title": "Kind", "type": "string", "enum": ["b", "a"]}},
    "title": "Thing",
    "description": "A thing.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Which one."},
        "kind": {"$ref": "#/$defs/Kind", "description": "What it is."},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "note": {"type": "string", "pattern": "^a", "minLength": 1, "maxLength": 5, "default": ""},
        "gone": {"const": False, "type": "boolean"},
        "user": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["string", "null"]},
        "parts": {
            "type": "array",
            "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
        "closed": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["id", "kind", "count", "gone"],
}  # fmt: skip


def part(schema: Schema, path: str) -> Any:
    for key in path.split("/"):
        schema = schema[key]
    return schema


def put(path: str, value: Any) -> Callable[[Schema], None]:
    """Puts a value into a schema; the last part of the path need not be there."""
    folder, _, name = path.rpartition("/")

    def change(schema: Schema) -> None:
        (part(schema, folder) if folder else schema)[name] = copy.deepcopy(value)

    return change


def drop(path: str) -> Callable[[Schema], None]:
    folder, _, name = path.rpartition("/")

    def change(schema: Schema) -> None:
        del (part(schema, folder) if folder else schema)[name]

    return change


def changed(*edits: Callable[[Schema], None], version: str = "1.3") -> Schema:
    schema = copy.deepcopy(RELEASED)
    schema["x-schema-version"] = version
    for edit in edits:
        edit(schema)
    return schema


P = "properties"

BREAKING: dict[str, list[Callable[[Schema], None]]] = {
    "a field is removed": [drop(f"{P}/note")],
    "a required field is removed": [drop(f"{P}/count"), put("required", ["id", "kind", "gone"])],
    "a field is renamed": [drop(f"{P}/note"), put(f"{P}/remark", {"type": "string"})],
    "an optional field is required": [put("required", ["id", "kind", "count", "gone", "note"])],
    "a required field is optional": [put("required", ["id", "kind", "gone"])],
    "nothing is required": [drop("required")],
    "a new field is required": [put(f"{P}/new", {"type": "string"}), put("required", [*RELEASED["required"], "new"])],
    "a new field is required, but not described": [put("required", [*RELEASED["required"], "new"])],
    "a type is another": [put(f"{P}/count/type", "string")],
    "a type is wider": [put(f"{P}/count/type", "number")],
    "a type is dropped": [drop(f"{P}/count/type")],
    "a type may be null": [put(f"{P}/count/type", ["integer", "null"])],
    "a type may be null no more": [put(f"{P}/either/type", "string")],
    "an alternative is added": [put(f"{P}/user/anyOf", [{"type": "string"}, {"type": "null"}, {"type": "integer"}])],
    "an alternative is dropped": [put(f"{P}/user/anyOf", [{"type": "string"}])],
    "an alternative is another": [put(f"{P}/user/anyOf", [{"type": "integer"}, {"type": "null"}])],
    "an alternative is tightened": [put(f"{P}/user/anyOf", [{"type": "string", "maxLength": 9}, {"type": "null"}])],
    "alternatives are gone": [put(f"{P}/user", {"type": "string"})],
    "an enum gains a word": [put("$defs/Kind/enum", ["a", "b", "c"])],
    "an enum loses a word": [put("$defs/Kind/enum", ["a"])],
    "an enum is dropped": [drop("$defs/Kind/enum")],
    "a limit beside a reference": [put(f"{P}/kind/maxLength", 1)],
    "an enum is new": [put(f"{P}/user/enum", ["a", None])],
    "a constant is another": [put(f"{P}/gone/const", True)],
    "a constant is dropped": [drop(f"{P}/gone/const")],
    "false is 0": [put(f"{P}/gone/const", 0)],
    "a minimum is raised": [put(f"{P}/count/minimum", 1)],
    "a minimum is lowered": [put(f"{P}/count/minimum", -1)],
    "a maximum is raised": [put(f"{P}/count/maximum", 10)],
    "a maximum is lowered": [put(f"{P}/count/maximum", 8)],
    "a maximum is dropped": [drop(f"{P}/count/maximum")],
    "a bound is new": [put(f"{P}/count/multipleOf", 2)],
    "a pattern is another": [put(f"{P}/note/pattern", "^b")],
    "a pattern is new": [put(f"{P}/id/pattern", "^b")],
    "a length is tightened": [put(f"{P}/note/maxLength", 4)],
    "a length is loosened": [put(f"{P}/note/minLength", 0)],
    "a format is another": [put(f"{P}/id/format", "uri")],
    "a format is dropped": [drop(f"{P}/id/format")],
    "a default is another": [put(f"{P}/note/default", "a")],
    "a default is dropped": [drop(f"{P}/note/default")],
    "the object is closed": [put("additionalProperties", False)],
    "the object is an array": [put("type", "array")],
    "an element's field is removed": [drop(f"{P}/parts/items/{P}/n")],
    "an element's field is newly required": [put(f"{P}/parts/items/required", ["n", "m"])],
    "an element's type is another": [put(f"{P}/parts/items/{P}/n/type", "string")],
    "elements are anything": [drop(f"{P}/parts/items")],
    "a closed object gains a field": [put(f"{P}/closed/{P}/m", {"type": "integer"})],
    "a closed object is opened": [drop(f"{P}/closed/additionalProperties")],
    "a map's values are others": [put(f"{P}/map/additionalProperties/type", "string")],
    "a map's values are anything": [put(f"{P}/map/additionalProperties", True)],
    "a keyword that is not known here": [put(f"{P}/count/not", {"enum": [3]})],
}

HARMLESS: dict[str, list[Callable[[Schema], None]]] = {
    "an optional field is added": [put(f"{P}/new", {"type": "string", "maxLength": 3, "default": "x"})],
    "an optional field is added to elements": [put(f"{P}/parts/items/{P}/m", {"type": "string"})],
    "two optional fields are added": [put(f"{P}/new", {"type": "null"}), put(f"{P}/newer", {"$ref": "#/$defs/Kind"})],
}  # fmt: skip

NO_CHANGE: dict[str, list[Callable[[Schema], None]]] = {
    "nothing": [],
    "descriptions": [put("description", "Another."), put(f"{P}/id/description", "x"), drop(f"{P}/kind/description")],
    "titles": [put(f"{P}/map/additionalProperties/title", "N"), put(f"{P}/parts/items/title", "Part")],
    "more titles": [put("title", "Other"), put(f"{P}/id/title", "Id"), drop("$defs/Kind/title")],
    "examples": [put("examples", [{}]), put("$comment", "x"), put(f"{P}/id/deprecated", True)],
    "the order": [
        put(P, dict(reversed(RELEASED[P].items()))),
        put("required", RELEASED["required"][::-1]),
        put("$defs/Kind/enum", ["a", "b"]),
        put(f"{P}/user/anyOf", [{"type": "null"}, {"type": "string"}]),
        put(f"{P}/either/type", ["null", "string"]),
    ],
    "a reference in place": [put(f"{P}/kind", {"type": "string", "enum": ["a", "b"]}), drop("$defs")],
    "a constant as an enum of one": [put(f"{P}/gone", {"type": "boolean", "enum": [False]})],
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_change_is_told(name: str) -> None:
    assert changes(RELEASED, changed(*BREAKING[name]))


# The reverse of a removal is to add an optional field.
@pytest.mark.parametrize("name", sorted(BREAKING.keys() - {"a field is removed", "an element's field is removed"}))
def test_the_reverse_of_a_breaking_change_is_one(name: str) -> None:
    other = changed(*BREAKING[name])
    assert changes({**other, "x-schema-version": "1.2"}, {**RELEASED, "x-schema-version": "1.3"})


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_none_but_needs_a_minor_version(name: str) -> None:
    assert changes(RELEASED, changed(*HARMLESS[name])) == []
    assert [line for line in changes(RELEASED, changed(*HARMLESS[name], version="1.2")) if "minor version" in line]
    assert changes(changed(*HARMLESS[name], version="1.1"), RELEASED), "what was added cannot be taken back"


@pytest.mark.parametrize("name", NO_CHANGE)
def test_what_changes_nothing_needs_no_version(name: str) -> None:
    assert changes(RELEASED, changed(*NO_CHANGE[name], version="1.2")) == []
    assert normalized(changed(*NO_CHANGE[name])) == normalized(RELEASED)


@pytest.mark.parametrize(("version", "is_fine"), [("1.3", True), ("1.10", True), ("1.1", False), ("2.0", False)])
def test_versions_only_grow_and_a_major_one_is_another_schema(version: str, is_fine: bool) -> None:
    assert (changes(RELEASED, changed(version=version)) == []) is is_fine


def test_a_change_is_told_by_its_place() -> None:
    other = changed(put(f"{P}/count/minimum", 1), drop(f"{P}/parts/items/{P}/n"))
    assert breaks({"thing.v1": RELEASED}, {"thing.v1": other}) == [
        "thing.v1/count: minimum was 0, is 1",
        "thing.v1/parts/items/n: removed",
    ]


def test_a_schema_goes_only_when_the_next_major_version_is_there() -> None:
    assert breaks({"thing.v1": RELEASED}, {}) == ["thing.v1: removed, and there is no thing.v2"]
    assert breaks({"thing.v1": RELEASED}, {"thing.v2": changed(drop(f"{P}/id"), version="2.0")}) == []
    assert breaks({}, {"thing.v1": RELEASED}) == []


def test_nothing_is_changed_by_the_looking() -> None:
    before = json.dumps(RELEASED)
    changes(RELEASED, changed(drop("$defs/Kind/enum")))
    assert json.dumps(RELEASED) == before
