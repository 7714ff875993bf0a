"""An authorization server for OAUTHBEARER, as small as can be."""

import json
import time
from base64 import b64decode, urlsafe_b64encode
from urllib.parse import unquote_plus

from aiohttp import web

from projector.demo.companion import free_port

SECRET = "s3cr3t & more:%"


def unsigned_token(user: str, seconds: float = 3600) -> str:
    """A token that tests' brokers take, for a user; runs out in so many seconds."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": user, "iat": now - 3600, "exp": now + int(seconds)})
    encoded = (urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join((*encoded, ""))


class TokenServer:
    """Gives tokens for one user to the client `us`.

    Attributes:
        asked: how often a token was asked for.
        last: what was asked last.
        answer: what it says whatever is asked; None: a token.
        seconds: how long its tokens live.
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self.asked, self.seconds = 0, 600
        self.last: dict[str, str] = {}
        self.answer: web.Response | None = None
        self._runner: web.AppRunner | None = None
        self.url = f"http://127.0.0.1:{free_port()}/token"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", int(self.url.split(":")[2].partition("/")[0])).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _token(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.last = {name: str(value) for name, value in (await request.post()).items()}
        if self.answer is not None:
            return self.answer
        login = b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode().split(":")
        if [unquote_plus(part) for part in login] != ["us", SECRET]:
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"access_token": unsigned_token(self._user), "expires_in": self.seconds})
