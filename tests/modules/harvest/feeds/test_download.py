"""What goes over the network: as little as it takes, nothing twice, and faults with the right type."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contextunity.modules.harvest.errors import FeedChangedError, FeedEmptyError, FeedRefusedError, FeedUnreachableError
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.feeds import FeedSource, Readahead, open_feed, read_page
from contextunity.modules.harvest.sample import sample_chunks

ReadAll = Callable[..., Awaitable[Any]]


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """A folder with a feed of several windows."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "feed.csv").write_bytes(b"".join(sample_chunks(products=800)))
    return folder


def source(url: str) -> FeedSource:
    return FeedSource(supplier_code="camping", url=url, currency_code="EUR")


async def test_ranges_download_every_byte_once(large_folder: Path, read_all: ReadAll) -> None:
    with FeedServer(large_folder) as server:
        reading = await read_all(server.url("feed.csv"), 50)
        assert server.bytes_sent == reading.feed.total_bytes == (large_folder / "feed.csv").stat().st_size
        assert len(reading.pages) == 16
        assert len(server.requests) <= 2 * len(reading.pages)
        assert {request.status for request in server.requests} == {206}


async def test_all_pages_come_over_one_connection(large_folder: Path, read_all: ReadAll) -> None:
    with FeedServer(large_folder) as server:
        await read_all(server.url("feed.csv"), 50)
        assert len({request.client_port for request in server.requests}) == 1


async def test_a_restart_costs_no_more_than_what_a_page_read_ahead(large_folder: Path, read_all: ReadAll) -> None:
    with FeedServer(large_folder) as server:
        reading = await read_all(server.url("feed.csv"), 50, cold=True)
        spare = server.bytes_sent - reading.feed.total_bytes
        # Without its memory each of the 16 pages fetches again what the page before had beyond its own entries.
        assert 0 < spare < reading.feed.total_bytes


async def test_a_server_without_ranges_is_asked_once(
    large_folder: Path, read_all: ReadAll, client: httpx.AsyncClient, spool_folder: Path
) -> None:
    size = (large_folder / "feed.csv").stat().st_size
    with FeedServer(large_folder, ranges=False) as server:
        reading = await read_all(server.url("feed.csv"), 50, cold=True)
        assert [request.status for request in server.requests] == [200]
        assert server.bytes_sent == size == reading.feed.total_bytes
        # Opened again, the same version is found in the spool, and its body is not read to the end.
        await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)
    assert len([path for path in spool_folder.iterdir() if path.suffix == ".feed"]) == 1
    assert not list(spool_folder.glob("*.part"))


async def test_pages_on_another_machine_download_the_feed_there_once(
    large_folder: Path, read_all: ReadAll, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    with FeedServer(large_folder, ranges=False) as server:
        reading = await read_all(server.url("feed.csv"), 50)
        elsewhere = tmp_path / "elsewhere"
        pages = await asyncio.gather(
            *(read_page(client, reading.feed, cursor, 50, spool_folder=elsewhere) for cursor in reading.cursors[:3])
        )
        assert [page.page for page in pages] == [page.page for page in reading.pages[:3]]
        assert len(server.requests) == 2
        assert server.bytes_sent == 2 * reading.feed.total_bytes


async def test_a_server_without_versions_is_spooled_under_the_hash_of_the_content(
    large_folder: Path, read_all: ReadAll, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    with FeedServer(large_folder, validators=False) as server:
        reading = await read_all(server.url("feed.csv"), 100)
        assert not reading.feed.ranges
        assert reading.feed.version.startswith("sha256:")
        (large_folder / "feed.csv").write_bytes(b"".join(sample_chunks(products=10)))
        with pytest.raises(FeedChangedError):
            await read_page(client, reading.feed, reading.cursors[1], 50, spool_folder=tmp_path / "elsewhere")


@pytest.mark.parametrize("transport", ["range", "spool", "file"])
async def test_a_feed_that_was_replaced_is_told(
    large_folder: Path, client: httpx.AsyncClient, tmp_path: Path, transport: str
) -> None:
    path = large_folder / "feed.csv"
    with FeedServer(large_folder, ranges=transport == "range") as server:
        url = path.as_uri() if transport == "file" else server.url("feed.csv")
        feed, cursor = await open_feed(client, source(url), spool_folder=tmp_path / "one", readahead=Readahead())
        content = path.read_bytes()
        path.write_bytes(content.replace(b"Tents", b"Tarps"))
        os.utime(path, ns=(1, 1))
        with pytest.raises(FeedChangedError) as caught:
            await read_page(client, feed, cursor, 50, spool_folder=tmp_path / "two", readahead=Readahead())
    assert caught.value.expected == feed.version
    assert caught.value.seen not in ("", feed.version)
    assert not caught.value.retryable
    assert caught.value.type == "FeedChanged"


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, "FeedForbidden", False),
        (403, "FeedForbidden", False),
        (404, "FeedNotFound", False),
        (410, "FeedNotFound", False),
        (429, "FeedUnreachable", True),
        (500, "FeedUnreachable", True),
        (503, "FeedUnreachable", True),
    ],
)
async def test_an_answer_that_is_no_feed_is_told_by_its_kind(
    large_folder: Path, client: httpx.AsyncClient, spool_folder: Path, status: int, kind: str, retryable: bool
) -> None:
    with FeedServer(large_folder, fail_first=1, fail_status=status) as server:
        with pytest.raises(FeedUnreachableError, match=f"the server answered {status}") as caught:
            await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)
        assert caught.value.status == status
        assert caught.value.url == server.url("feed.csv")
        assert (caught.value.type, caught.value.retryable) == (kind, retryable)
        # The next attempt finds it.
        await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)


