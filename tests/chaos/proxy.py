"""A bad network between a program and PostgreSQL: delays, cuts, half-closes, silence, and commits that go astray.

    async with Proxy(database, random) as proxy:
        ...                                       # a program works on proxy.dsn
        proxy.delay = 0.02                        # from now on, 20 ms on average each way
        random.choice(proxy.links()).cut()
        proxy.on_commit = lambda: CommitFault.DROP_ANSWER

Of the protocol it knows where a client's messages end, and which of them is a COMMIT.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 65_536
_STARTUP = 196_608  # protocol 3.0; what comes before it (requests for TLS) has no type byte either
_COMMIT = b"COMMIT\0"


class CommitFault(StrEnum):
    """What becomes of a COMMIT.

    PASS: nothing.
    DROP: the connection is cut before it reaches the server.
    DROP_ANSWER: the server has committed, and the connection is cut before the client hears of it.
    SILENCE: the server has committed, and the client never hears anything again.
    """

    PASS = "pass"
    DROP = "drop"
    DROP_ANSWER = "drop_answer"
    SILENCE = "silence"


@dataclass(eq=False, slots=True)
class Link:
    """One client's connection, and the server's that belongs to it.

    Attributes:
        silent: all that is sent vanishes, both ways, while both connections stay open.
        fate: what becomes of the answer that comes next.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    silent: bool = False
    fate: CommitFault = CommitFault.PASS
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self) -> None:
        """Resets the connection on both sides."""
        self.cut_off.set()
        for side in (self.client, self.server):
            if side is not None:
                side.transport.abort()

    def half_close(self, *, toward_client: bool) -> None:
        """Tells one side that the other sends nothing more; the other way stays open."""
        side = self.client if toward_client else self.server
        if side is not None and side.can_write_eof() and not side.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                side.write_eof()


class Proxy:
    """A way to a server. Used as a context; at its end all connections are cut.

    Attributes:
        dsn: the database, by this way.
        delay: of each piece that is sent, each way, on average, in seconds.
        silent: what is sent over connections that are made from now on vanishes, too.
        passes: cleared, all that is sent is kept back, and delivered once it is set again, however late.
        on_commit: what becomes of the next COMMIT.
        commits: how many COMMITs met which fate.
    """

    def __init__(self, dsn: str, random: Random) -> None:
        """Args: dsn: where it leads to; random: decides how long each piece takes."""
        self.dsn = ""
        self.delay = 0.0
        self.silent = False
        self.passes = asyncio.Event()
        self.passes.set()
        self.on_commit: Callable[[], CommitFault] = lambda: CommitFault.PASS
        self.commits: Counter[CommitFault] = Counter()
        self._target = urlsplit(dsn)
        self._random = random
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        user = self._target.netloc.rpartition("@")[0]
        self.dsn = self._target._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        for link in self.links():
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def links(self) -> list[Link]:
        """The connections there are now, the oldest first."""
        return [link for link in self._links if not link.cut_off.is_set()]

    def silence(self) -> None:
        """All that is sent over the connections there are now vanishes from now on."""
        for link in self._links:
            link.silent = True

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        link = Link(client, silent=self.silent)
        self._links.add(link)
        # Cancelled at the proxy's end; asyncio's server expects its handlers to end by themselves.
        try:
            with contextlib.suppress(asyncio.CancelledError):
                server_reader, link.server = await asyncio.open_connection(self._target.hostname, self._target.port)
                ways = (
                    self._way_out(link, _messages(client_reader), link.server), self._way_back(link, server_reader),
                )  # fmt: skip
                await asyncio.gather(*ways)
        finally:
            link.cut()
            self._links.discard(link)

    async def _way_out(self, link: Link, messages: AsyncIterator[bytes], server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            async for message in messages:
                if message[:1] == b"Q" and message[5:] == _COMMIT and not link.silent:
                    link.fate = self.on_commit()
                    self.commits[link.fate] += 1
                    if link.fate is CommitFault.DROP:
                        link.cut()
                        return
                await self._deliver(link, message, server)
            await self._end(link, toward_client=False)

    async def _way_back(self, link: Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if link.fate is CommitFault.DROP_ANSWER:
                    link.cut()
                    return
                link.silent = link.silent or link.fate is CommitFault.SILENCE
                await self._deliver(link, data, link.client)
            await self._end(link, toward_client=True)

    async def _deliver(self, link: Link, data: bytes, receiver: asyncio.StreamWriter) -> None:
        await self.passes.wait()
        if self.delay:
            await asyncio.sleep(self._random.uniform(0, 2 * self.delay))
        if not link.silent and not receiver.is_closing():
            receiver.write(data)
            await receiver.drain()

    async def _end(self, link: Link, *, toward_client: bool) -> None:
        """Hands on that one side sends nothing more; in silence, nobody hears of it."""
        await self.passes.wait()
        if link.silent:
            await link.cut_off.wait()
        link.half_close(toward_client=toward_client)


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A client's messages: untyped ones up to the startup, typed ones from then on."""
    started = False
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            kind = await reader.readexactly(1) if started else b""
            length = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(length) - 4)
            started = started or int.from_bytes(body[:4]) == _STARTUP
            yield kind + length + body
