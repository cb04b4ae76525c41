"""What a feed may take: bytes, ratio, time and length of a record; and which files are feeds."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import os
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from contextunity.gen.contextunity.harvest.v1 import Feed, FeedCursor
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format

from contextunity.modules.harvest.errors import (
    FeedChangedError,
    FeedForbiddenError,
    FeedFormatError,
    FeedLimitError,
    FeedNotFoundError,
    FeedRefusedError,
    FeedUnreachableError,
)
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.feeds import (
    FeedBounds,
    FeedSource,
    FetchedPage,
    Readahead,
    files,
    open_feed,
    read_page,
)

_HEADER = b"id\ttitle\tprice\n"
_ROW = b"1\tTent\t1.00 EUR\n"
_SMALL = FeedBounds(max_bytes=1024 * 1024, ratio_from_bytes=64 * 1024, max_record_bytes=64 * 1024)

Send = Callable[[asyncio.StreamWriter, asyncio.Event], Awaitable[None]]


@asynccontextmanager
async def sending(send: Send, *headers: str) -> AsyncIterator[str]:
    """A server that answers 200 with these headers, and then sends as it is told. Its event is set at the end."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if headers:
                writer.write("".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *headers, "")).encode())
            await send(writer, over)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/feed.tsv"
        over.set()


def body(data: bytes) -> Send:
    async def send(writer: asyncio.StreamWriter, over: asyncio.Event) -> None:
        writer.write(data)
        await writer.drain()

    return send


def endless(data: bytes, first: bytes = b"") -> Send:
    async def send(writer: asyncio.StreamWriter, over: asyncio.Event) -> None:
        writer.write(first)
        while not over.is_set():
            writer.write(data)
            await writer.drain()

    return send


def silent(data: bytes = b"") -> Send:
    async def send(writer: asyncio.StreamWriter, over: asyncio.Event) -> None:
        writer.write(data)
        await writer.drain()
        await over.wait()

    return send


def source(url: str) -> FeedSource:
    return FeedSource(supplier_code="camping", url=url, currency_code="EUR")


@pytest.mark.parametrize(
    ("send", "headers", "bounds", "setting"),
    [
        pytest.param(endless(_ROW * 1000, _HEADER), (), {}, "max_bytes", id="an endless feed"),
        pytest.param(silent(), ("Content-Length: 2000000",), {}, "max_bytes", id="a feed that says how long it is"),
        pytest.param(endless(b"x" * 10_000, _HEADER), (), {}, "max_record_bytes", id="a line without an end"),
        pytest.param(
            endless(b"<b>x</b>" * 1000, b"<rss><channel><item>"),
            (),
            {},
            "max_record_bytes",
            id="an item without an end",
        ),
        pytest.param(
            body(gzip.compress(_HEADER + _ROW * 100_000)), ("Content-Encoding: gzip",), {}, "max_ratio", id="a bomb"
        ),
        pytest.param(
            body(zlib.compress(_HEADER + _ROW * 100_000)),
            ("Content-Encoding: deflate",),
            {},
            "max_ratio",
            id="deflated",
        ),
        pytest.param(
            body(gzip.compress(_HEADER + _ROW * 100_000)),
            ("Content-Encoding: gzip",),
            {"max_ratio": 1e9},
            "max_bytes",
            id="a long feed in gzip",
        ),
        pytest.param(silent(_HEADER), (), {"max_seconds": 0.2}, "max_seconds", id="no end in time"),
    ],
)
async def test_what_goes_beyond_a_bound_ends_and_leaves_nothing(
    client: httpx.AsyncClient,
    spool_folder: Path,
    send: Send,
    headers: tuple[str, ...],
    bounds: dict[str, float],
    setting: str,
) -> None:
    asked = dataclasses.replace(_SMALL, **bounds)
    async with sending(send, 'ETag: "1"', *headers) as url:
        with pytest.raises(FeedLimitError, match=f"change its {setting}") as caught:
            await open_feed(client, source(url), spool_folder=spool_folder, bounds=asked)
    assert (caught.value.setting, caught.value.retryable) == (setting, False)
    assert list(spool_folder.iterdir()) == []