async def test_a_server_that_fails_between_pages_is_unreachable_and_the_page_can_be_read_again(
    large_folder: Path, client: httpx.AsyncClient, spool_folder: Path
) -> None:
    with FeedServer(large_folder) as server:
        feed, cursor = await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)
        good = await read_page(client, feed, cursor, 300, spool_folder=spool_folder, readahead=Readahead())
        port = server.port
    with pytest.raises(FeedUnreachableError) as caught:
        await read_page(client, feed, cursor, 300, spool_folder=spool_folder, readahead=Readahead())
    assert caught.value.status == 0
    with FeedServer(large_folder, port=port):
        again = await read_page(client, feed, cursor, 300, spool_folder=spool_folder, readahead=Readahead())
    assert again == good


async def test_a_time_out_is_unreachable(large_folder: Path, spool_folder: Path) -> None:
    with FeedServer(large_folder, bytes_per_second=10) as server:
        async with httpx.AsyncClient(timeout=0.05, trust_env=False) as client:
            with pytest.raises(FeedUnreachableError, match="Timeout"):
                await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)


async def test_a_download_that_breaks_off_leaves_nothing_in_the_spool(spool_folder: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "1"\r\n\r\nHandle,Title')
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/feed.csv"
        with pytest.raises(FeedUnreachableError):
            await open_feed(client, source(url), spool_folder=spool_folder)
    assert list(spool_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("http://127.0.0.1:1/feed.csv", "ConnectError", id="nobody listens"),
        pytest.param("file:///no/such/feed.csv", "No such file", id="no such file"),
        pytest.param("file:///no%00such/feed.csv", "it is no path", id="no path"),
        pytest.param("http://[broken/feed.csv", "address", id="broken address"),
    ],
)
async def test_an_address_without_a_feed_is_unreachable(
    client: httpx.AsyncClient, spool_folder: Path, url: str, reason: str
) -> None:
    with pytest.raises(FeedUnreachableError, match=reason) as caught:
        await open_feed(client, source(url), spool_folder=spool_folder)
    assert caught.value.url == url


async def test_another_scheme_is_refused(client: httpx.AsyncClient, spool_folder: Path) -> None:
    with pytest.raises(FeedRefusedError, match="none of http, https and file"):
        await open_feed(client, source("ftp://x.example/feed.csv"), spool_folder=spool_folder)


async def test_a_folder_is_no_feed(client: httpx.AsyncClient, spool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FeedUnreachableError, match="it is not a file"):
        await open_feed(client, source(tmp_path.as_uri()), spool_folder=spool_folder)


async def test_an_empty_feed_over_ranges_is_told(tmp_path: Path, client: httpx.AsyncClient, spool_folder: Path) -> None:
    (tmp_path / "feed.csv").touch()
    with FeedServer(tmp_path) as server:
        with pytest.raises(FeedEmptyError):
            await open_feed(client, source(server.url("feed.csv")), spool_folder=spool_folder)
        assert server.requests[0].status == 416


async def test_the_heartbeat_beats_while_bytes_come_in(
    large_folder: Path, client: httpx.AsyncClient, spool_folder: Path
) -> None:
    beats: list[str] = []
    with FeedServer(large_folder) as server:
        url = server.url("feed.csv")
        feed, cursor = await open_feed(
            client, source(url), spool_folder=spool_folder, heartbeat=lambda: beats.append("open")
        )
        await read_page(client, feed, cursor, 300, spool_folder=spool_folder, heartbeat=lambda: beats.append("page"))
    assert set(beats) == {"open", "page"}


def answered(status: int, *, headers: dict[str, str], content: bytes = b"") -> httpx.Response:
    """An answer whose body is still to be read, as over a socket."""
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


