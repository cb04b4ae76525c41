"""The feed server answers as feed servers do: whole, in part, on conditions, and not outside of its folder."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contextunity.modules.harvest.feed_server import FeedServer

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "feed.csv").write_bytes(CONTENT)
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "served"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        yield client


def test_a_file_is_served_with_its_versions(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder) as server:
        answer = client.get(server.url("feed.csv"))
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Last-Modified"].endswith("GMT")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        pytest.param("bytes=0-99", 0, 100, id="beginning"),
        pytest.param("bytes=100-199", 100, 200, id="middle"),
        pytest.param("bytes=255990-", 255_990, 256_000, id="open end"),
        pytest.param("bytes=255990-999999", 255_990, 256_000, id="beyond the end"),
        pytest.param("bytes=-10", 255_990, 256_000, id="the last"),
    ],
)
def test_a_part_of_a_file_is_served(folder: Path, client: httpx.Client, asked: str, first: int, end: int) -> None:
    with FeedServer(folder) as server:
        answer = client.get(server.url("feed.csv"), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[first:end])
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"


def test_a_part_that_is_not_there_is_told(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder) as server:
        answer = client.get(server.url("feed.csv"), headers={"Range": "bytes=256000-256001"})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */256000"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=5-1x", "bytes=-", "bytes=0-1,3-4"])
def test_a_range_that_it_does_not_understand_gives_all(folder: Path, client: httpx.Client, asked: str) -> None:
    with FeedServer(folder) as server:
        assert client.get(server.url("feed.csv"), headers={"Range": asked}).status_code == 200


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_a_part_may_depend_on_the_version(folder: Path, client: httpx.Client, header: str) -> None:
    with FeedServer(folder) as server:
        version = client.head(server.url("feed.csv")).headers[header]
        for condition, status in ((version, 206), ('"other"', 200)):
            headers = {"Range": "bytes=0-9", "If-Range": condition}
            assert client.get(server.url("feed.csv"), headers=headers).status_code == status


def test_another_content_is_another_version(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder) as server:
        before = client.head(server.url("feed.csv")).headers["ETag"]
        (folder / "feed.csv").write_bytes(b"shorter")
        assert client.head(server.url("feed.csv")).headers["ETag"] != before


def test_ranges_and_versions_can_be_switched_off(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder) as server:
        assert {"etag", "last-modified", "accept-ranges"} <= set(client.get(server.url("feed.csv")).headers)
    with FeedServer(folder, ranges=False, validators=False) as server:
        answer = client.get(server.url("feed.csv"), headers={"Range": "bytes=0-9"})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))
    # httpx has the names in lower case.
    assert not {"etag", "last-modified", "accept-ranges", "content-range"} & set(answer.headers)


def test_the_first_requests_can_fail(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder, fail_first=2, fail_status=429) as server:
        assert [client.get(server.url("feed.csv")).status_code for _ in range(3)] == [429, 429, 200]
        assert [request.status for request in server.requests] == [429, 429, 200]


@pytest.mark.parametrize("path", ["none.csv", "", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "a%00b"])
def test_nothing_outside_of_the_folder_is_served(folder: Path, path: str) -> None:
    with FeedServer(folder) as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"404"
            assert b"secret" not in answer.read()


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, client: httpx.Client) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    with FeedServer(folder) as server:
        assert client.get(server.url("link.txt")).status_code == 404


def test_a_single_file_is_served_alone(folder: Path, client: httpx.Client) -> None:
    (folder / "other.csv").touch()
    with FeedServer(folder / "feed.csv") as server:
        assert client.get(server.url()).content == CONTENT
        assert client.get(server.url("other.csv")).status_code == 404


def test_a_slow_server_stops_at_once_and_leaves_no_thread(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder, bytes_per_second=100) as server, client.stream("GET", server.url("feed.csv")) as answer:
        body = answer.iter_raw(1)
        next(body)
        server.stop()
        assert 0 < server.bytes_sent < len(CONTENT)
        with pytest.raises(httpx.HTTPError):
            list(body)
    assert not [thread for thread in threading.enumerate() if "feed-server" in thread.name]


def test_it_can_be_started_again(folder: Path, client: httpx.Client) -> None:
    server = FeedServer(folder)
    for _ in range(2):
        with server:
            assert client.get(server.url("feed.csv")).status_code == 200
    server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        server.url("feed.csv")


def test_a_port_that_is_taken_is_told(folder: Path) -> None:
    with FeedServer(folder) as server, pytest.raises(OSError, match="in use"):
        FeedServer(folder, port=server.port).start()


async def test_it_runs_beside_an_event_loop(folder: Path) -> None:
    async with FeedServer(folder) as server, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(server.url("feed.csv"))).content == CONTENT


def test_a_client_that_has_the_file_is_told_so(folder: Path, client: httpx.Client) -> None:
    with FeedServer(folder) as server:
        url = server.url("feed.csv")
        have = client.get(url).headers
        etag, modified = have["ETag"], have["Last-Modified"]
        older, later = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
        for headers, status in (
            ({"If-None-Match": etag}, 304),
            ({"If-None-Match": f'"other", W/{etag}'}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": '"other"'}, 200),
            ({"If-None-Match": etag, "Range": "bytes=0-9"}, 304),
            ({"If-None-Match": '"other"', "Range": "bytes=0-9"}, 206),
            # The ETag counts alone where both are sent.
            ({"If-None-Match": '"other"', "If-Modified-Since": later}, 200),
            ({"If-Modified-Since": modified}, 304),
            ({"If-Modified-Since": later}, 304),
            ({"If-Modified-Since": older}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
        ):
            answer = client.get(url, headers=headers)
            assert answer.status_code == status, headers
            assert answer.headers["ETag"] == etag
            assert (answer.content == b"") == (status == 304)
    with FeedServer(folder, validators=False) as server:
        assert client.get(server.url("feed.csv"), headers={"If-None-Match": etag}).status_code == 200