async def test_no_answer_in_time_is_a_bound_as_well(client: httpx.AsyncClient, spool_folder: Path) -> None:
    async with sending(silent()) as url:
        with pytest.raises(FeedLimitError, match="max_seconds"):
            await open_feed(client, source(url), spool_folder=spool_folder, bounds=FeedBounds(max_seconds=0.2))


async def test_a_feed_that_comes_too_slowly_may_be_better_later(client: httpx.AsyncClient, spool_folder: Path) -> None:
    bounds = FeedBounds(rate_seconds=0.2)
    async with sending(silent(_HEADER), 'ETag: "1"') as url:
        with pytest.raises(FeedUnreachableError, match=r"less than 1024 bytes per second over 0\.2 s") as caught:
            await open_feed(client, source(url), spool_folder=spool_folder, bounds=bounds)
    assert caught.value.retryable
    assert list(spool_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]) + b"\0" * 20),
        ("deflate", zlib.compress),
        ("deflate", lambda data: _raw_deflate(data)),
    ],
    ids=["gzip", "members", "deflate", "without its header"],
)
async def test_a_packed_feed_within_bounds_is_read(
    client: httpx.AsyncClient, spool_folder: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    rows = b"".join(b"%d\tTent %d\t1.00 EUR\n" % (number, number) for number in range(50_000))
    async with sending(body(pack(_HEADER + rows)), f"Content-Encoding: {encoding}", 'ETag: "1"') as url:
        feed, _ = await open_feed(client, source(url), spool_folder=spool_folder)
    assert feed.total_bytes == len(_HEADER + rows)
    (spooled,) = spool_folder.iterdir()
    assert spooled.read_bytes() == _HEADER + rows


def _raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize(
    ("encoding", "data", "error"),
    [
        ("gzip, gzip", gzip.compress(gzip.compress(_HEADER)), FeedFormatError),
        ("br", b"x", FeedFormatError),
        ("gzip", b"not packed at all", FeedFormatError),
        ("gzip", gzip.compress(_HEADER + _ROW)[:-4], FeedUnreachableError),
    ],
    ids=["twice", "another", "not packed", "broken off"],
)
async def test_a_body_that_is_not_packed_as_it_should_be_is_told(
    client: httpx.AsyncClient, spool_folder: Path, encoding: str, data: bytes, error: type[Exception]
) -> None:
    async with sending(body(data), f"Content-Encoding: {encoding}", 'ETag: "1"') as url:
        with pytest.raises(error):
            await open_feed(client, source(url), spool_folder=spool_folder)
    assert list(spool_folder.iterdir()) == []


async def test_a_feed_in_parts_is_bounded_by_its_length(
    client: httpx.AsyncClient, spool_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "feed.tsv").write_bytes(_HEADER + _ROW * 10_000)
    with FeedServer(tmp_path) as server:
        url = server.url("feed.tsv")
        with pytest.raises(FeedLimitError, match="max_bytes"):
            await open_feed(client, source(url), spool_folder=spool_folder, bounds=FeedBounds(max_bytes=100_000))
        feed, _ = await open_feed(client, source(url), spool_folder=spool_folder, readahead=Readahead())
        # One whose server tells no size is found to be too long by where a page begins.
        feed.total_bytes = 0
        with pytest.raises(FeedLimitError, match="max_bytes"):
            await read_page(
                client,
                feed,
                FeedCursor(offset=150_000),
                10,
                spool_folder=spool_folder,
                bounds=FeedBounds(max_bytes=100_000),
                readahead=Readahead(),
            )


@pytest.mark.parametrize(
    ("stated", "least", "most"),
    [
        ("7", 7, 7),
        (formatdate(time.time() + 3000, usegmt=True), 2000, 3000),
        (formatdate(0, usegmt=True), 0, 0),
        ("-5", 0, 0),
        ("soon", 0, 0),
    ],
    # Names of their own: a date differs between the processes that run tests.
    ids=["seconds", "a date", "a date gone by", "negative", "no number"],
)
async def test_what_a_server_asks_to_be_left_alone_for_is_told(
    client: httpx.AsyncClient, spool_folder: Path, stated: str, least: float, most: float
) -> None:
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {stated}\r\nContent-Length: 0\r\n\r\n".encode()
    async with sending(body(answer)) as url:
        with pytest.raises(FeedUnreachableError) as caught:
            await open_feed(client, source(url), spool_folder=spool_folder)
    assert least <= caught.value.retry_after <= most
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("format", "prologue"),
    [
        pytest.param(Format.GOOGLE_TSV, b"", id="tsv without one"),
        pytest.param(Format.GOOGLE_TSV, b"title\tprice\n", id="tsv without id"),
        pytest.param(Format.GOOGLE_TSV, b"Handle,Title,Variant Price\n", id="tsv of another feed"),
        pytest.param(Format.SHOPIFY_CSV, b"", id="csv without one"),
        pytest.param(Format.SHOPIFY_CSV, b"Handle,Title\n", id="csv without a price"),
        pytest.param(Format.SHOPIFY_CSV, b"x" * 70_000, id="csv without an end"),
        pytest.param(Format.GOOGLE_XML, b"", id="xml without one"),
        pytest.param(Format.GOOGLE_XML, b"<html><channel>", id="xml of a page"),
        pytest.param(Format.GOOGLE_XML, b"<rss><channel", id="xml that is none"),
        pytest.param(Format.GOOGLE_XML, b"<rss><item><a/></item>", id="xml with an item"),
        pytest.param(Format.GOOGLE_XML, b'<!DOCTYPE r [<!ENTITY a "b">]><rss>', id="xml with entities"),
        pytest.param(Format.JSON_LINES, b"id\n", id="json with one"),
    ],
)
async def test_a_prologue_that_no_feed_begins_with_is_a_fault_of_the_format(
    client: httpx.AsyncClient, spool_folder: Path, tmp_path: Path, format: Format, prologue: bytes
) -> None:
    path = tmp_path / "feed"
    path.write_bytes(_HEADER + _ROW)
    version, size = files.file_version(path.as_uri(), path)
    feed = Feed(url=path.as_uri(), version=version, total_bytes=size, format=format, prologue=prologue)
    with pytest.raises(FeedFormatError):
        await read_page(client, feed, FeedCursor(), 10, spool_folder=spool_folder, readahead=Readahead())


