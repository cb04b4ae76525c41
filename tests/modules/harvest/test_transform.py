"""What becomes of a row: a product with exact values, or a rejected row that says why."""

from __future__ import annotations

from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import Availability, Money, Product, RawPage, RawProduct, RejectedRow
from hypothesis import given
from hypothesis import strategies as st

from contextunity.modules.harvest.gtin import check_digit, verified_gtin
from contextunity.modules.harvest.html_text import html_to_text
from contextunity.modules.harvest.money import BadCurrencyError, BadPriceError, parse_money
from contextunity.modules.harvest.transform import MAX_SKU_CHARS, transform_page


def one(**values: Any) -> Product:
    """Transform one row, with a title, SKU and price where none is given."""
    given: dict[str, Any] = {"sku": "S", "title": "Tent", "price": "10"}
    row = RawProduct(**(given | values))
    page = transform_page(RawPage(products=[row]), currency_code="EUR")
    assert page.rejected == []
    (product,) = page.products
    return product


def refused(**values: Any) -> RejectedRow:
    """Transform one row that cannot be used."""
    given: dict[str, Any] = {"sku": "S", "title": "Tent", "price": "10", "line": 7}
    row = RawProduct(**(given | values))
    page = transform_page(RawPage(products=[row]), currency_code="EUR")
    assert page.products == []
    (bad,) = page.rejected
    return bad


@pytest.mark.parametrize(
    ("text", "code", "amount"),
    [
        pytest.param("54.95", "EUR", "54.95", id="number"),
        pytest.param("54.95 USD", "USD", "54.95", id="currency behind"),
        pytest.param("USD 54.95", "USD", "54.95", id="currency before"),
        pytest.param("usd54.95", "USD", "54.95", id="no blank"),
        pytest.param("1,299.00", "EUR", "1299", id="thousands with comma"),
        pytest.param("1.299,00 EUR", "EUR", "1299", id="thousands with point"),
        pytest.param("1,299", "EUR", "1299", id="comma before three digits"),
        pytest.param("54,95", "EUR", "54.95", id="decimal comma"),
        pytest.param("0,999", "EUR", "0.999", id="decimal comma after zero"),
        pytest.param("1.299", "EUR", "1.299", id="single point is decimal"),
        pytest.param("1,234,567.89", "EUR", "1234567.89", id="millions"),
        pytest.param("1.234.567", "EUR", "1234567", id="millions with points"),
        pytest.param("1 299,50", "EUR", "1299.50", id="thousands with blank"),
        pytest.param("1\u00a0299,50 €", "EUR", "1299.50", id="thousands with hard blank"),
        pytest.param("1'299.50 CHF", "CHF", "1299.50", id="thousands with apostrophe"),
        pytest.param("$54.95", "EUR", "54.95", id="sign of many currencies"),
        pytest.param("US$ 54.95", "USD", "54.95", id="sign of one currency"),
        pytest.param("£5", "GBP", "5", id="pound sign"),
        pytest.param(".5", "EUR", "0.5", id="no whole digits"),
        pytest.param("5.", "EUR", "5", id="no decimals"),
        pytest.param("0", "EUR", "0", id="for nothing"),
        pytest.param("0.000000001", "EUR", "0.000000001", id="a billionth"),
        pytest.param("1.500000000000", "EUR", "1.5", id="zeros beyond a billionth"),
        pytest.param(" 7 ", "EUR", "7", id="blanks around"),
        pytest.param("1299,- CZK", "CZK", "1299", id="a dash for the cents"),
        pytest.param("1.299,- Kč", "CZK", "1299", id="a dash for the cents behind thousands"),
        pytest.param("CHF 12.\u2013", "CHF", "12", id="a long dash for the cents"),
        pytest.param("1,299.-", "EUR", "1299", id="a dash behind a point"),
        pytest.param("499:- SEK", "SEK", "499", id="a dash behind a colon"),
        pytest.param("1.499:- SEK", "SEK", "1499", id="a dash behind a colon and thousands"),
        pytest.param("1 299 Ft", "HUF", "1299", id="forint"),
        pytest.param("1.299 Ft", "HUF", "1299", id="thousands of a currency without decimals"),
        pytest.param("299.000 VND", "VND", "299000", id="thousands of another"),
        pytest.param("100 грн", "UAH", "100", id="hryvnia"),
        pytest.param("100 грн.", "UAH", "100", id="hryvnia with a point"),
        pytest.param("12.500 KWD", "KWD", "12.5", id="three decimals"),
        pytest.param("0,500 KWD", "KWD", "0.5", id="three decimals behind a zero"),
        pytest.param("EUR.5", "EUR", "0.5", id="a point that is none of the currency"),
        pytest.param("9223372036854775807", "EUR", "9223372036854775807", id="largest"),
    ],
)
def test_a_price_is_read_exactly(text: str, code: str, amount: str) -> None:
    seen = parse_money(text, "EUR")
    assert seen[0] == code
    assert Decimal(seen[1]) + Decimal(seen[2]).scaleb(-9) == Decimal(amount)