class OddServer(httpx.AsyncBaseTransport):
    """Answers from a function, for servers that do what ours does not."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request)


FEED = b"id\ttitle\tprice\n" + b"".join(b"%d\tThing %d\t1.00 EUR\n" % (number, number) for number in range(20_000))


def ranged(request: httpx.Request, **headers: str) -> httpx.Response:
    first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
    body = FEED[int(first) : int(last) + 1]
    stated = {"Content-Range": f"bytes {first}-{int(first) + len(body) - 1}/{len(FEED)}", "ETag": '"1"'}
    return answered(
        206, headers=stated | {name.replace("_", "-"): text for name, text in headers.items()}, content=body
    )


async def open_and_read(answer: Callable[[httpx.Request], httpx.Response], folder: Path) -> Any:
    async with httpx.AsyncClient(transport=OddServer(answer)) as client:
        feed, cursor = await open_feed(
            client, source("http://x.example/feed"), spool_folder=folder, readahead=Readahead()
        )
        return await read_page(client, feed, cursor, 10_000, spool_folder=folder, readahead=Readahead())


async def test_a_server_that_does_not_tell_the_size_is_read_by_range(spool_folder: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        body = FEED[int(first) : int(last) + 1]
        if not body:
            return answered(416, headers={"Content-Range": f"bytes */{len(FEED)}", "ETag": '"1"'})
        place = f"bytes {first}-{int(first) + len(body) - 1}/*"
        return answered(206, headers={"Content-Range": place, "ETag": '"1"'}, content=body)

    async with httpx.AsyncClient(transport=OddServer(answer)) as client:
        feed, cursor = await open_feed(client, source("http://x.example/feed"), spool_folder=spool_folder)
        assert (feed.ranges, feed.total_bytes) == (True, 0)
        entries, end = 0, False
        while not end:
            page = await read_page(client, feed, cursor, 7_000, spool_folder=spool_folder)
            entries, cursor, end = entries + page.entries, page.next_cursor, page.end_of_feed
    assert (entries, cursor.offset) == (20_000, len(FEED))


async def test_a_weak_etag_is_compared_but_not_sent_as_a_condition(spool_folder: Path) -> None:
    conditions: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        conditions.append(request.headers.get("If-Range"))
        return ranged(request, ETag='W/"1"')

    page = await open_and_read(answer, spool_folder)
    assert page.entries == 10_000
    assert set(conditions) == {None}


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param({"ETag": '"2"'}, FeedChangedError, id="other version"),
        pytest.param({"Content_Range": f"bytes 65536-99999/{len(FEED) + 1}"}, FeedChangedError, id="other size"),
        pytest.param({"Content_Range": f"bytes 0-99/{len(FEED)}"}, FeedUnreachableError, id="other place"),
        pytest.param({"Content_Range": "pages 1-2/3"}, FeedUnreachableError, id="other unit"),
    ],
)
async def test_an_answer_for_something_else_is_not_taken(
    spool_folder: Path, headers: dict[str, str], error: type[Exception]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return ranged(request) if request.headers["Range"].startswith("bytes=0-") else ranged(request, **headers)

    async with httpx.AsyncClient(transport=OddServer(answer)) as client:
        readahead = Readahead()
        feed, cursor = await open_feed(
            client, source("http://x.example/feed"), spool_folder=spool_folder, readahead=readahead
        )
        with pytest.raises(error):
            await read_page(client, feed, cursor, 10_000, spool_folder=spool_folder, readahead=readahead)


async def test_a_short_body_is_not_taken_for_the_end_of_the_feed(spool_folder: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        response = ranged(request)
        if request.headers["Range"].startswith("bytes=0-"):
            return response
        return answered(206, headers={"Content-Range": response.headers["Content-Range"], "ETag": '"1"'}, content=b"1")

    async with httpx.AsyncClient(transport=OddServer(answer)) as client:
        readahead = Readahead()
        feed, cursor = await open_feed(
            client, source("http://x.example/feed"), spool_folder=spool_folder, readahead=readahead
        )
        with pytest.raises(FeedUnreachableError, match="but got 1"):
            await read_page(client, feed, cursor, 10_000, spool_folder=spool_folder, readahead=readahead)


async def test_a_body_that_comes_compressed_all_the_same_is_spooled_plain(spool_folder: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Encoding": "gzip", "ETag": '"1"'}
        assert request.headers["Accept-Encoding"] == "identity"
        if "Range" in request.headers:
            packed = gzip.compress(FEED)
            headers["Content-Range"] = f"bytes 0-{len(packed) - 1}/{len(packed)}"
            return answered(206, headers=headers, content=packed)
        return answered(200, headers=headers, content=gzip.compress(FEED))

    page = await open_and_read(answer, spool_folder)
    assert page.entries == 10_000
