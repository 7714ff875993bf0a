"""Schemathesis against the live service, from the document that it publishes: all checks on, nothing may be a 5xx.

It runs in a process of its own: it is synchronous, and the service lives in this one's loop.
"""

import asyncio
import os
import sys
from pathlib import Path
from uuid import uuid4

import asyncpg

from tests.api import public_id, running_api
from tests.obstacles import wait_until
from tests.platform_rows import add_event, add_generation, add_org, add_posting, add_session, enqueue

SECONDS = 240
HOOKS = "tests.fuzz_hooks"
ROOT = Path(__file__).parents[2]


async def fill(connection: asyncpg.Connection) -> None:
    """Something to enqueue, to project, to list and to requeue, in two orgs."""
    for org_id in (1, 2):
        await add_org(connection, org_id)
        session = await add_session(connection, org_id)
        for number in range(5):
            await add_event(connection, session, "tool.completed", {"tool_name": f"t{number}", "success": True})
            await add_generation(connection, org_id)
        await add_posting(connection, org_id)
        for _ in range(3):
            await enqueue(connection, "event", uuid4(), org_id)
            row = await enqueue(connection, "event", "no id", org_id)
            await connection.execute("UPDATE reporting_outbox SET status = 'failed', attempts = 3 WHERE id = $1", row)


async def fuzz(
    url: str, token: str, folder: Path, phases: str, *, examples: int = 100, seed: int = 1, **variables: str
) -> tuple[int, str]:
    """Runs schemathesis on a service; gives its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {token}", "--checks", "all", "--seed", str(seed), "--phases", phases,
        "--max-examples", str(examples), "--generation-database", "none",
        "--suppress-health-check", "all", "--no-color",
        cwd=folder, env=os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT)} | variables,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode()


async def test_nothing_that_can_be_sent_breaks_it(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await fill(connection)
    async with running_api(database, reporting_api_operation_secs=5) as api:
        await wait_until(api.ready)
        status, said = await fuzz(api.url, api.token("admin"), tmp_path, "examples,coverage,fuzzing")
        assert status == 0, said[-20_000:]
        # Examples name no org, which is one thing too few for this caller.
        platform = api.token("platform")
        status, said = await fuzz(api.url, platform, tmp_path, "coverage,fuzzing", FUZZ_ORG=public_id(1))
        assert status == 0, said[-20_000:]
        lines = [line for line in api.logged("request") if line["route"] != "/readyz"]
        assert len(lines) > 1000
        assert [line for line in lines if line["status"] >= 500] == []
        assert api.logged("request failed") == []
        assert {200, 400, 404, 405} <= {line["status"] for line in lines}
        succeeded = {line["route"] for line in lines if line["status"] == 200}
        assert len(succeeded & set((await api.get("/openapi.json")).json["paths"])) == 6
