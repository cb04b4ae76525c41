"""The rules: what is made of a product, case by case, and how good that is on labelled rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import ProductToEnrich

from contextunity.modules.gardener.__main__ import main
from contextunity.modules.gardener.evaluate import (
    ATTRIBUTES,
    BUNDLED_LABELS,
    EvaluationError,
    Score,
    Summary,
    read_export,
    read_labels,
)
from contextunity.modules.gardener.rules import COMPLETENESS, RuleEnricher
from contextunity.modules.gardener.taxonomy import BUNDLED_TAXONOMY, load_taxonomy, parse_taxonomy
from contextunity.modules.harvest.sample import write_sample

_DOCS = Path(__file__).resolve().parents[3] / "docs" / "gardener.md"


@pytest.fixture(scope="module")
def rules() -> RuleEnricher:
    return RuleEnricher(load_taxonomy(BUNDLED_TAXONOMY))


def _product(title: str, **values: Any) -> ProductToEnrich:
    return ProductToEnrich(supplier_code="s", sku="A", content_hash="h", title=title, **values)


@pytest.mark.parametrize(
    ("product", "category"),
    [
        pytest.param(_product("Abisko Light Tunnel Tent"), "tents/tunnel", id="title"),
        pytest.param(_product('Tent Peg 7"', categories=["Tools"]), "tents/pegs", id="the title wins over the type"),
        pytest.param(_product("Chloe", categories=["Beanies"]), "headwear/beanies", id="type alone"),
        pytest.param(_product("Lodge", categories=["Womens"], tags=["Shirts"]), "clothing/shirts", id="tag alone"),
        pytest.param(_product("Flame Throwing Table", categories=["Jackets"]), "jackets", id="a name of another kind"),
        pytest.param(_product("Ambush Boot", categories=["Snowboard Boots"]), "footwear/snowboard-boots", id="closer"),
        pytest.param(_product("Roll Top", categories=["Backpacks"]), "bags/daypacks", id="a kind of its type"),
        pytest.param(_product("Dome Tent for Beds"), "tents/dome", id="qualified"),
        pytest.param(
            _product("Hatchet", categories=["Sporting Goods > Camping > Camping Tools"]), "tools/axes", id="path"
        ),
        pytest.param(_product("Gift Card"), "", id="nothing"),
    ],
)
def test_a_category_is_what_the_title_names_and_the_type_agrees_with(
    rules: RuleEnricher, product: ProductToEnrich, category: str
) -> None:
    assert rules.enrich_one(product).category == category


@pytest.mark.parametrize(
    ("options", "title", "colors"),
    [
        pytest.param({"Color": "Night Blue"}, "Tent", ["blue"], id="shade"),
        pytest.param({"Colour": "Black/Orange"}, "Tent", ["black", "orange"], id="two"),
        pytest.param({"Farbe": "Black/Black"}, "Tent", ["black"], id="twice"),
        pytest.param({"Color": "Bandanner"}, "Black Tent", [], id="unknown: the option is what the variant is"),
        pytest.param({}, "Cream Sofa", ["beige"], id="title"),
        pytest.param({}, "Moss Garden Chair", [], id="no colour in a title"),
        pytest.param({"Title": "Olive"}, "Headlamp", ["green"], id="option without a name"),
    ],
)
def test_colours_have_plain_names(rules: RuleEnricher, options: dict[str, str], title: str, colors: list[str]) -> None:
    assert rules.enrich_one(_product(title, options=options)).colors == colors


def test_a_brand_is_no_colour_and_is_tidied(rules: RuleEnricher) -> None:
    made = rules.enrich_one(_product("Black Diamond Headlamp", brand="Black  Diamond® Inc."))
    assert made.colors == ["black"]  # The title does not begin with the brand as it is written.
    assert made.brand == "Black Diamond"
    assert rules.enrich_one(_product("Black Diamond Headlamp", brand="Black Diamond")).colors == []
    assert rules.enrich_one(_product("Skis", brand="Voelkl GmbH")).brand == "Volkl"
    assert rules.enrich_one(_product("Skis", brand="N/A")).brand == ""


@pytest.mark.parametrize(
    ("options", "title", "size"),
    [
        pytest.param({"Size": "XLarge"}, "Jacket", "XL", id="spelling"),
        pytest.param({"Size": "Small/Medium"}, "Beanie", "S/M", id="two"),
        pytest.param({"Size": "42-44"}, "Socks", "42-44", id="numbers"),
        pytest.param({"Volume": "0.9 l"}, "Pot", "0.9 l", id="volume"),
        pytest.param({"Size": "2 Person"}, "Solo Dome Tent", "2 person", id="option before title"),
        pytest.param({}, "Solo Dome Tent", "1 person", id="people"),
        pytest.param({}, "Solo Rain Jacket", "", id="people in a jacket"),
        pytest.param({}, 'Tent Peg 7"', "7 in", id="inches"),
        pytest.param({"Title": "Default Title"}, "Pot", "", id="none"),
    ],
)
def test_sizes_have_one_spelling(rules: RuleEnricher, options: dict[str, str], title: str, size: str) -> None:
    assert rules.enrich_one(_product(title, options=options)).size == size


@pytest.mark.parametrize(
    ("title", "description", "materials"),
    [
        pytest.param("Merino Socks", "Stainless steel 18/8", ["merino wool"], id="of such a thing"),
        pytest.param(
            "Folding Chair", "Ripstop fabric. Stainless steel legs.", ["ripstop", "stainless steel"], id="two"
        ),
        pytest.param("Mummy Bag", 'Packs down to 12" by 5"', [], id="no down"),
        pytest.param("Down Bag", "", ["down"], id="title"),
        pytest.param("Wood Stove", "", [], id="burns it"),
        pytest.param("Tote Bag", "Made without leather, of organic cotton", ["cotton"], id="without"),
        pytest.param("Tote Bag", "Leather-free canvas", ["canvas"], id="free of"),
    ],
)
def test_materials_are_those_that_such_a_thing_is_made_of(
    rules: RuleEnricher, title: str, description: str, materials: list[str]
) -> None:
    assert rules.enrich_one(_product(title, description=description)).materials == materials


def test_completeness_says_what_is_missing(rules: RuleEnricher) -> None:
    bare = rules.enrich_one(_product("Thing"))
    assert bare.completeness == 100 - sum(COMPLETENESS.values()) + COMPLETENESS["short_description"]
    assert set(bare.missing) == COMPLETENESS.keys() - {"short_description"}
    full = rules.enrich_one(
        _product(
            "Dome Tent",
            brand="Nordpfad",
            description="word " * 30,
            options={"Color": "Moss"},
            gtin="4006381333931",
            priced=True,
            images=2,
            weight_grams=0,
        )
    )
    assert (full.completeness, full.missing) == (100, [])


def test_the_version_is_another_where_the_words_are(rules: RuleEnricher) -> None:
    other = RuleEnricher(parse_taxonomy("[categories]\ntents = tent\n", Path("x")))
    assert other.version != rules.version
    assert RuleEnricher(load_taxonomy(BUNDLED_TAXONOMY)).version == rules.version


# How good they are.


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "feed.csv"
    write_sample(path)
    return path


@pytest.fixture(scope="module")
def summary(rules: RuleEnricher, export: Path) -> Summary:
    labels, summary = read_labels(BUNDLED_LABELS), Summary()
    for product in read_export(export):
        summary.add(product, rules.enrich_one(product), labels.get(product.sku))
    return summary


def test_a_third_of_300_labelled_rows_is_held_out(summary: Summary) -> None:
    assert sum(summary.labelled.values()) == 300
    assert summary.labelled["held-out"] >= 100


def test_precision_and_recall_are_those_of_the_docs(summary: Summary) -> None:
    text = _DOCS.read_text(encoding="utf-8")
    for name in ATTRIBUTES:
        cells = re.search(rf"^\| {name} \|(.+)\|$", text, re.MULTILINE)
        assert cells is not None, name
        figures = [summary.scores[part, name] for part in ("held-out", "rules")]
        expected = [f"{figure:.3f}" for score in figures for figure in (score.precision, score.recall)]
        assert [cell.strip() for cell in cells[1].split("|")] == expected


def test_a_score_counts_what_is_right_wrong_and_missed() -> None:
    score = Score()
    score.count(frozenset({"a", "b"}), frozenset({"a", "c", "d"}))
    assert (score.right, score.wrong, score.missed) == (1, 1, 2)
    assert (score.precision, round(score.recall, 3)) == (0.5, 0.333)
    assert (Score().precision, Score().recall) == (1.0, 1.0)


def test_the_command_prints_them(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(export)]) == 0
    out = capsys.readouterr().out
    assert "6,484 rows" in out
    assert re.search(r"held-out: precision\s+recall", out)
    assert "labelled rows: 106 of held-out, 194 of rules" in out


@pytest.mark.parametrize("name", ["apparel", "home-and-garden", "snowdevil"])
def test_real_exports_get_categories(name: str, rules: RuleEnricher) -> None:
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / f"{name}.csv"
    if not path.exists():
        pytest.skip("there is no real export at hand")
    summary = Summary()
    for product in read_export(path):
        summary.add(product, rules.enrich_one(product), None)
    assert summary.found["category"] >= 0.9 * summary.rows


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "cannot be read: no such file or directory", id="missing"),
        pytest.param(b"a,b\n1,2\n", "is not a Shopify product export: it has no column Handle, Title", id="other"),
    ],
)
def test_what_is_no_export_is_told(
    content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    assert main(["evaluate", str(path)]) == 1
    assert says in capsys.readouterr().out


def test_faulty_labels_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("# labels\nset\tsku\tcategory\tcolors\tsize\tmaterials\tbrand\nrules\tA\ttents\n")
    with pytest.raises(EvaluationError, match="line 3: has 3 values, not 7"):
        read_labels(path)
    path.write_text("sku\tcategory\n")
    with pytest.raises(EvaluationError, match="line 1: columns must be set, sku, category"):
        read_labels(path)
