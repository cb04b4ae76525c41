"""Words of the bundled feed: kinds of camping gear, invented brands, and their descriptions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADJECTIVES", "BRANDS", "COLORS", "FEATURES", "INTRODUCTIONS", "KINDS", "PLACES", "QUOTES", "TAGS", "Kind"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of camping gear."""

    code: str
    """Three letters for SKUs."""
    type: str
    """Shopify's product type."""
    google_category: str
    """Google's product category."""
    nouns: tuple[str, ...]
    """What such a thing is called."""
    euros: tuple[int, int]
    """What it costs, from and to."""
    grams: tuple[int, int]
    """What it weighs, from and to."""
    option: str = ""
    """Option of the variants besides the colour; empty if there is none."""
    values: tuple[str, ...] = ()
    """The values of that option."""
    colored: bool = True
    """Whether it comes in colours."""


_SIZES = ("XS", "S", "M", "L", "XL", "XXL")

KINDS = (
    Kind(
        code="TNT",
        type="Tents",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Tents",
        nouns=("Tunnel Tent", "Dome Tent", "Ridge Tent", "Bivvy", "Family Tent", "Tarp Shelter"),
        euros=(79, 899),
        grams=(900, 14000),
        option="Size",
        values=("1 Person", "2 Person", "3 Person", "4 Person"),
    ),
    Kind(
        code="BAG",
        type="Sleeping Bags",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Sleeping Bags",
        nouns=("Down Bag", "Mummy Bag", "Quilt", "Summer Bag", "Blanket Bag"),
        euros=(45, 620),
        grams=(450, 2600),
        option="Length",
        values=("Short", "Regular", "Long"),
    ),
    Kind(
        code="MAT",
        type="Sleeping Mats",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Sleeping Pads",
        nouns=("Air Mat", "Foam Mat", "Self-Inflating Mat", 'Mat 2"', 'Mat 4"'),
        euros=(15, 260),
        grams=(280, 2100),
        option="Size",
        values=("Short", "Regular", "Wide"),
        colored=False,
    ),
    Kind(
        code="STV",
        type="Stoves",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Camping Cookware & Dinnerware",
        nouns=("Gas Stove", "Wood Stove", "Spirit Burner", "Multifuel Stove", "Hobo Stove"),
        euros=(19, 240),
        grams=(70, 1900),
        colored=False,
    ),
    Kind(
        code="POT",
        type="Cookware",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Camping Cookware & Dinnerware",
        nouns=("Kettle", "Pot", "Pan", "Mug", "Café Set", "Cutlery", "Crêpe Pan"),
        euros=(6, 120),
        grams=(20, 1500),
        option="Volume",
        values=("0.5 l", "0.9 l", "1.4 l", "2.2 l"),
        colored=False,
    ),
    Kind(
        code="PCK",
        type="Backpacks",
        google_category="Luggage & Bags > Backpacks",
        nouns=("Trekking Pack", "Day Pack", "Rolltop", "Hip Pack", "Dry Bag"),
        euros=(25, 340),
        grams=(180, 2700),
        option="Volume",
        values=("18 l", "28 l", "45 l", "65 l"),
    ),
    Kind(
        code="LMP",
        type="Lamps",
        google_category="Hardware > Tools > Flashlights & Headlamps",
        nouns=("Headlamp", "Lantern", "String Lights", "Candle Lamp"),
        euros=(8, 130),
        grams=(30, 800),
    ),
    Kind(
        code="JKT",
        type="Jackets",
        google_category="Apparel & Accessories > Clothing > Outerwear > Coats & Jackets",
        nouns=("Rain Jacket", "Down Jacket", "Anorak", "Windbreaker", "Fleece"),
        euros=(39, 480),
        grams=(110, 900),
        option="Size",
        values=_SIZES,
    ),
    Kind(
        code="SOK",
        type="Socks",
        google_category="Apparel & Accessories > Clothing > Underwear & Socks > Socks",
        nouns=("Merino Socks", "Liner Socks", "Hut Socks"),
        euros=(9, 35),
        grams=(40, 180),
        option="Size",
        values=("36-38", "39-41", "42-44", "45-47"),
    ),
    Kind(
        code="KNF",
        type="Tools",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Camping Tools",
        nouns=("Pocket Knife", "Folding Saw", "Hatchet", 'Tent Peg 7"', "Multitool", "Trowel"),
        euros=(4, 150),
        grams=(12, 1100),
        colored=False,
    ),
    Kind(
        code="FRN",
        type="Camping Furniture",
        google_category="Sporting Goods > Outdoor Recreation > Camping & Hiking > Camp Furniture",
        nouns=("Folding Chair", "Roll Table", "Hammock", "Camp Bed", "Stool"),
        euros=(18, 290),
        grams=(400, 9000),
    ),
)

BRANDS = (
    ("Nordpfad", "NP"),
    ("Kestrel & Pine", "KP"),
    ("Taigaline", "TL"),
    ("Ålestrand", "AS"),
    ("Três Picos", "TP"),
    ("Söderholz", "SH"),
    ("Rivière Sauvage", "RS"),
    ("Čedra", "CD"),
    ("Wolkenzelt", "WZ"),
    ("O'Hanley Outdoors", "OH"),
    ("Müller & Söhne Lagerbedarf", "MS"),
    ("Peak Eleven", "PE"),
)
ADJECTIVES = ("Light", "Classic", "Pro", "Trail", "Alpine", "Nomad", "Eco", "Ultra", "Base", "Storm", "Solo", "Duo")
PLACES = (
    "Abisko",
    "Rügen",
    "Málaga",
    "Ötztal",
    "Chamonix",
    "Skåne",
    "Tatra",
    "Ardèche",
    "Connemara",
    "Šumava",
    "Jotunheim",
    "Gavarnie",
    "Lüneburg",
    "Triglav",
)
COLORS = ("Moss", "Slate", "Rust", "Sand", "Night Blue", "Fern Green", "Crème", "Black/Orange")
TAGS = ("camping", "hiking", "new", "sale", "ultralight", "family", "winter", "bestseller", "vegan", "bikepacking")
INTRODUCTIONS = (
    "The {name} goes where you go & stays dry there.",
    "For nights that are longer than planned: the {name}.",
    "Made for rain, wind and three weeks without a shop.",
    "Our smallest one \u2013 and the one that we take ourselves.",
    "Simple, repairable and made in Europe since {year}.",
)
QUOTES = (
    'A reader of "Camp & Cook" wrote: "It just works."',
    'Called "the honest one" by those who carry it.',
    'Packs down to 12" by 5".',
    'Tested at -18 °C, and at "summer" in Scotland.',
)
FEATURES = (
    "Ripstop fabric, 40 D, 3,000 mm water column",
    "YKK&reg; zips that run in both directions",
    "Weight without pegs: {grams} g",
    'Repair kit included \u2013 see <a href="//camping-trade.example/repair">how it\'s done</a>',
    "Made without PFAS",
    "Colour may differ slightly from the picture",
    "Sewn seams, taped on the inside",
    "Five-year guarantee &ndash; no small print",
    "Stainless steel 18/8",
    "Can be washed at 30 °C",
    "Reflective loops &amp; cords",
    "Fits through a 30 \u00d7 40 cm opening",
)