@pytest.mark.parametrize(
    "text",
    [
        "call us", "-5", "EUR -5", "(5)", "\u22125", "5-10", "1e3", "NaN", "Infinity", "1.2.3", "1,23,456",
        "12,3456,789",        "1.0000000001", "9223372036854775808",
        "1" * 5000, "5 pieces", "EUR 5 USD", "1.299.00", "٣", ".", "1,299,00.5",
    ],
)  # fmt: skip
def test_what_is_no_price_is_rejected(text: str) -> None:
    bad = refused(price=text)
    assert bad.reason == "bad_price"
    assert text[:20] in bad.detail


@given(st.integers(0, 10**12), st.integers(0, 99), st.sampled_from(["", "EUR", "USD", "JPY"]))
def test_a_written_price_is_read_back(units: int, cents: int, code: str) -> None:
    expected = (code or "EUR", units, cents * 10**7)
    for text in (f"{units}.{cents:02d}", f"{units},{cents:02d}", f"{units:,}.{cents:02d}"):
        assert parse_money(f"{text} {code}", "EUR") == expected
        assert parse_money(f"{code} {text}", "EUR") == expected
    german = f"{units:,}".replace(",", ".") + f",{cents:02d}"
    assert parse_money(german, code or "EUR") == expected


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_no_price(text: str) -> None:
    try:
        code, units, nanos = parse_money(text, "EUR")
    except ValueError:
        return
    assert len(code) == 3
    assert 0 <= units < 2**63
    assert 0 <= nanos < 10**9


def test_a_currency_is_of_iso_4217() -> None:
    assert one(price="5", currency_code="usd").price == Money(currency_code="USD", units=5)
    assert one(price="5 CHF", currency_code="usd").price == Money(currency_code="CHF", units=5)
    assert refused(price="5 XQZ").reason == "bad_currency"
    page = transform_page(RawPage(products=[RawProduct(sku="1", title="A", price="5")]), currency_code="")
    assert page.rejected[0].reason == "bad_currency"
    assert "set its currency_code" in page.rejected[0].detail


@pytest.mark.parametrize(
    ("text", "own", "amount"),
    [
        ("Rs. 799", "INR", ("INR", 799, 0)),
        ("Rs.1,299", "PKR", ("PKR", 1299, 0)),
        ("799 kr", "NOK", ("NOK", 799, 0)),
        ("kr. 799,50", "DKK", ("DKK", 799, 500_000_000)),
        ("¥799", "JPY", ("JPY", 799, 0)),
    ],
)
def test_a_sign_of_several_currencies_is_the_suppliers_if_it_is_one_of_them(
    text: str, own: str, amount: tuple[str, int, int]
) -> None:
    assert parse_money(text, own) == amount
    with pytest.raises(BadCurrencyError, match=r"is a sign of .*, and the supplier's currency is EUR"):
        parse_money(text, "EUR")
    with pytest.raises(BadCurrencyError, match="set its currency_code"):
        parse_money(text, "")


