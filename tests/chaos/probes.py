"""What a daemon's HTTP port says while all is at work."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.obstacles import wait_until
from tests.processes import Running

_SERVING = "serving /metrics, /livez and /readyz"


async def probe(daemon: Running, path: str = "/readyz") -> tuple[int, str]:
    """Asks a daemon's port; gives status and body."""
    await daemon.has_logged(_SERVING)
    (line,) = daemon.logged(_SERVING)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{line['port']}{path}") as response:
        return response.status, await response.text()


async def says(daemon: Running, words: str, seconds: float = 30) -> None:
    """Waits until /readyz answers 503 with these words."""

    async def said() -> bool:
        status, body = await probe(daemon)
        return status == 503 and words in body

    await wait_until(said, seconds)


async def is_ready(daemon: Running, seconds: float = 30) -> None:
    """Waits until /readyz answers 200."""

    async def ready() -> bool:
        return (await probe(daemon))[0] == 200

    await wait_until(ready, seconds)


async def metrics(daemon: Running) -> dict[tuple[str, ...], float]:
    """A daemon's samples, by name and the values of its labels."""
    _, text = await probe(daemon, "/metrics")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
