"""An issuer of JWTs with real keys, and the web server that it publishes them on. Nothing here uses joserfc."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://id.example.com/", "contextworker"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def encoded(data: bytes | dict[str, Any]) -> str:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int = 0) -> str:
    return encoded(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def jwk(key: Any, kid: str = "", **more: Any) -> dict[str, Any]:
    """The public JWK of a private key."""
    named = {"kid": kid} if kid else {}
    public = key.public_key()
    match public:
        case rsa.RSAPublicKey():
            numbers = public.public_numbers()
            found = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        case ec.EllipticCurvePublicKey():
            point, size = public.public_numbers(), (public.key_size + 7) // 8
            curve = {256: "P-256", 384: "P-384"}[public.key_size]
            found = {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
        case _:
            curve = "Ed448" if isinstance(public, ed448.Ed448PublicKey) else "Ed25519"
            found = {"kty": "OKP", "crv": curve, "x": encoded(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return {**found, **named, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def sign(alg: str, key: Any, data: bytes) -> bytes:
    """A signature; of HS256 with bytes as the secret, of none an empty one."""
    signed: bytes
    match alg:
        case "RS256":
            signed = key.sign(data, padding.PKCS1v15(), SHA256())
        case "PS256":
            signed = key.sign(data, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())
        case "ES256":
            signed = b"".join(
                each.to_bytes(32, "big") for each in decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
            )
        case "HS256":
            signed = hmac.digest(key, data, hashlib.sha256)
        case "none":
            signed = b""
        case _:
            signed = key.sign(data)
    return signed


def jwt(
    claims: dict[str, Any] | bytes | None = None,
    *,
    alg: str = "ES256",
    key: Any = EC,
    kid: str | None = "ec-1",
    header: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """A token: `claims` as they are, or good ones with `more`; None leaves a claim out."""
    if claims is None:
        good = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, "jti": "t-1", "sub": "alex"}
        claims = {name: value for name, value in {**good, **more}.items() if value is not None}
    named = {"alg": alg, "typ": "JWT", **({} if kid is None else {"kid": kid}), **(header or {})}
    data = f"{encoded(named)}.{encoded(claims)}".encode()
    return f"{data.decode()}.{encoded(sign(alg, key, data))}"


class Site(http.server.ThreadingHTTPServer):
    """Publishes keys on loopback.

    Attributes:
        asked: how often it was asked.
        status, headers, body: what it answers.
        open: cleared, it lets whoever asks wait.
    """

    def __init__(self, body: bytes) -> None:
        self.asked, self.status, self.body = 0, 200, body
        self.headers: dict[str, str] = {}
        self.open = threading.Event()
        self.open.set()
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/jwks.json"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        site.asked += 1
        site.open.wait(30)
        self.send_response(site.status)
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(site.body)
        except OSError:
            # Who asked had enough.
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def publishing(body: bytes) -> Iterator[Site]:
    with Site(body) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.open.set()
            site.shutdown()
            thread.join()
