"""One PostgreSQL for all tests: a container where Docker runs, else the embedded server from pip."""

import asyncio
import itertools
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

import schemas
from projector.batch import BatchRules
from projector.database import Timeouts
from projector.demo.embedded import database_dsn, embedded_postgres
from projector.projections import load_registry
from projector.registry import Registry
from projector.settings import OnSourceGone
from tests.chaos.share import (  # noqa: F401 - hooks and a fixture
    chaos,
    pytest_collection_modifyitems,
    pytest_report_header,
)
from tests.roles import OWNER, add_users, as_user, migrate_by_role

SOURCES_SQL = Path(schemas.__file__).parent / "sql" / "sources.sql"
TEMPLATE = "template_reporting"

# Nothing here survives the tests, so nothing needs to reach the disk.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "5s"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the chaos suite; here, as only what lies at the top may add any."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos-full", action="store_true", help="run all attacks in full, not only the share of CI")
    group.addoption("--chaos-seed", type=int, help="the seed that a run has printed, to run the same again")


def pytest_configure() -> None:
    """Lets Ctrl-C reach the processes that tests start: a shell's background jobs ignore it, and hand that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def docker_runs() -> bool:
    """Whether a Docker engine answers."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of the server, as a superuser."""
    if docker_runs():
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415

        command = "postgres " + " ".join(f"-c {name}={value}" for name, value in FAST.items())
        with PostgresContainer("postgres:18-alpine", driver=None).with_command(command) as container:
            asyncio.run(add_users(container.get_connection_url()))
            yield container.get_connection_url()
    else:
        with embedded_postgres(tmp_path_factory.mktemp("postgres"), FAST) as embedded:
            asyncio.run(add_users(embedded.dsn))
            yield embedded.dsn


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """A database with the canonical tables, migrated; copied for each test. Gives the server's DSN, as its owner."""
    owner = as_user(server, OWNER)

    async def build() -> None:
        await run_on(owner, f"CREATE DATABASE {TEMPLATE}")
        dsn = database_dsn(owner, TEMPLATE)
        await run_on(dsn, SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate_by_role(dsn)

    asyncio.run(build())
    return owner


async def run_on(dsn: str, statement: str) -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


_numbers = itertools.count(1)


@pytest.fixture
async def database(template: str) -> AsyncIterator[str]:
    """The DSN of a fresh database: canonical tables, outbox and facts, all empty."""
    name = f"test_{next(_numbers)}"
    # Copying files is several times as quick as the default, which writes every page to the log.
    await run_on(template, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    yield database_dsn(template, name)
    await run_on(template, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database(server: str) -> AsyncIterator[str]:
    """The DSN of a fresh database with nothing in it."""
    name, owner = f"empty_{next(_numbers)}", as_user(server, OWNER)
    await run_on(owner, f"CREATE DATABASE {name}")
    yield database_dsn(owner, name)
    await run_on(owner, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the fresh database."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The projections there are."""
    return load_registry()


@pytest.fixture
def rules(registry: Registry) -> BatchRules:
    """The rules that batches run by, with the defaults of the settings."""
    return BatchRules(registry, Timeouts(statement=30), max_attempts=10, on_source_gone=OnSourceGone.KEEP)
