"""Who may do what, on every route of the table; which org it is about; in which order things are checked."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from backfill_api.endpoints import ENDPOINTS, Endpoint
from tests.api import CALLERS, Answer, FakeOperations, RunningApi, assert_problem, public_id, running_api

BODIES = {"requeue_outbox": {"all_dead": True}}
FORBIDDEN = "Access denied: policy 'report.admin' requires 'org:reports:admin'"
PLAIN, INVALID = 'Bearer realm="reports"', 'Bearer realm="reports", error="invalid_token"'
BODY = [endpoint for endpoint in ENDPOINTS if endpoint.body]
OPEN = ["/livez", "/metrics", "/openapi.json", "/docs", "/docs/init.js", "/docs/swagger-ui.css"]

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
endpoints_with_body = pytest.mark.parametrize("endpoint", BODY, ids=lambda endpoint: endpoint.operation_id)


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def api(operations: FakeOperations) -> AsyncIterator[RunningApi]:
    async with running_api(operations=operations) as running:
        yield running


async def call(
    api: RunningApi, endpoint: Endpoint, by: str | None = "admin", *, org_id: str | None = None,
    header: str | None = None, headers: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """A valid call, the org named where it is said."""
    sent = (headers or {}) | ({"X-Org-Id": header} if header is not None else {})
    body: dict[str, Any] = BODIES.get(endpoint.operation_id, {})
    path = endpoint.path
    if org_id is not None and endpoint.body:
        body = body | {"org_id": org_id}
    elif org_id is not None:
        path += f"?org_id={org_id}"
    if endpoint.method == "GET":
        return await api.get(path, by=by, headers=sent)
    return await api.post(path, body if endpoint.body else None, by=by, headers=sent)


def test_every_route_for_operators_needs_the_policy_of_administrators() -> None:
    assert {endpoint.policy.value for endpoint in ENDPOINTS} == {"REPORT_ADMIN"}
    assert len(ENDPOINTS) == 6


@every_endpoint
async def test_without_credentials_nobody_comes_in(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint
) -> None:
    for headers, challenge in (
        ({}, PLAIN), ({"Authorization": "Basic YTpi"}, PLAIN), ({"Authorization": "Bearer rpt_wrong"}, INVALID),
    ):  # fmt: skip
        answer = await call(api, endpoint, None, headers=headers)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == challenge
    assert operations.script.asked == []


@every_endpoint
@pytest.mark.parametrize("caller", ["viewer", "manager"])
async def test_without_the_policy_it_is_forbidden_whatever_else_is_wrong(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint, caller: str
) -> None:
    answer = await call(api, endpoint, caller, org_id="*", header=public_id(77))
    assert assert_problem(answer, 403, "forbidden")["detail"] == FORBIDDEN
    assert operations.script.asked == []


@every_endpoint
@pytest.mark.parametrize(("caller", "org_id"), [("admin", 1), ("only-admin", 1), ("other", 2)])
@pytest.mark.parametrize("scheme", ["Bearer", "ApiKey", "bEARER"])
async def test_an_administrator_acts_on_its_own_org(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint, caller: str, org_id: int, scheme: str
) -> None:
    answer = await call(api, endpoint, None, headers={"Authorization": f"{scheme} {api.token(caller)}"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert b"null" not in answer.body
    (asked,) = operations.script.asked
    assert (asked.operation, asked.org_id) == (endpoint.operation_id, org_id)
    assert asked.actor == (caller if endpoint.is_action else None)


@every_endpoint
@pytest.mark.parametrize(
    ("caller", "header", "org_id", "acts_on"),
    [
        ("admin", public_id(1), None, 1), ("admin", None, public_id(1), 1), ("admin", public_id(1), public_id(1), 1),
        ("both", public_id(1), None, 1), ("both", None, public_id(2), 2), ("both", public_id(2), public_id(2), 2),
        ("platform", public_id(5), None, 5), ("platform", None, public_id(5), 5), ("platform", None, "*", None),
        ("platform", public_id(5), public_id(5).upper().replace("ORG", "org"), 5),
    ],
    ids=range(10),
)  # fmt: skip
async def test_an_org_may_be_named_in_the_header_or_beside_it(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint, caller: str, header: str | None,
    org_id: str | None, acts_on: int | None,
) -> None:  # fmt: skip
    answer = await call(api, endpoint, caller, header=header, org_id=org_id)
    assert answer.status == 200
    assert [asked.org_id for asked in operations.script.asked] == [acts_on]
    assert api.logged("request")[-1]["org"] == ("*" if acts_on is None else acts_on)


@every_endpoint
@pytest.mark.parametrize(
    ("caller", "header", "org_id", "refusal"),
    [
        ("admin", public_id(2), None, (404, "not_found")),
        ("admin", public_id(77), None, (404, "not_found")),
        ("admin", None, public_id(2), (404, "not_found")),
        ("admin", None, public_id(77), (404, "not_found")),
        ("admin", public_id(1), public_id(2), (404, "not_found")),
        ("admin", public_id(2), public_id(1), (404, "not_found")),
        ("admin", None, "*", (403, "forbidden")),
        ("both", None, "*", (403, "forbidden")),
        ("both", public_id(1), "*", (403, "forbidden")),
        ("both", None, None, (400, "bad_request")),
        ("both", public_id(3), None, (404, "not_found")),
        ("both", public_id(1), public_id(2), (400, "bad_request")),
        ("both", None, public_id(3), (404, "not_found")),
        ("platform", None, None, (400, "bad_request")),
        ("platform", public_id(77), None, (404, "not_found")),
        ("platform", None, public_id(77), (404, "not_found")),
        ("platform", public_id(1), public_id(2), (400, "bad_request")),
        ("platform", public_id(1), "*", (400, "bad_request")),
        ("stray", None, None, (404, "not_found")),
        ("admin", "org_1", None, (401, "unauthorized")),
        ("admin", "*", None, (401, "unauthorized")),
        ("platform", "*", None, (401, "unauthorized")),
        ("both", "", public_id(1), (401, "unauthorized")),
    ],
    ids=range(23),
)  # fmt: skip
async def test_any_other_choice_is_refused_and_nothing_is_done(
    api: RunningApi, operations: FakeOperations, endpoint: Endpoint, caller: str, header: str | None,
    org_id: str | None, refusal: tuple[int, str],
) -> None:  # fmt: skip
    answer = await call(api, endpoint, caller, header=header, org_id=org_id)
    problem = assert_problem(answer, *refusal)
    if answer.status == 404:
        assert problem["detail"] == "Organization not found"
    assert operations.script.asked == []


@pytest.mark.parametrize("path", OPEN)
async def test_what_tells_of_no_tenant_is_open_to_all(api: RunningApi, path: str) -> None:
    assert (await api.get(path, by=None)).status == 200
    assert (await api.get(path, by=None, headers={"Authorization": "Bearer rpt_wrong"})).status == 200


@endpoints_with_body
async def test_checks_come_in_order(api: RunningApi, endpoint: Endpoint) -> None:
    """401, 403, the query, the org, then the body: an answer tells nothing to whom an earlier one is due."""
    wrong_type = {"Content-Type": "text/plain"}
    path = endpoint.path + "?x=1"

    async def send(path: str, by: str | None, org: str | None) -> Answer:
        headers = wrong_type | ({"X-Org-Id": org} if org else {})
        return await api.request("POST", path, by=by, data=b"nonsense", headers=headers)

    assert_problem(await send(path, None, public_id(2)), 401, "unauthorized")
    assert_problem(await send(path, "viewer", public_id(2)), 403, "forbidden")
    assert_problem(await send(path, "admin", public_id(2)), 400, "bad_request")
    assert_problem(await send(endpoint.path, "admin", public_id(2)), 404, "not_found")
    assert_problem(await send(endpoint.path, "admin", None), 415, "unsupported_media_type")


async def test_the_rate_limit_comes_after_the_org_and_before_the_body() -> None:
    async with running_api(
        operations=FakeOperations(), reporting_api_org_actions_burst=1, reporting_api_org_actions_per_minute=0.1
    ) as api:
        path = "/v1/reports/admin/backfill"
        assert (await api.post(path, {})).status == 200
        assert_problem(await api.post(path, {}, headers={"X-Org-Id": public_id(2)}), 404, "not_found")
        assert_problem(await api.post(path, b"nonsense"), 429, "rate_limited")


@pytest.mark.parametrize("caller", CALLERS)
async def test_no_token_is_logged(api: RunningApi, caller: str) -> None:
    for endpoint in ENDPOINTS:
        await call(api, endpoint, caller)
    assert "rpt_" not in str(api.capture.entries)
