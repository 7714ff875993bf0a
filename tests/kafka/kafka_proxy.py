"""A way to a broker on which answers to produce requests are lost: the broker has the messages, and nobody is told."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

_PRODUCE = 0  # the request's number in the protocol


class KafkaProxy:
    """Used as a context, before the broker is there: what this advertises is the proxy's address.

    Attributes:
        port: where clients come to.
        target: the broker's own port.
        loses: whether the answer to the next produce request is lost, and the connection with it.
        lost: how many were.
    """

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self.loses: Callable[[], bool] = lambda: False
        self.lost = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            broker_reader, broker = await asyncio.open_connection("127.0.0.1", self.target)
            doomed: set[bytes] = set()
            try:
                ways = (self._requests(reader, broker, doomed), self._answers(broker_reader, writer, doomed))
                ended, others = await asyncio.wait(map(asyncio.ensure_future, ways), return_when="FIRST_COMPLETED")
                for other in others:
                    other.cancel()
                await asyncio.gather(*ended, *others, return_exceptions=True)
            finally:
                broker.transport.abort()
                writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, broker: asyncio.StreamWriter, doomed: set[bytes]) -> None:
        while True:
            frame = await _frame(reader)
            if int.from_bytes(frame[4:6]) == _PRODUCE and self.loses():
                doomed.add(frame[8:12])
            broker.write(frame)
            await broker.drain()

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, doomed: set[bytes]) -> None:
        while True:
            frame = await _frame(reader)
            if frame[4:8] in doomed:
                self.lost += 1
                return
            client.write(frame)
            await client.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """A request (length, its number, its version, what it is called) or an answer (length, what it was called)."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length))
