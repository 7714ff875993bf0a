"""`backfill-api` as a process of its own: what it refuses to start with, signals, its log, its tokens."""

import asyncio
import contextlib
import hashlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.api import CALLERS, NOWHERE, public_id
from tests.credentials import entry, write_tokens
from tests.obstacles import opened, wait_until, wait_until_blocking
from tests.platform_rows import add_org, enqueue
from tests.processes import Finished, Running, projector, started

MODULE = "backfill_api"
SECRET = "pa55-w0rd"
LOOPBACK = {"reporting_api_host": "127.0.0.1", "reporting_api_port": "0"}
JWTS = {"reporting_api_jwt_issuer": "https://issuer.example", "reporting_api_jwt_audience": "reports"}
KEYS = JWTS | {"reporting_api_jwks": "keys.json"}


async def refused(folder: Path, *arguments: str, **variables: str) -> str:
    """What the program says when it does not start."""
    ran = await projector("serve", *arguments, folder=folder, module=MODULE, database_url=NOWHERE, **variables)
    assert (ran.status, ran.out) == (2, ""), ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith("backfill-api: ")
    assert "Traceback" not in ran.err
    assert SECRET not in ran.err
    return last.removeprefix("backfill-api: ")


def tokens_of(folder: Path) -> str:
    path = folder / "tokens.json"
    write_tokens(path, *(entry(f"rpt_of-{name}", name=name, **fields) for name, fields in CALLERS.items()))
    return str(path)


@asynccontextmanager
async def serving(folder: Path, dsn: str, *arguments: str, **variables: str) -> AsyncIterator[tuple[Running, str]]:
    """A process that serves; gives its address too."""
    if "--insecure" not in arguments:
        variables.setdefault("reporting_api_credentials_file", tokens_of(folder))
    settings = LOOPBACK | {"database_url": dsn} | variables
    async with started("serve", *arguments, folder=folder, module=MODULE, **settings) as process:
        await process.has_logged("serving")
        yield process, f"http://127.0.0.1:{process.logged('serving')[0]['port']}"


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ((), {}, "no credentials are configured: set REPORTING_API_CREDENTIALS_FILE"),
        ((), LOOPBACK, "no credentials are configured"),
        ((), {"reporting_api_credentials_file": "", "reporting_api_jwks": ""}, "no credentials are configured"),
        (("--insecure",), {}, "REPORTING_API_HOST='0.0.0.0': with --insecure it must be 127.0.0.1"),
        (("--insecure",), {"reporting_api_host": "192.0.2.1"}, "REPORTING_API_HOST='192.0.2.1': with --insecure"),
        (("--insecure",), {"reporting_api_host": "::"}, "REPORTING_API_HOST='::': with --insecure"),
        (("--insecure",), {"reporting_api_host": "localhost.example"}, "REPORTING_API_HOST='localhost.example': with"),
        (("--insecure",), {"reporting_api_host": ""}, "REPORTING_API_HOST='': with --insecure"),
        ((), {"reporting_api_credentials_file": "gone"}, "REPORTING_API_CREDENTIALS_FILE: gone: No such file"),
        ((), JWTS, "REPORTING_API_JWT_ISSUER and _AUDIENCE are of no use without REPORTING_API_JWKS"),
        ((), {"reporting_api_jwks": "keys.json"}, "JWTs need both an issuer and an audience. See REPORTING_API_JWKS"),
        ((), {"reporting_api_jwks": "http://x/keys", **JWTS}, "the JWKS must be an https:// URL or the path of a file"),
        ((), KEYS | {"reporting_api_jwt_algorithms": "HS256"}, "algorithms ['HS256'] of JWTs"),
        ((), KEYS | {"reporting_api_jwt_algorithms": ""}, "algorithms [] of JWTs"),
        ((), {"reporting_api_port": "65536"}, "REPORTING_API_PORT='65536': must be a whole number from 0 to 65535"),
    ],
    ids=range(15),
)  # fmt: skip
async def test_it_refuses_to_start_and_says_why(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    assert (await refused(tmp_path, *arguments, **variables)).startswith(said)


async def test_credentials_and_insecure_contradict_each_other(tmp_path: Path) -> None:
    said = await refused(tmp_path, "--insecure", reporting_api_credentials_file=tokens_of(tmp_path), **LOOPBACK)
    assert said.startswith("--insecure lets everybody in, but credentials are configured")


async def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = await refused(
            tmp_path, reporting_api_credentials_file=tokens_of(tmp_path), reporting_api_host="127.0.0.1",
            reporting_api_port=port,
        )  # fmt: skip
    assert f"REPORTING_API_PORT={port}" in said
    assert "address already in use" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9"])
async def test_insecure_on_loopback_lets_everybody_in_and_warns(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, NOWHERE, "--insecure", reporting_api_host=host) as (process, listening):
        address = listening.replace("127.0.0.1", host)
        (warning,) = [line for line in process.text().splitlines() if "--insecure" in line]
        assert json.loads(warning)["level"] == "warning"
        async with aiohttp.ClientSession() as session, session.get(address + "/v1/reports/admin/actions") as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "bad_request")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_it_even_though_the_database_is_away(tmp_path: Path, number: signal.Signals) -> None:
    async with serving(tmp_path, NOWHERE) as (process, address):
        async with aiohttp.ClientSession() as session, session.get(address + "/livez") as answer:
            assert answer.status == 200
        process.send(number)
        assert await process.end(within=5) == 0
        assert process.logged("stopping: requests at work end, none begins")
        assert process.logged("stopped")
        assert SECRET not in process.text()


