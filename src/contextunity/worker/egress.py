"""Restrict where a worker's requests may go: one policy for feeds, tools and everything else that fetches for callers.

The URLs come from others: from a settings file with all its redirects, or from a program. So a name is resolved once,
every resolved address is checked, and the connection goes to a checked address: a different DNS answer a moment later
has no effect. A connection is reused only for the scheme, name and port that it was opened for. Redirects are followed
here too, each checked like the first URL. The environment's proxies and .netrc are ignored.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import httpcore
import httpx

from .errors import EgressRefusedError, TooManyRedirectsError
from .quotas import Fetch, counted_fetch

__all__ = [
    "MAX_REDIRECTS",
    "AddressKind",
    "EgressPolicy",
    "EgressRefusedError",
    "EgressTransport",
    "IPAddress",
    "Resolver",
    "TooManyRedirectsError",
    "classify",
    "ip_literal",
    "open_client",
    "origin_of",
    "parse_origin",
    "resolve",
    "retry_after",
    "shown",
    "stream",
]

MAX_REDIRECTS = 5
_LOG = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}
_INVALID_LOCATION = "Invalid URL in location header"
"""Begins the HTTP library's message for a redirect to what is no URL."""
_DRAINED_BYTES = 64 * 1024
"""A redirect's body up to this size is read, so that its connection can be reused."""
_FETCH = "contextworker_fetch"
"""Extension of a request that passes its fetch to the transport."""
_FOR_ONE_ORIGIN = ("authorization", "cookie", "proxy-authorization")

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[IPAddress]]]
"""Return the addresses of a host name and port, the preferred one first.

Raises:
    OSError: the name cannot be resolved.
"""


class AddressKind(enum.Enum):
    """Kind of an address; the value is its description for people."""

    PUBLIC = "a public address"
    LOOPBACK = "a private address (loopback)"
    PRIVATE = "a private address"
    SHARED = "a carrier's shared address (CGNAT)"
    LINK_LOCAL = "a link-local address"
    METADATA = "an address of a cloud's metadata service"
    NAT64 = "a NAT64 address, which contains an IPv4 address"
    SIX_TO_FOUR = "a 6to4 address, which contains an IPv4 address"
    TEREDO = "a Teredo address, which contains an IPv4 address"
    IPV4_MAPPED = "an IPv4-mapped address"
    IPV4_COMPATIBLE = "an IPv4-compatible address"
    MULTICAST = "a multicast address"
    UNSPECIFIED = "the unspecified address"
    RESERVED = "a reserved address"


# The first network that contains an address decides. The list is explicit, because `is_global` changes with Python's
# version, and some of these are global there: NAT64, 6to4, IPv4-compatible, multicast, site-local.
_KINDS: tuple[tuple[IPNetwork, AddressKind], ...] = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        # Amazon, Google, Microsoft, Oracle, Alibaba and compatible clouds.
        ("169.254.169.254/32", AddressKind.METADATA),
        ("169.254.170.2/32", AddressKind.METADATA),
        ("168.63.129.16/32", AddressKind.METADATA),
        ("192.0.0.192/32", AddressKind.METADATA),
        ("100.100.100.200/32", AddressKind.METADATA),
        ("fd00:ec2::/32", AddressKind.METADATA),
        ("fd20:ce::254/128", AddressKind.METADATA),
        ("0.0.0.0/32", AddressKind.UNSPECIFIED),
        ("0.0.0.0/8", AddressKind.RESERVED),
        ("10.0.0.0/8", AddressKind.PRIVATE),
        ("100.64.0.0/10", AddressKind.SHARED),
        ("127.0.0.0/8", AddressKind.LOOPBACK),
        ("169.254.0.0/16", AddressKind.LINK_LOCAL),
        ("172.16.0.0/12", AddressKind.PRIVATE),
        ("192.0.0.0/24", AddressKind.RESERVED),
        ("192.0.2.0/24", AddressKind.RESERVED),
        ("192.88.99.0/24", AddressKind.SIX_TO_FOUR),
        ("192.168.0.0/16", AddressKind.PRIVATE),
        ("198.18.0.0/15", AddressKind.RESERVED),
        ("198.51.100.0/24", AddressKind.RESERVED),
        ("203.0.113.0/24", AddressKind.RESERVED),
        ("224.0.0.0/4", AddressKind.MULTICAST),
        ("240.0.0.0/4", AddressKind.RESERVED),
        ("::/128", AddressKind.UNSPECIFIED),
        ("::1/128", AddressKind.LOOPBACK),
        ("::/96", AddressKind.IPV4_COMPATIBLE),
        ("::ffff:0:0/96", AddressKind.IPV4_MAPPED),
        ("64:ff9b::/96", AddressKind.NAT64),
        ("64:ff9b:1::/48", AddressKind.NAT64),
        ("2001::/32", AddressKind.TEREDO),
        ("2001::/23", AddressKind.RESERVED),
        ("2001:db8::/32", AddressKind.RESERVED),
        ("2002::/16", AddressKind.SIX_TO_FOUR),
        ("3fff::/20", AddressKind.RESERVED),
        ("fc00::/7", AddressKind.PRIVATE),
        ("fe80::/10", AddressKind.LINK_LOCAL),
        ("ff00::/8", AddressKind.MULTICAST),
        # All allocated global addresses are in 2000::/3.
        ("2000::/3", AddressKind.PUBLIC),
        ("0.0.0.0/0", AddressKind.PUBLIC),
        ("::/0", AddressKind.RESERVED),
    )
)
_OPENED_BY_ALLOW_PRIVATE = frozenset({AddressKind.LOOPBACK, AddressKind.PRIVATE})


