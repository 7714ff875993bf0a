"""Credentials for tests: token files, keys that sign JWTs, and a server of their JWKS."""

import asyncio
import datetime as dt
import hashlib
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import jwt
import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms
from structlog.testing import CapturingLogger

ORG, OTHER_ORG = "org_" + "0a" * 16, "org_" + "b1" * 16
ISSUER, AUDIENCE = "https://issuer.example", "reports"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self._said = CapturingLogger()
        self.log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            self._said, processors=[structlog.processors.JSONRenderer()], wrapper_class=structlog.BoundLogger
        )

    def __iter__(self) -> Any:
        """Level and text of each line."""
        return iter([(call.method_name, str(call.args[0])) for call in self._said.calls])


def entry(token: str, **fields: object) -> dict[str, object]:
    """A token as it stands in the file."""
    hashed = hashlib.sha256(token.encode()).hexdigest()
    return {"name": "ops", "sha256": hashed, "org": ORG, "policies": ["REPORT_VIEW"]} | fields


def write_tokens(path: Path, *entries: dict[str, object]) -> None:
    path.write_text(json.dumps({"tokens": entries}))


@dataclass
class Signer:
    """A private key with what a JWKS says of it."""

    kid: str
    algorithm: str
    private: Any

    @classmethod
    def new(cls, kid: str, algorithm: str, bits: int = 2048) -> "Signer":
        if algorithm == "EdDSA":
            return cls(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
        if algorithm.startswith("ES"):
            curves: dict[str, ec.EllipticCurve] = {
                "ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1(),
            }  # fmt: skip
            return cls(kid, algorithm, ec.generate_private_key(curves[algorithm]))
        return cls(kid, algorithm, rsa.generate_private_key(65537, bits))

    def jwk(self, **more: object) -> dict[str, Any]:
        """The public key as a member of a JWKS; a field given as None is left out."""
        whole = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key()))
        # As issuers publish them, without what only some libraries write.
        whole.pop("key_ops", None)
        whole |= {"kid": self.kid, "alg": self.algorithm, "use": "sig"} | more
        return {name: value for name, value in whole.items() if value is not None}

    def private_jwk(self) -> dict[str, Any]:
        """The private key, as nobody should publish it."""
        private: dict[str, Any] = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private))
        private.pop("key_ops", None)
        return self.jwk() | private

    def pem(self) -> bytes:
        return bytes(
            self.private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def token(self, **claims: object) -> str:
        """A valid JWT, but for what is given; a claim given as None is left out."""
        return self.signed({"kid": self.kid}, claims_with(**claims))

    def signed(self, header: dict[str, object], claims: dict[str, Any]) -> str:
        """A JWT with any header and claims: not even a library's own checks stand in the way."""
        return jwt.api_jws.encode(json.dumps(claims).encode(), self.private, self.algorithm, headers=header)


def claims_with(**claims: object) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "iat": now, "sub": "alice", "org": ORG, "role": "admin",
    } | claims  # fmt: skip
    return {name: value for name, value in whole.items() if value is not None}


def jwks(*members: Mapping[str, object]) -> dict[str, Any]:
    return {"keys": list(members)}


@dataclass
class JwksServer:
    """An https server on a socket that counts how often it is asked.

    Attributes:
        answer: `serve` the document, `fail` (status 500, document and all), `redirect`, or `hang` until `released`.
        asked: set by the first request.
    """

    document: Any
    answer: Literal["serve", "fail", "redirect", "hang"] = "serve"
    fetches: int = 0
    url: str = ""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    trust: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def session(self) -> aiohttp.ClientSession:
        """A session that trusts the server's certificate, and no other."""
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust))

    async def handle(self, request: web.Request) -> web.Response:
        self.fetches += 1
        self.asked.set()
        if self.answer == "hang":
            await self.released.wait()
        if self.answer == "redirect" and request.path != "/elsewhere":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        text = self.document if isinstance(self.document, str) else json.dumps(self.document)
        status = 500 if self.answer == "fail" else 200
        return web.Response(text=text, content_type="application/json", status=status)


@asynccontextmanager
async def jwks_server(folder: Path, document: Any) -> AsyncIterator[JwksServer]:
    """Serves a JWKS on loopback, with a certificate made for it in `folder`."""
    server = JwksServer(document)
    certificate = _certificate(folder)
    server.trust.load_verify_locations(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    app = web.Application()
    app.add_routes([web.get("/jwks", server.handle), web.get("/elsewhere", server.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        server.url = f"https://127.0.0.1:{runner.addresses[0][1]}/jwks"
        yield server
    finally:
        server.released.set()
        await runner.cleanup()


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jwks")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "jwks.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
