"""The tool `http_get`: fetches only from the origins that an operator has listed."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contextunity.core.codec import JsonValue
from contextunity.worker import egress

from ..errors import ToolFailedError, ToolRefusedError
from . import Tool, ToolCaller, ToolContext, ToolFunction

__all__ = ["HttpGetSettings", "tool"]

_TOLD_HEADERS = ("content-type", "etag", "last-modified", "retry-after")


class HttpGetSettings(BaseModel):
    """`[modules.code.tools.http_get]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[Annotated[str, AfterValidator(egress.parse_origin)], ...] = ()
    """Allowed origins, such as https://api.example.com. None by default."""
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Networks of non-public addresses that a listed name may resolve to, except metadata. An origin listed by its
    address needs no entry. Other non-public addresses are rejected."""
    max_bytes: int = Field(default=256 * 1024, gt=0, le=1024 * 1024)
    """Maximum bytes of a body."""
    timeout: float = Field(default=10.0, gt=0, le=60)
    """Timeout of a call in seconds, including redirects."""


@contextlib.asynccontextmanager
async def _open(context: ToolContext) -> AsyncGenerator[ToolFunction, None]:
    settings: HttpGetSettings = context.settings
    policy = egress.EgressPolicy(
        origins=frozenset(settings.allow),
        networks=settings.networks,
        userinfo=False,
        origin_setting="list it in allow of [modules.code.tools.http_get]",
        private_setting="list its network in networks of [modules.code.tools.http_get]",
    )
    async with egress.open_client(policy, timeout=settings.timeout) as client:

        async def http_get(caller: ToolCaller, url: str, /, params: dict[str, Any] | None = None) -> JsonValue:
            return await _fetch(client, settings, _checked_url(url, params))

        yield http_get


def _checked_url(url: object, params: dict[str, Any] | None) -> httpx.URL:
    """Check arguments from a program, which may have any type."""
    if not isinstance(url, str):
        raise ToolRefusedError(f"http_get needs the URL as a string, not {type(url).__name__}", error_type="TypeError")
    if not isinstance(params, dict | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ToolRefusedError("http_get needs params as a dict", error_type="TypeError")
    try:
        parsed = httpx.URL(url)
        return parsed.copy_merge_params({str(key): str(value) for key, value in params.items()}) if params else parsed
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ToolRefusedError(f"{url[:200]!r} is not a valid URL: {error}") from None


async def _fetch(client: httpx.AsyncClient, settings: HttpGetSettings, url: httpx.URL) -> JsonValue:
    try:
        async with asyncio.timeout(settings.timeout):
            return await _fetch_in_time(client, settings, url)
    except TimeoutError:
        raise ToolFailedError(f"{egress.shown(url)} did not answer within {settings.timeout:g} s") from None
    except egress.EgressRefusedError as error:
        kind = "OSError" if isinstance(error, egress.TooManyRedirectsError) else "PermissionError"
        raise ToolRefusedError(str(error), error_type=kind) from error
    except httpx.HTTPError as error:
        raise ToolFailedError(f"{egress.shown(url)} cannot be fetched: {type(error).__name__}: {error}") from error


async def _fetch_in_time(client: httpx.AsyncClient, settings: HttpGetSettings, url: httpx.URL) -> JsonValue:
    async with egress.stream(client, url, headers={"Accept-Encoding": "identity"}) as response:
        there = response.url
        if response.status_code >= 500 or response.status_code == 429:
            raise ToolFailedError(
                f"{egress.shown(there)} answered {response.status_code}", retry_after=egress.retry_after(response)
            )
        body = await _body(response, settings, there)
    headers: dict[str, JsonValue] = {name: response.headers[name] for name in _TOLD_HEADERS if name in response.headers}
    return {"status": response.status_code, "url": str(there), "headers": headers, "body": body}


async def _body(response: httpx.Response, settings: HttpGetSettings, url: httpx.URL) -> str:
    if response.headers.get("content-encoding", "identity") != "identity":
        # Decompressed it could have any size.
        raise ToolRefusedError(f"{egress.shown(url)} answers compressed, against Accept-Encoding", error_type="OSError")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > settings.max_bytes:
            raise ToolRefusedError(
                f"{egress.shown(url)} answers more than {settings.max_bytes:,} bytes", error_type="OSError"
            )
    encoding = response.charset_encoding or "utf-8"
    try:
        return data.decode(encoding, "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    except LookupError:
        return data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


tool = Tool(
    name="http_get",
    open=_open,
    settings=HttpGetSettings,
    description="http_get(url, params=None) fetches from a listed origin: status, url, headers and body.",
)
"""http_get(url, params=None) → {"status", "url", "headers", "body"}."""
