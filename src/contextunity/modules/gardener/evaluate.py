"""Measures the quality of the rules: enriches a product export, and compares the result with labels."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contextunity.gen.contextunity.harvest.v1 import Enrichment, ProductToEnrich
from selectolax.lexbor import LexborHTMLParser

from contextunity.core.errors import ContextUnityError

__all__ = ["ATTRIBUTES", "BUNDLED_LABELS", "EvaluationError", "Label", "Score", "Summary", "read_export", "read_labels"]

BUNDLED_LABELS = Path(__file__).parent / "data" / "labels.tsv"
"""Labels of 300 rows of the bundled feed."""
ATTRIBUTES = ("category", "colors", "size", "materials", "brand")
_LABEL_COLUMNS = ("set", "sku", *ATTRIBUTES)
_NEEDED_COLUMNS = ("Handle", "Title", "Variant SKU")


class EvaluationError(ContextUnityError):
    """A file cannot be evaluated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """Labels of a row, set by a person.

    Attributes:
        part: rules, or held-out for rows that were not used to write rules.
        values: by attribute, in lower case; there may be several colours and materials.
    """

    part: str
    values: Mapping[str, frozenset[str]]


@dataclass(kw_only=True, slots=True)
class Score:
    """Counts of right, wrong and missing values of an attribute."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def count(self, found: frozenset[str], expected: frozenset[str]) -> None:
        """Add a row; each of several values counts separately."""
        self.right += len(found & expected)
        self.wrong += len(found - expected)
        self.missed += len(expected - found)

    @property
    def precision(self) -> float:
        """Precision: share of the found values that are right; 1 if none was found."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Recall: share of the labelled values that were found; 1 if there are none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


@dataclass(kw_only=True, slots=True)
class Summary:
    """Result of the rows of an export.

    Attributes:
        rows: number of rows.
        labelled: number of labelled rows, by part.
        found: number of rows with a value, by attribute.
        scores: scores by part and attribute.
        completeness: sum over all rows.
        missing: number of rows by missing data.
        uncategorised: titles without a category.
    """

    rows: int = 0
    labelled: Counter[str] = field(default_factory=Counter[str])
    found: Counter[str] = field(default_factory=Counter[str])
    scores: dict[tuple[str, str], Score] = field(default_factory=dict[tuple[str, str], Score])
    completeness: int = 0
    missing: Counter[str] = field(default_factory=Counter[str])
    uncategorised: Counter[str] = field(default_factory=Counter[str])

    def add(self, product: ProductToEnrich, made: Enrichment, label: Label | None) -> None:
        """Add a row."""
        self.rows += 1
        values = values_of(made)
        self.found.update(name for name in ATTRIBUTES if values[name])
        self.completeness += made.completeness
        self.missing.update(made.missing)
        if not made.category:
            self.uncategorised[product.title] += 1
        if label is not None:
            self.labelled[label.part] += 1
            for name in ATTRIBUTES:
                self.scores.setdefault((label.part, name), Score()).count(values[name], label.values[name])


def values_of(made: Enrichment) -> dict[str, frozenset[str]]:
    """Return the attributes of an enrichment in the form of labels."""
    several = {"colors": made.colors, "materials": made.materials}
    single = {"category": made.category, "size": made.size, "brand": made.brand}
    return {
        **{name: _set(values) for name, values in several.items()},
        **{name: _set([value]) for name, value in single.items()},
    }


def _set(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.casefold() for value in values if value)


def read_labels(path: Path) -> dict[str, Label]:
    """Read labels by SKU: tab-separated values with a header; lines that begin with # are comments.

    Raises:
        EvaluationError: the file cannot be read, or a line has wrong columns.
    """
    labels = dict[str, Label]()
    lines = _read(path).splitlines()
    header: Sequence[str] = ()
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("\t")
        if not header:
            header = cells
            if tuple(header) != _LABEL_COLUMNS:
                raise EvaluationError(f"labels {path}, line {number}: columns must be {', '.join(_LABEL_COLUMNS)}")
            continue
        if len(cells) != len(header):
            raise EvaluationError(f"labels {path}, line {number}: has {len(cells)} values, not {len(header)}")
        row = dict(zip(header, cells, strict=True))
        labels[row["sku"]] = Label(part=row["set"], values={name: _set(row[name].split("|")) for name in ATTRIBUTES})
    return labels


def read_export(path: Path) -> Iterator[ProductToEnrich]:
    """Read a product export in Shopify's CSV format, variant by variant; rows without a variant are ignored.

    It is decoded like in a spreadsheet; harvest's stricter handling of damaged rows does not matter here.

    Raises:
        EvaluationError: the file cannot be read, or is not such an export.
    """
    reader = csv.DictReader(io.StringIO(_read(path).replace("\0", "")))
    lacking = [name for name in _NEEDED_COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        raise EvaluationError(f"{path} is not a Shopify product export: it has no column {', '.join(lacking)}")
    seen = dict[str, ProductToEnrich]()
    first: dict[str, str] = {}
    product = ProductToEnrich()
    for row in reader:
        # Values beyond the header have the key None, and missing ones of a short row are None.
        cells = {name: value or "" for name, value in row.items() if isinstance(value, str | None)}
        if cells["Title"]:
            first, product = cells, _product(cells)
        if not first or cells["Handle"] != first["Handle"] or not (cells.get("Variant Price") or cells["Variant SKU"]):
            continue
        options = {
            first[f"Option{place} Name"]: cells.get(f"Option{place} Value", "")
            for place in (1, 2, 3)
            if first.get(f"Option{place} Name")
        }
        sku = cells["Variant SKU"] or "/".join((cells["Handle"], *options.values()))
        if sku in seen:
            continue
        grams = cells.get("Variant Grams", "")
        seen[sku] = product
        yield ProductToEnrich(
            supplier_code="export",
            sku=sku,
            title=product.title,
            brand=product.brand,
            description=product.description,
            categories=product.categories,
            tags=product.tags,
            options=options,
            gtin=cells.get("Variant Barcode", "").lstrip("'"),
            priced=bool(cells.get("Variant Price")),
            images=product.images,
            weight_grams=int(grams) if grams.isdigit() else None,
        )


def _product(cells: Mapping[str, str]) -> ProductToEnrich:
    body = cells.get("Body (HTML)", "")
    categories = (cells.get("Type", ""), cells.get("Google Shopping / Google Product Category", ""))
    return ProductToEnrich(
        title=cells["Title"].strip(),
        brand=cells.get("Vendor", "").strip(),
        description=LexborHTMLParser(body).text(separator=" ", strip=True)[:4000] if body else "",
        categories=[category for category in categories if category],
        tags=[tag for tag in (part.strip() for part in cells.get("Tags", "").split(",")) if tag],
        images=int(bool(cells.get("Image Src"))),
    )


def _read(path: Path) -> str:
    """Return the text of a file, decoding lines as UTF-8, or else as Windows-1252, as spreadsheets save them."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    return b"".join(_utf8(line) for line in data.splitlines(keepends=True)).decode("utf-8-sig")


def _utf8(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace").encode()
    return line
