"""How the text of a feed is encoded: as configured, as it says itself, UTF-8, or else a guess that is told."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from operator import methodcaller
from typing import NamedTuple, TypeAlias

from ..rejects import WarningReason

__all__ = ["Damage", "RowWarning", "decode_lines", "encoding_warning", "guess_encoding", "usable_encoding"]

RowWarning: TypeAlias = tuple[WarningReason, str]

_FALLBACK = "cp1252"
"""What spreadsheet programs of the West write, and so what most rows are that are not UTF-8 in a feed that is."""
_GUESS_BYTES = 64 * 1024
"""How much text a guess rests on: more makes it slower, and hardly better."""
_GUESSES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp866", "koi8_r", "mac_roman",
    "mac_cyrillic", "iso8859_2", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
]  # fmt: skip
"""What exports of shops are in, if not in UTF-8, the most usual first. Among all that there are, short texts would be
taken for anything."""

# They switch between tables by escapes, so that the byte of a comma may be half a character, or are for other things.
_NOT_BY_LINE = ("iso2022", "hz", "utf-7", "unicode", "raw", "punycode", "idna")


def usable_encoding(name: str) -> str:
    """Give the canonical name of an encoding that a feed can be read in.

    Raises:
        ValueError: it is unknown, or bytes of line ends and separators mean something else in it.
    """
    try:
        found = codecs.lookup(name)
        plain = bytes(range(32, 127)) + b"\t\r\n"
        fits = plain.decode(found.name) == plain.decode("ascii")
    except (LookupError, UnicodeError):
        raise ValueError(
            f"{name!r} is no encoding that is known; name one such as utf-8, windows-1251 or gb18030"
        ) from None
    if not fits or found.name.startswith(_NOT_BY_LINE):
        raise ValueError(f"{name!r} cannot be read line by line; have the feed exported as UTF-8")
    return found.name.removesuffix("-sig")


def guess_encoding(head: bytes) -> str:
    """Guess what a text is encoded in that does not say so, from its first bytes.

    Returns:
        Nothing where it is UTF-8, but for single lines that may be damaged.
    """
    if head.isascii():
        return ""
    lines = [line for line in head.splitlines(keepends=True) if not line.isascii()]
    damaged = [line for line in lines if not _is_utf_8(line)]
    # Hardly any other text passes for UTF-8, so a single good line tells what the others should be.
    if len(damaged) < len(lines) or not damaged:
        return ""
    # Imported where it is needed: most workers never meet such a feed.
    from charset_normalizer import from_bytes

    matches = list(from_bytes(b"".join(damaged)[:_GUESS_BYTES], cp_isolation=_GUESSES, preemptive_behaviour=False))
    if not matches:
        return _FALLBACK
    # Of those that fit equally well, the library's own order is by name.
    least = min((match.chaos, -match.coherence) for match in matches)
    best = [match for match in matches if (match.chaos, -match.coherence) == least]
    names = {name for match in best for name in (match.encoding, *match.could_be_from_charset)}
    return usable_encoding(next(name for name in _GUESSES if name in names))


def _is_utf_8(data: bytes) -> bool:
    try:
        # What is only cut off in the middle of a character is.
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


class Damage(NamedTuple):
    """Lines that are not in the encoding of their feed, and what became of them."""

    lines: frozenset[int]
    warning: RowWarning

    def of_lines(self, first: int, after: int) -> RowWarning | None:
        """Give the warning about a record of some lines; None where none of them is damaged."""
        return None if self.lines.isdisjoint(range(first, after)) else self.warning


def decode_lines(lines: Sequence[bytes], encoding: str) -> tuple[list[str], Damage | None]:
    """Decode lines.

    Args:
        lines: the bytes of each.
        encoding: the feed's, as `usable_encoding` gives it. Empty means UTF-8, with single lines in Windows-1252.

    Returns:
        The texts, and which of them had to be repaired.
    """
    decode = methodcaller("decode", encoding or "utf-8")
    texts: list[str] = []
    damaged: list[int] = []
    rest = iter(lines)
    while True:
        try:
            # No step of Python for each line. What was decoded before a bad one stays in the list.
            texts.extend(map(decode, rest))
        except UnicodeDecodeError:
            damaged.append(len(texts))
            texts.append(lines[len(texts)].decode(encoding or _FALLBACK, "replace"))
        else:
            return texts, Damage(frozenset(damaged), encoding_warning(encoding)) if damaged else None


def encoding_warning(encoding: str) -> RowWarning:
    """Say what became of bytes that are not in the encoding of their feed."""
    if encoding:
        detail = f"the row has bytes that are no {encoding}; each became \N{REPLACEMENT CHARACTER}"
        return WarningReason.BAD_ENCODING, detail
    detail = "the row is not UTF-8, and was read as Windows-1252; name the encoding in the supplier's settings"
    return WarningReason.GUESSED_ENCODING, detail
