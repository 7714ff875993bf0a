"""HTTP as bytes, over a connection of its own: for what no client would send."""

import asyncio
import contextlib
import time


def parsed(sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the first answer."""
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body[: int(headers["content-length"])]


async def closes_of(
    port: int, sent: bytes, *, trickle: bytes = b"", pause: float = 0.1, longest: float
) -> tuple[float, bytes]:
    """How long a connection lives on which this is sent, and then a trickle; and what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    got = bytearray()

    async def read() -> None:
        # A reset is an end too: what was sent into a closed connection causes it.
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                got.extend(part)

    reading = asyncio.create_task(read())
    try:
        writer.write(sent)
        while not reading.done() and time.monotonic() - started < longest:
            if trickle and not writer.is_closing():
                writer.write(trickle)
            await asyncio.wait([reading], timeout=pause)
        assert reading.done(), "the connection stayed open"
        return time.monotonic() - started, bytes(got)
    finally:
        reading.cancel()
        writer.close()
