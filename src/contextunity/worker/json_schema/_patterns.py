"""Regular expressions for JSON Schema, in ECMA syntax, for the text rules of Protovalidate and ProtoJSON.

A pattern accepts everything that the service accepts; if the service rejects more, `exact` is False.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "DURATION",
    "HEADERS",
    "MOST_DIGITS",
    "TEXT_FORMATS",
    "TIMESTAMP",
    "Span",
    "TextFormat",
    "any_case",
    "base64_pattern",
    "digits_pattern",
    "ecma_pattern",
    "literal",
]

Span: TypeAlias = tuple[int, int]
"""The first and last integer, inclusive."""

MOST_DIGITS = 32
"""Maximum characters of an integer in a string; the codec rejects longer ones."""


def literal(text: str) -> str:
    """Escape a text for ECMA's unicode mode, which allows a backslash only where it is needed."""
    return re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\g<0>", text)


def any_case(word: str) -> str:
    """A pattern for a word of letters, digits and underscores, each letter large or small."""
    return "".join(f"[{each.upper()}{each.lower()}]" if each.isalpha() else each for each in word)


def digits_pattern(spans: Iterable[Span]) -> str:
    """Return a pattern for the integers in some spans, leading zeros allowed."""
    found = list[str]()
    for low, high in spans:
        if low < 0:
            found.append(f"-0*{_between(max(-high, 1), -low)}")
        if high >= 0:
            found.append(f"0*{_between(max(low, 0), high)}")
        if low <= 0 <= high:
            found.append("-0+")
    return f"^(?:{'|'.join(found)})$"


def _between(low: int, high: int) -> str:
    """Return a pattern for the integers of a span without leading zeros."""
    parts, full = list[str](), list[int]()
    for width in range(len(str(low)), len(str(high)) + 1):
        least, most = 10 ** (width - 1) if width > 1 else 0, 10**width - 1
        if low <= max(least, 1) and most <= high:
            full.append(width)
        else:
            parts.append(_of_width(str(max(low, least)), str(min(high, most))))
    if full:
        parts.insert(0, f"[1-9][0-9]{{{full[0] - 1},{full[-1] - 1}}}")
    if not low and full[:1] == [1]:
        parts.insert(0, "0")
    return f"(?:{'|'.join(parts)})"


