"""Whether messages of two versions get on with each other in both directions, told from their JSON Schemas.

During a rolling upgrade old readers read new messages, and new readers old ones. So what a message may be stays what
it was, neither more nor less; all that a minor version can do is add optional fields, which readers that do not know
them ignore.
"""

import json
from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$comment", "x-schema-version", "title", "description", "examples", "deprecated"}
)
"""What says nothing about which messages are valid. `default` is none of these: it is what an absent field means."""

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_NESTED = ("items", "additionalProperties")


def breaks(released: dict[str, Schema], current: dict[str, Schema]) -> list[str]:
    """What readers or writers of released messages cannot live with, one line each. Schemas are given by name."""
    found = []
    for name, schema in released.items():
        if name in current:
            found += [f"{name}{line}" for line in changes(schema, current[name])]
        elif _next_major(name) not in current:
            found.append(f"{name}: removed, and there is no {_next_major(name)}")
    return found


def changes(released: Schema, current: Schema) -> list[str]:
    """The breaking changes from one schema to another; besides, whether the version tells of harmless ones."""
    old, new = normalized(released), normalized(current)
    found = _compare("", old, new)
    before, after = (_version(schema) for schema in (released, current))
    if before[0] != after[0]:
        found.append(": another major version needs another name")
    elif after < before or (after == before and old != new):
        found.append(": changed, so the minor version of x-schema-version has to grow")
    return found


def normalized(schema: Schema) -> Schema:
    """The schema without annotations, its references replaced by what they name; equal where the same is valid.

    Raises:
        RecursionError: it refers to itself.
    """
    return _normalized(schema, schema.get("$defs", {}))


def _normalized(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    if "$ref" in schema:
        named = definitions[schema["$ref"].removeprefix("#/$defs/")]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
        return _normalized(schema, definitions)
    result = _in_order({key: value for key, value in schema.items() if key not in _ANNOTATIONS})
    if "properties" in result:
        result["properties"] = {name: _normalized(one, definitions) for name, one in result["properties"].items()}
    for key in _NESTED:
        if isinstance(result.get(key), dict):
            result[key] = _normalized(result[key], definitions)
    for key in _ALTERNATIVES:
        if key in result:
            result[key] = sorted((_normalized(one, definitions) for one in result[key]), key=_sorted_text)
    return result


def _in_order(schema: Schema) -> Schema:
    """The schema with what has no order in order, and a constant as what it is: an enum of one."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for key in ("enum", "required", "type"):
        if isinstance(schema.get(key), list):
            schema[key] = sorted(schema[key], key=json.dumps)
    return schema


def _compare(path: str, old: Schema, new: Schema) -> list[str]:
    found = _compare_fields(path, old, new)
    for keyword in sorted((old.keys() | new.keys()) - {"properties", "required"}):
        before, after = old.get(keyword), new.get(keyword)
        where = f"{path}/{keyword}"
        if keyword not in new:
            found.append(f"{path}: {keyword} is gone")
        elif keyword not in old:
            found.append(f"{path}: {keyword} is new")
        elif keyword in _NESTED and isinstance(before, dict) and isinstance(after, dict):
            found += _compare(where, before, after)
        elif keyword in _ALTERNATIVES and len(old[keyword]) == len(new[keyword]):
            pairs = zip(old[keyword], new[keyword], strict=True)
            found += [line for place, pair in enumerate(pairs) for line in _compare(f"{where}/{place}", *pair)]
        elif json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
            found.append(f"{path}: {keyword} was {before}, is {after}")
    return found


def _compare_fields(path: str, old: Schema, new: Schema) -> list[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    found = [f"{path}/{name}: removed" for name in before if name not in after]
    found += [f"{path}/{name}: newly required, which old messages lack" for name in sorted(needs - needed)]
    found += [f"{path}/{name}: no longer required, which old readers need" for name in sorted(needed - needs)]
    if old.get("additionalProperties") is False:
        found += [f"{path}/{name}: added, which old readers refuse" for name in after if name not in before]
    for name in before:
        if name in after:
            found += _compare(f"{path}/{name}", before[name], after[name])
    return found


def _sorted_text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True)


def _next_major(name: str) -> str:
    base, _, major = name.rpartition(".v")
    return f"{base}.v{int(major) + 1}"


def _version(schema: Schema) -> tuple[int, int]:
    major, minor = schema["x-schema-version"].split(".")
    return int(major), int(minor)
