"""What becomes of rows with damaged or optional values: what is sold, at which price, and what is doubted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    Availability,
    Money,
    Product,
    ProductPage,
    Publication,
    RawPage,
    RawProduct,
    RowSeverity,
)

from contextunity.modules.harvest.rejects import RejectReason, WarningReason, rejected_row
from contextunity.modules.harvest.spreadsheet import lost_digits, restored
from contextunity.modules.harvest.transform import Key, transform_page

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def transformed(row: RawProduct, key: Key = "sku") -> ProductPage:
    row.title = row.title or "Lamp"
    row.price = row.price or "10.00"
    return transform_page(RawPage(products=[row]), currency_code="EUR", key=key, now=NOW)


def product_of(row: RawProduct, key: Key = "sku") -> Product:
    (product,) = transformed(row, key).products
    return product


def warnings_of(row: RawProduct) -> list[str]:
    page = transformed(row)
    assert len(page.products) == 1
    assert not page.rejected
    assert all(warning.severity is RowSeverity.WARNING for warning in page.warnings)
    return [warning.reason for warning in page.warnings]


def euros(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param("", id="always"),
        pytest.param("2026-05-01T00:00+0100/2026-07-01T00:00+0100", id="within"),
        pytest.param("2026-06-01/2026-06-01", id="one whole day"),
    ],
)
def test_a_sale_price_counts_in_its_window(dates: str) -> None:
    row = RawProduct(sku="1", sale_price="5.00", sale_price_effective_date=dates)
    product = product_of(row)
    assert (product.price, product.compare_at_price) == (euros(5), euros(10))
    assert warnings_of(row) == []


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param("2040-01-01T00:00+0100/2040-02-01T00:00+0100", id="future"),
        pytest.param("2015-01-01T00:00+0100/2015-02-01T00:00+0100", id="past"),
        pytest.param("2026-05-01T00:00Z/2026-06-01T00:00Z", id="ends now"),
    ],
)
def test_a_sale_price_outside_its_window_is_none(dates: str) -> None:
    row = RawProduct(sku="1", sale_price="5.00", sale_price_effective_date=dates)
    product = product_of(row)
    assert (product.price, product.compare_at_price) == (euros(10), None)
    assert warnings_of(row) == []


@pytest.mark.parametrize("sale", ["0.00 EUR", " EUR", "15.00 EUR", "10.00 EUR", "xx", "5.00 USD"])
def test_a_sale_price_that_cannot_be_costs_a_warning_and_not_the_price(sale: str) -> None:
    row = RawProduct(sku="1", sale_price=sale)
    product = product_of(row)
    assert (product.price, product.compare_at_price) == (euros(10), None)
    assert warnings_of(row) == [WarningReason.BAD_SALE_PRICE]


@pytest.mark.parametrize("dates", ["soon", "2026-05-01", "2026-07-01/2026-05-01", "2026-05-01/someday"])
def test_sale_dates_that_cannot_be_read_are_a_warning(dates: str) -> None:
    row = RawProduct(sku="1", sale_price="5.00", sale_price_effective_date=dates)
    assert product_of(row).price == euros(10)
    assert warnings_of(row) == [WarningReason.BAD_SALE_DATES]


@pytest.mark.parametrize(
    ("stock", "availability", "pieces", "found", "warnings"),
    [
        ("0", "backorder", 0, Availability.BACKORDER, []),
        ("0", "preorder", 0, Availability.PREORDER, []),
        ("", "https://schema.org/InStock", None, Availability.IN_STOCK, []),
        ("", "limited availability", None, Availability.IN_STOCK, []),
        ("0", "in_stock", 0, Availability.OUT_OF_STOCK, [WarningReason.STOCK_MISMATCH]),
        ("3", "", 3, Availability.IN_STOCK, []),
        ("-2", "", 0, Availability.OUT_OF_STOCK, []),
        ("in_stock", "", None, Availability.IN_STOCK, []),
        ("", "perhaps", None, Availability.UNSPECIFIED, [WarningReason.UNKNOWN_AVAILABILITY]),
        ("3 boxes", "", None, Availability.UNSPECIFIED, [WarningReason.BAD_STOCK]),
    ],
)
def test_stock_and_availability_are_two_facts(
    stock: str, availability: str, pieces: int | None, found: Availability, warnings: list[WarningReason]
) -> None:
    row = RawProduct(sku="1", stock=stock, availability=availability)
    product = product_of(row)
    assert (product.stock, product.availability) == (pieces, found)
    assert warnings_of(row) == warnings


@pytest.mark.parametrize(
    ("status", "published", "publication", "availability"),
    [
        ("", "", Publication.UNSPECIFIED, Availability.IN_STOCK),
        ("active", "", Publication.ACTIVE, Availability.IN_STOCK),
        ("Active", "true", Publication.ACTIVE, Availability.IN_STOCK),
        ("active", "FALSE", Publication.UNPUBLISHED, Availability.OUT_OF_STOCK),
        ("draft", "true", Publication.DRAFT, Availability.OUT_OF_STOCK),
        ("archived", "false", Publication.ARCHIVED, Availability.OUT_OF_STOCK),
        ("", "false", Publication.UNPUBLISHED, Availability.OUT_OF_STOCK),
    ],
)
def test_what_is_not_active_is_not_offered(
    status: str, published: str, publication: Publication, availability: Availability
) -> None:
    product = product_of(RawProduct(sku="1", stock="3", status=status, published=published))
    assert (product.publication, product.availability, product.stock) == (publication, availability, 3)


def test_a_status_that_is_not_known_is_a_warning() -> None:
    assert warnings_of(RawProduct(sku="1", status="dormant")) == [WarningReason.UNKNOWN_STATUS]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'00123", "00123"),
        ('="00123"', "00123"),
        ("123.0", "123"),
        ("9.009518582030E+12", "9009518582030"),
        ("12E4", "12E4"),
        ("9.78E+12", "9.78E+12"),
        ("'90s lamp", "'90s lamp"),
        ("1.50", "1.50"),
    ],
)
def test_spreadsheet_escapes_are_undone_in_keys_and_texts(written: str, meant: str) -> None:
    assert restored(written) == meant
    product = product_of(RawProduct(sku=written, title=written, mpn=written))
    assert (product.sku, product.title, product.mpn) == (meant, meant, meant)


def test_lost_digits_are_a_warning() -> None:
    assert lost_digits("9.78E+12")
    assert warnings_of(RawProduct(sku="9.78E+12")) == [WarningReason.LOST_DIGITS]
    assert warnings_of(RawProduct(sku="1", gtin="9.78E+12")) == [WarningReason.LOST_DIGITS]


@pytest.mark.parametrize(
    ("written", "gtin", "warnings"),
    [
        ("30955168517", "030955168517", []),
        ("030955168517", "030955168517", []),
        ("9009518582030.0", "9009518582030", []),
        ("'9009518582030", "9009518582030", []),
        ("0306406152", "", [WarningReason.BAD_GTIN]),
        ("9009518582031", "", [WarningReason.BAD_GTIN]),
        ("0", "", []),
    ],
)
def test_a_gtin_gets_its_zeros_back_or_is_a_warning(written: str, gtin: str, warnings: list[WarningReason]) -> None:
    row = RawProduct(sku="1", gtin=written)
    assert product_of(row).gtin == gtin
    assert warnings_of(row) == warnings


@pytest.mark.parametrize(
    ("key", "sku"),
    [("sku", "S"), ("barcode", "9009518582030"), ("handle_options", "lamp/red")],
)
def test_a_supplier_chooses_its_key(key: Key, sku: str) -> None:
    row = RawProduct(sku="S", group="lamp", gtin="9009518582030", options={"Color": "Red"})
    assert product_of(row, key).sku == sku


def test_a_row_without_the_chosen_key_has_its_handle_and_options() -> None:
    assert product_of(RawProduct(sku="S", group="lamp", options={"Color": "Red"}), "barcode").sku == "lamp/red"


@pytest.mark.parametrize(("key", "told"), [("sku", ["S", "R"]), ("barcode", ["", ""])])
def test_a_rejected_row_names_a_product_by_the_suppliers_key_alone(key: Key, told: list[str]) -> None:
    # One is rejected before its key is made, one by the reader; where the SKU is not the key, neither names a product.
    unread = rejected_row(line=9, reason=RejectReason.COLUMN_COUNT, detail="3 values", raw="R,1,2", sku="R")
    page = RawPage(products=[RawProduct(line=2, sku="S", title="", price="1.00")], rejected=[unread])
    assert [row.sku for row in transform_page(page, currency_code="EUR", key=key, now=NOW).rejected] == told
