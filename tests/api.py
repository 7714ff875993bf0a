"""The operators' service inside the test's own process, on a real socket.

    async with running_api(database) as api:
        answer = await api.post("/v1/reports/admin/backfill", {"limit": 10})           # as "admin" of org 1
        assert (answer.status, answer.json["enqueued"]) == (200, 0)
        answer = await api.get("/v1/reports/admin/outbox?limit=5", by="other")         # an admin of org 2
        answer = await api.get("/v1/reports/admin/actions?org_id=*", by="platform")
        assert_problem(await api.get("/nowhere", by=None), 404, "not_found")
        assert api.logged("request")[0]["actor"] == "admin"

Callers are named in CALLERS; their orgs have the public ids that `tests.platform_rows.add_org` gives. With
`operations=FakeOperations()` no database is needed: answers are the examples of the OpenAPI document.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import structlog
from multidict import CIMultiDictProxy
from pydantic import SecretStr
from structlog.testing import LogCapture
from yarl import URL

from backfill_api.access import make_authenticator
from backfill_api.examples import ANSWERS
from backfill_api.operations import Operations, Origin
from backfill_api.problems import CONTENT_TYPE, TYPE_PREFIX
from backfill_api.server import Limits
from backfill_api.service import Service
from backfill_api.settings import ServiceSettings
from projector.projections import load_registry
from schemas.operations import ActionPage, FailedStatus, OutboxPage, RequeueRequest, RequeueResult
from schemas.reports import ProjectorRunResult, ReportingBackfillRequest, ReportingBackfillResult, ReportingDiagnostics
from tests.credentials import entry, write_tokens
from tests.obstacles import wait_until
from tests.roles import API, for_program

EVERY_POLICY = ["REPORT_VIEW", "REPORT_MANAGE", "REPORT_ADMIN"]
NOWHERE = "postgresql://reporter:pa55-w0rd@127.0.0.1:1/platform"
"""A database that is not there."""


def public_id(org_id: int) -> str:
    """The public id that `tests.platform_rows.add_org` gives an org."""
    return f"org_{org_id:032x}"


CALLERS: Mapping[str, Mapping[str, Any]] = {
    "admin": {"org": public_id(1), "policies": EVERY_POLICY},
    "other": {"org": public_id(2), "policies": EVERY_POLICY},
    "both": {"org": [public_id(1), public_id(2)], "policies": EVERY_POLICY},
    "platform": {"org": "*", "policies": EVERY_POLICY},
    "viewer": {"org": public_id(1), "policies": ["REPORT_VIEW"]},
    "manager": {"org": public_id(1), "policies": ["REPORT_MANAGE"]},
    "only-admin": {"org": public_id(1), "policies": ["REPORT_ADMIN"]},
    "stray": {"org": public_id(99), "policies": EVERY_POLICY},
}
"""Who may call; `stray` belongs to an org that no test makes."""


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class RunningApi:
    """A service at work."""

    service: Service
    task: asyncio.Task[int]
    session: aiohttp.ClientSession
    capture: LogCapture

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.service.port}"

    def token(self, caller: str) -> str:
        """The token of one of CALLERS."""
        return f"rpt_of-{caller}"

    async def get(self, path: str, *, by: str | None = "admin", headers: Mapping[str, str] | None = None) -> Answer:
        """A GET by one of CALLERS, or by nobody."""
        return await self.request("GET", path, by=by, headers=headers)

    async def post(
        self, path: str, body: Any = None, *, by: str | None = "admin", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A POST of a JSON value; bytes are sent as they are, None sends no body."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        return await self.request("POST", path, by=by, data=data, headers=sent | dict(headers or {}))

    async def request(
        self, method: str, path: str, *, by: str | None = "admin", headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Answer:  # fmt: skip
        """Any request, its path sent as it is."""
        sent = ({"Authorization": f"Bearer {self.token(by)}"} if by else {}) | dict(headers or {})
        skip = {"Content-Type"}
        async with self.session.request(
            method, URL(self.url + path, encoded=True), headers=sent, data=data, skip_auto_headers=skip
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def raw(self, sent: bytes, *, seconds: float = 5) -> bytes:
        """What comes back for these bytes, until the service closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port)
        try:
            writer.write(sent)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), seconds)
        finally:
            writer.close()

    def metric(self, name: str, **labels: str) -> float | None:
        """One value of its metrics."""
        return self.service.prometheus.get_sample_value(name, labels)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it logged in these words."""
        return [dict(line) for line in self.capture.entries if line["event"] == event]

    async def ready(self) -> bool:
        """Whether it says that it is ready."""
        return (await self.get("/readyz", by=None)).status == 200


@asynccontextmanager
async def running_api(
    dsn: str = NOWHERE, *, operations: Operations | None = None, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[RunningApi]:
    """Runs the service from when its port serves; at the end it is stopped as SIGTERM would stop it.

    Args:
        dsn: its database.
        operations: what to call instead of the database.
        limits: of connections.
        settings: fields of ServiceSettings, by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        write_tokens(tokens, *(entry(f"rpt_of-{name}", name=name, **fields) for name, fields in CALLERS.items()))
        configured = settings_for(dsn, reporting_api_credentials_file=tokens, **settings)
        log, capture = captured_log()
        authenticator = make_authenticator(configured, insecure=False, clock=asyncio.get_running_loop().time, log=log)
        service = Service(
            configured, load_registry(), authenticator, log, limits=limits or Limits(), operations=operations
        )
        async with running_service(service, capture) as api:
            yield api


