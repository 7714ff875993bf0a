"""The OpenAPI document: valid, in agreement with the routes and the models; and its page, which needs no internet."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from backfill_api.app import build_app
from backfill_api.endpoints import ENDPOINTS, Endpoint
from backfill_api.examples import ANSWERS, BODIES
from backfill_api.openapi import build_document
from backfill_api.problems import STATUSES, Code
from schemas.reports import Problem
from tests.api import FakeOperations, RunningApi, running_api

# As clients that were generated from the original's document know them (contract: http.md).
ORIGINAL = {
    "ReportingBackfillResult": {"enqueued", "events", "llm_generations", "sessions", "usage_ledger"},
    "ProjectorRunResult": {"claimed", "completed", "failed"},
    "ReportingDiagnostics": {"generated_at", "projector_lag", "outbox"},
    "DatasetLag": {"dataset"},
    "OutboxDiagnostics": {"pending", "processing", "failed", "completed", "failed_rows"},
    "FailedRow": {"id", "org_id", "source_type", "source_id", "attempts", "updated_at"},
    "Problem": {"title", "status"},
    "AllowedAction": {"rel"},
}
INSIDE = {"/metrics", "/livez", "/readyz", "/openapi.json"}

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)


@pytest.fixture
async def api() -> AsyncIterator[RunningApi]:
    async with running_api(operations=FakeOperations()) as running:
        yield running


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document(ENDPOINTS)


def operation(document: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][endpoint.path][endpoint.method.lower()]
    return found


async def test_it_is_served_as_it_is_built_and_valid(api: RunningApi, document: dict[str, Any]) -> None:
    answer = await api.get("/openapi.json", by=None)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json == json.loads(json.dumps(document))
    assert answer.json["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(answer.json).iter_errors()) == []


async def test_it_describes_the_routes_that_are_served_and_no_others(api: RunningApi, document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    parts: Any = None
    app = build_app(parts, api.service.health, api.service.prometheus, most_body_bytes=1)
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    operators = {(m, p) for m, p in served if p not in INSIDE and not p.startswith("/docs") and m != "HEAD"}
    assert described == operators == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert {path for _, path in served if path not in dict(document["paths"])} >= INSIDE | {"/docs"}


def test_operation_ids_are_the_contracts(document: dict[str, Any]) -> None:
    ids = {path: {m: o["operationId"] for m, o in methods.items()} for path, methods in document["paths"].items()}
    assert ids["/v1/reports/admin/backfill"] == {"post": "backfill_reporting"}
    assert ids["/v1/reports/projector/run"] == {"post": "run_projector"}
    assert ids["/v1/reports/admin/diagnostics"] == {"get": "get_diagnostics"}


@pytest.mark.parametrize("name", ORIGINAL)
def test_required_fields_are_the_contracts_and_optional_ones_never_null(document: dict[str, Any], name: str) -> None:
    schema = document["components"]["schemas"][name]
    assert set(schema["required"]) == ORIGINAL[name]
    assert "null" not in json.dumps(schema)


def test_numbers_are_of_the_contracts_size_and_bounds_are_told(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for field in schemas["ReportingBackfillResult"]["properties"].values():
        assert (field["type"], field["format"]) == ("integer", "int64")
    for name, field in (("FailedRow", "attempts"), ("Problem", "status"), ("Problem", "retry_after_seconds")):
        assert schemas[name]["properties"][field]["format"] == "int32"
    limit = schemas["ReportingBackfillRequest"]["properties"]["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"], limit["format"]) == (1, 100_000, 1000, "int64")
    assert not re.search('"(ge|le|gt|lt)":', json.dumps(document))


@every_endpoint
def test_every_field_and_parameter_is_described(document: dict[str, Any], endpoint: Endpoint) -> None:
    found = operation(document, endpoint)
    assert found["summary"]
    for parameter in found["parameters"]:
        assert parameter["description"], parameter["name"]
        assert "null" not in json.dumps(parameter)
    if endpoint.body:
        name = endpoint.body.__name__
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert "description" in json.dumps(schema), f"{name}.{field}"


@every_endpoint
def test_parameters_are_those_that_the_handler_takes(document: dict[str, Any], endpoint: Endpoint) -> None:
    parameters = operation(document, endpoint)["parameters"]
    assert [p["name"] for p in parameters if p["in"] == "query"] == list(endpoint.query.model_fields)
    assert [p["name"] for p in parameters if p["in"] == "header"] == ["X-Org-Id", "X-Request-Id"]


@every_endpoint
def test_every_error_is_a_problem_with_its_codes(document: dict[str, Any], endpoint: Endpoint) -> None:
    responses = operation(document, endpoint)["responses"]
    expected = {"400", "401", "403", "404", "417", "431", "500", "503"}
    expected |= {"408", "413", "415"} if endpoint.body else set()
    expected |= {"429"} if endpoint.is_action else set()
    expected |= {str(STATUSES[code]) for code in endpoint.errors}
    assert set(responses) == expected | {"200"}
    for status in expected:
        response = responses[status]
        ((kind, content),) = response["content"].items()
        assert kind == "application/problem+json"
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        example = Problem.model_validate(content["example"])
        assert str(example.status) == status
        assert f"`{example.code}`" in response["description"]
        assert ("Retry-After" in response["headers"]) == (status in {"409", "429", "503"})
    assert "WWW-Authenticate" in responses["401"]["headers"]
    assert all("X-Request-Id" in response["headers"] for response in responses.values())


@every_endpoint
def test_examples_are_what_the_models_allow(endpoint: Endpoint) -> None:
    answer = endpoint.answer.model_validate_json(json.dumps(ANSWERS[endpoint.operation_id]))
    assert json.loads(answer.model_dump_json(exclude_none=True)) == ANSWERS[endpoint.operation_id]
    if endpoint.body:
        endpoint.body.model_validate_json(json.dumps(BODIES[endpoint.operation_id]))


def test_every_code_can_be_found_in_the_document(document: dict[str, Any]) -> None:
    # 405 is what a method that is not described gets; 422 is for what is yet to come.
    told = set(re.findall("`([a-z_]+)`", json.dumps(document["paths"])))
    assert set(Code) - told <= {Code.METHOD_NOT_ALLOWED, Code.UNPROCESSABLE}


def test_models_that_are_only_parameters_are_no_components(document: dict[str, Any]) -> None:
    assert not [name for name in document["components"]["schemas"] if name.endswith("Query")]
    referred = set(re.findall("#/components/schemas/([A-Za-z]+)", json.dumps(document)))
    assert referred == set(document["components"]["schemas"])


def test_credentials_are_described(document: dict[str, Any]) -> None:
    assert document["security"] == [{"bearer": []}, {"apiKey": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "apiKey"}


async def test_the_page_loads_only_what_the_service_ships(api: RunningApi) -> None:
    page = await api.get("/docs", by=None)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert [link for link in loaded if "://" in link or link.startswith("//")] == []
    for link in ("docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/init.js", "openapi.json"):
        assert link in loaded
        assert (await api.get("/" + link, by=None)).status == 200
    assert not re.search(r"<script(?! src=)|<style|\son[a-z]+=|style=", text)
    init = (await api.get("/docs/init.js", by=None)).body.decode()
    assert 'url: "openapi.json"' in init
    assert "validatorUrl: null" in init
    assert not re.search(r"https?://", init)


async def test_the_page_may_run_no_script_but_ours(api: RunningApi) -> None:
    policy = (await api.get("/docs", by=None)).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self'" in policy


async def test_nothing_else_of_the_folder_is_served(api: RunningApi) -> None:
    for path in ("/docs/README.md", "/docs/../app.py", "/docs/%2e%2e/app.py", "/docs/index.html", "/docs/LICENSE"):
        assert (await api.get(path, by=None)).status == 404


def test_models_have_names_of_their_own() -> None:
    models: list[type[BaseModel]] = [endpoint.answer for endpoint in ENDPOINTS]
    assert len({model.__name__ for model in models}) == len(models)
