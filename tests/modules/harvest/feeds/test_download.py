"""What goes over the network: as little as it takes, nothing twice, and faults with the right type."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestIncomplete

from contextunity.modules.harvest.errors import FeedChangedError, FeedEmptyError, FeedRefusedError, FeedUnreachableError
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.feeds import (
    FeedSource,
    FeedUnchangedError,
    KnownVersion,
    Readahead,
    open_feed,
    read_page,
)
from contextunity.modules.harvest.feeds.download import conditional_headers
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
        pytest.param("file:///no/such/feed.csv", "fetched: No such file or directory;", id="no such file"),
        pytest.param("file:///no%00such/feed.csv", "invalid path", id="no path"),
        pytest.param("http://[broken/feed.csv", "ConnectError", id="broken address"),
    ],
)
async def test_an_address_without_a_feed_is_unreachable(
    client: httpx.AsyncClient, spool_folder: Path, url: str, reason: str
) -> None:
    with pytest.raises(FeedUnreachableError, match=reason) as caught:
        await open_feed(client, source(url), spool_folder=spool_folder)
    assert caught.value.url == url


async def test_another_scheme_is_refused(client: httpx.AsyncClient, spool_folder: Path) -> None:
    with pytest.raises(FeedRefusedError, match="not http, https or file"):
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


def _known(version: str, *, read_at: str = "2026-01-01T12:00:00+00:00") -> KnownVersion:
    return KnownVersion(version=version, read_at=datetime.fromisoformat(read_at))


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        pytest.param('"1"', {"If-None-Match": '"1"'}, id="strong"),
        pytest.param('W/"1"', {"If-None-Match": 'W/"1"'}, id="weak"),
        pytest.param("1-abc", {"If-None-Match": "1-abc"}, id="without quotes"),
        pytest.param(
            "Thu, 01 Jan 2026 11:59:00 GMT", {"If-Modified-Since": "Thu, 01 Jan 2026 11:59:00 GMT"}, id="settled time"
        ),
        pytest.param("Thu, 01 Jan 2026 11:59:30 GMT", {}, id="time of another version perhaps"),
        pytest.param("sha256:abc", {}, id="our own"),
        pytest.param("", {}, id="none"),
    ],
)
def test_a_server_is_asked_for_changes_in_its_own_words(version: str, headers: dict[str, str]) -> None:
    assert conditional_headers(_known(version)) == headers


async def test_an_answer_of_unchanged_is_taken_only_where_it_was_asked_for(spool_folder: Path) -> None:
    asked: list[httpx.Request] = []

    def unchanged(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answered(304, headers={"ETag": '"1"'})

    async with httpx.AsyncClient(transport=OddServer(unchanged)) as client:
        url = source("http://x.example/feed")
        for known in (_known('"1"'), _known('W/"1"')):
            with pytest.raises(FeedUnchangedError):
                await open_feed(client, url, spool_folder=spool_folder, known=known)
        for nothing in (None, _known("sha256:1"), _known("")):
            with pytest.raises(
                FeedUnreachableError, match="304 Not Modified, to a request without a condition"
            ) as caught:
                await open_feed(client, url, spool_folder=spool_folder, known=nothing)
            assert (caught.value.status, caught.value.retryable) == (304, True)
    assert [request.headers.get("If-None-Match") for request in asked] == ['"1"', 'W/"1"', None, None, None]


async def test_unchanged_of_another_version_is_not_believed(spool_folder: Path) -> None:
    conditions: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        conditions.append(request.headers.get("If-None-Match"))
        return answered(304, headers={"ETag": '"2"'}) if conditions[-1] else ranged(request)

    async with httpx.AsyncClient(transport=OddServer(answer)) as client:
        feed, _ = await open_feed(
            client, source("http://x.example/feed"), spool_folder=spool_folder, known=_known('"0"')
        )
    assert (feed.version, conditions) == ('"1"', ['"0"', None])


async def test_unchanged_in_answer_to_a_part_is_an_error_worth_another_try(spool_folder: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "If-None-Match" not in request.headers
        return ranged(request) if request.headers["Range"].startswith("bytes=0-") else answered(304, headers={})

    with pytest.raises(FeedUnreachableError, match="to a request without a condition") as caught:
        await open_and_read(answer, spool_folder)
    assert caught.value.retryable


async def test_a_server_that_sends_less_than_it_is_asked_for_and_says_so_is_asked_on(spool_folder: Path) -> None:
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        request.headers["Range"] = f"bytes={first}-{min(int(last), int(first) + 59_999)}"
        return ranged(request)

    page = await open_and_read(answer, spool_folder)
    assert (page.entries, page.incomplete) == (10_000, HarvestIncomplete.UNSPECIFIED)
    assert asked > 3


class Breaking:
    """A server on a real socket that hangs up in the middle of bodies."""

    def __init__(self, feed: bytes, *, end: int, most: int = 1 << 30, announce: bool = True, coded: str = "") -> None:
        """Serve a feed up to byte `end`, `most` bytes an answer; `announce` tells the length that should come."""
        self.feed, self.end, self.most, self.announce, self.coded = feed, end, most, announce, coded
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = re.search(r"Range: bytes=(\d+)-(\d+)", head)
        self.asked.append(found[0] if found else "")
        if found and not self.coded:
            first, last = int(found[1]), min(int(found[2]), len(self.feed) - 1)
            stated = f"206 Partial\r\nContent-Range: bytes {first}-{last}/{len(self.feed)}"
        else:
            first, last = 0, len(self.feed) - 1
            stated = f"200 OK\r\nContent-Encoding: {self.coded or 'identity'}"
        body = self.feed[first : min(last + 1, first + self.most, max(first, self.end))]
        length = last + 1 - first if self.announce else len(body)
        writer.write(f'HTTP/1.1 {stated}\r\nETag: "1"\r\nContent-Length: {length}\r\n\r\n'.encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def _read_breaking(server: Breaking, folder: Path, *, page_size: int = 1000, accept: bool = True) -> Any:
    pages: list[Any] = []
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    async with listening, httpx.AsyncClient(trust_env=False, timeout=5) as client:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/feed"
        readahead = Readahead()
        feed, cursor = await open_feed(
            client, source(url), spool_folder=folder, readahead=readahead, accept_broken=accept
        )
        while not pages or not pages[-1].end_of_feed:
            pages.append(
                await read_page(
                    client, feed, cursor, page_size, spool_folder=folder, readahead=readahead, accept_broken=accept
                )
            )
            cursor = pages[-1].next_cursor
    return feed, pages


_ITEMS = (
    b'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>\n'
    + b"".join(b"<item><g:id>%d</g:id><title>T</title></item>\n" % number for number in range(5000))
    + b"</channel></rss>\n"
)


@pytest.mark.parametrize("announce", [True, False], ids=["hangs up", "short body"])
@pytest.mark.parametrize("feed", [FEED, _ITEMS], ids=["rows", "XML"])
@pytest.mark.parametrize("end", [300, 70_001, 150_003])
async def test_a_server_that_always_breaks_off_at_a_byte_ends_the_feed_there(
    spool_folder: Path, feed: bytes, announce: bool, end: int
) -> None:
    server = Breaking(feed, end=end, announce=announce)
    with pytest.raises(FeedUnreachableError):
        await _read_breaking(server, spool_folder, accept=False)
    _, pages = await _read_breaking(server, spool_folder)
    entries = sum(page.entries for page in pages)
    # What is whole counts, and the part of an entry at the end does not.
    whole = feed[:end].count(b"\n") - 1
    assert entries in (whole, whole - 1)
    assert not any(page.page.rejected for page in pages)
    assert [page.incomplete for page in pages[:-1]] == [HarvestIncomplete.UNSPECIFIED] * (len(pages) - 1)
    assert pages[-1].incomplete is HarvestIncomplete.BROKEN_OFF
    assert f"from byte {end:,} on" in pages[-1].incomplete_detail


async def test_a_server_that_hangs_up_all_the_time_is_asked_for_the_rest(spool_folder: Path) -> None:
    server = Breaking(FEED, end=len(FEED), most=20_000)
    _, pages = await _read_breaking(server, spool_folder)
    assert sum(page.entries for page in pages) == 20_000
    assert pages[-1].incomplete is HarvestIncomplete.UNSPECIFIED


@pytest.mark.parametrize("announce", [True, False], ids=["connection", "packed file"])
async def test_a_packed_body_that_is_cut_is_read_as_far_as_it_goes(spool_folder: Path, announce: bool) -> None:
    packed = gzip.compress(FEED)
    server = Breaking(packed, end=len(packed) // 2, announce=announce, coded="gzip")
    with pytest.raises(FeedUnreachableError):
        await _read_breaking(server, spool_folder, accept=False)
    assert list(spool_folder.iterdir()) == []
    feed, pages = await _read_breaking(server, spool_folder)
    assert feed.incomplete is HarvestIncomplete.BROKEN_OFF
    products = [product for page in pages for product in page.page.products]
    assert 1000 < len(products) < 20_000
    # The row in which it breaks off is left out: a part of it could pass for a row with another price.
    assert {product.price for product in products} == {"1.00 EUR"}
    assert not any(page.page.rejected for page in pages)


async def test_a_part_of_the_last_row_of_a_broken_body_is_no_row(spool_folder: Path) -> None:
    content = b"id\ttitle\tprice\n1\tOne\t5.00 EUR\n2\tTwo\t1099.00 EUR\n"
    server = Breaking(content, end=content.index(b"99.00"), coded="identity")
    feed, pages = await _read_breaking(server, spool_folder)
    assert feed.incomplete is HarvestIncomplete.BROKEN_OFF
    assert [product.price for page in pages for product in page.page.products] == ["5.00 EUR"]


@pytest.mark.parametrize("end", [1, 2, 14])
async def test_nothing_is_left_of_a_body_that_is_cut_in_its_first_line(spool_folder: Path, end: int) -> None:
    server = Breaking(b"id\ttitle\tprice\n1\tOne\t5.00 EUR\n", end=end, coded="identity")
    # A part of the header row is not one: of `id` and `title` alone every row would lack a price.
    with pytest.raises(FeedEmptyError):
        await _read_breaking(server, spool_folder)