@pytest.mark.parametrize("text", ["12,500 KWD", "12,50:-", "12.50:-", "1.299.-", "5,-6", "1299,-,-"])
def test_a_price_that_may_be_two_amounts_is_none(text: str) -> None:
    with pytest.raises(BadPriceError):
        parse_money(text, "SEK")


def test_a_negative_price_says_so() -> None:
    with pytest.raises(BadPriceError, match="it is negative"):
        parse_money("-5.00", "EUR")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param("12", Money(currency_code="EUR", units=12), id="higher"),
        pytest.param("10.01", Money(currency_code="EUR", units=10, nanos=10_000_000), id="a cent higher"),
        pytest.param("10", None, id="the same"),
        pytest.param("9", None, id="lower"),
        pytest.param("12 USD", None, id="other currency"),
        pytest.param("soon", None, id="no price"),
        pytest.param("", None, id="none"),
    ],
)
def test_a_price_before_a_reduction_is_a_higher_one(before: str, expected: Money | None) -> None:
    assert one(compare_at_price=before).compare_at_price == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"title": " "}, "missing_title", id="title"),
        pytest.param({"sku": ""}, "missing_sku", id="sku"),
        pytest.param({"price": " "}, "missing_price", id="price"),
        pytest.param({"sku": "x" * (MAX_SKU_CHARS + 1)}, "bad_sku", id="sku too long"),
        pytest.param({"sku": "", "group": "x" * (MAX_SKU_CHARS + 1)}, "bad_sku", id="derived sku too long"),
    ],
)
def test_a_row_that_misses_something_is_rejected_with_line_and_reason(values: dict[str, str], reason: str) -> None:
    bad = refused(**values)
    assert (bad.reason, bad.line) == (reason, 7)
    assert bad.sku == values.get("sku", "S")
    assert bad.detail
    assert bad.raw.startswith("{")


def test_a_rejected_row_is_cut_to_2000_characters() -> None:
    assert len(refused(price="no", body="x" * 5000).raw) == 2000


def test_rows_that_could_not_be_read_are_passed_on_in_the_order_of_lines() -> None:
    unread = RejectedRow(line=5, reason="column_count", detail="d", raw="r")
    rows = [RawProduct(line=9, title="A"), RawProduct(line=2, title="B", sku="b")]
    page = transform_page(RawPage(products=rows, rejected=[unread]), currency_code="EUR")
    assert [bad.line for bad in page.rejected] == [2, 5, 9]
    assert page.rejected[1] is unread


@pytest.mark.parametrize(
    ("options", "title"),
    [
        pytest.param({"Size": "Medium", "Color": "True Black"}, "Glove - Medium / True Black", id="two"),
        pytest.param({"Color": "True Black", "Size": "Medium"}, "Glove - Medium / True Black", id="other map order"),
        pytest.param({"Title": "Default Title"}, "Glove", id="placeholder"),
        pytest.param({"Lens": "Clear", "Fit": "Wide", "Size": "M"}, "Glove - M / Wide / Clear", id="unknown names"),
        pytest.param({"Size": " "}, "Glove", id="empty value"),
        pytest.param({}, "Glove", id="none"),
    ],
)
def test_a_title_says_what_sets_the_variant_apart(options: dict[str, str], title: str) -> None:
    assert one(title=" Glove ", options=options).title == title


def test_a_title_that_says_it_already_stays() -> None:
    assert one(title="Tee Blue, M", options={"Color": "blue", "Size": "M"}).title == "Tee Blue, M"
    assert one(title="Tee Blue", options={"Color": "Blue", "Size": "M"}).title == "Tee Blue - M / Blue"


