"""RuleEnricher: derives category, colour, size, material, brand and completeness from the words of a product.

Shops' titles name the thing last ("Down Jacket", not "Jacket Down"), and types and tags are coarse but reliable: the
rules use only this. `python -m contextunity.modules.gardener evaluate FILE` measures their quality.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from contextunity.gen.contextunity.harvest.v1 import Enrichment, ProductToEnrich

from .enricher import Enriched
from .taxonomy import Taxonomy, folded, is_within, words_of

__all__ = ["COMPLETENESS", "RuleEnricher"]

COMPLETENESS = {
    "missing_image": 20,
    "missing_description": 20,
    "short_description": 10,
    "missing_price": 15,
    "missing_category": 15,
    "missing_brand": 10,
    "missing_gtin": 10,
    "missing_attributes": 5,
    "missing_weight": 5,
}
"""Missing data of a product, and the points out of 100 that each costs."""

_SHORT_DESCRIPTION = 80
_QUALIFIERS = re.compile(r"\s[-\u2013\u2014|]\s|[,(;]|\b(?:for|with|w/|from|by|in|of)\s", re.IGNORECASE)
"""Words after which a title describes the thing that it has named."""
_NO_HEAD = re.compile(r"\d|^(?:in|inch|cm|mm|ml|l|kg|g|oz|lb|v|vol|men|women|womens|kid|unisex|new)$")
"""Words at the end of a title that do not name a thing: measures, years, and the target group."""
_NEGATION = re.compile(r"\b(?:without|no|not|non|free of|instead of|than|like)\W+(?:\w+\W+)?$")
_NEGATION_REACH = 40
_FREE = re.compile(r"^[\s-]*free\b")
_LEGAL_FORM = re.compile(
    r"[\s,]+(?:inc|llc|ltd|limited|gmbh|ag|kg|oy|ab|as|s\.?a|s\.?r\.?l|b\.?v|corp|co)\.?$", re.IGNORECASE
)
_MARKS = re.compile(r"[™®©]")
_SPACE = re.compile(r"\s+")
_TITLE_SIZES = (
    (re.compile(r"(\d+(?:[.,]\d+)?)\s?(?:\"|″|''|inch(?:es)?\b|in\b)"), "{} in"),
    (re.compile(r"\b(\d+)[\s-]?(?:person|persons|man|people|p)\b", re.IGNORECASE), "{} person"),
    (re.compile(r"\b(\d+(?:[.,]\d+)?)\s?(l|ml|cl|cm|mm|oz)\b", re.IGNORECASE), "{} {}"),
)
_PEOPLE = {"solo": "1 person", "duo": "2 person", "trio": "3 person"}
_SPLIT = re.compile(r"\s*(?:[/,&+]|\band\b)\s*")
_PLACEHOLDER = "default title"


class RuleEnricher:
    """Enriches with a taxonomy.

    Args:
        taxonomy: the taxonomy.
    """

    is_quick = True

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.version = hashlib.sha256(f"{_code()}\n{taxonomy.version}".encode()).hexdigest()[:12]
        self._longest = max((phrase.count(" ") + 1 for phrase in taxonomy.categories), default=1)
        self._materials_in_text = _finder(taxonomy.materials)
        self._materials_in_title = _finder({**taxonomy.materials, **taxonomy.title_materials})
        # Cache: consecutive variants of a product share their description and types.
        self._of_description: Callable[[str], tuple[str, ...]] = functools.lru_cache(256)(self._find_in_description)
        self._of_type: Callable[[str], tuple[str, str] | None] = functools.lru_cache(1024)(self._find_type)

    async def enrich(self, tenant_id: str, products: Sequence[ProductToEnrich]) -> Enriched:
        """Enrich a batch in a thread, because it only uses the processor."""
        return Enriched(enrichments=await asyncio.to_thread(self.enrich_all, products))

    def enrich_all(self, products: Sequence[ProductToEnrich]) -> list[Enrichment]:
        """Return the enrichments of products, in their order."""
        return [self.enrich_one(product) for product in products]

    def enrich_one(self, product: ProductToEnrich) -> Enrichment:
        """Return the enrichment of a product."""
        brand = self._brand(product)
        title = _without_options(product.title, product.options)
        words = self._title_words(title, product.brand)
        category = self._category(words, _head_length(title, words), product)
        made = Enrichment(
            supplier_code=product.supplier_code,
            sku=product.sku,
            content_hash=product.content_hash,
            category=category,
            colors=self._colors(words, product),
            size=self._size(title, words, category, product),
            materials=self._materials(words, category, product),
            brand=brand,
            enricher="rules",
        )
        score(made, product)
        return made

    # Category.

    def _category(self, words: Sequence[str], head: int, product: ProductToEnrich) -> str:
        """Return the category of the title if the type agrees, or else that of the tags.

        Args:
            words: words of the title.
            head: number of words up to the name of the thing.
            product: the product.
        """
        type_phrase, of_type = next(filter(None, map(self._of_type, product.categories)), ("", ""))
        best, best_rank = "", (False, False, False, 0, 0)
        phrase = ""
        for end, length, path in self._phrases(words):
            if end > head:
                continue
            at_head = end == head
            rank = (at_head and length > 1, is_within(path, of_type), at_head, length, end)
            if not best or rank > best_rank:
                best, best_rank, phrase = path, rank, " ".join(words[end - length : end])
        if not of_type:
            return best or next((found[1] for tag in product.tags if (found := self._of_type(tag))), "")
        named, within, at_head, *_ = best_rank
        if within or named:
            return best
        # A single word of a title is usually part of a name, unless it names the thing, and the type agrees.
        is_sibling = at_head and best.partition("/")[0] == of_type.partition("/")[0]
        return best if is_sibling and phrase not in type_phrase and not is_within(of_type, best) else of_type

    def _find_type(self, text: str) -> tuple[str, str] | None:
        """Return phrase and category of a type, tag or path such as `Home > Pans`, by its last part."""
        for part in reversed(text.split(">")):
            words = words_of(part)
            found = max(self._phrases(words), key=lambda each: (each[0] == len(words), each[1], each[0]), default=None)
            if found is not None:
                end, length, path = found
                return " ".join(words[end - length : end]), path
        return None

    def _phrases(self, words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        """Yield the category phrases among words: the end, the number of words, and the category."""
        known = self.taxonomy.categories
        for start in range(len(words)):
            for end in range(start + 1, min(start + self._longest, len(words)) + 1):
                path = known.get(" ".join(words[start:end]))
                if path is not None:
                    yield end, end - start, path

    # Attributes.

    def _colors(self, words: Sequence[str], product: ProductToEnrich) -> list[str]:
        values = self._options(product, "color")
        if values:
            found = [color for value in values for part in _SPLIT.split(value) for color in self._color_of(part)]
            return list(dict.fromkeys(found))
        # An option without a real name, such as Shopify's Title, may contain one too.
        others = [self.taxonomy.colors.get(" ".join(words_of(value))) for value in product.options.values()]
        if any(others):
            return [color for color in others if color is not None]
        named = [self.taxonomy.colors[word] for word in words if word in self.taxonomy.colors]
        return named[:1]

    def _color_of(self, value: str) -> list[str]:
        """Return the colour of an option's value: of the whole value, or else of the last word that names one."""
        words = words_of(value)
        for phrase in (" ".join(words), *reversed(words)):
            color = self.taxonomy.colors.get(phrase) or self.taxonomy.option_colors.get(phrase)
            if color is not None:
                return [color]
        return []

    def _size(self, title: str, words: Sequence[str], category: str, product: ProductToEnrich) -> str:
        values = self._options(product, "size")
        if values:
            return " / ".join(self._size_of(value) for value in values)[:100]
        for pattern, form in _TITLE_SIZES:
            found = pattern.search(title)
            if found is not None:
                return form.format(*(part.lower() for part in found.groups()))
        if is_within(category, "tents"):
            return next((_PEOPLE[word] for word in words if word in _PEOPLE), "")
        return ""

    def _size_of(self, value: str) -> str:
        spelt = " ".join(words_of(value))
        return self.taxonomy.sizes.get(spelt) or _SPACE.sub(" ", value.strip().lower())

    def _materials(self, words: Sequence[str], category: str, product: ProductToEnrich) -> list[str]:
        found = list[str]()
        for value in self._options(product, "material"):
            found += self._materials_in_title(" ".join(words_of(value)))
        found += self._materials_in_title(" ".join(words))
        found += self._of_description(product.description)
        may_be = self.taxonomy.may_be_of
        kept = [each for each in dict.fromkeys(found) if may_be(each, category)]
        if "merino wool" in kept and "wool" in kept:
            kept.remove("wool")
        return kept[:20]

    def _find_in_description(self, text: str) -> tuple[str, ...]:
        if not text:
            return ()
        return tuple(self._materials_in_text(folded(text).replace("-", " ")))

    def _options(self, product: ProductToEnrich, kind: str) -> list[str]:
        options = self.taxonomy.options
        return [
            value
            for name, value in product.options.items()
            if value and value.lower() != _PLACEHOLDER and options.get(" ".join(words_of(name))) == kind
        ]

    # Brand.

    def _brand(self, product: ProductToEnrich) -> str:
        """Return the brand in its standard spelling."""
        tidy = _SPACE.sub(" ", _MARKS.sub("", product.brand)).strip()
        tidy = _LEGAL_FORM.sub("", tidy)
        known = self.taxonomy.brands.get(" ".join(words_of(tidy)))
        return (tidy if known is None else known)[:500]

    def _title_words(self, title: str, brand: str) -> Sequence[str]:
        """Return the words of a title without the brand in front: Black Diamond is not a colour."""
        words, own = words_of(title), words_of(brand)
        return words[len(own) :] if own and words[: len(own)] == own else words


