"""Small feeds that once went wrong, harvested end to end: written here, and as found where those files are there."""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contextunity.modules.harvest.catalogue import Catalogue

_FOUND = Path(__file__).resolve().parents[4] / "shared" / "cases" / "feeds"
_XML = '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel>\n{}</channel></rss>\n'


def _item(sku: str, price: str = "10.00 EUR", **fields: str) -> str:
    more = "".join(f"<g:{name}>{value}</g:{name}>" for name, value in fields.items())
    return f"<item><g:id>{sku}</g:id><g:title>Lamp {sku}</g:title><g:price>{price}</g:price>{more}</item>\n"


def _sale(sku: str, price: str, dates: str = "") -> str:
    return _item(sku, sale_price=price, **({"sale_price_effective_date": dates} if dates else {}))


_TWENTY = _XML.format("".join(_item(str(number)) for number in range(20)))
_SHOP = (
    "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Tracker,Variant Inventory Qty,"
    "Variant Price,Variant Barcode,Status\n"
    "a,A,Size,S,'00123,shopify,3,10.00,'0012345678905,active\n"
    "b,B,Size,S,00123,shopify,3,11.00,,active\n"
    "c,C,Title,Default Title,C1,shopify,3,12.00,,archived\n"
    "d,D,Title,Default Title,D1,shopify,3,12.00,,draft\n"
)
_WRITTEN = {
    "trunc.xml": _TWENTY,
    "trunc_second.xml": _TWENTY[: _TWENTY.index("<item><g:id>10<") + len("<item>")],
    "rejrun.xml": _XML.format("".join(_item(str(number)) for number in range(5))),
    "rejrun_second.xml": _XML.format(
        "".join(_item(str(number), "POA" if number == 3 else "10.00 EUR") for number in range(5))
    ),
    "sale.xml": _XML.format(
        _sale("future", "5.00 EUR", "2040-01-01T00:00+0100/2040-02-01T00:00+0100")
        + _sale("past", "5.00 EUR", "2015-01-01T00:00+0100/2015-02-01T00:00+0100")
        + _sale("zero", "0.00 EUR")
        + _sale("onlycur", " EUR")
        + _sale("higher", "15.00 EUR")
        + _sale("xx", "xx")
        + "<item><g:id>twoprice</g:id><g:title>Lamp</g:title><g:price>5.00 EUR</g:price>"
        "<g:sale_price>5.00 EUR</g:sale_price><g:price>9.00 EUR</g:price></item>\n"
    ),
    "stock.xml": _XML.format(
        _item("bo", availability="backorder", quantity="0")
        + _item("schema", availability="https://schema.org/InStock")
        + _item("lim", availability="limited availability")
        + _item("pre", availability="preorder", quantity="0")
        + _item("isq", availability="in_stock", quantity="0")
    ),
    "gtin.xml": _XML.format(
        _item("lost0", gtin="30955168517")
        + _item("sci", gtin="9.78E+12")
        + _item("ok", gtin="030955168517")
        + _item("isbn10", gtin="0306406152")
        + _item("f", gtin="9009518582030.0")
    ),
    "price.xml": _XML.format(
        _item("eurf", "EUR 10.00")
        + _item("dash", "1299,- CZK")
        + _item("ft", "1 299 Ft")
        + _item("hrn", "100 грн")
        + _item("sek", "499:- SEK")
        + _item("neg", "-5.00 EUR")
        + _item("kwd", "12,500 KWD")
        + _item("exp", "1.2E3 EUR")
    ),
    "quote.tsv": (
        "id\ttitle\tprice\n"
        '1\t"Big lamp\t10 EUR\n2\tB\t11 EUR\n3\t24" lamp\t12 EUR\n4\t"Nice" lamp\t13 EUR\n5\tE\t14 EUR\n'
        '6\t"End lamp\t14 EUR\n7\tG\t15 EUR\n'
    ),
    "shop.csv": _SHOP,
    "shopcr.csv": _SHOP.replace("\n", "\r"),
}
_FIRST_OF = {"trunc": "trunc.xml", "rejrun": "rejrun.xml"}
_ALONE = ("price.xml", "quote.tsv", "sale.xml", "stock.xml", "gtin.xml", "shop.csv", "shopcr.csv")


def _content(name: str, source: str) -> bytes:
    return (_FOUND / name).read_bytes() if source == "found" else _WRITTEN[name].encode()


def _products(house: Any, tenant: str, code: str) -> dict[str, Any]:
    with sqlite3.connect(house.catalogue_url.removeprefix("sqlite:///")) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM products WHERE tenant_id = ? AND supplier_code = ?"
        rows = connection.execute(query, (tenant, code)).fetchall()
    connection.close()
    return {row["sku"]: row for row in rows}