@pytest.mark.parametrize(
    ("values", "sku"),
    [
        pytest.param({"sku": " A  1\n"}, "A 1", id="stated"),
        pytest.param({"sku": "", "group": "g", "options": {"Size": "M/L", "Color": "Röd"}}, "g/m-l/röd", id="derived"),
        pytest.param({"sku": "", "group": "g", "options": {"Title": "Default Title"}}, "g", id="only variant"),
        pytest.param({"sku": "", "group": "g", "options": {"Size": "+"}}, "g/+", id="signs alone"),
        pytest.param({"sku": "", "group": "g", "options": {"A": "a-b", "B": "c"}}, "g/a-b/c", id="first of two"),
        pytest.param({"sku": "", "group": "g", "options": {"A": "a", "B": "b-c"}}, "g/a/b-c", id="second of two"),
    ],
)
def test_a_missing_sku_is_derived_from_group_and_options(values: dict[str, Any], sku: str) -> None:
    assert one(**values).sku == sku


@pytest.mark.parametrize(
    ("text", "gtin"),
    [
        pytest.param("9009518582030", "9009518582030", id="13"),
        pytest.param("889212071257", "889212071257", id="12"),
        pytest.param("96385074", "96385074", id="8"),
        pytest.param("10614141000415", "10614141000415", id="14"),
        pytest.param(" 978-3-16-148410-0 ", "9783161484100", id="ISBN with hyphens"),
        pytest.param("9009518582031", "", id="wrong check digit"),
        pytest.param("90095185820", "", id="digits missing"),
        pytest.param("0000000000000", "", id="zeros"),
        pytest.param("316148410X", "", id="ISBN-10"),
        pytest.param("٩٠٠٩٥١٨٥٨٢٠٣٠", "", id="other digits"),
        pytest.param("n/a", "", id="words"),
    ],
)
def test_a_gtin_has_a_good_check_digit_or_is_left_out(text: str, gtin: str) -> None:
    assert one(gtin=text).gtin == gtin


@given(st.sampled_from([7, 11, 12, 13]).flatmap(lambda size: st.text("0123456789", min_size=size, max_size=size)))
def test_one_check_digit_of_ten_is_good(digits: str) -> None:
    good = [digit for digit in "0123456789" if verified_gtin(digits + digit)]
    zeros = not digits.strip("0")
    assert good == ([] if zeros else [str(check_digit(digits))])
    # Every single wrong digit is found.
    whole = digits + str(check_digit(digits))
    other = str((int(whole[0]) + 1) % 10) + whole[1:]
    assert verified_gtin(other) == ""


@pytest.mark.parametrize(
    ("text", "stock", "availability"),
    [
        pytest.param("4", 4, Availability.IN_STOCK, id="some"),
        pytest.param("4.0", 4, Availability.IN_STOCK, id="with decimals"),
        pytest.param("0", 0, Availability.OUT_OF_STOCK, id="none"),
        pytest.param("-3", 0, Availability.OUT_OF_STOCK, id="oversold"),
        pytest.param("in stock", None, Availability.IN_STOCK, id="in stock"),
        pytest.param("In_Stock", None, Availability.IN_STOCK, id="in_stock"),
        pytest.param("out of stock", None, Availability.OUT_OF_STOCK, id="out of stock"),
        pytest.param("preorder", None, Availability.PREORDER, id="preorder"),
        pytest.param("backorder", None, Availability.BACKORDER, id="backorder"),
        pytest.param("plenty", None, Availability.UNSPECIFIED, id="other word"),
        pytest.param("9" * 30, None, Availability.UNSPECIFIED, id="too large"),
        pytest.param("", None, Availability.UNSPECIFIED, id="not told"),
    ],
)
def test_stock_is_a_number_or_a_word(text: str, stock: int | None, availability: Availability) -> None:
    product = one(stock=text)
    assert (product.stock, product.availability) == (stock, availability)


