"""Puts the application together: the endpoints for operators, the probes, the document and its page."""

import json

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from backfill_api.docs import docs_routes
from backfill_api.endpoints import ENDPOINTS
from backfill_api.handlers import Handler, Parts, handler_of
from backfill_api.openapi import build_document
from backfill_api.problems import ApiError, Code
from projector.health import Health

_RETRY_SECONDS = 5


def build_app(parts: Parts, health: Health, registry: CollectorRegistry, *, most_body_bytes: int) -> web.Application:
    """The application.

    Args:
        parts: what the endpoints for operators work with.
        health: what the probes tell.
        registry: what /metrics shows.
        most_body_bytes: the largest body of a request.
    """
    app = web.Application(client_max_size=most_body_bytes)
    for endpoint in ENDPOINTS:
        handler = handler_of(endpoint, parts)
        app.add_routes([_route(endpoint.method, endpoint.path, handler)])
    app.add_routes([*_probes(health, registry), _document(), *docs_routes()])
    return app


def _route(method: str, path: str, handler: Handler) -> web.RouteDef:
    # A GET is answered to HEAD too.
    return web.get(path, handler) if method == "GET" else web.route(method, path, handler)


def _probes(health: Health, registry: CollectorRegistry) -> list[web.RouteDef]:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        if health.obstacles:
            why = "; ".join(f"{topic}: {words}" for topic, words in health.obstacles.items())
            raise ApiError(Code.UNAVAILABLE, why, retry_after=_RETRY_SECONDS)
        return web.json_response({"status": "ready"})

    return [web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)]


def _document() -> web.RouteDef:
    document = json.dumps(build_document(ENDPOINTS), ensure_ascii=False).encode()

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    return web.get("/openapi.json", handle)