def _of_width(low: str, high: str) -> str:
    """Return a pattern for the integers between two with the same number of digits."""
    if low == high:
        return low
    if low[0] == high[0]:
        return low[0] + _of_width(low[1:], high[1:])
    rest = len(low) - 1
    parts = list[str]()
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        parts.append(low[0] + _of_width(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        parts.append(high[0] + _of_width("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        digit = f"[{first}-{last}]" if first < last else str(first)
        parts.append(digit + (f"[0-9]{{{rest}}}" if rest else ""))
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


_BASE64 = "[A-Za-z0-9+/_-]"
_MOST_REPETITIONS = 1000
"""Maximum repetition in RE2, which Go's validators use."""


def base64_pattern(least: int, most: int | None) -> tuple[str, bool]:
    """Return a pattern for base64 of so many bytes, in both alphabets, padded or not; and whether it is exact."""
    low = -(-4 * least // 3)
    high = None if most is None else -(-4 * (most + 1) // 3) - 1
    whole = f"^(?:{_BASE64}{{4}})*(?:{_BASE64}{{2,3}})?=*$"
    if not low and high is None:
        return whole, True
    if low > _MOST_REPETITIONS or (high or 0) > _MOST_REPETITIONS:
        return whole, False
    # A quantum of a single character is never valid base64.
    lengths = [length for length in range(low, (low if high is None else high) + 1) if length % 4 != 1]
    if high is None:
        return f"^{_BASE64}{{{low}}}(?:{_BASE64}{{4}})*{_rest(low)}=*$", True
    parts = _runs(lengths)
    return f"^(?:{'|'.join(f'{_BASE64}{{{first},{last}}}' for first, last in parts)})=*$", True


def _rest(length: int) -> str:
    """Return the pattern for the characters after `length` characters and whole quanta of four."""
    allowed = [extra for extra in range(4) if (length + extra) % 4 != 1]
    return f"(?:{'|'.join(f'{_BASE64}{{{extra}}}' for extra in allowed)})"


def _runs(numbers: list[int]) -> list[Span]:
    found = list[Span]()
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


_DATE = (
    "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-"
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))"
)
TIMESTAMP = (
    f"^{_DATE}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{{1,9}})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
)
_MOST_SECONDS = 315_576_000_000
DURATION = f"^-?0*{_between(0, _MOST_SECONDS)}(?:\\.[0-9]{{1,9}})?s$"


_TOKEN = re.compile(
    r"(?P<open>\((?:\?:)?(?!\?))|(?P<close>\))|(?P<or>\|)|(?P<edge>\^|\$|\\A|\\z)"
    r"|(?P<repeat>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)|(?P<any>\.)|\[(?P<not>\^?)(?P<set>(?:\\.|[^\\\]\[])+)\]"
    r"|(?P<plain>\\x[0-9A-Fa-f]{2}|\\.|[^\\\[\]{}()*+?.|^$])",
    re.DOTALL,
)
_SET_TOKEN = re.compile(r"\\x[0-9A-Fa-f]{2}|\\.|.", re.DOTALL)
_SHORT = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


def ecma_pattern(pattern: str) -> str | None:
    """Translate a pattern from RE2 to ECMA's unicode mode; None if that is not certain.

    Keep the common syntax and write out the classes: RE2's `.`, `\\d`, `\\w` and `\\s` differ from ECMA's.
    """
    made, position, repeatable = list[str](), 0, False
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            return None
        text, position = token[0], token.end()
        if token["repeat"]:
            if not repeatable:
                return None
            made.append(text)
            repeatable = False
            continue
        if token["edge"]:
            text = {"\\A": "^", "\\z": "$"}.get(text, text)
        elif token["open"]:
            text = "(?:"
        elif token["any"]:
            text = "[^\\n]"
        elif token["set"] or token["plain"]:
            inner = _set(token["set"]) if token["set"] else None
            translated = _plain(text) if inner is None and token["plain"] else inner and f"[{token['not']}{inner}]"
            if not translated:
                return None
            text = translated
        made.append(text)
        repeatable = not (token["edge"] or token["open"] or token["or"])
    return "".join(made)


def _plain(text: str) -> str | None:
    if text[0] != "\\":
        return literal(text)
    if text[1] in _SHORT:
        return f"[{_SHORT[text[1]]}]"
    if text[1] in "DWS":
        return f"[^{_SHORT[text[1].lower()]}]"
    found = _escaped(text)
    return None if found is None else literal(found)


def _escaped(text: str) -> str | None:
    """Return the character of an escape; None if it is more than a character."""
    if text.startswith("\\x"):
        return chr(int(text[2:], 16))
    if text[1] in _CONTROL:
        return _CONTROL[text[1]]
    return text[1] if text[1].isascii() and not text[1].isalnum() else None


def _set(content: str) -> str | None:
    """Translate what is between brackets. A hyphen keeps its position; one next to a class is ambiguous."""
    made = list[str]()
    parts = _SET_TOKEN.findall(content)
    for place, part in enumerate(parts):
        if part[0] != "\\":
            # Doubled characters are set operations in newer dialects.
            if part in "&|~-" and parts[place + 1 : place + 2] == [part]:
                return None
            made.append(f"\\{part}" if part in "^[" else part)
        elif part[1] in _SHORT:
            if "-" in parts[place + 1 : place + 2] or (place > 1 and parts[place - 1] == "-"):
                return None
            made.append(_SHORT[part[1]])
        else:
            found = _escaped(part)
            if found is None:
                return None
            made.append(f"\\{found}" if found in "\\]^-[" else found)
    return "".join(made)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFormat:
    """What a well-known rule of Protovalidate requires of a text.

    Attributes:
        schema: keywords that express it.
        exact: whether they reject everything that the rule rejects.
    """

    schema: dict[str, Any] = field(default_factory=dict[str, Any])
    exact: bool = True


_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_LAST = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"
"""The last 32 bits of an IPv6 address."""


def _ipv6() -> str:
    found = [f"(?:{_GROUP}:){{6}}{_LAST}"]
    for after in range(6):
        # `::` stands for at least one group; `before` groups may precede it, `after` and the last two follow.
        before = f"(?:(?:{_GROUP}:){{0,{4 - after}}}{_GROUP})?" if after < 5 else ""
        found.append(f"{before}::(?:{_GROUP}:){{{after}}}{_LAST}")
    found.append(f"(?:(?:{_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}")
    found.append(f"(?:(?:{_GROUP}:){{0,6}}{_GROUP})?::")
    return f"(?:{'|'.join(found)})"


_IPV6 = _ipv6()
_ZONE = "(?:%[^\\u0000]+)?"
_LABEL = "[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_HOSTNAME: dict[str, Any] = {
    "pattern": f"^{_NAME}\\.?$",
    "maxLength": 253,
    "not": {"pattern": "(?:^|\\.)[0-9]+\\.?$"},
}
_URI_TEXT = "(?:[A-Za-z0-9._~:/?#\\[\\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_PORT = "(?:0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HEX = "[0-9A-Fa-f]"
_PREFIX4, _PREFIX6 = "(?:3[0-2]|[12]?[0-9])", "(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"


def _matching(pattern: str, kind: str = "", *, exact: bool = True) -> TextFormat:
    return TextFormat(schema={"pattern": f"^{pattern}$", **({"format": kind} if kind else {})}, exact=exact)


def _any_of(*formats: TextFormat) -> TextFormat:
    return TextFormat(schema={"anyOf": [each.schema for each in formats]}, exact=all(each.exact for each in formats))


_ATOM = "[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]"
_V4, _V6 = _matching(_IPV4, "ipv4"), _matching(_IPV6 + _ZONE)
_V4_PREFIX, _V6_PREFIX = f"{_IPV4}/{_PREFIX4}", f"{_IPV6}/{_PREFIX6}"
_HOST = TextFormat(schema={**_HOSTNAME, "format": "hostname"})
TEXT_FORMATS: dict[str, TextFormat] = {
    "email": _matching(f"{_ATOM}+@{_NAME}", "email"),
    "hostname": _HOST,
    "ip": _any_of(_V4, _V6),
    "ipv4": _V4,
    "ipv6": _V6,
    "uri": _matching(f"[A-Za-z][A-Za-z0-9+.-]*:{_URI_TEXT}", "uri", exact=False),
    "uri_ref": _matching(_URI_TEXT, "uri-reference", exact=False),
    "address": _any_of(_HOST, _V4, _V6),
    "uuid": _matching(f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}", "uuid"),
    "tuuid": _matching(f"{_HEX}{{32}}"),
    "ip_with_prefixlen": _matching(f"(?:{_V4_PREFIX}|{_V6_PREFIX})"),
    "ipv4_with_prefixlen": _matching(_V4_PREFIX),
    "ipv6_with_prefixlen": _matching(_V6_PREFIX),
    "ip_prefix": _matching(f"(?:{_V4_PREFIX}|{_V6_PREFIX})", exact=False),
    "ipv4_prefix": _matching(_V4_PREFIX, exact=False),
    "ipv6_prefix": _matching(_V6_PREFIX, exact=False),
    "host_and_port": _matching(f"(?:{_NAME}\\.?|{_IPV4}|\\[{_IPV6}(?:%[^\\u0000]+)?\\]):{_PORT}", exact=False),
    "ulid": _matching("[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}"),
    "protobuf_fqn": _matching(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*"),
    "protobuf_dot_fqn": _matching(r"\.[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*"),
}
"""Rules by name in `buf.validate.StringRules`."""

HEADERS: dict[tuple[int, bool], TextFormat] = {
    (1, True): _matching(":?[0-9A-Za-z!#$%&'*+,.^_|~`-]+"),
    (1, False): _matching(r"[^\u0000\n\r]+"),
    (2, True): _matching(r"[^\u0000-\u0008\n-\u001F\u007F]*"),
    (2, False): _matching(r"[^\u0000\n\r]*"),
}
"""Rules by the values of `well_known_regex` and `strict`."""
