"""The daemon's HTTP port: /metrics, /livez, /readyz."""

from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class PortError(Exception):
    """The HTTP port cannot be had; the message says which, and why."""


@dataclass(slots=True)
class Health:
    """What the probes tell. Ready as long as nothing stands in the way."""

    obstacles: dict[str, str] = field(default_factory=lambda: {"start": "starting"})
    details: dict[str, str] = field(default_factory=dict)

    def ready(self, topic: str) -> None:
        """Takes an obstacle away."""
        self.obstacles.pop(topic, None)

    def not_ready(self, topic: str, why: str) -> None:
        """Puts an obstacle in the way, in words for an operator."""
        self.obstacles[topic] = why


async def start_http(health: Health, registry: CollectorRegistry, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Starts to serve; gives what stops it, and the port.

    Raises:
        PortError: the port is taken or may not be used, or the host is none of this machine's.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        status = "not ready" if health.obstacles else "ready"
        body = {"status": status, "obstacles": health.obstacles, "details": health.details}
        return web.json_response(body, status=503 if health.obstacles else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise PortError(f"REPORTING_HTTP_HOST={host} REPORTING_HTTP_PORT={port}: {error.strerror}") from error
    return runner, int(runner.addresses[0][1])
