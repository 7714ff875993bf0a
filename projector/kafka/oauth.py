"""Tokens for OAUTHBEARER: from a file, or from an authorization server by client credentials (RFC 6749, 4.4)."""

import asyncio
import json
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

import aiohttp
from aiokafka.abc import AbstractTokenProvider

from projector.kafka.errors import AccessError
from projector.kafka.settings import KafkaSettings

# Shorter than the client's own wait for a connection, which would otherwise hide what is wrong.
_SECONDS = 8.0
# A token is fetched anew when this share of its life has passed, as brokers refuse one that has run out.
_USED_SHARE = 0.8
_SECONDS_IF_UNTOLD = 60.0
_OK = 200


def token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Where the tokens come from by the settings, whose mechanism is OAUTHBEARER."""
    if settings.reporting_kafka_oauth_token_file:
        return TokenFile(settings.reporting_kafka_oauth_token_file)
    secret = settings.reporting_kafka_oauth_client_secret
    return TokenUrl(
        url=settings.reporting_kafka_oauth_token_url or "",
        client_id=settings.reporting_kafka_oauth_client_id or "",
        client_secret=secret.get_secret_value() if secret else "",
        scope=settings.reporting_kafka_oauth_scope,
    )


@dataclass(slots=True)
class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """A file that somebody keeps fresh, as Kubernetes does with a projected token; read for each login."""

    file: Path

    async def token(self) -> str:
        """The token as it is in the file now.

        Raises:
            AccessError: the file cannot be read, is empty, or its token has run out.
        """
        return _unexpired(await asyncio.to_thread(self._read), f"REPORTING_KAFKA_OAUTH_TOKEN_FILE={str(self.file)!r}")

    def _read(self) -> str:
        name = f"REPORTING_KAFKA_OAUTH_TOKEN_FILE={str(self.file)!r}"
        try:
            token = self.file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise AccessError(f"{name} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise AccessError(f"{name} holds no token") from None
        if not token:
            raise AccessError(f"{name} is empty, it should hold a token")
        return token


@dataclass(slots=True)
class TokenUrl(AbstractTokenProvider):  # type: ignore[misc]
    """An authorization server; its token is used for most of its life.

    Attributes:
        clock: seconds, monotonic.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    clock: Callable[[], float] = time.monotonic
    _token: str = field(default="", repr=False)
    _fresh_until: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def token(self) -> str:
        """The token fetched last, or a new one where that is about to run out.

        Raises:
            AccessError: the server cannot be reached, or gives none.
        """
        async with self._lock:
            if self.clock() >= self._fresh_until:
                asked = self.clock()
                self._token, seconds = await self._fetch()
                self._fresh_until = asked + seconds * _USED_SHARE
        return self._token

    async def _fetch(self) -> tuple[str, float]:
        """A new token, and how many seconds it lives."""
        asked = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        # RFC 6749, 2.3.1: both are form-encoded first.
        login = b64encode(f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}".encode()).decode()
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS), trust_env=True) as session,
                session.post(
                    self.url, data=asked, headers={"Authorization": f"Basic {login}"}, allow_redirects=False
                ) as answer,
            ):
                if answer.status != _OK:
                    raise AccessError(f"{_URL} answered {answer.status}: {_HINTS.get(answer.status, _SEE_SERVER)}")
                return _parsed(await answer.json(content_type=None))
        except TimeoutError:
            raise AccessError(f"{_URL} did not answer in {_SECONDS:.0f} s: check its host and the network") from None
        except aiohttp.ClientSSLError:
            raise AccessError(f"{_URL}: no TLS with it, or its certificate is not trusted by this system") from None
        except aiohttp.ClientError as error:
            raise AccessError(f"{_URL} cannot be reached ({type(error).__name__}): check its host and port") from None
        except ValueError:
            raise AccessError(f"{_URL} did not answer with a token: is it the token endpoint?") from None


_URL = "REPORTING_KAFKA_OAUTH_TOKEN_URL"
_SEE_SERVER = "see the server's log"
_CREDENTIALS = (
    "check REPORTING_KAFKA_OAUTH_CLIENT_ID, REPORTING_KAFKA_OAUTH_CLIENT_SECRET and REPORTING_KAFKA_OAUTH_SCOPE"
)
_HINTS = {400: _CREDENTIALS, 401: _CREDENTIALS, 403: _CREDENTIALS, 404: "is it the token endpoint?"}


def _parsed(answer: object) -> tuple[str, float]:
    """Raises: ValueError: there is no token in the answer."""
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(token, str) or not token:
        raise ValueError
    seconds = answer.get("expires_in", _SECONDS_IF_UNTOLD)
    if not isinstance(seconds, int | float | str):
        raise ValueError  # noqa: TRY004 - so that the caller sees one kind
    return token, float(seconds)


def _unexpired(token: str, name: str) -> str:
    """The token, unless it is a JWT that has run out: the client would take the broker's refusal for consent.

    Raises:
        AccessError: it has run out.
    """
    try:
        payload = token.split(".")[1]
        ends = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        has_ended = ends <= time.time()
    except (LookupError, TypeError, ValueError):
        return token  # of another kind: the broker knows
    if has_ended:
        raise AccessError(f"{name} holds a token that has run out: see to what renews it, and to the clocks")
    return token