@pytest.mark.parametrize(
    ("weight", "unit", "grams"),
    [
        pytest.param("454", "g", 454, id="grams"),
        pytest.param("1.5", "kg", 1500, id="kilograms"),
        pytest.param("1.5 kg", "", 1500, id="unit in the value"),
        pytest.param("1,5 kg", "", 1500, id="decimal comma"),
        pytest.param("1,500 g", "", 1500, id="thousands"),
        pytest.param("2", "lb", 907, id="pounds"),
        pytest.param("3.5 oz", "kg", 99, id="the value's own unit"),
        pytest.param("12", "", 12, id="no unit"),
        pytest.param("0.5", "g", 1, id="half a gram"),
        pytest.param("0", "g", None, id="zero"),
        pytest.param("-3", "g", None, id="negative"),
        pytest.param("2 stone", "", None, id="other unit"),
        pytest.param("light", "g", None, id="words"),
        pytest.param("9" * 17, "kg", None, id="too large"),
        pytest.param("", "kg", None, id="not told"),
    ],
)
def test_weight_is_in_grams(weight: str, unit: str, grams: int | None) -> None:
    assert one(weight=weight, weight_unit=unit).weight_grams == grams


def test_images_are_absolute_web_addresses_each_once() -> None:
    urls = ["//x.example/1.jpg", "https://x.example/1.jpg", "http://x.example/a b.jpg", "/2.jpg", "data:image/png;x"]
    assert one(image_urls=urls).image_urls == ["https://x.example/1.jpg", "http://x.example/a%20b.jpg"]
    assert one(image_urls=["ftp://x.example/1"]).image_urls == []
    assert one(link="javascript:alert(1)").link == ""
    assert one(link=" https://x.example/p ").link == "https://x.example/p"


def test_categories_and_tags_are_clean() -> None:
    product = one(categories=[" A  > B ", "", "A > B", "C"], tags="wool, , cap ,wool,Äpfel")
    assert product.categories == ["A > B", "C"]
    assert product.tags == ["cap", "wool", "Äpfel"]


def test_control_characters_do_not_reach_the_catalogue() -> None:
    product = one(title="Tent\x00\x1f one", brand="a\tb", body="x\x00\ny\x7f", mpn="\x85m")
    assert (product.title, product.brand, product.description, product.mpn) == ("Tent one", "a b", "x\ny", "m")


def test_a_product_keeps_the_line_of_its_row() -> None:
    assert one(line=12).line == 12


def test_products_share_nothing_that_can_be_changed() -> None:
    rows = [RawProduct(sku=sku, title="T", price="1", tags="a", options={"Size": "M"}) for sku in "ab"]
    first, second = transform_page(RawPage(products=rows), currency_code="EUR").products
    first.tags.append("b")
    first.options["Size"] = "L"
    assert first.price is not None
    first.price.units = 9
    assert (second.tags, second.options, second.price) == (["a"], {"Size": "M"}, Money(currency_code="EUR", units=1))


