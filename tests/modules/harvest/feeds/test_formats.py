"""What each format means: which value of a feed ends up in which field, and what becomes of rows that are wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import FeedFormat as Format
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contextunity.modules.harvest.errors import FeedFormatError
from contextunity.modules.harvest.feeds.delimited import split_records
from contextunity.modules.harvest.feeds.encoding import guess_encoding
from contextunity.modules.harvest.feeds.google import parse_google_tsv
from contextunity.modules.harvest.feeds.model import count_lines
from contextunity.modules.harvest.feeds.open import find_encoding

ReadText = Callable[..., Awaitable[Any]]

HEADER = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,"
    "Variant Grams,Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,Variant Price,"
    "Variant Compare At Price,Variant Barcode,Image Src,Google Shopping / MPN,Variant Image,Variant Weight Unit"
)


def row(**values: str) -> str:
    """One row of a Shopify export; `Variant_SKU` stands for the column "Variant SKU"."""
    named = {name.replace("__", " / ").replace("_", " "): value for name, value in values.items()}
    return ",".join(named.get(name, "") for name in HEADER.split(","))


async def test_variants_inherit_from_the_first_row_of_their_group(read_text: ReadText) -> None:
    first_row = row(
        Handle="tent", Title="Tent", Vendor="Kestrel", Type="Tents", Tags="red", Option1_Name="Size", Option1_Value="S"
    )
    second_row = row(Handle="tent", Option1_Value="M", Option2_Value="Red", Variant_SKU="T-M", Variant_Price="9")
    reading = await read_text(f"{HEADER}\n{first_row.replace('Tent,,', 'Tent,<p>Dry</p>,', 1)}\n{second_row}")
    first, second = reading.products
    assert (second.title, second.body, second.brand, second.tags) == ("Tent", "<p>Dry</p>", "Kestrel", "red")
    assert second.categories == ["Tents"]
    assert first.options == {"Size": "S"}
    assert second.options == {"Size": "M", "Option2": "Red"}
    assert (second.sku, second.group, second.price, second.line) == ("T-M", "tent", "9", 3)


async def test_a_group_has_the_images_of_all_its_rows_and_a_variant_its_own_first(read_text: ReadText) -> None:
    reading = await read_text(
        "\n".join(
            [
                HEADER,
                row(Handle="a", Title="A", Variant_SKU="1", Image_Src="http://x/1", Variant_Image="http://x/2"),
                row(Handle="a", Variant_SKU="2", Image_Src="http://x/2"),
                row(Handle="a", Image_Src="http://x/3"),
            ]
        )
    )
    assert [product.image_urls for product in reading.products] == [
        ["http://x/2", "http://x/1", "http://x/3"],
        ["http://x/1", "http://x/2", "http://x/3"],
    ]
    assert reading.entries == 1


async def test_a_row_of_an_image_with_a_quantity_is_one_of_an_image(read_text: ReadText) -> None:
    rows = [
        row(Handle="a", Title="A", Variant_SKU="1", Variant_Price="9", Image_Src="http://x/1"),
        row(Handle="a", Image_Src="http://x/2", Variant_Inventory_Qty="0", Variant_Grams="0"),
    ]
    reading = await read_text("\n".join([HEADER, *rows]))
    (product,) = reading.products
    assert product.image_urls == ["http://x/1", "http://x/2"]
    assert reading.rejected == []


async def test_columns_are_found_by_name(read_text: ReadText) -> None:
    reading = await read_text(
        "Variant Price,Google Shopping / MPN,Title,Unknown,Handle,Variant Barcode,Variant Grams,Variant Weight Unit\n"
        "9.50,MP-1,Tent,?,tent,'9009518582030,454,lb\n"
    )
    (product,) = reading.products
    assert (product.price, product.mpn, product.title, product.group) == ("9.50", "MP-1", "Tent", "tent")
    # As the feed has it; and Variant Grams is in grams whatever unit the shop shows.
    assert (product.gtin, product.weight, product.weight_unit) == ("'9009518582030", "454", "g")


@pytest.mark.parametrize(
    ("tracker", "quantity", "policy", "stock"),
    [
        pytest.param("shopify", "4", "deny", ("4", ""), id="tracked"),
        pytest.param("shopify", "0", "deny", ("0", ""), id="sold out"),
        pytest.param("shopify", "0", "continue", ("0", "backorder"), id="sold on below zero"),
        pytest.param("shopify", "-2", "continue", ("-2", "backorder"), id="sold on far below zero"),
        pytest.param("", "0", "deny", ("", "in_stock"), id="untracked"),
        pytest.param("", "", "", ("", ""), id="not told"),
    ],
)
async def test_stock_means_something_only_where_it_is_tracked(
    read_text: ReadText, tracker: str, quantity: str, policy: str, stock: tuple[str, str]
) -> None:
    values = {"Variant_Inventory_Tracker": tracker, "Variant_Inventory_Qty": quantity}
    text = row(Handle="a", Title="A", Variant_Price="1", Variant_Inventory_Policy=policy, **values)
    reading = await read_text(f"{HEADER}\n{text}\n")
    (product,) = reading.products
    assert (product.stock, product.availability) == stock


async def test_a_row_that_is_not_utf_8_is_read_as_windows_1252(read_text: ReadText) -> None:
    lines = b"Handle,Title,Variant Price\n", "a,Zelt für 2 € \u2013 grün,1\n".encode("cp1252"), "b,Für,2\n".encode()
    reading = await read_text(b"".join(lines))
    assert [product.title for product in reading.products] == ["Zelt für 2 € \u2013 grün", "Für"]


@pytest.mark.parametrize(
    ("rows", "reason", "line", "rest"),
    [
        pytest.param("a,A\nb,B,1\n", "column_count", 2, ["B"], id="too few values"),
        pytest.param("a,A,1,2\nb,B,1\n", "column_count", 2, ["B"], id="too many values"),
        pytest.param("b,B,1\na,A\0,1\n", "nul_byte", 3, ["B"], id="NUL"),
        pytest.param(",A,1\nb,B,1\n", "missing_handle", 2, ["B"], id="no handle"),
        pytest.param("b,B,1\nb,,\n", "empty_row", 3, ["B"], id="nothing in it"),
        pytest.param('b,B,1\na,"A,1\nand more', "unclosed_quote", 3, ["B"], id="quote open at the end"),
        pytest.param('a,"A,1\n\nc,"C\n', "unclosed_quote", 4, ['"A'], id="quote after a stray one"),
    ],
)
async def test_a_row_that_cannot_be_read_is_kept_and_the_rest_read(
    read_text: ReadText, rows: str, reason: str, line: int, rest: list[str]
) -> None:
    reading = await read_text(f"Handle,Title,Variant Price\n{rows}")
    (bad,) = reading.rejected
    assert (bad.reason, bad.line) == (reason, line)
    assert bad.detail
    assert bad.raw.split(",")[0].strip() in rows
    assert [product.title for product in reading.products] == rest


async def test_a_bad_row_does_not_tear_its_group_in_two(read_text: ReadText) -> None:
    reading = await read_text("Handle,Title,Variant Price\na,A,1\na,broken\na,,2\n", 1)
    assert [(product.title, product.price) for product in reading.products] == [("A", "1"), ("A", "2")]
    assert reading.entries == 1


async def test_a_rejected_row_is_cut_and_can_be_stored(read_text: ReadText) -> None:
    reading = await read_text(f"Handle,Title,Variant Price\na,{'é' * 5000}\0\nb,B,1\n")
    (bad,) = reading.rejected
    assert len(bad.raw) == 2000
    assert "\0" not in bad.raw


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=3, max_size=3),
        max_size=8,
    ),
    st.sampled_from([",", "\t"]),
)
def test_whatever_the_csv_module_writes_is_read_back(rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    data = text.getvalue().encode()
    records = list(split_records(data, delimiter=delimiter, columns=3, final=True))
    assert [record.fields for record in records] == rows
    assert all(record.reject_reason is None for record in records)
    ends = [0, *(record.end for record in records)]
    assert all(start >= end for start, end in zip((record.start for record in records), ends, strict=False))


async def test_a_stray_quote_swallows_no_row(read_text: ReadText) -> None:
    reading = await read_text(
        "id\ttitle\tprice\n"
        '1\t"Big lamp\t10 EUR\n2\tB\t11 EUR\n3\t24" lamp\t12 EUR\n4\t"Nice" lamp\t13 EUR\n5\tE\t14 EUR\n'
        '6\t"End lamp\t14 EUR\n7\tG\t15 EUR\n'
    )
    assert [(product.line - 1, product.sku, product.price, product.title) for product in reading.products] == [
        (1, "1", "10 EUR", '"Big lamp'),
        (2, "2", "11 EUR", "B"),
        (3, "3", "12 EUR", '24" lamp'),
        (4, "4", "13 EUR", '"Nice" lamp'),
        (5, "5", "14 EUR", "E"),
        (6, "6", "14 EUR", '"End lamp'),
        (7, "7", "15 EUR", "G"),
    ]
    assert reading.rejected == []
    assert [(warning.line, warning.sku, warning.reason) for warning in reading.warnings] == [
        (2, "1", "stray_quote"),
        (5, "4", "stray_quote"),
        (7, "6", "stray_quote"),
    ]
    assert not any(page.incomplete for page in reading.pages)


@pytest.mark.parametrize(
    ("rows", "titles", "bad"),
    [
        pytest.param('a,"A,1\nb,B,2\nc,C 24",3\n', ['"A', "B", 'C 24"'], [], id="closed where a value may end"),
        pytest.param('a,"A,1\nc,C 24",3\n', ['"A', 'C 24"'], [], id="closed in the next row"),
        pytest.param('a,"A\nb,B,2\nc,C 24",3\n', ["B", 'C 24"'], [2], id="in a row that is cut"),
        pytest.param('a,"A,1\nb,B,2\nc,C,3\n', ['"A', "B", "C"], [], id="closed nowhere"),
        pytest.param('a,"A,1\nb,"",2\nc,C,3\n', ['"A', "C"], [], id="two in a row are none that closes"),
        pytest.param('a,"24" lamp",1\nb,B,2\n', ['24" lamp', "B"], [], id="within a quoted value"),
        pytest.param('a,"24" lamp, big",1\nb,B,2\n', ["B"], [2], id="with a comma behind it"),
        pytest.param('"a","Lamp 24"","1"\n"b","B","2"\n', ['Lamp 24"', "B"], [], id="before the quote that closes"),
        pytest.param('a,"A" x,1\nb,"B\nb,c",2\n', ['"A" x', "B\nb,c"], [], id="before a value of two lines"),
        pytest.param('a,"A" x,"1\n\n"\nb,B,2\n', ['"A" x', "B"], [], id="in a row with a value of several lines"),
    ],
)
async def test_a_quote_that_is_not_one_is_a_part_of_the_value_or_costs_its_row(
    read_text: ReadText, rows: str, titles: list[str], bad: list[int]
) -> None:
    for page_size in (1, 1000):
        reading = await read_text(f"Handle,Title,Variant Price\n{rows}", page_size)
        # A group without a title has that of its first row, and a row without one none.
        assert [product.title for product in reading.products if product.title] == titles
        assert [row.line for row in reading.rejected] == bad


async def test_values_of_several_lines_are_read_exactly(read_text: ReadText) -> None:
    body = 'Red, green, and "blue".\n\na,b,c\nbest-lamp, 2 kg, 3\r\n<p>x,1</p>\n'
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["Handle", "Title", "Body (HTML)", "Variant Price"], ["a", "A", body, "1"], ["b", "B", "", "2"]])
    reading = await read_text(text.getvalue())
    assert [(product.title, product.body) for product in reading.products] == [("A", body), ("B", "")]
    assert reading.rejected == reading.warnings == []


async def test_a_quote_that_nothing_closes_for_megabytes_costs_no_more_than_its_row(read_text: ReadText) -> None:
    rows = "".join(f"{number}\t{'x' * 1000}\t1.00 EUR\n" for number in range(10_000))
    reading = await read_text(f'id\ttitle\tprice\na\t"A\t1 EUR\n{rows}')
    assert (len(reading.products), reading.rejected) == (10_001, [])
    assert reading.products[0].title == '"A'


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(
            ["1\tA\t1 EUR", '2\t"B\t2 EUR', '3\t24" C\t3 EUR', '4\t"D" d\t4', '5\t"E\ne"\t5', '6\t""\t6', '"7"\t"G"\t7',
             '8\t"H""\t8', "text", '"', '\t"\t', '9\tI"\t9', ""]
        ),
        max_size=9,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cut=st.integers(0, 120),
)  # fmt: skip
def test_what_a_quote_means_does_not_depend_on_where_bytes_end(lines: list[str], end: str, cut: int) -> None:
    data = "".join(f"{line}{end}" for line in lines).encode()
    whole = parse_google_tsv(data, prologue=b"id\ttitle\tprice\n", line=1, limit=99, final=True)
    first = parse_google_tsv(data[:cut], prologue=b"id\ttitle\tprice\n", line=1, limit=99, final=cut >= len(data))
    left, line = data[first.consumed :], 1 + count_lines(data, 0, first.consumed)
    rest = parse_google_tsv(left, prologue=b"id\ttitle\tprice\n", line=line, limit=99, final=True)
    assert first.products + rest.products == whole.products
    assert first.rejected + rest.rejected == whole.rejected
    assert first.warnings + rest.warnings == whole.warnings
    # No line is lost: each is in a product or a rejected row, unless it is blank.
    assert first.consumed + rest.consumed == len(data)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=8, max_size=8), max_size=4
    )
)
def test_rows_that_might_be_swallowed_change_nothing_in_good_ones(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows(rows)
    records = split_records(text.getvalue().encode(), delimiter="\t", columns=8, final=True, is_row=lambda _: True)
    assert [record.fields for record in records] == rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("page_size", [1, 2, 1000])
async def test_lines_are_counted_whatever_ends_them(read_text: ReadText, end: str, page_size: int) -> None:
    lines = ["Handle,Title,Variant Price", "a,A,1", '"b","B', 'b",2', "", "bad", "c,C,3", "bad", "d,D,4", "bad,"]
    reading = await read_text(end.join(lines), page_size)
    assert [(product.group, product.line) for product in reading.products] == [("a", 2), ("b", 3), ("c", 7), ("d", 9)]
    assert [row.line for row in reading.rejected] == [6, 8, 10]
    assert reading.cursors[-1].line == len(lines) - 1

    tabs = ["id\ttitle\tprice", "1\tA\t1", '2\t"B', 'b"\t2', "bad", "3\tC\t3"]
    reading = await read_text(end.join(tabs), page_size, name="feed.tsv")
    assert [(product.sku, product.line) for product in reading.products] == [("1", 2), ("2", 3), ("3", 6)]
    assert [row.line for row in reading.rejected] == [5]

    objects = ['{"sku": "1"}', "", "bad", '{"sku": "2"}', '{"sku": []}']
    reading = await read_text(end.join(objects), page_size, name="feed.jsonl")
    assert [(product.sku, product.line) for product in reading.products] == [("1", 1), ("2", 4)]
    assert [row.line for row in reading.rejected] == [3, 5]

    items = ["<rss>", "<channel>", "<item>", "<title>A</title></item>", "<item>&</item><item>", "</item>", "</channel>"]
    reading = await read_text(end.join([*items, "</rss>"]), page_size, name="feed.xml")
    assert [product.line for product in reading.products] == [3, 5]
    assert [row.line for row in reading.rejected] == [5]


_RUSSIAN = "Палатка двухместная, очень лёгкая и прочная"


def _in_each_format(title: str) -> dict[str, str]:
    return {
        "feed.csv": f"Handle,Title,Variant Price\na,{title.replace(',', ';')},1\n",
        "feed.tsv": f"id\ttitle\tprice\n1\t{title.replace(',', ';')}\t1\n",
        "feed.xml": f"<rss><channel><title>{title}</title><item><title>{title.replace(',', ';')}</title></item>"
        "</channel></rss>",
        "feed.jsonl": f'{{"sku": "1", "title": "{title.replace(",", ";")}"}}\n',
    }


@pytest.mark.parametrize("name", ["feed.csv", "feed.tsv", "feed.xml", "feed.jsonl"])
@pytest.mark.parametrize("encoding", ["windows-1251", "gb18030", "utf-8"])
async def test_a_configured_encoding_is_believed(read_text: ReadText, name: str, encoding: str) -> None:
    content = _in_each_format(_RUSSIAN)[name].encode(encoding)
    if name == "feed.xml":
        content = b'<?xml version="1.0" encoding="latin-1"?>' + content
    reading = await read_text(content, name=name, encoding=encoding)
    (product,) = reading.products
    assert product.title == _RUSSIAN.replace(",", ";")
    assert reading.rejected == reading.warnings == []


@pytest.mark.parametrize("name", ["feed.csv", "feed.tsv", "feed.xml", "feed.jsonl"])
async def test_an_encoding_that_nobody_names_is_guessed_and_told_once(read_text: ReadText, name: str) -> None:
    content = _in_each_format(_RUSSIAN)[name].encode("windows-1251")
    reading = await read_text(content, 1, name=name)
    (product,) = reading.products
    assert product.title == _RUSSIAN.replace(",", ";")
    (warning,) = reading.warnings
    assert (warning.reason, warning.line) == ("guessed_encoding", product.line)
    assert "cp1251" in warning.detail


@pytest.mark.parametrize(
    ("title", "encoding"),
    [
        ("Tente légère à deux places, très résistante. Été comme hiver", "cp1252"),
        ("Zelt für 2 € \u2013 grün", "cp1252"),
        ("Namiot bardzo lekki i wytrzymały. Śpiwór żółty, łóżko", "cp1250"),
        ("Σκηνή για δύο άτομα, πολύ ελαφριά και ανθεκτική. Υπνόσακος πράσινος", "cp1253"),  # noqa: RUF001
        ("二人用テント、とても軽くて丈夫です", "shift_jis"),
        ("双人帐篷，非常轻便耐用。绿色睡袋", "gb18030"),  # noqa: RUF001
    ],
)
def test_usual_encodings_are_guessed(title: str, encoding: str) -> None:
    data = f"id\ttitle\tprice\n1\t{title}\t1 EUR\n".encode(encoding)
    assert data.decode(guess_encoding(data)) == data.decode(encoding)


async def test_xml_says_what_it_is_in(read_text: ReadText) -> None:
    for encoding in ("windows-1251", "gb18030"):
        text = f'<?xml version="1.0" encoding="{encoding}"?>{_in_each_format(_RUSSIAN)["feed.xml"]}'
        reading = await read_text(text.encode(encoding))
        assert [product.title for product in reading.products] == [_RUSSIAN.replace(",", ";")]
        assert reading.warnings == []
    with pytest.raises(FeedFormatError, match="'klingon' is not a known encoding"):
        await read_text('<?xml version="1.0" encoding="klingon"?><rss><channel><item/></channel></rss>')


async def test_a_row_that_is_not_utf_8_among_others_is_told(read_text: ReadText) -> None:
    rows = b"a,Gr\xfcn,1\n", "b,Für,2\n".encode()
    reading = await read_text(b"Handle,Title,Variant Price\n" + b"".join(rows))
    assert [product.title for product in reading.products] == ["Grün", "Für"]
    assert [(warning.line, warning.reason) for warning in reading.warnings] == [(2, "guessed_encoding")]
    reading = await read_text(b"Handle,Title,Variant Price\n" + b"".join(rows), encoding="utf-8")
    assert [product.title for product in reading.products] == ["Gr\ufffdn", "Für"]
    assert [(warning.line, warning.reason) for warning in reading.warnings] == [(2, "bad_encoding")]


@pytest.mark.parametrize(
    ("content_type", "content", "found"),
    [
        ("text/csv; charset=windows-1251", _RUSSIAN.encode("cp1251"), ("cp1251", False)),
        ("text/csv; charset=windows-1251", b"ascii", ("cp1251", False)),
        ("text/csv; charset=iso-8859-1", _RUSSIAN.encode(), ("", False)),
        ("text/csv; charset=klingon", _RUSSIAN.encode("cp1251"), ("cp1251", True)),
        ("text/csv", b"\xef\xbb\xbf" + _RUSSIAN.encode("cp1251"), ("", False)),
        ("", _RUSSIAN.encode()[:-1], ("", False)),
    ],
    ids=["stated", "stated of ASCII", "stated and wrong", "stated and unknown", "byte order mark", "cut"],
)
def test_a_server_is_believed_where_the_content_does_not_say_otherwise(
    content_type: str, content: bytes, found: tuple[str, bool]
) -> None:
    assert find_encoding("https://x.example/", content, content_type) == found


async def test_google_xml_reads_rss(read_text: ReadText) -> None:
    reading = await read_text(
        """<rss xmlns:g="http://base.google.com/ns/1.0"><channel><item>
        <g:id>1</g:id><g:item_group_id>G</g:item_group_id><title>Tent</title><link>https://x.example/t</link>
        <description>Dry</description><g:image_link>https://x.example/1.jpg</g:image_link>
        <g:additional_image_link>https://x.example/2.jpg</g:additional_image_link>
        <g:additional_image_link>https://x.example/3.jpg</g:additional_image_link>
        <g:price>20.00 EUR</g:price><g:sale_price>15.00 EUR</g:sale_price><g:availability>in stock</g:availability>
        <g:brand>Kestrel</g:brand><g:gtin>9009518582030</g:gtin><g:mpn>M</g:mpn>
        <g:product_type>Home &gt; Tents</g:product_type><g:google_product_category>499</g:google_product_category>
        <g:shipping_weight>2 kg</g:shipping_weight><g:shipping><g:price>5 EUR</g:price></g:shipping>
        <g:color>Red</g:color><g:size>M</g:size></item></channel></rss>"""
    )
    (product,) = reading.products
    assert (product.sku, product.group, product.title, product.body) == ("1", "G", "Tent", "Dry")
    assert (product.price, product.sale_price) == ("20.00 EUR", "15.00 EUR")
    assert product.image_urls == [f"https://x.example/{number}.jpg" for number in (1, 2, 3)]
    assert product.categories == ["Home > Tents", "499"]
    assert product.options == {"Color": "Red", "Size": "M"}
    assert (product.availability, product.weight, product.brand) == ("in stock", "2 kg", "Kestrel")
    assert (product.gtin, product.mpn, product.link) == ("9009518582030", "M", "https://x.example/t")


async def test_google_xml_reads_atom(read_text: ReadText) -> None:
    reading = await read_text(
        """<?xml version="1.0" encoding="ISO-8859-1"?>
        <feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>
        <entry><id>urn:1</id><g:id>1</g:id><title>Käse</title><summary>Good</summary>
        <link rel="self" href="https://x.example/self"/><link href="https://x.example/k"/><g:price>3 EUR</g:price>
        </entry><entry><id>urn:2</id><title>Two</title></entry></feed>""".encode("latin-1")
    )
    first, second = reading.products
    assert (first.sku, first.title, first.body, first.link) == ("1", "Käse", "Good", "https://x.example/k")
    assert (second.sku, second.line) == ("urn:2", 5)


async def test_a_feed_of_xml_that_breaks_off_is_told(read_text: ReadText) -> None:
    text = "<rss><channel><item><title>A</title></item>\n<item><title>B</title></item>"
    for page_size in (1, 2, 1000):
        reading = await read_text(text, page_size)
        assert [product.title for product in reading.products] == ["A", "B"]
        assert [bad.reason for bad in reading.rejected] == ["truncated"]


async def test_an_item_that_breaks_off_is_kept_as_rejected(read_text: ReadText) -> None:
    reading = await read_text("<rss><channel><item><title>A</title></item><item><title>B</ti")
    assert [bad.reason for bad in reading.rejected] == ["bad_xml", "truncated"]


async def test_an_item_cannot_use_what_only_a_document_type_declares(read_text: ReadText) -> None:
    reading = await read_text(
        "<rss><channel><item><title>A&nbsp;</title></item><item><title>B</title></item></channel></rss>"
    )
    assert [product.title for product in reading.products] == ["B"]
    assert "undefined entity" in reading.rejected[0].detail


async def test_google_tsv_reads_lists_and_header_spellings(read_text: ReadText) -> None:
    reading = await read_text(
        "ID\tg:title\tPrice\tsale price\timage link\tadditional image link\titem_group_id\tcolor\tquantity\n"
        "1\tTent\t20 EUR\t15 EUR\thttps://x/1\thttps://x/2,https://x/3\tG\tRed\t7\n"
    )
    (product,) = reading.products
    assert reading.feed.format is Format.GOOGLE_TSV
    assert (product.sku, product.title, product.group, product.stock) == ("1", "Tent", "G", "7")
    assert (product.price, product.sale_price) == ("20 EUR", "15 EUR")
    assert product.image_urls == ["https://x/1", "https://x/2", "https://x/3"]
    assert product.options == {"Color": "Red"}


async def test_json_lines_reads_both_spellings_and_keeps_numbers_as_written(read_text: ReadText) -> None:
    reading = await read_text(
        '{"sku":"1","compareAtPrice":10.50,"price":1e2,"gtin":09,"x":1}\n'
        '{"sku":"2","compare_at_price":10.50,"price":7,"image_urls":["a"],"tags":["b","c"],"options":{"Size":4},'
        '"title":null,"unknown":{}}\n',
        name="feed.jsonl",
    )
    (product,) = reading.products
    assert (product.compare_at_price, product.price, product.tags) == ("10.50", "7", "b, c")
    assert (product.image_urls, product.options) == (["a"], {"Size": "4"})
    # A number with a leading zero is no JSON.
    assert [(bad.line, bad.reason) for bad in reading.rejected] == [(1, "bad_json")]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        pytest.param('{"sku": "1",', "bad_json", "not JSON", id="cut off"),
        pytest.param("[1]", "bad_json", "array", id="no object"),
        pytest.param("[" * 100_000, "bad_json", "not JSON", id="very deep"),
        pytest.param('{"sku": ["1"]}', "bad_field", "sku must be a string or a number, but is a JSON array", id="list"),
        pytest.param(
            '{"sku": true}', "bad_field", "sku must be a string or a number, but is a JSON boolean", id="bool"
        ),
        pytest.param('{"options": ["S"]}', "bad_field", "options must be an object", id="options"),
        pytest.param('{"imageUrls": {}}', "bad_field", "image_urls must be a list", id="images"),
        pytest.param('{"title": "\\ud800"}', "bad_field", "surrogate", id="half a surrogate pair"),
    ],
)
async def test_a_line_that_is_no_product_is_rejected(read_text: ReadText, line: str, reason: str, detail: str) -> None:
    reading = await read_text(f'{{"sku": "0"}}\n{line}\n{{"sku": "2"}}\n')
    assert [product.sku for product in reading.products] == ["0", "2"]
    (bad,) = reading.rejected
    assert (bad.line, bad.reason) == (2, reason)
    assert detail in bad.detail


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.binary(max_size=400))
@example(b"<html")
async def test_no_bytes_after_a_good_beginning_make_reading_fail(
    any_feed: tuple[Format, str, bytes], read_text: ReadText, junk: bytes
) -> None:
    _, _, content = any_feed
    reading = await read_text(content + b"\n" + junk, 3)
    assert reading.products
    assert reading.cursors[-1].offset == len(content) + 1 + len(junk)
