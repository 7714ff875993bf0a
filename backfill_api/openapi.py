"""The OpenAPI 3.1 document, made from the endpoints' table and the models that the handlers use."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from backfill_api.endpoints import Endpoint
from backfill_api.examples import ANSWERS, BODIES, problem_example
from backfill_api.problems import CONTENT_TYPE, STATUSES, Code
from projector.metrics import DISTRIBUTION
from schemas.reports import Problem

_REF = "#/components/schemas/{model}"

# What any endpoint for operators may answer with.
_COMMON = (
    Code.BAD_REQUEST, Code.UNAUTHORIZED, Code.FORBIDDEN, Code.NOT_FOUND, Code.EXPECTATION_FAILED,
    Code.HEADERS_TOO_LARGE, Code.INTERNAL_ERROR, Code.UNAVAILABLE, Code.TIMEOUT,
)  # fmt: skip
_WITH_BODY = (Code.REQUEST_TIMEOUT, Code.PAYLOAD_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)
_ACTIONS = (Code.RATE_LIMITED,)

_DESCRIPTION = """
What operators of the reporting projector call: enqueue sources that have no fact yet, project at once, look into the
outbox, requeue what failed, read who did what.

Every error is a problem document (RFC 9457) with a stable `code`. Optional fields are left out when empty, not null.
""".strip()

_ORG_HEADER = {
    "name": "X-Org-Id", "in": "header", "required": False,
    "description": "The org to work on, where the credential has several: `org_` and 32 hexadecimal digits.",
    "schema": {"type": "string", "pattern": "^org_[0-9a-fA-F]{32}$"},
}  # fmt: skip
_REQUEST_ID = {
    "name": "X-Request-Id", "in": "header", "required": False,
    "description": "An id of yours, sent back and logged: 1 to 128 letters, digits, dots, dashes and underscores. "
    "Anything else is replaced by a new id.",
    "schema": {"type": "string"},
}  # fmt: skip


def build_document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document, as a JSON value."""
    endpoints = tuple(endpoints)
    schemas, references = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas, references)
    for endpoint in endpoints:
        schemas.pop(endpoint.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reporting backfill API", "version": version(DISTRIBUTION), "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": "operators", "description": "Needs the policy `REPORT_ADMIN`."}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the service, or a JWT."},
                "apiKey": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "The same, written `ApiKey <token>`.",
                },
            },
            "headers": {
                "RequestId": {"description": "The request's id.", "schema": {"type": "string"}},
                "RetryAfter": {
                    "description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1},
                },
                "Challenge": {"description": "What to send (RFC 9110).", "schema": {"type": "string"}},
            },
        },
    }  # fmt: skip


class _Schemas(GenerateJsonSchema):
    """As the contract writes: an optional field of an answer is left out when empty, and never null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        if self.mode == "serialization":
            return self.generate_inner(schema["schema"])
        return super().nullable_schema(schema)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        written = super().default_schema(schema)
        if "default" in written and written["default"] is None:
            del written["default"]
        return written


_Key = tuple[Any, JsonSchemaMode]


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[dict[str, Any], dict[_Key, JsonSchemaValue]]:
    wanted: dict[_Key, None] = {(Problem, "serialization"): None}
    for endpoint in endpoints:
        wanted[(endpoint.answer, "serialization")] = None
        wanted[(endpoint.query, "validation")] = None
        if endpoint.body:
            wanted[(endpoint.body, "validation")] = None
    references, definitions = models_json_schema(list(wanted), ref_template=_REF, schema_generator=_Schemas)
    named: dict[str, Any] = definitions["$defs"]
    return named, dict(references)


def _operation(endpoint: Endpoint, schemas: dict[str, Any], references: dict[_Key, JsonSchemaValue]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "tags": ["operators"],
        "parameters": [*_parameters(schemas[endpoint.query.__name__]), _ORG_HEADER, _REQUEST_ID],
        "responses": {
            "200": {
                "description": "Done.",
                "headers": _headers("RequestId"),
                "content": {
                    "application/json": {
                        "schema": references[endpoint.answer, "serialization"],
                        "example": ANSWERS[endpoint.operation_id],
                    }
                },
            },
            **_errors(endpoint, references[Problem, "serialization"]),
        },
    }
    if endpoint.body:
        content = {"schema": references[endpoint.body, "validation"], "example": BODIES[endpoint.operation_id]}
        operation["requestBody"] = {
            "description": "Without a body, as with `{}`.", "required": False,
            "content": {"application/json": content},
        }  # fmt: skip
    return operation


def _parameters(query: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = []
    for name, schema in query.get("properties", {}).items():
        described = {key: value for key, value in schema.items() if key not in {"title", "description"}}
        # A parameter cannot be null: it is there or not.
        alternatives = [one for one in described.get("anyOf", []) if one != {"type": "null"}]
        if len(alternatives) == 1:
            described = {key: value for key, value in described.items() if key != "anyOf"} | alternatives[0]
        description = schema.get("description") or described.pop("description", None)
        parameters.append(
            {"name": name, "in": "query", "required": False, "description": description, "schema": described}
        )
    return parameters


def _errors(endpoint: Endpoint, problem: JsonSchemaValue) -> dict[str, Any]:
    codes = [
        *_COMMON,
        *endpoint.errors,
        *(_WITH_BODY if endpoint.body else ()),
        *(_ACTIONS if endpoint.is_action else ()),
    ]
    by_status: dict[int, list[Code]] = {}
    for code in codes:
        by_status.setdefault(STATUSES[code], []).append(code)
    return {str(status): _error(status, by_status[status], problem) for status in sorted(by_status)}


def _error(status: int, codes: list[Code], problem: JsonSchemaValue) -> dict[str, Any]:
    names = ["RequestId"]
    if status in {STATUSES[Code.CONFLICT], STATUSES[Code.RATE_LIMITED], STATUSES[Code.UNAVAILABLE]}:
        names.append("RetryAfter")
    if status == STATUSES[Code.UNAUTHORIZED]:
        names.append("Challenge")
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": _headers(*names),
        "content": {CONTENT_TYPE: {"schema": problem, "example": problem_example(codes[0])}},
    }


def _headers(*names: str) -> dict[str, Any]:
    fields = {"RequestId": "X-Request-Id", "RetryAfter": "Retry-After", "Challenge": "WWW-Authenticate"}
    return {fields[name]: {"$ref": f"#/components/headers/{name}"} for name in names}