def score(made: Enrichment, product: ProductToEnrich) -> None:
    """Set the completeness of a product, and the reasons for less than 100."""
    lacks = {
        "missing_image": product.images == 0,
        "missing_description": not product.description,
        "short_description": 0 < len(product.description) < _SHORT_DESCRIPTION,
        "missing_price": not product.priced,
        "missing_category": not made.category,
        "missing_brand": not made.brand,
        "missing_gtin": not product.gtin,
        "missing_attributes": not (made.colors or made.size or made.materials),
        "missing_weight": product.weight_grams is None,
    }
    made.missing = [word for word, missing in lacks.items() if missing]
    made.completeness = 100 - sum(COMPLETENESS[word] for word in made.missing)


def _without_options(title: str, options: dict[str, str]) -> str:
    """Return a title without the option values that harvest appended."""
    for cut in range(len(options)):
        suffix = " - " + " / ".join(list(options.values())[cut:])
        if title.endswith(suffix):
            return title.removesuffix(suffix)
    base, dash, suffix = title.rpartition(" - ")
    if dash and options and set(suffix.split(" / ")) <= set(options.values()):
        return base
    return title


def _head_length(title: str, words: Sequence[str]) -> int:
    """Return the number of words up to the name of the thing."""
    found = _QUALIFIERS.search(title, 1)
    length = len(words)
    if found is not None:
        # The brand may have been removed from the words, which are all at the end.
        length = max(1, length - len(words_of(title[found.start() :])))
    while length > 1 and _NO_HEAD.search(words[length - 1]):
        length -= 1
    return length


def _finder(phrases: Mapping[str, str]) -> Callable[[str], list[str]]:
    """Make the function that finds phrases in a text, in order, without negated ones."""
    if not phrases:
        return lambda text: []
    alternatives = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    pattern = re.compile(rf"\b({alternatives})s?\b")

    def find(text: str) -> list[str]:
        return [
            phrases[found[1]]
            for found in pattern.finditer(text)
            if not _NEGATION.search(text, max(0, found.start() - _NEGATION_REACH), found.start())
            and not _FREE.match(text[found.end() : found.end() + 6])
        ]

    return find


@functools.cache
def _code() -> str:
    """Return a hash of the code that makes enrichments, which cannot be forgotten like a version number."""
    digest = hashlib.sha256()
    for name in ("rules.py", "taxonomy.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()