def classify(address: IPAddress) -> AddressKind:
    """Return the kind of an address. One that contains another, such as an IPv4-mapped one, is not unwrapped."""
    return next(kind for network, kind in _KINDS if address in network)


@dataclass(frozen=True, kw_only=True, slots=True)
class EgressPolicy:
    """Where requests may go. The default allows every public address."""

    allow_private: bool = False
    """Whether private and loopback addresses are allowed, but never link-local ones and metadata."""
    networks: tuple[IPNetwork, ...] = ()
    """Networks that are allowed regardless of their kind, except metadata."""
    origins: frozenset[str] | None = None
    """The only allowed origins, as `origin_of` writes them; None for all. One listed by its address is always
    allowed."""
    endpoints: frozenset[tuple[str, int]] = frozenset()
    """Allowed pairs of address and port, such as of a server that this process started."""
    proxied_hosts: frozenset[str] = frozenset()
    """Hosts that may be requested through a proxy, which resolves names itself."""
    userinfo: bool = True
    """Whether a URL may have a user and password."""
    private_setting: str = ""
    """Setting that would allow a rejected private or loopback address, for the error."""
    origin_setting: str = ""
    """Setting that would allow an unlisted origin, for the error."""
    proxy_setting: str = ""
    """Setting that would allow a host through the proxy, for the error."""

    def check_url(self, url: httpx.URL, *, proxied: bool = False) -> None:
        """Check a URL before its name is resolved.

        Raises:
            EgressRefusedError: the URL is rejected.
        """
        if url.scheme not in _PORTS or not url.host:
            raise EgressRefusedError(url.host, reason=f"{shown(url)} is neither http:// nor https://")
        if url.userinfo and not self.userinfo:
            raise EgressRefusedError(url.host, reason="a URL with a user or password is rejected")
        if self.origins is not None and (origin := _origin(url)) not in self.origins:
            raise EgressRefusedError(
                url.host,
                reason=f"{origin} is not an origin that this deployment allows",
                setting=self.origin_setting,
            )
        if proxied:
            if url.host not in self.proxied_hosts:
                reason = f"{url.host} is not a host that may be requested through the proxy"
                raise EgressRefusedError(url.host, reason=reason, setting=self.proxy_setting)
            literal = ip_literal(url.host)
            if literal is not None:
                self.check_addresses(url.host, url.port or _PORTS[url.scheme], [literal])

    def check_addresses(self, host: str, port: int, addresses: Iterable[IPAddress]) -> None:
        """Check every address of a host: one with any forbidden address is not trusted at all.

        Raises:
            EgressRefusedError: an address is forbidden.
        """
        literal = ip_literal(host)
        for address in addresses:
            kind = classify(address)
            opened = (
                kind is AddressKind.PUBLIC
                or (self.allow_private and kind in _OPENED_BY_ALLOW_PRIVATE)
                or (kind is not AddressKind.METADATA and any(address in network for network in self.networks))
                or (literal == address and self._named(address, port))
            )
            if not opened:
                reason = f"{host} resolves to {kind.value}" if literal is None else f"{host} is {kind.value}"
                reason += f", {address}, which is forbidden" if literal is None else ", which is forbidden"
                setting = self.private_setting if kind in _OPENED_BY_ALLOW_PRIVATE else ""
                raise EgressRefusedError(host, address=str(address), reason=reason, setting=setting)

    def _named(self, address: IPAddress, port: int) -> bool:
        """Whether an address is listed itself, with this port."""
        if (str(address), port) in self.endpoints:
            return True
        origins = self.origins or ()
        return any(origin_of(scheme, str(address), port) in origins for scheme in _PORTS)


