"""The tool `http_get`: fetches from the origins that an operator has listed, and from nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contextunity.core.codec import JsonValue

from ..errors import ToolFailedError, ToolRefusedError
from ._model import Tool, ToolCaller, ToolContext, ToolFunction

__all__ = ["HttpGetSettings", "tool"]

_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_TOLD_HEADERS = ("content-type", "etag", "last-modified", "retry-after")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError("should be an origin, such as https://api.example.com or http://127.0.0.1:8080")
    return _shown(parts.scheme, parts.hostname, parts.port)


def _shown(scheme: str, host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host.lower()}:{port or _PORTS[scheme]}"


class HttpGetSettings(BaseModel):
    """`[modules.code.tools.http_get]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """Origins that may be fetched from, such as https://api.example.com. None unless given."""
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Networks of private addresses that a listed name may lead to; the address of an origin that is listed by its
    address needs no entry. Other private, loopback and link-local addresses are refused, wherever a name leads."""
    max_bytes: int = Field(default=256 * 1024, gt=0, le=1024 * 1024)
    """The longest body."""
    timeout: float = Field(default=10.0, gt=0, le=60)
    """Seconds that a call may take, redirects included."""


@contextlib.asynccontextmanager
async def _open(context: ToolContext) -> AsyncGenerator[ToolFunction, None]:
    settings: HttpGetSettings = context.settings
    trust = httpx.create_ssl_context(trust_env=False)

    async def http_get(caller: ToolCaller, url: str, /, params: dict[str, Any] | None = None) -> JsonValue:
        checked = _checked_url(url, params)
        # A client for each call, and no connection used twice: connections are told apart by their address, to which
        # several names may lead, and only the first one's certificate would have been looked at. It takes no proxies
        # and no .netrc of the worker's.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(verify=trust, trust_env=False, limits=limits, timeout=settings.timeout) as client:
            return await _fetch(client, settings, checked)

    yield http_get


def _checked_url(url: object, params: dict[str, Any] | None) -> httpx.URL:
    """Both come from a program, and may be anything."""
    if not isinstance(url, str):
        raise ToolRefusedError(f"http_get takes the address as text, not {type(url).__name__}", error_type="TypeError")
    if not isinstance(params, dict | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ToolRefusedError("http_get takes params as a dict", error_type="TypeError")
    try:
        parsed = httpx.URL(url)
        return parsed.copy_merge_params({str(key): str(value) for key, value in params.items()}) if params else parsed
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ToolRefusedError(f"{url[:200]!r} is no address: {error}") from None


async def _fetch(client: httpx.AsyncClient, settings: HttpGetSettings, url: httpx.URL) -> JsonValue:
    try:
        async with asyncio.timeout(settings.timeout):
            for _ in range(_MAX_REDIRECTS + 1):
                answer = await _fetch_once(client, settings, url)
                if isinstance(answer, dict):
                    return answer
                url = answer
    except TimeoutError:
        raise ToolFailedError(f"{_told(url)} did not answer within {settings.timeout:g} s") from None
    except httpx.HTTPError as error:
        raise ToolFailedError(f"{_told(url)} cannot be fetched: {type(error).__name__}: {error}") from error
    raise ToolRefusedError(f"{_told(url)} redirects more than {_MAX_REDIRECTS} times", error_type="OSError")


async def _fetch_once(
    client: httpx.AsyncClient, settings: HttpGetSettings, url: httpx.URL
) -> dict[str, JsonValue] | httpx.URL:
    """The answer, or where it redirects to."""
    address = await _address(settings, url)
    client.cookies.clear()
    # Connected to is the address that was looked at, whatever the name leads to by now; the name goes along for TLS,
    # whose certificate is checked against it, and for the server.
    request = client.build_request(
        "GET",
        url.copy_with(host=str(address), fragment=None),
        headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        extensions={"sni_hostname": url.host},
    )
    response = await client.send(request, stream=True)
    try:
        if response.is_redirect:
            return url.join(response.headers["location"])
        if response.status_code >= 500 or response.status_code == 429:
            raise ToolFailedError(f"{_told(url)} answered {response.status_code}")
        body = await _body(response, settings, url)
    finally:
        await response.aclose()
    headers: dict[str, JsonValue] = {name: response.headers[name] for name in _TOLD_HEADERS if name in response.headers}
    return {"status": response.status_code, "url": str(url), "headers": headers, "body": body}


async def _body(response: httpx.Response, settings: HttpGetSettings, url: httpx.URL) -> str:
    if response.headers.get("content-encoding", "identity") != "identity":
        # Unpacked it could take any size.
        raise ToolRefusedError(f"{_told(url)} answers compressed although asked not to", error_type="OSError")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > settings.max_bytes:
            raise ToolRefusedError(f"{_told(url)} answers more than {settings.max_bytes:,} bytes", error_type="OSError")
    encoding = response.charset_encoding or "utf-8"
    try:
        return data.decode(encoding, "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    except LookupError:
        return data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


async def _address(settings: HttpGetSettings, url: httpx.URL) -> _Address:
    """The address to connect to, after a look at where the name leads.

    Raises:
        ToolRefusedError: the origin is not listed, or leads to an address that is refused.
    """
    if url.scheme not in _PORTS or not url.host:
        raise ToolRefusedError(f"{_told(url)} is neither http:// nor https://", error_type="PermissionError")
    if url.userinfo:
        raise ToolRefusedError("an address with a user or password is refused", error_type="PermissionError")
    origin = _shown(url.scheme, url.host, url.port)
    if origin not in settings.allow:
        raise ToolRefusedError(
            f"{origin} is not among the origins that this deployment allows", error_type="PermissionError"
        )
    literal = _literal(url.host)
    if literal is not None:
        return literal
    port = url.port or _PORTS[url.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ToolFailedError(f"{url.host} cannot be resolved: {error.strerror or error}") from error
    addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
    # Every one: a name that leads inside as well is not to be trusted with the outside either.
    for address in addresses:
        if not _is_public(address) and not any(address in network for network in settings.networks):
            raise ToolRefusedError(
                f"{url.host} leads to a private address, which is refused unless its network is listed",
                error_type="PermissionError",
            )
    if not addresses:
        raise ToolFailedError(f"{url.host} cannot be resolved: it has no address")
    return addresses[0]


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_public(address: _Address) -> bool:
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (inner is None or inner.is_global)


def _told(url: httpx.URL) -> str:
    """An address without its query, which may hold secrets."""
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))[:200]


tool = Tool(
    name="http_get",
    open=_open,
    settings=HttpGetSettings,
    description="http_get(url, params=None) fetches from a listed origin: status, url, headers and body.",
)
"""http_get(url, params=None) → {"status", "url", "headers", "body"}."""
