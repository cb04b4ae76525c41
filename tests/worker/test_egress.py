"""The egress policy: what addresses are, what is connected to, and what a redirect may lead to."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contextunity.worker import quotas as quotas_module
from contextunity.worker.egress import (
    AddressKind,
    EgressPolicy,
    EgressRefusedError,
    IPAddress,
    TooManyRedirectsError,
    classify,
    open_client,
    stream,
)
from contextunity.worker.quotas import EgressBudgetError, Quotas, on_budget
from contextunity.worker.settings import TenantQuotas

_OPEN = "127.0.0.2"
"""Stands for the outside: this address alone is open, by `networks`, so that all of 127.0.0.1 is still inside."""
_OUTSIDE = EgressPolicy(networks=(ipaddress.ip_network(f"{_OPEN}/32"),), private_setting="set it")


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    local: str


@dataclass
class Server:
    """Answers over real sockets on every address of 127.0.0.0/8."""

    port: int = 0
    keep: bool = False
    asked: list[Asked] = field(default_factory=list[Asked])
    redirects: dict[str, str] = field(default_factory=dict[str, str])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().rstrip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                path = first.split(" ")[1]
                self.asked.append(Asked(path, headers, writer.get_extra_info("sockname")[0]))
                there = self.redirects.get(path)
                status = f"302 Found\r\nLocation: {there}" if there else "200 OK"
                closing = "" if self.keep else "Connection: close\r\n"
                writer.write(f"HTTP/1.1 {status}\r\nSet-Cookie: a=b\r\n{closing}Content-Length: 2\r\n\r\nok".encode())
                await writer.drain()
                if not self.keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    listening = await asyncio.start_server(server.serve, "0.0.0.0", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@dataclass
class Names:
    """A resolver that answers from a list for each name, and the last of it for ever."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list[str])

    async def __call__(self, host: str, port: int) -> list[IPAddress]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if answers is None:
            raise OSError("no such name")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(text) for text in found]


async def get(client: httpx.AsyncClient, url: str, **headers: str) -> int:
    async with stream(client, url, headers=headers) as response:
        assert await response.aread() == b"ok"
        return response.status_code


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("93.184.215.14", AddressKind.PUBLIC),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", AddressKind.PUBLIC),
        ("127.0.0.1", AddressKind.LOOPBACK),
        ("127.255.255.254", AddressKind.LOOPBACK),
        ("::1", AddressKind.LOOPBACK),
        ("10.0.0.1", AddressKind.PRIVATE),
        ("172.16.0.1", AddressKind.PRIVATE),
        ("172.31.255.255", AddressKind.PRIVATE),
        ("172.32.0.1", AddressKind.PUBLIC),
        ("192.168.1.1", AddressKind.PRIVATE),
        ("fc00::1", AddressKind.PRIVATE),
        ("fd12::1", AddressKind.PRIVATE),
        ("169.254.0.1", AddressKind.LINK_LOCAL),
        ("fe80::1", AddressKind.LINK_LOCAL),
        ("fe80::1%eth0", AddressKind.LINK_LOCAL),
        ("169.254.169.254", AddressKind.METADATA),
        ("169.254.170.2", AddressKind.METADATA),
        ("fd00:ec2::254", AddressKind.METADATA),
        ("168.63.129.16", AddressKind.METADATA),
        ("100.100.100.200", AddressKind.METADATA),
        ("100.64.0.1", AddressKind.SHARED),
        ("100.127.255.255", AddressKind.SHARED),
        ("64:ff9b::7f00:1", AddressKind.NAT64),
        ("64:ff9b::5db8:d70e", AddressKind.NAT64),
        ("64:ff9b:1::1", AddressKind.NAT64),
        ("2002:7f00:1::", AddressKind.SIX_TO_FOUR),
        ("2001::1", AddressKind.TEREDO),
        ("::ffff:127.0.0.1", AddressKind.IPV4_MAPPED),
        ("::ffff:93.184.215.14", AddressKind.IPV4_MAPPED),
        ("::127.0.0.1", AddressKind.IPV4_COMPATIBLE),
        ("224.0.0.1", AddressKind.MULTICAST),
        ("ff02::1", AddressKind.MULTICAST),
        ("0.0.0.0", AddressKind.UNSPECIFIED),
        ("::", AddressKind.UNSPECIFIED),
        ("0.1.2.3", AddressKind.RESERVED),
        ("192.0.0.8", AddressKind.RESERVED),
        ("198.18.0.1", AddressKind.RESERVED),
        ("240.0.0.1", AddressKind.RESERVED),
        ("255.255.255.255", AddressKind.RESERVED),
        ("2001:db8::1", AddressKind.RESERVED),
        ("fec0::1", AddressKind.RESERVED),
        ("::ffff:0:7f00:1", AddressKind.RESERVED),
    ],
)
def test_what_addresses_are(address: str, kind: AddressKind) -> None:
    found = ipaddress.ip_address(address)
    assert classify(found) is kind
    opened = {AddressKind.PUBLIC, AddressKind.LOOPBACK, AddressKind.PRIVATE}
    for policy, kinds in ((EgressPolicy(), {AddressKind.PUBLIC}), (EgressPolicy(allow_private=True), opened)):
        for host in ("name.test", address):
            if kind in kinds:
                policy.check_addresses(host, 80, [found])
            else:
                with pytest.raises(EgressRefusedError, match="which is forbidden") as caught:
                    policy.check_addresses(host, 80, [found])
                assert (caught.value.host, caught.value.address) == (host, str(found))