async def resolve(host: str, port: int) -> list[IPAddress]:
    """Resolve with the system's resolver. See `Resolver`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (UnicodeError, ValueError) as error:
        # Such as a label of more than 63 characters, which the IDNA encoding rejects.
        raise OSError(f"invalid host name: {error}") from error
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def ip_literal(host: str) -> IPAddress | None:
    """Parse a host that is an address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def origin_of(scheme: str, host: str, port: int | None) -> str:
    """Format an origin, always with its port, an IPv6 address in brackets."""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host.lower()}:{port or _PORTS[scheme]}"


def parse_origin(text: str) -> str:
    """Parse an origin from a settings file, and format it as `origin_of` does.

    Raises:
        ValueError: the text is not an origin.
    """
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError("should be an origin, such as https://api.example.com or http://127.0.0.1:8080")
    return origin_of(parts.scheme, parts.hostname, parts.port)


def shown(url: httpx.URL) -> str:
    """Return a URL without user, password and query, which may contain secrets."""
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))[:200]


def _origin(url: httpx.URL) -> str:
    return origin_of(url.scheme, url.host, url.port)


def open_client(
    policy: EgressPolicy,
    *,
    timeout: float,
    trust: ssl.SSLContext | None = None,
    resolver: Resolver = resolve,
    proxy: str | None = None,
) -> httpx.AsyncClient:
    """Make a client whose requests all follow a policy. The caller closes it. It stores no cookies.

    Args:
        policy: where it may fetch from. The client keeps connections, so one client has one policy.
        timeout: seconds without data after which a request fails.
        trust: trusted certificates; by default those of the HTTP library.
        resolver: resolves names.
        proxy: URL of a proxy for all requests, http:// or https://, with or without user and password. Its own address
            is not checked; the requested hosts must be in the policy's `proxied_hosts`.
    """
    transport = EgressTransport(policy, trust=trust, resolver=resolver, proxy=proxy)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False, cookies=no_cookies)


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, url: str | httpx.URL, *, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[httpx.Response]:
    """Send a request, follow redirects, and yield the response with its body unread.

    A different origin gets no user, password, or header that identifies the caller.

    Raises:
        EgressRefusedError: the client's policy rejects the URL or a redirect, or there are too many redirects.
        EgressBudgetError: the tenant's budget is used up, before or during the fetch; see `quotas.on_budget`.
        httpx.HTTPError: there is no response.
        httpx.InvalidURL: the URL is invalid.
    """
    async with counted_fetch() as fetch, _followed(client, httpx.URL(url), dict(headers or {}), fetch) as response:
        yield response


@asynccontextmanager
async def _followed(
    client: httpx.AsyncClient, here: httpx.URL, headers: dict[str, str], fetch: Fetch | None
) -> AsyncGenerator[httpx.Response]:
    extensions = {} if fetch is None else {_FETCH: fetch}
    for _ in range(MAX_REDIRECTS + 1):
        request = client.build_request("GET", here.copy_with(fragment=None), headers=headers, extensions=extensions)
        try:
            response = await client.send(request, stream=True, follow_redirects=False)
        except httpx.RemoteProtocolError as error:
            if not str(error).startswith(_INVALID_LOCATION):
                raise
            # The library's text quotes a part of the URL, which may be a password.
            raise httpx.RemoteProtocolError(f"{shown(here)} redirects to an invalid URL") from None
        _LOG.debug("GET %s: %d", shown(here), response.status_code)
        try:
            if not response.has_redirect_location:
                yield response
                return
            there = _redirected(here, response)
            await _drain(response)
        finally:
            await response.aclose()
        if _origin_or_none(there) != _origin_or_none(here):
            headers = {name: value for name, value in headers.items() if name.lower() not in _FOR_ONE_ORIGIN}
        here = there
    raise TooManyRedirectsError(here.host, reason=f"{shown(here)} redirects more than {MAX_REDIRECTS} times")


