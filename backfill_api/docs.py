"""The page at /docs: Swagger UI, shipped with the program, so that it works where there is no internet."""

from importlib.resources import files

from aiohttp import web

# Scripts and styles from here alone. Swagger UI sets styles on its elements, and shows icons from data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {
    "/docs": ("index.html", "text/html"),
    "/docs/init.js": ("init.js", "text/javascript"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css"),
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
}


def docs_routes() -> list[web.RouteDef]:
    """The routes of the page and of what it loads. The files are read once, here."""
    folder = files("backfill_api") / "static"
    return [_asset(path, (folder / name).read_bytes(), kind) for path, (name, kind) in _ASSETS.items()]


def _asset(path: str, body: bytes, content_type: str) -> web.RouteDef:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return web.get(path, handle)
