"""The taxonomy: a data file of categories, colours, materials, sizes and brands, with their words."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contextunity.core.errors import ContextUnityError

__all__ = [
    "BUNDLED_TAXONOMY",
    "MAX_PHRASE_WORDS",
    "Taxonomy",
    "TaxonomyError",
    "folded",
    "is_within",
    "load_taxonomy",
    "parse_taxonomy",
    "words_of",
]

BUNDLED_TAXONOMY = Path(__file__).parent / "data" / "taxonomy.txt"

_SECTIONS = ("categories", "colors", "materials", "options", "sizes", "brands")
_OPTION_KINDS = ("color", "size", "material")
MAX_PHRASE_WORDS = 4
_PATH = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*")
_WORD = re.compile(r"[^\W_]+")
_ACCENT = re.compile("[\u0300-\u036f]")
_APOSTROPHE = re.compile("['\u2019]")


class TaxonomyError(ContextUnityError):
    """A taxonomy file is invalid.

    Attributes:
        path: the file.
        faults: all errors as (line from 1, text); line 0 is the whole file.
    """

    def __init__(self, path: Path, faults: list[tuple[int, str]]) -> None:
        self.path, self.faults = path, faults
        lines = [f"{path}, line {line}: {text}" if line else f"{path}: {text}" for line, text in faults]
        super().__init__("taxonomy " + "; ".join(lines))


@dataclass(frozen=True, kw_only=True, slots=True)
class Taxonomy:
    """Content of a taxonomy file, by its phrases: lower-case words separated by single spaces.

    Attributes:
        version: hash of the file.
        categories: path by phrase.
        paths: all paths, in the order of the file.
        colors: colour by a phrase that names it anywhere.
        option_colors: colour by a phrase that names it only in an option's value.
        materials: material by a phrase that names it anywhere.
        title_materials: material by a phrase that names it only in a title or an option.
        made_of: categories of a material, excluded ones with ! in front; none for all.
        options: kind of an option, color, size or material, by its name.
        sizes: size by spelling.
        brands: brand by spelling; empty for texts that are not a brand.
    """

    version: str
    categories: dict[str, str] = field(default_factory=dict[str, str])
    paths: list[str] = field(default_factory=list[str])
    colors: dict[str, str] = field(default_factory=dict[str, str])
    option_colors: dict[str, str] = field(default_factory=dict[str, str])
    materials: dict[str, str] = field(default_factory=dict[str, str])
    title_materials: dict[str, str] = field(default_factory=dict[str, str])
    made_of: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    options: dict[str, str] = field(default_factory=dict[str, str])
    sizes: dict[str, str] = field(default_factory=dict[str, str])
    brands: dict[str, str] = field(default_factory=dict[str, str])

    def may_be_of(self, material: str, category: str) -> bool:
        """Return whether products of a category can be made of a material; the category may be empty."""
        limits = self.made_of.get(material, ())
        if any(limit[0] == "!" and is_within(category, limit[1:]) for limit in limits):
            return False
        return not limits or any(is_within(category, limit) for limit in limits)


def is_within(path: str, above: str) -> bool:
    """Return whether a category equals another one, or is below it."""
    return path == above or path.startswith(f"{above}/")


@functools.lru_cache(8192)
def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text as in phrases: lower case, without accents and without a plural s.

    Cached, because names and values of options, types and titles are repeated in every variant.

    Example:
        >>> words_of("Crêpe Pans, 22 cm")
        ('crepe', 'pan', '22', 'cm')
    """
    return tuple(
        word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
        for word in _WORD.findall(_APOSTROPHE.sub("", folded(text)))
    )


def folded(text: str) -> str:
    """Return a text in lower case and without accents."""
    if not text.isascii():
        text = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return text.casefold()


