"""Find the encoding of a feed: as configured, as declared by the feed, UTF-8, or a guess with a warning."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from operator import methodcaller
from typing import NamedTuple, TypeAlias

from ..rejects import WarningReason

__all__ = ["Damage", "RowWarning", "decode_lines", "encoding_warning", "guess_encoding", "usable_encoding"]

RowWarning: TypeAlias = tuple[WarningReason, str]

_FALLBACK = "cp1252"
"""Encoding of Western spreadsheet programs, and so of most rows that are not UTF-8 in a UTF-8 feed."""
_GUESS_BYTES = 64 * 1024
"""Bytes used for a guess: more make it slower, and hardly better."""
_GUESSES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp866", "koi8_r", "mac_roman",
    "mac_cyrillic", "iso8859_2", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
]  # fmt: skip
"""Encodings of shops' exports other than UTF-8, the most common first. With all encodings as candidates, a guess from
short texts would be arbitrary."""

# They switch tables by escapes, so that the byte of a comma may be half a character, or they are for other purposes.
_NOT_BY_LINE = ("iso2022", "hz", "utf-7", "unicode", "raw", "punycode", "idna")


def usable_encoding(name: str) -> str:
    """Return the canonical name of an encoding, if feeds can be read in it.

    Raises:
        ValueError: the encoding is unknown, or the bytes of line ends and separators have other meanings in it.
    """
    try:
        found = codecs.lookup(name)
        plain = bytes(range(32, 127)) + b"\t\r\n"
        fits = plain.decode(found.name) == plain.decode("ascii")
    except (LookupError, UnicodeError):
        raise ValueError(f"{name!r} is not a known encoding; use one such as utf-8, windows-1251 or gb18030") from None
    if not fits or found.name.startswith(_NOT_BY_LINE):
        raise ValueError(f"{name!r} cannot be read line by line; have the feed exported as UTF-8")
    return found.name.removesuffix("-sig")


def guess_encoding(head: bytes) -> str:
    """Guess the encoding of a text without a declaration from its first bytes.

    Returns:
        Empty if it is UTF-8, except for single lines that may be damaged.
    """
    if head.isascii():
        return ""
    lines = [line for line in head.splitlines(keepends=True) if not line.isascii()]
    damaged = [line for line in lines if not _is_utf_8(line)]
    # Other text is hardly ever valid UTF-8, so a single valid line shows that the others should be UTF-8.
    if len(damaged) < len(lines) or not damaged:
        return ""
    # Import it here: most workers never read such a feed.
    from charset_normalizer import from_bytes

    matches = list(from_bytes(b"".join(damaged)[:_GUESS_BYTES], cp_isolation=_GUESSES, preemptive_behaviour=False))
    if not matches:
        return _FALLBACK
    # The library orders equally good matches by name.
    least = min((match.chaos, -match.coherence) for match in matches)
    best = [match for match in matches if (match.chaos, -match.coherence) == least]
    names = {name for match in best for name in (match.encoding, *match.could_be_from_charset)}
    return usable_encoding(next(name for name in _GUESSES if name in names))


def _is_utf_8(data: bytes) -> bool:
    try:
        # A text cut in the middle of a character is valid.
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


class Damage(NamedTuple):
    """Lines that are invalid in the feed's encoding, and how they were read."""

    lines: frozenset[int]
    warning: RowWarning

    def of_lines(self, first: int, after: int) -> RowWarning | None:
        """Return the warning about a record with some lines; None if none of them is damaged."""
        return None if self.lines.isdisjoint(range(first, after)) else self.warning


def decode_lines(lines: Sequence[bytes], encoding: str) -> tuple[list[str], Damage | None]:
    """Decode lines.

    Args:
        lines: bytes of each line.
        encoding: encoding of the feed, from `usable_encoding`. Empty means UTF-8, with single lines in Windows-1252.

    Returns:
        The texts, and which of them were repaired.
    """
    decode = methodcaller("decode", encoding or "utf-8")
    texts: list[str] = []
    damaged: list[int] = []
    rest = iter(lines)
    while True:
        try:
            # No Python step per line. Texts decoded before a bad line stay in the list.
            texts.extend(map(decode, rest))
        except UnicodeDecodeError:
            damaged.append(len(texts))
            texts.append(lines[len(texts)].decode(encoding or _FALLBACK, "replace"))
        else:
            return texts, Damage(frozenset(damaged), encoding_warning(encoding)) if damaged else None


def encoding_warning(encoding: str) -> RowWarning:
    """Return the warning about bytes that are invalid in the feed's encoding."""
    if encoding:
        detail = f"the row has bytes that are not valid {encoding}; each became \N{REPLACEMENT CHARACTER}"
        return WarningReason.BAD_ENCODING, detail
    detail = "the row is not UTF-8, and was read as Windows-1252; set the encoding in the supplier's settings"
    return WarningReason.GUESSED_ENCODING, detail