async def test_a_cursor_before_the_feed_is_a_fault_of_the_format(
    client: httpx.AsyncClient, spool_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "feed.tsv").write_bytes(_HEADER + _ROW)
    feed, _ = await open_feed(client, source((tmp_path / "feed.tsv").as_uri()), spool_folder=spool_folder)
    with pytest.raises(FeedFormatError, match="cursor"):
        await read_page(client, feed, FeedCursor(offset=-1), 10, spool_folder=spool_folder, readahead=Readahead())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A feed folder with a feed below it, and a folder beside it with another."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "deep", outside):
        folder.mkdir(parents=True)
        (folder / "feed.tsv").write_bytes(_HEADER + _ROW)
    return inside, outside


async def _read(client: httpx.AsyncClient, path: Path, folder: Path, spool_folder: Path) -> FetchedPage:
    feed, cursor = await open_feed(
        client, source(path.as_uri()), spool_folder=spool_folder, feed_folders=[folder], readahead=Readahead()
    )
    return await read_page(
        client, feed, cursor, 10, spool_folder=spool_folder, feed_folders=[folder], readahead=Readahead()
    )


async def test_a_file_below_a_feed_folder_is_read(
    client: httpx.AsyncClient, spool_folder: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    inside, _ = folders
    (inside / "link.tsv").symlink_to(inside / "deep" / "feed.tsv")
    (tmp_path / "linked").symlink_to(inside)
    for path in (inside / "deep" / "feed.tsv", inside / "link.tsv", tmp_path / "linked" / "deep" / "feed.tsv"):
        assert (await _read(client, path, inside, spool_folder)).entries == 1
    assert (await _read(client, inside / "link.tsv", tmp_path / "linked", spool_folder)).entries == 1


@pytest.mark.parametrize("way", ["plain", "dots", "link to a file", "link to a folder", "the folder"])
async def test_a_file_elsewhere_is_refused(
    client: httpx.AsyncClient, spool_folder: Path, folders: tuple[Path, Path], way: str
) -> None:
    inside, outside = folders
    (inside / "link.tsv").symlink_to(outside / "feed.tsv")
    (inside / "linked").symlink_to(outside)
    path = {
        "plain": outside / "feed.tsv",
        "dots": inside / ".." / "outside" / "feed.tsv",
        "link to a file": inside / "link.tsv",
        "link to a folder": inside / "linked" / "feed.tsv",
        "the folder": inside,
    }[way]
    feed = Feed(url=path.as_uri(), version="1-1", format=Format.GOOGLE_TSV, prologue=_HEADER)
    for reading in (
        _read(client, path, inside, spool_folder),
        read_page(client, feed, FeedCursor(), 10, spool_folder=spool_folder, feed_folders=[inside]),
    ):
        with pytest.raises(FeedRefusedError, match=r"add its folder to feed_folders of \[modules\.harvest\]"):
            await reading


@pytest.mark.parametrize("swapped", ["file", "folder"])
async def test_a_link_that_is_put_there_after_the_look_is_not_followed(
    client: httpx.AsyncClient,
    spool_folder: Path,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    swapped: str,
) -> None:
    inside, outside = folders
    path, real = inside / "deep" / "feed.tsv", files.feed_folder_of

    def look_and_swap(*arguments: object) -> object:
        found = real(*arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        victim, there = (path, outside / "feed.tsv") if swapped == "file" else (path.parent, outside)
        victim.rename(inside / "away")
        victim.symlink_to(there)
        return found

    monkeypatch.setattr(files, "feed_folder_of", look_and_swap)
    with pytest.raises(FeedRefusedError):
        await _read(client, path, inside, spool_folder)


async def test_a_pipe_is_no_feed_and_one_that_may_not_be_read_is_told(
    client: httpx.AsyncClient, spool_folder: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, _ = folders
    os.mkfifo(inside / "pipe.tsv")
    with pytest.raises(FeedNotFoundError, match="it is not a file"):
        await _read(client, inside / "pipe.tsv", inside, spool_folder)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FeedForbiddenError, match="Permission denied"):
        files.file_version("file:///x", inside / "deep" / "feed.tsv", [inside])


async def test_a_file_that_was_replaced_between_pages_is_told(
    client: httpx.AsyncClient, spool_folder: Path, folders: tuple[Path, Path]
) -> None:
    inside, _ = folders
    path = inside / "deep" / "feed.tsv"
    feed, cursor = await open_feed(
        client, source(path.as_uri()), spool_folder=spool_folder, feed_folders=[inside], readahead=Readahead()
    )
    path.write_bytes(_HEADER + _ROW * 2)
    with pytest.raises(FeedChangedError):
        await read_page(
            client, feed, cursor, 1, spool_folder=spool_folder, feed_folders=[inside], readahead=Readahead()
        )


async def test_time_that_pages_before_took_counts(client: httpx.AsyncClient, spool_folder: Path) -> None:
    async with sending(silent()) as url:
        with pytest.raises(FeedLimitError, match="takes longer than 3600 s"):
            await open_feed(client, source(url), spool_folder=spool_folder, bounds=FeedBounds(used_seconds=3599.9))