@asynccontextmanager
async def running_service(service: Service, capture: LogCapture) -> AsyncIterator[RunningApi]:
    """Runs a service that was put together elsewhere."""
    task = asyncio.create_task(service.run())

    async def serves() -> bool:
        return service.port != 0 or task.done()

    await wait_until(serves)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield RunningApi(service, task, session, capture)
    finally:
        service.stop.set()
        await asyncio.wait_for(asyncio.wait([task]), service.settings.reporting_shutdown_grace_secs * 2 + 5)
        if not task.exception():
            task.result()


def settings_for(dsn: str, **overrides: Any) -> ServiceSettings:
    """Settings for a test's database: any free port, quick samples, whatever a `.env` here may say."""
    values: dict[str, Any] = {
        "_env_file": None,
        "database_url": SecretStr(for_program(dsn, API)),
        "reporting_api_host": "127.0.0.1",
        "reporting_api_port": 0,
        "reporting_sample_interval_secs": 0.1,
        "reporting_shutdown_grace_secs": 5,
        "reporting_api_org_actions_burst": 100_000,
        "reporting_api_actions_burst": 100_000,
    }
    return ServiceSettings(**(values | overrides))


def captured_log() -> tuple[structlog.stdlib.BoundLogger, LogCapture]:
    """A logger, and what was logged with it, what is bound to the request included."""
    capture = LogCapture()
    log = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )  # fmt: skip
    return cast("structlog.stdlib.BoundLogger", log), capture


def assert_problem(answer: Answer, status: int, code: str) -> Any:
    """An answer is a problem as the contract shapes it; gives its body."""
    body = answer.json if answer.body else {}
    assert (answer.status, body.get("code")) == (status, code), body
    assert answer.headers["Content-Type"] == f"{CONTENT_TYPE}; charset=utf-8"
    assert body["status"] == status
    assert body["title"]
    assert body["type"] == TYPE_PREFIX + code
    assert None not in body.values()
    assert set(body) <= {
        "type", "title", "status", "code", "detail", "instance", "retry_after_seconds", "allowed_actions",
    }  # fmt: skip
    assert answer.headers.get("Retry-After") == (
        str(body["retry_after_seconds"]) if "retry_after_seconds" in body else None
    )
    return body


@dataclass(frozen=True)
class Asked:
    """What the fake was asked to do."""

    operation: str
    org_id: int | None
    actor: str | None = None
    request_id: str | None = None
    arguments: tuple[Any, ...] = ()


@dataclass
class _Script:
    asked: list[Asked] = field(default_factory=list)
    raises: Exception | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event | None = None


class FakeOperations(Operations):
    """Answers with the examples; orgs 1 to 9 are there.

    `script.asked` keeps the calls; `script.raises` ends each with an error; with `script.may_end` each waits for it.
    """

    script: _Script
    __repr__ = object.__repr__

    def __init__(self) -> None:
        object.__setattr__(self, "script", _Script())  # the class it stands for is frozen

    async def find_org(self, public_id: str) -> int | None:
        org_id = int(public_id.removeprefix("org_"), 16)
        return org_id if 1 <= org_id <= 9 else None

    async def _do(self, operation: str, org_id: int | None, origin: Origin | None, *arguments: Any) -> Any:
        actor, request = (origin.actor, origin.request_id) if origin else (None, None)
        self.script.asked.append(Asked(operation, org_id, actor, request, arguments))
        self.script.begun.set()
        if self.script.may_end:
            await self.script.may_end.wait()
        if self.script.raises:
            raise self.script.raises
        return json.dumps(ANSWERS[operation])

    async def backfill(
        self, origin: Origin, org_id: int | None, request: ReportingBackfillRequest
    ) -> ReportingBackfillResult:
        answer = await self._do("backfill_reporting", org_id, origin, request)
        return ReportingBackfillResult.model_validate_json(answer)

    async def run(self, origin: Origin, org_id: int | None, limit: int) -> ProjectorRunResult:
        return ProjectorRunResult.model_validate_json(await self._do("run_projector", org_id, origin, limit))

    async def diagnostics(self, org_id: int | None) -> ReportingDiagnostics:
        return ReportingDiagnostics.model_validate_json(await self._do("get_diagnostics", org_id, None))

    async def outbox(
        self, org_id: int | None, status: FailedStatus | None, source_type: str | None, limit: int, cursor: str | None
    ) -> OutboxPage:
        answer = await self._do("list_outbox", org_id, None, status, source_type, limit, cursor)
        return OutboxPage.model_validate_json(answer)

    async def requeue(self, origin: Origin, org_id: int | None, request: RequeueRequest) -> RequeueResult:
        return RequeueResult.model_validate_json(await self._do("requeue_outbox", org_id, origin, request))

    async def actions(self, org_id: int | None, limit: int, cursor: str | None) -> ActionPage:
        return ActionPage.model_validate_json(await self._do("list_actions", org_id, None, limit, cursor))