@pytest.mark.parametrize(
    "source",
    [
        "written",
        pytest.param(
            "found",
            marks=pytest.mark.skipif(not _FOUND.is_dir(), reason="../shared/cases/feeds is not on this machine"),
        ),
    ],
)
def test_feeds_that_once_went_wrong(house: Any, tmp_path: Path, source: str) -> None:
    tenant, folder = f"tenant-{uuid.uuid4().hex[:8]}", tmp_path / "feeds"
    folder.mkdir()
    names = {**_FIRST_OF, **{name.replace(".", "-"): name for name in _ALONE}}
    settings = ""
    for code, name in names.items():
        path = folder / f"{code}.feed"
        path.write_bytes(_content(name, source))
        settings += f'[modules.harvest.suppliers.{code}]\nurl = "{path.as_uri()}"\nmax_delisted_share = 1\n'
    house.configure(settings)
    house.serve()
    house.work()

    def harvest(code: str) -> dict[str, Any]:
        ended = house.wait(house.start(supplier_code=code, tenant_id=tenant))
        assert ended["status"] == "completed", ended
        return dict(ended["result"])

    def rows(code: str, **query: str) -> list[tuple[str, str]]:
        asked = {"workflow_type": "list_rejected", "supplier_code": code, "tenant_id": tenant, **query}
        listed = house.wait(house.call("StartWorkflow", asked)["workflow_id"])
        assert listed["status"] == "completed", listed
        return [(row["sku"], row["reason"]) for row in listed["result"].get("rows", [])]

    # Cut off in the middle of the tenth: nothing is concluded from what is missing.
    assert harvest("trunc")["counts"]["created"] == "20"
    (folder / "trunc.feed").write_bytes(_content("trunc_second.xml", source))
    cut = harvest("trunc")
    assert (cut["counts"]["unchanged"], cut["incomplete"]) == ("10", "HARVEST_INCOMPLETE_TRUNCATED")
    assert "delisted" not in cut
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count(tenant, "trunc", delisted=False) == 20

    # Listed without a usable price: it keeps the price that it had.
    assert harvest("rejrun")["counts"]["created"] == "5"
    (folder / "rejrun.feed").write_bytes(_content("rejrun_second.xml", source))
    second = harvest("rejrun")
    assert (second["counts"]["rejected"], "delisted" in second, "incomplete" in second) == ("1", False, False)
    assert rows("rejrun") == rows("rejrun", severity="ROW_SEVERITY_REJECTED") == [("3", "bad_price")]
    assert rows("rejrun", severity="ROW_SEVERITY_WARNING") == []
    kept = _products(house, tenant, "rejrun")["3"]
    assert (kept["price_units"], kept["delisted_at"]) == (10, None)

    # Styles of prices that are read exactly; the others are rejected, not guessed.
    harvest("price-xml")
    read = {
        sku: (row["price_units"], row["currency_code"]) for sku, row in _products(house, tenant, "price-xml").items()
    }
    exact = {"eurf": (10, "EUR"), "dash": (1299, "CZK"), "ft": (1299, "HUF"), "hrn": (100, "UAH"), "sek": (499, "SEK")}
    assert exact.items() <= read.items()
    assert not {"neg", "kwd", "exp"} & read.keys()
    assert {("neg", "bad_price"), ("kwd", "bad_price"), ("exp", "bad_price")} <= set(rows("price-xml"))

    # A stray quote swallows no rows.
    quoted = harvest("quote-tsv")
    assert (quoted["counts"]["created"], "incomplete" in quoted) == ("7", False)
    prices = {sku: row["price_units"] for sku, row in _products(house, tenant, "quote-tsv").items()}
    assert prices == {"1": 10, "2": 11, "3": 12, "4": 13, "5": 14, "6": 14, "7": 15}
    assert set(rows("quote-tsv")) == {("1", "stray_quote"), ("4", "stray_quote"), ("6", "stray_quote")}

    # No reduced price of these holds, and each that is wrong in itself is doubted.
    sale = harvest("sale-xml")["counts"]
    assert (sale["created"], sale["warnings"], sale.get("rejected", "0")) == ("7", "5", "0")
    prices = {sku: row["price_units"] for sku, row in _products(house, tenant, "sale-xml").items()}
    assert prices == dict.fromkeys(("future", "past", "zero", "onlycur", "higher", "xx"), 10) | {"twoprice": 5}
    doubted = rows("sale-xml", severity="ROW_SEVERITY_WARNING")
    assert doubted == rows("sale-xml") == rows("sale-xml", reason="bad_sale_price")
    assert [sku for sku, _ in doubted] == ["zero", "onlycur", "higher", "xx", "twoprice"]
    assert rows("sale-xml", severity="ROW_SEVERITY_REJECTED") == []

    assert harvest("stock-xml")["counts"]["warnings"] == "1"
    found = {sku: row["availability"] for sku, row in _products(house, tenant, "stock-xml").items()}
    assert found == {
        "bo": "backorder",
        "schema": "in_stock",
        "lim": "in_stock",
        "pre": "preorder",
        "isq": "out_of_stock",
    }
    assert rows("stock-xml") == [("isq", "stock_mismatch")]

    assert harvest("gtin-xml")["counts"]["created"] == "5"
    gtins = {sku: row["gtin"] for sku, row in _products(house, tenant, "gtin-xml").items()}
    assert (gtins["lost0"], gtins["ok"], gtins["f"]) == ("030955168517", "030955168517", "9009518582030")
    assert gtins["sci"] == ""
    assert ("sci", "lost_digits") in rows("gtin-xml", severity="ROW_SEVERITY_WARNING")

    for code in ("shop-csv", "shopcr-csv"):
        counts = harvest(code)["counts"]
        assert (counts["created"], counts["rejected"]) == ("3", "1"), code
        assert Counter(rows(code)) == {("00123", "duplicate_sku"): 1}
        shop = {sku: (row["gtin"], row["publication"]) for sku, row in _products(house, tenant, code).items()}
        assert shop == {"00123": ("0012345678905", "active"), "C1": ("", "archived"), "D1": ("", "draft")}
        with Catalogue.open(house.catalogue_url) as catalogue:
            assert [(row.sku, row.publication) for row in catalogue.sample(tenant, code)] == [("00123", "active")]
