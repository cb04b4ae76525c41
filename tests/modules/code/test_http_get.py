"""The tool http_get: what it fetches from a real server, and all the ways in which it refuses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.code.v1 import CallToolRequest, CallToolResponse
from temporalio.testing import ActivityEnvironment

from contextunity.modules.code.activities import _to_list_value as to_list_value
from contextunity.modules.code.activities import call_tool
from contextunity.modules.code.errors import ToolFailedError, ToolRefusedError
from contextunity.modules.code.resources import lifespan
from contextunity.modules.code.settings import CodeSettings
from contextunity.modules.code.tools import ToolCaller, ToolSet, open_tools
from contextunity.worker.modules.registry import ModuleContext
from contextunity.worker.quotas import Quotas
from contextunity.worker.settings import TenantQuotas

_CALLER = ToolCaller(tenant_id="acme", call_id="1")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers["Host"], self.headers.get("Cookie")))
        path, _, query = self.path.partition("?")
        match path:
            case "/text":
                self._answer(200, f"grüß {query}".encode("latin-1"), ("Content-Type", "text/plain; charset=latin-1"))
            case "/cookie":
                self._answer(200, b"set", ("Set-Cookie", "session=1"))
            case "/to":
                self._answer(302, b"", ("Location", query))
            case "/large":
                self._answer(200, b"x" * 5000)
            case "/gzip":
                self._answer(200, b"\x1f\x8b", ("Content-Encoding", "gzip"))
            case "/broken":
                self._answer(503, b"later", ("Retry-After", "7"))
            case "/slow":
                server.held.wait(10)
                self._answer(200, b"")
            case _:
                self._answer(404, b"no")

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 50


@pytest.fixture
def server() -> Iterator[Any]:
    server: Any = _Server(("127.0.0.1", 0), _Handler)
    server.seen, server.held = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.held.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def tools(server: Any, tmp_path: Path) -> AsyncIterator[ToolSet]:
    port = server.server_port
    section = {
        "allow": [f"http://127.0.0.1:{port}", f"http://localhost:{port}", "https://name.invalid"],
        "max_bytes": 4000,
        "timeout": 1.0,
    }
    async with open_tools(CodeSettings(tools={"http_get": section}), tmp_path) as opened:
        yield opened


async def _get(tools: ToolSet, *positional: Any, **named: Any) -> Any:
    return await tools.call("http_get", _CALLER, list(positional), named)


async def test_an_allowed_address_is_fetched(tools: ToolSet, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    found = await _get(tools, f"{url}/text", params={"q": "a b", "n": 1})
    assert (found["status"], found["body"]) == (200, "grüß q=a+b&n=1")
    assert found["headers"] == {"content-type": "text/plain; charset=latin-1"}
    assert (await _get(tools, f"{url}/no-such"))["status"] == 404
    assert (await _get(tools, f"{url}/to?{url}/text?x"))["url"] == f"{url}/text?x"
    assert (await _get(tools, f"{url}/to?/text"))["status"] == 200
    await _get(tools, f"{url}/cookie")
    await _get(tools, f"{url}/cookie")
    assert {host for _, host, _ in server.seen} == {f"127.0.0.1:{server.server_port}"}
    assert {cookie for _, _, cookie in server.seen} == {None}


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        pytest.param(
            "http://127.0.0.1:1/", "PermissionError", "http://127.0.0.1:1 is not an origin", id="another port"
        ),
        pytest.param("https://127.0.0.1:{port}/", "PermissionError", "is not an origin", id="another scheme"),
        pytest.param("http://[::1]:{port}/", "PermissionError", "is not an origin", id="another address"),
        pytest.param("http://2130706433:{port}/", "PermissionError", "is not an origin", id="address as a number"),
        pytest.param("http://127.0.0.1.:{port}/", "PermissionError", "is not an origin", id="dot at the end"),
        pytest.param("http://a:b@127.0.0.1:{port}/", "PermissionError", "user or password", id="password"),
        pytest.param("file:///etc/passwd", "PermissionError", "neither http:// nor https://", id="file"),
        pytest.param("//127.0.0.1/", "PermissionError", "neither http:// nor https://", id="no scheme"),
        pytest.param("http://\x00", "ValueError", "is not a valid URL", id="no address"),
        pytest.param(
            "http://localhost:{port}/text", "PermissionError", "resolves to a private address", id="name inside"
        ),
        pytest.param(
            "http://127.0.0.1:{port}/to?http://169.254.169.254/", "PermissionError", "is not an origin", id="redirect"
        ),
        pytest.param(
            "http://127.0.0.1:{port}/to?file:///etc/passwd", "PermissionError", "neither", id="redirect to file"
        ),
        pytest.param("http://127.0.0.1:{port}/to?/to?/to?/to?/to?/to?/x", "OSError", "redirects more", id="redirects"),
        pytest.param("http://127.0.0.1:{port}/large", "OSError", "more than 4,000 bytes", id="too large"),
        pytest.param("http://127.0.0.1:{port}/gzip", "OSError", "compressed", id="compressed"),
    ],
)
async def test_what_is_refused_is_told_and_not_tried_again(
    tools: ToolSet, server: Any, url: str, kind: str, told: str
) -> None:
    with pytest.raises(ToolRefusedError) as caught:
        await _get(tools, url.format(port=server.server_port))
    assert caught.value.error_type == kind
    assert told in str(caught.value)


@pytest.mark.parametrize("path", ["broken?key=secret", "slow"])
async def test_what_may_be_better_later_is_tried_again(tools: ToolSet, server: Any, path: str) -> None:
    with pytest.raises(ToolFailedError) as caught:
        await _get(tools, f"http://127.0.0.1:{server.server_port}/{path}")
    assert "secret" not in str(caught.value)
    assert caught.value.retry_after == (7 if path.startswith("broken") else 0)


async def test_a_name_without_an_address_is_tried_again(tools: ToolSet) -> None:
    with pytest.raises(ToolFailedError, match="cannot be resolved"):
        await _get(tools, "https://name.invalid/")


@pytest.mark.parametrize(
    ("address", "networks", "told"),
    [
        pytest.param("169.254.169.254", ["0.0.0.0/0"], "metadata", id="metadata by a network"),
        pytest.param("64:ff9b::a00:1", ["10.0.0.0/8"], "NAT64", id="a listed address behind NAT64"),
        pytest.param("::ffff:10.0.0.1", ["10.0.0.0/8"], "IPv4-mapped", id="a listed address, mapped"),
        pytest.param("2002:a00:1::", [], "6to4", id="6to4"),
    ],
)
async def test_a_listed_name_that_leads_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, networks: list[str], told: str
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    section = {"allow": ["http://shop.test"], "networks": networks}
    async with open_tools(CodeSettings(tools={"http_get": section}), tmp_path) as opened:
        with pytest.raises(ToolRefusedError, match=told) as caught:
            await _get(opened, "http://shop.test/")
    assert str(ipaddress.ip_address(address)) in str(caught.value)
    assert "shop.test" in str(caught.value)


async def test_it_connects_to_the_address_it_looked_at(
    tools: ToolSet, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name server may answer the second question otherwise; so there is only one question."""
    asked = list[str]()
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(str(host))
        return real("127.0.0.1" if host == "rebound.test" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = server.server_port
    section = {"allow": [f"http://rebound.test:{port}"], "networks": ["127.0.0.0/8"]}
    async with open_tools(CodeSettings(tools={"http_get": section}), tmp_path) as opened:
        found = await _get(opened, f"http://rebound.test:{port}/text")
    assert found["status"] == 200
    assert asked.count("rebound.test") == 1
    assert server.seen == [("/text", f"rebound.test:{port}", None)]


async def test_arguments_that_do_not_fit_are_refused(tools: ToolSet) -> None:
    for positional, named in (([], {}), ([1], {}), (["x"], {"headers": {}}), (["http://x"], {"params": [1]})):
        with pytest.raises(ToolRefusedError) as caught:
            await _get(tools, *positional, **named)
        assert caught.value.error_type == "TypeError"


async def test_calls_at_once_do_not_disturb_each_other(tools: ToolSet, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_port}/text"
    found = await asyncio.gather(*(_get(tools, url, params={"n": n}) for n in range(8)))
    assert [each["body"] for each in found] == [f"grüß n={n}" for n in range(8)]


async def test_a_budget_that_is_used_up_is_an_exception_of_the_program(server: Any, tmp_path: Path) -> None:
    section = {"allow": [f"http://127.0.0.1:{server.server_port}"]}
    settings = CodeSettings(tools={"http_get": section})
    context = ModuleContext(
        settings=settings, data_folder=tmp_path, quotas=Quotas(TenantQuotas(egress_bytes=4_000, programs=1))
    )
    url = f"http://127.0.0.1:{server.server_port}"
    async with lifespan(context):
        answers = list[CallToolResponse]()
        for path in ("text", "large", "text"):
            request = CallToolRequest(
                name="http_get", positional=to_list_value([f"{url}/{path}"]), tenant_id="acme", call_id="1"
            )
            answers.append(await ActivityEnvironment().run(call_tool, request))
    assert [answer.error_type for answer in answers] == ["", "OSError", "OSError"]
    assert "the tenant 'acme' has used its daily budget egress_bytes = 4,000" in answers[2].error
    assert [path for path, _, _ in server.seen] == ["/text", "/large"]