async def test_sigterm_lets_a_request_at_work_end(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    """The request waits for a lock that somebody else holds on what it asks for."""
    await add_org(connection)
    async with opened(database) as keeper, serving(tmp_path, database) as (process, address):
        transaction = keeper.transaction()
        await transaction.start()
        await keeper.execute("LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(ask(address + "/v1/reports/admin/actions"))
        await wait_until_blocking(connection, keeper.get_server_pid())
        process.send(signal.SIGTERM)
        await process.has_logged("stopping: requests at work end, none begins")
        await asyncio.sleep(0.2)
        assert process.process.returncode is None
        await transaction.rollback()
        assert await asking == 200
        assert await process.end(within=10) == 0


async def ask(url: str, caller: str = "admin") -> int:
    headers = {"Authorization": f"Bearer rpt_of-{caller}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status


async def test_the_grace_period_ends_what_does_not_end_by_itself(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await add_org(connection)
    async with (
        opened(database) as keeper,
        serving(tmp_path, database, reporting_shutdown_grace_secs="0.5") as (process, address),
    ):
        await keeper.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(ask(address + "/v1/reports/admin/actions"))
        await wait_until_blocking(connection, keeper.get_server_pid())
        process.send(signal.SIGTERM)
        assert await process.end(within=10) == 1
        assert process.logged("requests did not end within the grace period, they are cut off")
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_second_signal_stops_at_once(database: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    await add_org(connection)
    async with opened(database) as keeper, serving(tmp_path, database) as (process, address):
        await keeper.execute("BEGIN; LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(ask(address + "/v1/reports/admin/actions"))
        await wait_until_blocking(connection, keeper.get_server_pid())
        process.send(signal.SIGTERM)
        await process.has_logged("stopping: requests at work end, none begins")
        process.send(signal.SIGTERM)
        assert await process.end(within=5) == 1
        # Cut off, or told that its connection to the database is gone: whichever comes first.
        with contextlib.suppress(aiohttp.ClientError):
            assert await asking == 503


async def test_the_log_is_json_with_ids_and_without_secrets(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await add_org(connection)
    await enqueue(connection, "event", "canary-5ecret")
    async with serving(tmp_path, database, reporting_log_level="debug") as (process, address):
        await process.has_logged("ready")
        headers = {"Authorization": "Bearer rpt_of-admin", "X-Request-Id": "mine"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for method, path in (("GET", "/v1/reports/admin/diagnostics"), ("POST", "/v1/reports/projector/run")):
                async with session.request(method, address + path) as answer:
                    assert answer.status == 200
        process.send(signal.SIGTERM)
        assert await process.end(within=10) == 0
        lines = [json.loads(line) for line in process.text().splitlines()]
    requests = [line for line in lines if line["message"] == "request" and line["route"].startswith("/v1")]
    assert [(line["status"], line["actor"], line["request_id"], line["level"]) for line in requests] == [
        (200, "admin", "mine", "info")
    ] * 2
    assert all(line["timestamp"] and line["level"] for line in lines)
    assert not {"canary-5ecret", "rpt_of-admin", SECRET} & set(process.text().split('"'))
    assert "canary-5ecret" not in process.text()


async def token(folder: Path, *arguments: str) -> Finished:
    return await projector("token", *arguments, folder=folder, module=MODULE)


async def test_a_token_that_it_makes_comes_in(database: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    await add_org(connection)
    made = await token(tmp_path, "night shift", "--org", public_id(1), "--policy", "REPORT_ADMIN")
    secret, written = made.out.splitlines()
    found = json.loads(written)
    assert (made.status, found["name"], found["org"]) == (0, "night shift", public_id(1))
    assert found["sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in written + made.err
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"tokens": [found]}))
    async with serving(tmp_path, database, reporting_api_credentials_file=str(path)) as (_, address):
        headers = {"Authorization": f"Bearer {secret}"}
        async with aiohttp.ClientSession() as session:
            url = address + "/v1/reports/admin/diagnostics"
            async with session.get(url, headers=headers) as answer:
                assert answer.status == 200
            async with session.get(url, headers={"Authorization": "Bearer rpt_x"}) as answer:
                assert answer.status == 401


async def test_a_token_may_be_for_several_orgs_or_all(tmp_path: Path) -> None:
    both, everything = await asyncio.gather(
        token(tmp_path, "a", "--org", public_id(1), "--org", public_id(2), "--policy", "REPORT_VIEW"),
        token(tmp_path, "a", "--org", "*", "--policy", "REPORT_VIEW", "--policy", "REPORT_ADMIN"),
    )
    assert json.loads(both.out.splitlines()[1])["org"] == [public_id(1), public_id(2)]
    whole = json.loads(everything.out.splitlines()[1])
    assert (whole["org"], whole["policies"]) == ("*", ["REPORT_VIEW", "REPORT_ADMIN"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bad/name", "--org", "*", "--policy", "REPORT_ADMIN"), "name must be 1 to 100 letters"),
        (("a", "--org", "7", "--policy", "REPORT_ADMIN"), "org must be `org_` and 32 hexadecimal digits"),
        (("a", "--org", "*", "--org", public_id(1), "--policy", "REPORT_ADMIN"), "org must be"),
        (("a", "--org", "*", "--policy", "ROOT"), "invalid choice: 'ROOT'"),
        (("a", "--org", "*"), "required: --policy"),
        (("a", "--policy", "REPORT_ADMIN"), "required: --org"),
        ((), "required: NAME"),
    ],
    ids=range(7),
)
async def test_a_token_that_could_not_come_in_is_not_made(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    made = await token(tmp_path, *arguments)
    assert (made.status, made.out) == (2, "")
    assert said in made.err
    assert "Traceback" not in made.err


async def test_help_names_the_commands(tmp_path: Path) -> None:
    ran, none = await asyncio.gather(
        projector("--help", folder=tmp_path, module=MODULE), projector(folder=tmp_path, module=MODULE)
    )
    assert (ran.status, none.status) == (0, 2)
    for command in ("serve", "token"):
        assert f"\n    {command}  " in ran.out


async def test_spans_are_exported_where_an_endpoint_is_set(tmp_path: Path) -> None:
    """A collector of our own; the service must tell it of a request, by route, and of nothing that was in it."""
    got: list[tuple[str, bytes]] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(
            next(line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length"))
        )
        got.append((head.split()[1], await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    trace = "0af7651916cd43dd8448eb211c80319c"
    variables = {"otel_exporter_otlp_endpoint": endpoint, "otel_exporter_otlp_compression": "none"}
    async with serving(tmp_path, NOWHERE, **variables) as (process, address):
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        async with aiohttp.ClientSession() as session:
            async with session.get(address + "/v1/reports/admin/actions?cursor=canary", headers=headers) as answer:
                assert answer.status == 401
            async with session.get(address + "/canary") as answer:
                assert answer.status == 404
        process.send(signal.SIGTERM)
        assert await process.end(within=15) == 0
        lines = [line for line in map(json.loads, process.text().splitlines()) if line["message"] == "request"]
    server.close()
    assert {path for path, _ in got} == {"/v1/traces"}
    sent = b"".join(body for _, body in got)
    assert bytes.fromhex(trace) in sent
    assert b"GET /v1/reports/admin/actions" in sent
    assert b"backfill-api" in sent
    assert b"canary" not in sent
    assert lines[0]["trace_id"] == trace
    assert len(lines[1]["trace_id"]) == 32


async def unready(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(address + "/readyz") as answer:
        return str((await answer.json(content_type=None)).get("detail", ""))


async def test_the_process_says_what_it_waits_for(tmp_path: Path) -> None:
    async with serving(tmp_path, NOWHERE) as (_, address):

        async def told() -> bool:
            return (await unready(address)).startswith("database: cannot be used: ConnectionRefusedError")

        await wait_until(told)