class ReferenceText(HTMLParser):
    """The same conversion with the parser of the standard library, which is slower and cannot be wrong about HTML."""

    BLOCKS = frozenset({"p", "li", "ul", "br", "div", "h2", "tr", "table", "section"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("script", "style")
        self.parts.append("\n" if tag in self.BLOCKS else " " if tag in ("td", "th") else "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.hidden = max(0, self.hidden - 1)
        self.parts.append("\n" if tag in self.BLOCKS else " " if tag in ("td", "th") else "")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(" ".join(data.replace("\n", " ").split(" ")))

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self.parts).split("\n"))
        return "\n".join(line for line in lines if line)


def reference(html: str) -> str:
    parser = ReferenceText()
    parser.feed(html)
    parser.close()
    return parser.text()


@pytest.mark.parametrize(
    ("html", "text"),
    [
        pytest.param("<p>One</p><p>Two <b>bold</b>words</p>", "One\nTwo boldwords", id="paragraphs"),
        pytest.param("<ul>\n<li>A &amp; B</li>\n<li>C&nbsp;&ndash; D</li>\n</ul>", "A & B\nC \u2013 D", id="list"),
        pytest.param("a<br>b<br/>c", "a\nb\nc", id="breaks"),
        pytest.param("<p>a\nb   c</p>", "a b c", id="white space"),
        pytest.param("<script>x < 1</script>a<style>p {}</style>", "a", id="script and style"),
        pytest.param("<SCRIPT>x</SCRIPT ><P>a", "a", id="capitals"),
        pytest.param("a<!-- <p>no</p> -->b", "ab", id="comment"),
        pytest.param('<p title="1 > 0">a</p>', "a", id="sign within a value"),
        pytest.param("<table><tr><td>a</td><td>b</td></tr></table>", "a b", id="table"),
        pytest.param("1 < 2 and 3 > 2", "1 < 2 and 3 > 2", id="signs"),
        pytest.param("1 < 2 &amp;\n3 > 2", "1 < 2 &\n3 > 2", id="signs in two lines"),
        pytest.param("&lt;p&gt;", "<p>", id="escaped tag"),
        pytest.param("<html><head><title>t</title></head><body>a</body></html>", "a", id="whole page"),
        pytest.param("<!DOCTYPE html>a", "a", id="document type"),
        pytest.param("a<noscript>n</noscript><template>t</template><iframe>i</iframe>b", "ab", id="not shown"),
        pytest.param("<p>a<p>b<li>c<li>d", "a\nb\nc\nd", id="end tags left out"),
        pytest.param("<div>a<div>b</div>c</div>", "a\nb\nc", id="blocks in blocks"),
        pytest.param("a</li></div>b", "ab", id="end tags of nothing"),
        pytest.param("1 < 2<?x?>\n3 > 2", "1 < 2 3 > 2", id="processing instruction"),
        pytest.param("<frameset>", "", id="frames"),
        pytest.param("a <script>never closed", "a", id="open script"),
        pytest.param("a <!-- never closed", "a", id="open comment"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_description_becomes_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_text_without_markup_keeps_its_lines() -> None:
    assert html_to_text("First line.\r\n\r\n  Second   line.") == "First line.\nSecond line."


_PIECES = st.sampled_from(
    (
        *(" ", "\n", "a", "Ünï", "&amp;", "&lt;", "&#8211;", "<br/>", "<!-- c -->", "<style>s</style>", "<p>", "</p>"),
        *("<table><tr><td>x</td><th>y</th></tr></table>", '<a href="x>y">z</a>', "<h2 class='k'>h</h2>"),
    )
)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Elements that are closed: of an end tag without its element, a browser and the standard library differ."""
    several = st.lists(inner, max_size=6).map("".join)
    return st.one_of(several, several.map("<p>{}</p>".format), several.map("<ul><li>{}</li></ul>".format))


@given(st.recursive(_PIECES, _nested, max_leaves=25))
def test_descriptions_are_read_as_the_standard_library_reads_them(content: str) -> None:
    html = f"<div>{content}</div>"
    assert html_to_text(html) == reference(html)


@pytest.mark.parametrize(
    "html",
    [
        pytest.param("<a " * 60_000, id="open tags"),
        pytest.param('<a "' * 60_000, id="open values"),
        pytest.param("<!--" * 60_000, id="open comments"),
        pytest.param("<script" * 60_000, id="open scripts"),
        pytest.param("<a x=\"<a y='" * 20_000, id="nested values"),
        pytest.param("&" * 200_000, id="ampersands"),
        pytest.param("<" * 200_000, id="signs"),
        pytest.param("<div>" * 40_000, id="deep blocks"),
        pytest.param("<b>" * 40_000 + "x", id="deep inline elements"),
        pytest.param("<p><b>" * 20_000, id="reopened elements"),
        pytest.param("<table><tr><td>" * 8_000, id="deep tables"),
        pytest.param("</p>" * 40_000, id="end tags alone"),
    ],
)
def test_a_hostile_description_comes_to_an_end(html: str) -> None:
    assert len(html_to_text(html)) <= len(html)