def load_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy file.

    Raises:
        TaxonomyError: it cannot be read, or is invalid; every error is listed with its line.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TaxonomyError(path, [(0, f"cannot be read: {reason}; check taxonomy in [modules.gardener]")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TaxonomyError(path, [(line, "is not UTF-8; save the file in UTF-8")]) from None
    return parse_taxonomy(text, path)


def parse_taxonomy(text: str, path: Path) -> Taxonomy:
    """Parse the text of a taxonomy file.

    Raises:
        TaxonomyError: the text is invalid; every error is listed with its line.
    """
    parsed = _Parser(Taxonomy(version=hashlib.sha256(text.encode()).hexdigest()[:12]))
    for line, content in enumerate(text.splitlines(), start=1):
        content = content.strip()
        parsed.read(line, "" if content.startswith("#") else content)
    if not parsed.faults and not parsed.taxonomy.paths:
        parsed.faults.append((0, "has no category; add a section [categories] with lines such as `tents = tent`"))
    if parsed.faults:
        raise TaxonomyError(path, sorted(parsed.faults))
    return parsed.taxonomy


class _Parser:
    """Parses a taxonomy line by line, and continues after an error to report all."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.faults = list[tuple[int, str]]()
        self._section = ""
        self._line = 0
        self._names = dict[tuple[str, str], int]()
        self._phrases = dict[tuple[str, str], int]()

    def read(self, line: int, text: str) -> None:
        """Parse a line."""
        self._line = line
        if not text:
            return
        if text.startswith("["):
            self._section = text.strip("[]").strip()
            if self._section not in _SECTIONS or not text.endswith("]"):
                self._fault(f"there is no section {text}; sections are {', '.join(_SECTIONS)}")
                self._section = "?"
            return
        if self._section == "?":
            return
        if not self._section:
            self._fault("is before the first section; sections are " + ", ".join(_SECTIONS))
            return
        name, equals, phrases = text.partition("=")
        name, _, limits = (part.strip() for part in name.partition("@"))
        if not equals or not name or not phrases.strip():
            self._fault(f"{text[:60]!r} is not a name, an = and phrases, such as `tents/dome = dome tent, igloo tent`")
            return
        if (self._section, name) in self._names:
            self._fault(f"{name!r} is already on line {self._names[self._section, name]}; put the phrases there")
            return
        self._names[self._section, name] = line
        if limits and self._section != "materials":
            self._fault(f"@ is only for materials, and {name!r} is not one")
        getattr(self, f"_read_{self._section}")(name, limits, phrases)

    def _read_categories(self, path: str, _limits: str, phrases: str) -> None:
        if not _PATH.fullmatch(path):
            self._fault(f"{path!r} is not a path of lower-case words with / between them")
            return
        self.taxonomy.paths.append(path)
        self._keep(self.taxonomy.categories, path, phrases)

    def _read_colors(self, color: str, _limits: str, phrases: str) -> None:
        anywhere, _, in_options = phrases.partition("|")
        self._keep(self.taxonomy.colors, color, anywhere)
        self._keep(self.taxonomy.option_colors, color, in_options)

    def _read_materials(self, material: str, limits: str, phrases: str) -> None:
        known = tuple(limits.split())
        for limit in known:
            if not any(is_within(path, limit.removeprefix("!")) for path in self.taxonomy.paths):
                self._fault(f"{material!r} is of the category {limit!r}, which is not defined before it")
        if known:
            self.taxonomy.made_of[material] = known
        anywhere, _, in_titles = phrases.partition("|")
        self._keep(self.taxonomy.materials, material, anywhere)
        self._keep(self.taxonomy.title_materials, material, in_titles)

    def _read_options(self, kind: str, _limits: str, phrases: str) -> None:
        if kind not in _OPTION_KINDS:
            self._fault(f"options are {', '.join(_OPTION_KINDS)}, and not {kind!r}")
            return
        self._keep(self.taxonomy.options, kind, phrases)

    def _read_sizes(self, size: str, _limits: str, phrases: str) -> None:
        self._keep(self.taxonomy.sizes, size, phrases)

    def _read_brands(self, brand: str, _limits: str, phrases: str) -> None:
        self._keep(self.taxonomy.brands, "" if brand == "unknown" else brand, phrases)

    def _keep(self, kept: dict[str, str], name: str, phrases: str) -> None:
        for phrase in self._each(phrases):
            earlier = self._phrases.setdefault((self._section, phrase), self._line)
            if earlier != self._line:
                self._fault(f"the phrase {phrase!r} is already on line {earlier}, and can only have one meaning")
            else:
                kept[phrase] = name

    def _each(self, phrases: str) -> Iterator[str]:
        for phrase in filter(None, (part.strip() for part in phrases.split(","))):
            words = words_of(phrase)
            if 1 <= len(words) <= MAX_PHRASE_WORDS:
                yield " ".join(words)
            else:
                self._fault(f"the phrase {phrase!r} has {len(words)} words; 1 to {MAX_PHRASE_WORDS} are allowed")

    def _fault(self, text: str) -> None:
        self.faults.append((self._line, text))
