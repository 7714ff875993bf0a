"""The published JSON Schemas: what the models say, and in both directions compatible with what was released."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from schemas.published import FOLDER, MODELS, RELEASED, schemas, write
from tests.compatibility import Schema, breaks, normalized

HOW_TO_EVOLVE = "see CONTRIBUTING.md, Evolving a message"


def read(folder: Path) -> dict[str, Schema]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


CURRENT = schemas()
WAS = read(RELEASED)
BOTH = sorted(WAS.keys() & CURRENT.keys())

each_schema = pytest.mark.parametrize("name", CURRENT)
each_released = pytest.mark.parametrize("name", BOTH)


def test_the_files_are_what_the_models_give(tmp_path: Path) -> None:
    write(tmp_path)
    files, written = (
        {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")} for folder in (FOLDER, tmp_path)
    )
    assert files == written, "run `make schemas`"


def test_writing_removes_the_files_of_messages_that_are_no_more(tmp_path: Path) -> None:
    (tmp_path / "old.v1.json").write_text("{}")
    write(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(MODELS)


@each_schema
def test_a_schema_is_one_of_its_draft_and_tells_what_it_is(name: str) -> None:
    schema = CURRENT[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:reporting-projector:schema:{name}"
    assert schema["title"]
    assert name.endswith(f".v{schema['x-schema-version'].partition('.')[0]}")


@each_schema
def test_a_schema_and_each_of_its_fields_is_described(name: str) -> None:
    assert CURRENT[name]["description"]
    plain = [field for field, schema in CURRENT[name]["properties"].items() if not schema.get("description")]
    assert plain == []


@each_schema
def test_a_message_may_have_fields_that_its_reader_does_not_know(name: str) -> None:
    assert normalized(CURRENT[name]).get("additionalProperties", True) is True


def test_the_released_schemas_are_there() -> None:
    assert BOTH


def test_messages_get_on_with_those_that_were_released() -> None:
    assert breaks(WAS, CURRENT) == [], HOW_TO_EVOLVE


# The same by examples. What follows knows the keywords that the schemas use, and fails at any other.

_FORMATS = {
    "uuid": st.uuids().map(str),
    "date": st.dates().map(lambda day: day.isoformat()),
    "date-time": st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
}
_DESCRIBING = {"title", "description", "default", "type", "$schema", "$id", "x-schema-version"}


def messages(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that a schema allows."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([messages(one) for one in schema["anyOf"]])
    if "properties" in schema:
        fields = {name: messages(field) for name, field in schema["properties"].items()}
        needed = {name: fields.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=fields)
    return _plain(schema["type"], {key: value for key, value in schema.items() if key not in _DESCRIBING})


def _plain(kind: str, limits: dict[str, Any]) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any]
    if kind == "string":
        values = _FORMATS[limits.pop("format")] if "format" in limits else st.text()
        if "pattern" in limits:
            values = st.from_regex(re.compile(limits.pop("pattern").replace("$", r"\Z")))
    elif kind == "integer":
        values = st.integers(limits.pop("minimum", None), limits.pop("maximum", None))
        limits.pop("format", None)
    else:
        values = {"null": st.none(), "number": st.floats(allow_nan=False, allow_infinity=False)}[kind]
    assert not limits, f"{kind} with {limits}: not known here"
    return values


@each_released
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_todays_readers_read_the_messages_of_the_release(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(WAS[name]))
    Draft202012Validator(WAS[name], format_checker=FormatChecker()).validate(message)
    MODELS[name][1].model_validate_json(json.dumps(message))


@each_released
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_releases_readers_read_the_messages_of_today(name: str, data: st.DataObject) -> None:
    drawn = data.draw(messages(CURRENT[name]))
    written = MODELS[name][1].model_validate_json(json.dumps(drawn)).model_dump_json()
    Draft202012Validator(WAS[name], format_checker=FormatChecker()).validate(json.loads(written))
