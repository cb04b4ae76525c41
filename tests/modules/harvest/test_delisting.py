"""What a harvest concludes from what it did not see: nothing, unless the feed was read to its proper end."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.feed_server import FeedServer

_XML_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>t</title>\n'
)
_XML_END = "</channel></rss>\n"
_TSV_HEAD = "id\ttitle\tprice\n"


def _item(number: int, price: str = "10.00 EUR") -> str:
    return f"<item><g:id>{number}</g:id><g:title>Lamp {number}</g:title><g:price>{price}</g:price></item>\n"


def _items(count: int) -> str:
    return "".join(_item(number) for number in range(count))


def _rows(count: int) -> str:
    return "".join(f"{number}\tLamp {number}\t10.00 EUR\n" for number in range(count))


_JSON_ROWS = "".join(f'{{"sku": "{number}", "title": "Lamp", "price": "10"}}\n' for number in range(20))

_CUT = {
    "between_items": (_XML_HEAD + _items(20) + _XML_END, _XML_HEAD + _items(10), "TRUNCATED"),
    "exactly_after_an_item": (_XML_HEAD + _items(20) + _XML_END, (_XML_HEAD + _items(10)).rstrip(), "TRUNCATED"),
    "in_an_item": (_XML_HEAD + _items(20) + _XML_END, _XML_HEAD + _items(10) + "<item><g:id>10</g", "TRUNCATED"),
    "unbalanced": (_XML_HEAD + _items(20) + _XML_END, _XML_HEAD + _items(10) + "</rss>\n", "TRUNCATED"),
    "end_tag_in_a_comment": (
        _XML_HEAD + _items(20) + _XML_END,
        _XML_HEAD + _items(10) + "<!-- </channel></rss> -->\n",
        "TRUNCATED",
    ),
    "in_a_row": (_TSV_HEAD + _rows(20), _TSV_HEAD + _rows(10) + "10\tLa", "TRUNCATED"),
    "in_an_object": (_JSON_ROWS, _JSON_ROWS[: len(_JSON_ROWS) // 2 + 5], "TRUNCATED"),
}


def _configure(
    house: Any, urls: dict[str, str], settings: str = "max_delisted_share = 1\nallow_private = true"
) -> None:
    house.configure(
        "".join(
            f'[modules.harvest.suppliers.{code}]\nurl = "{url}"\npage_size = 5\n{settings}\n'
            for code, url in urls.items()
        )
    )
    house.serve()
    house.work()


def _harvest(house: Any, tenant: str, code: str, **more: Any) -> dict[str, Any]:
    ended: dict[str, Any] = house.wait(house.start(supplier_code=code, tenant_id=tenant, **more))
    assert ended["status"] == "completed", ended
    return ended


def test_a_feed_that_is_cut_marks_nothing_and_says_so(house: Any, tmp_path: Path) -> None:
    tenant = f"tenant-{uuid.uuid4().hex[:8]}"
    files = {code: tmp_path / f"{code}.feed" for code in _CUT}
    for code, (whole, _, _) in _CUT.items():
        files[code].write_text(whole)
    _configure(house, {code: path.as_uri() for code, path in files.items()})
    for code, (whole, cut, reason) in _CUT.items():
        first = _harvest(house, tenant, code)
        assert first["result"]["counts"]["created"] == "20", code
        assert "incomplete" not in first["result"]
        assert not first.get("notice")
        files[code].write_text(cut)
        second = _harvest(house, tenant, code)
        assert "delisted" not in second["result"], code
        assert second["result"]["incomplete"] == f"HARVEST_INCOMPLETE_{reason}", code
        assert second["result"]["incomplete_detail"] in second["notice"]
        assert "nothing was marked" in second["notice"]
        with Catalogue.open(house.catalogue_url) as catalogue:
            assert catalogue.count(tenant, code, delisted=True) == 0
        # What is complete and lacks one still marks that one.
        files[code].write_text(whole.replace(_item(7), "").replace("7\tLamp 7\t10.00 EUR\n", ""))
        third = _harvest(house, tenant, code)
        assert third["result"].get("delisted", "0") == ("0" if code == "in_an_object" else "1"), code


def test_what_is_rejected_today_is_listed_all_the_same(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.xml", f"tenant-{uuid.uuid4().hex[:8]}"
    _configure(house, {"lamps": feed.as_uri()})
    feed.write_text(_XML_HEAD + _items(5) + _XML_END)
    assert _harvest(house, tenant, "lamps")["result"]["counts"]["created"] == "5"
    damaged = "<item><g:id>1</g:id><g:title>Bad & ugly</g:title></item>\n"
    feed.write_text(_XML_HEAD + _item(0) + damaged + _item(3, "POA") + _item(4) + _XML_END)
    second = _harvest(house, tenant, "lamps")["result"]
    assert (second["counts"]["rejected"], second["delisted"]) == ("2", "1")
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count(tenant, "lamps", delisted=True) == 1
    # Gone for good, they are marked like any other.
    feed.write_text(_XML_HEAD + _item(0) + _item(4) + _XML_END)
    assert _harvest(house, tenant, "lamps")["result"]["delisted"] == "2"


def test_a_large_share_is_marked_only_where_that_is_allowed(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.tsv", f"tenant-{uuid.uuid4().hex[:8]}"
    _configure(house, {"lamps": feed.as_uri()}, settings="max_delisted_share = 0.25")
    feed.write_text(_TSV_HEAD + _rows(60))
    _harvest(house, tenant, "lamps")
    feed.write_text(_TSV_HEAD + _rows(44))
    braked = _harvest(house, tenant, "lamps")
    assert "delisted" not in braked["result"]
    assert braked["result"]["incomplete"] == "HARVEST_INCOMPLETE_TOO_MANY_DELISTED"
    for told in ("16 of 60", "0.25", "allow_delisting = true"):
        assert told in braked["notice"]
    allowed = _harvest(house, tenant, "lamps", allow_delisting=True)
    assert (allowed["result"]["delisted"], "incomplete" in allowed["result"]) == ("16", False)
    # Of 44 these are exactly a quarter, and of 33 ten more than that, but no more than ten.
    for count, delisted in ((33, "11"), (23, "10")):
        feed.write_text(_TSV_HEAD + _rows(count))
        assert _harvest(house, tenant, "lamps")["result"]["delisted"] == delisted


@contextmanager
def _raw_server(answer: list[bytes]) -> Iterator[str]:
    """Answers every connection with the newest of `answer`, byte for byte, and ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as request:
                    while request.readline().strip():
                        pass
                    connection.sendall(answer[-1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/feed"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"


def _answer(head: bytes, body: bytes) -> bytes:
    return b'HTTP/1.1 200 OK\r\nConnection: close\r\nETag: "same"\r\n' + head + body


@pytest.mark.parametrize("kind", ["length", "chunked", "no_length", "gzip"])
def test_a_connection_that_ends_early_marks_nothing(house: Any, kind: str) -> None:
    tenant, whole, half = (
        f"tenant-{uuid.uuid4().hex[:8]}",
        (_TSV_HEAD + _rows(40)).encode(),
        (_TSV_HEAD + _rows(20)).encode(),
    )
    packed = gzip.compress(half)[:-8]
    cut = {
        "length": _answer(b"Content-Length: %d\r\n\r\n" % len(whole), half),
        "chunked": _answer(_CHUNKED % (len(half), half), b""),
        "no_length": _answer(b"\r\n", half),
        # All that it stands for, but not the end of a packed file.
        "gzip": _answer(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed), packed),
    }[kind]
    good = _answer(b"Content-Length: %d\r\n\r\n" % len(whole), whole).replace(b'"same"', b'"first"')
    answers = [good]
    with _raw_server(answers) as url:
        _configure(house, {"lamps": url})
        assert _harvest(house, tenant, "lamps")["result"]["counts"]["created"] == "40"
        answers.append(cut)
        second = _harvest(house, tenant, "lamps")
        reason = "LENGTH_UNKNOWN" if kind == "no_length" else "BROKEN_OFF"
        assert second["result"]["incomplete"] == f"HARVEST_INCOMPLETE_{reason}"
        assert second["result"]["incomplete_detail"] in second["notice"]
        assert "delisted" not in second["result"]
        assert second["result"]["counts"]["unchanged"] == "20"
        # What came then is not taken for the whole of the same version.
        less = (_TSV_HEAD + _rows(39)).encode()
        answers.append(_answer(b"Content-Length: %d\r\n\r\n" % len(less), less))
        assert _harvest(house, tenant, "lamps")["result"]["delisted"] == "1"


@contextmanager
def _range_server(feed: list[bytes], end: list[int]) -> Iterator[str]:
    """Gives parts of the newest of `feed`, and hangs up at byte `end` whatever length it has told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as request:
                    head = b"".join(iter(request.readline, b"\r\n"))
                    found = re.search(rb"Range: bytes=(\d+)-(\d+)", head)
                    assert found is not None
                    content = feed[-1]
                    first, last = int(found[1]), min(int(found[2]), len(content) - 1)
                    told = (len(feed), first, last, len(content), last + 1 - first)
                    connection.sendall(
                        b'HTTP/1.1 206 Partial\r\nConnection: close\r\nETag: "%d"\r\n'
                        b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
                        % told
                        + content[first : min(last + 1, max(first, end[-1]))]
                    )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/feed"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("rows", [20, 4000])
def test_a_range_server_that_breaks_off_again_and_again_ends_the_harvest_as_incomplete(house: Any, rows: int) -> None:
    tenant, whole = f"tenant-{uuid.uuid4().hex[:8]}", (_TSV_HEAD + _rows(rows)).encode()
    feed, end = [whole], [len(whole)]
    with _range_server(feed, end) as url:
        _configure(house, {"lamps": url}, settings="max_delisted_share = 1\nallow_private = true")
        assert _harvest(house, tenant, "lamps", page_size=1000)["result"]["counts"]["created"] == str(rows)
        feed.append(whole)
        end.append(len(whole) * 3 // 4)
        second = _harvest(house, tenant, "lamps", page_size=1000)
        assert second["result"]["incomplete"] == "HARVEST_INCOMPLETE_BROKEN_OFF"
        assert f"from byte {end[-1]:,} on" in second["notice"]
        assert "nothing was marked as no longer listed" in second["notice"]
        assert "delisted" not in second["result"]
        assert second["result"]["counts"]["unchanged"] == str(whole[: end[-1]].count(b"\n") - 1)
        with Catalogue.open(house.catalogue_url) as catalogue:
            assert catalogue.count(tenant, "lamps", delisted=True) == 0
        # Whole again, and one less.
        feed.append((_TSV_HEAD + _rows(rows - 1)).encode())
        end.append(len(feed[-1]))
        assert _harvest(house, tenant, "lamps", page_size=1000)["result"]["delisted"] == "1"


def test_an_unchanged_feed_is_told_and_may_be_read_all_the_same(house: Any, tmp_path: Path) -> None:
    tenant, feed = f"tenant-{uuid.uuid4().hex[:8]}", tmp_path / "feed.tsv"
    feed.write_text(_TSV_HEAD + _rows(12) + "x\tNo price\tPOA\n")
    with FeedServer(feed) as server:
        _configure(house, {"lamps": server.url()})
        first = _harvest(house, tenant, "lamps")["result"]
        assert "unchanged" not in first
        second = _harvest(house, tenant, "lamps")["result"]
        assert (second["unchanged"], "delisted" in second, "incomplete" in second) == (True, False, False)
        assert second["counts"] == {"unchanged": "12", "rejected": "1"}
        assert (second["catalogue"], second["harvest_id"] != first["harvest_id"]) == (first["catalogue"], True)
        assert [request.status for request in server.requests][-1] == 304
        forced = _harvest(house, tenant, "lamps", force=True)["result"]
        assert ("unchanged" in forced, forced["counts"]["fetched"]) == (False, "13")
        assert _harvest(house, tenant, "lamps")["result"]["unchanged"] is True


def test_rows_without_a_readable_key_may_be_what_is_missing(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.tsv", f"tenant-{uuid.uuid4().hex[:8]}"
    _configure(house, {"lamps": feed.as_uri()})

    def harvest(content: str, **more: Any) -> dict[str, Any]:
        feed.write_text(_TSV_HEAD + content)
        return _harvest(house, tenant, "lamps", **more)

    always = "broken from the first day on\n"
    assert harvest(_rows(6) + always)["result"]["counts"]["rejected"] == "1"
    # The fifth cannot be read any more, and the sixth is gone: nobody knows which is which.
    damaged = _rows(4) + "Lamp 4 10.00 EUR\n" + always
    second = harvest(damaged)
    assert second["result"]["incomplete"] == "HARVEST_INCOMPLETE_UNREADABLE_ROWS"
    assert "delisted" not in second["result"]
    for told in ("did not have: 1;", "2 products", "allow_delisting = true"):
        assert told in second["notice"]
    # So it is the next day, as nothing was concluded; a row that was always broken keeps nothing from being marked.
    assert harvest(damaged)["result"]["incomplete"] == "HARVEST_INCOMPLETE_UNREADABLE_ROWS"
    mended = harvest(_rows(5) + always)["result"]
    assert (mended["delisted"], "incomplete" in mended) == ("1", False)
    assert harvest(_rows(3) + "other\n", allow_delisting=True)["result"]["delisted"] == "2"


def test_rejected_rows_are_listed_page_by_page(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.tsv", f"tenant-{uuid.uuid4().hex[:8]}"
    _configure(house, {"lamps": feed.as_uri()})
    feed.write_text(_TSV_HEAD + "".join(f"{n}\tLamp {n}\tPOA\n" for n in range(12)) + "x\t\t1 EUR\n" + _rows(3))
    harvested = _harvest(house, tenant, "lamps")["result"]

    def listed(**more: Any) -> dict[str, Any]:
        payload = {"workflow_type": "list_rejected", "supplier_code": "lamps", "tenant_id": tenant, **more}
        return dict(house.wait(house.call("StartWorkflow", payload)["workflow_id"]))

    lines, token = list[int](), ""
    for size in (5, 5, 2):
        page = listed(reason="bad_price", page_size=5, page_token=token)["result"]
        assert (page["harvest_id"], len(page["rows"])) == (harvested["harvest_id"], size)
        assert {row["reason"] for row in page["rows"]} == {"bad_price"}
        lines += [int(row["line"]) for row in page["rows"]]
        token = page.get("next_page_token", "")
    assert (lines, token) == (list(range(2, 14)), "")
    (row,) = listed(reason="missing_title", harvest_id=harvested["harvest_id"])["result"]["rows"]
    assert (row["sku"], row["line"]) == ("x", "14")
    assert "rows" not in listed(harvest_id="no-such").get("result", {})
    refused = listed(page_token="forged")
    assert (refused["status"], "page_token 'forged'" in refused["error"]) == ("failed", True)