async def test_a_name_that_leads_inside_as_well_is_refused_whole() -> None:
    names = Names({"shop.test": [["93.184.215.14", "10.0.0.1"]]})
    policy = EgressPolicy(private_setting="set allow_private = true")
    async with open_client(policy, timeout=5, resolver=names) as client:
        with pytest.raises(EgressRefusedError) as caught:
            await get(client, "http://shop.test/")
    assert str(caught.value) == (
        "shop.test resolves to a private address, 10.0.0.1, which is forbidden; set allow_private = true"
    )


async def test_a_name_that_leads_elsewhere_the_second_time_is_asked_once_for_each_connection() -> None:
    names = Names({"shop.test": [[_OPEN], ["127.0.0.1"]]})
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        url = f"http://shop.test:{server.port}/feed"
        assert await get(client, url) == 200
        assert names.asked == ["shop.test"]
        assert [(each.local, each.headers["host"]) for each in server.asked] == [(_OPEN, f"shop.test:{server.port}")]
        with pytest.raises(EgressRefusedError, match="resolves to a private address"):
            await get(client, url)
        assert len(server.asked) == 1


async def test_a_connection_that_is_kept_serves_no_other_name() -> None:
    names = Names({"shop.test": [[_OPEN], ["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with serving(Server(keep=True)) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        for _ in range(3):
            assert await get(client, f"http://shop.test:{server.port}/") == 200
        assert names.asked == ["shop.test"]
        for host in ("other.test", "127.0.0.1"):
            with pytest.raises(EgressRefusedError):
                await get(client, f"http://{host}:{server.port}/")
        assert len(server.asked) == 3


async def test_an_address_without_a_road_gives_way_to_the_next() -> None:
    names = Names({"shop.test": [["127.0.0.9", _OPEN]]})
    policy = EgressPolicy(allow_private=True)
    server = Server()
    listening = await asyncio.start_server(server.serve, _OPEN, 0)
    async with listening, open_client(policy, timeout=5, resolver=names) as client:
        assert await get(client, f"http://shop.test:{listening.sockets[0].getsockname()[1]}/") == 200
    assert [each.local for each in server.asked] == [_OPEN]


@pytest.mark.parametrize(
    ("there", "told"),
    [
        pytest.param("http://127.0.0.1:{port}/", "127.0.0.1 is a private address", id="loopback"),
        pytest.param("http://inside.test:{port}/", "inside.test resolves to a private address", id="name"),
        pytest.param("http://2130706433:{port}/", "2130706433 resolves to a private address", id="number"),
        pytest.param("http://169.254.169.254/latest", "metadata", id="metadata"),
        pytest.param("http://[::ffff:127.0.0.1]:{port}/", "IPv4-mapped", id="mapped"),
        pytest.param("//127.0.0.1:{port}/", "127.0.0.1 is a private address", id="without a scheme"),
        pytest.param("file:///etc/passwd", "neither http:// nor https://", id="file"),
    ],
)
async def test_a_redirect_inside_is_refused(there: str, told: str) -> None:
    names = Names({"shop.test": [[_OPEN]], "inside.test": [["127.0.0.1"]], "2130706433": [["127.0.0.1"]]})
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        server.redirects["/feed"] = there.format(port=server.port)
        with pytest.raises(EgressRefusedError, match=told):
            await get(client, f"http://shop.test:{server.port}/feed")
        assert [each.path for each in server.asked] == ["/feed"]


async def test_five_redirects_are_followed_and_no_more() -> None:
    names = Names({"shop.test": [[_OPEN]]})
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        server.redirects = {f"/{number}": f"/{number + 1}" for number in range(6)}
        assert await get(client, f"http://shop.test:{server.port}/1") == 200
        with pytest.raises(TooManyRedirectsError, match="redirects more than 5 times"):
            await get(client, f"http://shop.test:{server.port}/0")


async def test_another_origin_is_not_told_who_asks() -> None:
    names = Names({"shop.test": [[_OPEN]], "cdn.test": [[_OPEN]]})
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        server.redirects = {"/a": "/b", "/b": f"http://evil:word@cdn.test:{server.port}/c", "/c": "/d"}
        assert await get(client, f"http://me:secret@shop.test:{server.port}/a", Cookie="x=y", Range="bytes=0-1") == 200
        own = "Basic " + base64.b64encode(b"me:secret").decode()
        assert [(each.path, each.headers.get("authorization")) for each in server.asked] == [
            ("/a", own),
            ("/b", own),
            ("/c", None),
            ("/d", None),
        ]
        assert [each.headers.get("cookie") for each in server.asked] == ["x=y", "x=y", None, None]
        assert {each.headers["range"] for each in server.asked} == {"bytes=0-1"}


async def test_proxies_and_passwords_of_the_environment_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    names = Names({"shop.test": [[_OPEN]]})
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5, resolver=names) as client:
        assert await get(client, f"http://shop.test:{server.port}/") == 200
        assert "authorization" not in server.asked[0].headers


async def test_a_proxy_is_asked_for_listed_hosts_alone() -> None:
    policy = EgressPolicy(proxied_hosts=frozenset({"shop.test", "10.0.0.1"}), proxy_setting="list it")
    names = Names({})
    async with serving(Server()) as proxy:
        proxy.redirects = {"http://shop.test/away": "http://elsewhere.test/feed"}
        url = f"http://me:secret@127.0.0.1:{proxy.port}"
        async with open_client(policy, timeout=5, resolver=names, proxy=url) as client:
            assert await get(client, "http://shop.test/feed") == 200
            with pytest.raises(EgressRefusedError, match=r"elsewhere\.test is not a host that .*; list it"):
                await get(client, "http://shop.test/away")
            with pytest.raises(EgressRefusedError, match=r"10\.0\.0\.1 is a private address"):
                await get(client, "http://10.0.0.1/feed")
        own = "Basic " + base64.b64encode(b"me:secret").decode()
        assert [(each.path, each.headers["proxy-authorization"]) for each in proxy.asked] == [
            ("http://shop.test/feed", own),
            ("http://shop.test/away", own),
        ]
        assert names.asked == []


async def test_a_certificate_is_held_against_the_name(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(private + pem)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "server.pem")
    trust = ssl.create_default_context(cadata=pem.decode())
    names = Names({"shop.test": [[_OPEN]], "other.test": [[_OPEN]]})
    async with (
        serving(Server(keep=True), own) as server,
        open_client(_OUTSIDE, timeout=5, trust=trust, resolver=names) as client,
    ):
        assert await get(client, f"https://shop.test:{server.port}/") == 200
        # The connection to the same address is there, and is not taken for this name.
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await get(client, f"https://other.test:{server.port}/")
        assert [each.headers["host"] for each in server.asked] == [f"shop.test:{server.port}"]


async def test_an_endpoint_is_open_by_exactly_its_address_and_port() -> None:
    names = Names({"name.test": [["127.0.0.1"]]})
    async with serving(Server()) as server, serving(Server()) as other:
        policy = EgressPolicy(endpoints=frozenset({("127.0.0.1", server.port)}))
        async with open_client(policy, timeout=5, resolver=names) as client:
            assert await get(client, f"http://127.0.0.1:{server.port}/") == 200
            refused = [
                f"http://127.0.0.1:{other.port}/",
                f"http://127.0.0.2:{server.port}/",
                f"http://name.test:{server.port}/",
            ]
            for url in refused:
                with pytest.raises(EgressRefusedError):
                    await get(client, url)
        assert (len(server.asked), other.asked) == (1, [])


async def _fetch(client: httpx.AsyncClient, url: str) -> bytes:
    async with stream(client, url) as response:
        return await response.aread()


async def test_a_tenants_bytes_of_a_day_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quotas = Quotas(TenantQuotas(egress_bytes=3))
    async with serving(Server(redirects={"/to": "/there"})) as server, open_client(_OUTSIDE, timeout=5) as client:
        url = f"http://{_OPEN}:{server.port}"
        with on_budget(quotas, "acme", "call_tool"):
            assert await _fetch(client, f"{url}/first") == b"ok"
            # Within the budget as it begins, and over it on the way.
            with pytest.raises(EgressBudgetError, match=r"the tenant 'acme'.* egress_bytes = 3; it may fetch again"):
                await _fetch(client, f"{url}/second")
            with pytest.raises(EgressBudgetError) as caught:
                await _fetch(client, f"{url}/third")
        error = caught.value
        assert (error.tenant, error.quota, error.limit) == ("acme", "egress_bytes", 3)
        assert 86_000 < error.frees_in <= 86_400
        assert [each.path for each in server.asked] == ["/first", "/second"], "what is over is not even asked for"
        assert "call_tool: over the quota egress_bytes of 3, tenant 'acme'" in caplog.text
        # A redirect's own body counts.
        with on_budget(quotas, "other", "call_tool"), pytest.raises(EgressBudgetError, match="the tenant 'other'"):
            await _fetch(client, f"{url}/to")
        assert await _fetch(client, f"{url}/nobodys") == b"ok"
        monkeypatch.setattr(quotas_module, "_DAY", 0.0)
        with on_budget(quotas, "acme", "call_tool"):
            assert await _fetch(client, f"{url}/next-day") == b"ok"


async def test_a_tenants_seconds_of_a_day_are_bounded() -> None:
    quotas = Quotas(TenantQuotas(egress_seconds=1e-6))
    async with serving(Server()) as server, open_client(_OUTSIDE, timeout=5) as client:
        with on_budget(quotas, "acme", "call_tool"):
            for _ in range(2):
                with pytest.raises(EgressBudgetError) as caught:
                    await _fetch(client, f"http://{_OPEN}:{server.port}/")
                assert caught.value.quota == "egress_seconds"
