"""What goes over the wire to PostgreSQL, counted on the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Wire:
    """A way to the server that counts.

    Attributes:
        dsn: the database, by this way.
        sent: how many times a client has sent something: about its round trips.
        clients: how many are connected.
    """

    dsn: str
    sent: int = 0
    clients: int = 0


@asynccontextmanager
async def counted(dsn: str) -> AsyncIterator[Wire]:
    """A way to a database that counts what clients send."""
    address = urlsplit(dsn)
    wire = Wire("")
    ways: set[asyncio.Task[None]] = set()

    def count() -> None:
        wire.sent += 1

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            ways.add(task)
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        wire.clients += 1
        await asyncio.gather(_pump(reader, server_writer, count), _pump(server_reader, writer, lambda: None))
        wire.clients -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    wire.dsn = address._replace(netloc=f"{address.netloc.rpartition('@')[0]}@{host}").geturl()
    try:
        yield wire
    finally:
        server.close()
        if ways:
            await asyncio.wait(ways)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tell: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            tell()
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
