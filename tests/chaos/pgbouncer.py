"""pgbouncer, Debian's, as a process between a test and its database."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from tests.obstacles import wait_until

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(_PROGRAM is None, reason="pgbouncer is not installed: `make packages`")


@asynccontextmanager
async def pgbouncer(dsn: str, *, pool_mode: str = "transaction", **settings: str) -> AsyncIterator[str]:
    """Runs pgbouncer before a server, for all of its databases; gives the same database by this way.

    Args:
        dsn: where it leads to.
        pool_mode: transaction or session.
        settings: further ones of pgbouncer.
    """
    assert _PROGRAM
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        port = _free_port()
        configuration = _write(Path(folder), _configuration(dsn, port, {"pool_mode": pool_mode, **settings}))
        process = await asyncio.create_subprocess_exec(
            _PROGRAM, str(configuration), stdout=DEVNULL, stderr=DEVNULL, user="nobody" if os.geteuid() == 0 else None
        )
        address = urlsplit(dsn)
        way = address._replace(netloc=f"{address.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
        try:
            await _answers(way, process)
            yield way
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _configuration(dsn: str, port: int, settings: dict[str, str]) -> str:
    address = urlsplit(dsn)
    target = {
        "host": address.hostname or "", "port": str(address.port), "user": unquote(address.username or ""),
        "password": unquote(address.password or ""),
    }  # fmt: skip
    general = {
        "listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "auth_type": "any",
        "max_client_conn": "200", "default_pool_size": "4", **settings,
    }  # fmt: skip
    lines = ["[databases]", "* = " + " ".join(f"{name}={value}" for name, value in target.items() if value)]
    lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in general.items())]
    return "\n".join(lines) + "\n"


def _write(folder: Path, configuration: str) -> Path:
    # It refuses to run as root, and whom it runs as instead must be able to read this.
    folder.chmod(0o755)
    path = folder / "pgbouncer.ini"
    path.write_text(configuration, encoding="utf-8")
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def _answers(dsn: str, process: asyncio.subprocess.Process) -> None:
    async def answers() -> bool:
        assert process.returncode is None, "pgbouncer has ended"
        try:
            connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
        except OSError:
            return False
        connection.terminate()
        return True

    await wait_until(answers)