def _redirected(here: httpx.URL, response: httpx.Response) -> httpx.URL:
    try:
        there = here.join(response.headers["location"])
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise httpx.RemoteProtocolError(f"{shown(here)} redirects to an invalid URL") from None
    if _origin_or_none(there) != _origin_or_none(here):
        # Send neither our credentials nor one server's cookies to another.
        return there.copy_with(username=None, password=None) if there.userinfo else there
    if here.userinfo and not there.userinfo:
        return there.copy_with(username=here.username, password=here.password)
    return there


def _origin_or_none(url: httpx.URL) -> str | None:
    return _origin(url) if url.scheme in _PORTS else None


async def _drain(response: httpx.Response) -> None:
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _DRAINED_BYTES:
            return


def retry_after(response: httpx.Response) -> float:
    """Return the seconds of a server's Retry-After, a number or a date; 0 without one."""
    stated = response.headers.get("Retry-After", "").strip()
    if stated.isascii() and stated.isdigit():
        return float(stated[:12])
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


class EgressTransport(httpx.AsyncBaseTransport):
    """Transport of an HTTP client that sends only requests allowed by a policy. See `open_client`."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        trust: ssl.SSLContext | None = None,
        resolver: Resolver = resolve,
        proxy: str | None = None,
    ) -> None:
        """Initialize with a policy. See `open_client`."""
        self._policy, self._proxied = policy, proxy is not None
        trust = trust or httpx.create_ssl_context(trust_env=False)
        # The pool reuses connections by scheme, name and port, and checks the certificate against the name.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust,
            proxy=None if proxy is None else _proxy(proxy, trust),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Backend(None if self._proxied else policy, resolver),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            EgressRefusedError: the policy rejects it.
        """
        url = request.url
        self._policy.check_url(url, proxied=self._proxied)
        extensions = {name: value for name, value in request.extensions.items() if name == "timeout"}
        with _as_httpx():
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=cast("AsyncIterator[bytes]", request.stream),
                    extensions=extensions,
                )
            )
        body = _Body(cast("_Closing", response.stream), request.extensions.get(_FETCH))
        lower_extensions: dict[str, Any] = cast("Any", response).extensions
        return httpx.Response(response.status, headers=response.headers, stream=body, extensions=lower_extensions)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


def _proxy(url: str, trust: ssl.SSLContext) -> httpcore.Proxy:
    parsed = httpx.URL(url)
    return httpcore.Proxy(
        httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=b"/"),
        auth=(parsed.username, parsed.password) if parsed.userinfo else None,
        ssl_context=trust if parsed.scheme == "https" else None,
    )


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens connections to addresses that a policy allows; without a policy, to any."""

    def __init__(self, policy: EgressPolicy | None, resolver: Resolver) -> None:
        self._policy, self._resolver = policy, resolver
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._addresses(host, port, timeout)
        if self._policy is not None:
            self._policy.check_addresses(host, port, addresses)
        # Try one address after the other, each with its share of the timeout: an unreachable one must not use it up.
        each = None if timeout is None else timeout / len(addresses)
        connect = partial(
            self._inner.connect_tcp,
            port=port,
            timeout=each,
            local_address=local_address,
            socket_options=socket_options,
        )
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await connect(str(address))
        return await connect(str(addresses[-1]))

    async def _addresses(self, host: str, port: int, within: float | None) -> Sequence[IPAddress]:
        literal = ip_literal(host)
        if literal is not None:
            return [literal]
        try:
            async with asyncio.timeout(within):
                found = await self._resolver(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} cannot be resolved in time") from None
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error.strerror or error}") from error
        if not found:
            raise httpcore.ConnectError(f"{host} cannot be resolved: it has no address")
        return found

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Closing(Protocol):
    """The body of a response from httpcore."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class _Body(httpx.AsyncByteStream):
    def __init__(self, inner: _Closing, fetch: Fetch | None) -> None:
        self._inner, self._fetch = inner, fetch

    async def __aiter__(self) -> AsyncIterator[bytes]:
        fetch = self._fetch
        with _as_httpx():
            async for part in self._inner:
                if fetch is not None:
                    await fetch.count(len(part))
                yield part

    async def aclose(self) -> None:
        with _as_httpx():
            await self._inner.aclose()


@contextmanager
def _as_httpx() -> Generator[None]:
    """Convert httpcore's errors into httpx's, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error
