"""Undo changes of values by spreadsheet programs."""

from __future__ import annotations

import re

__all__ = ["lost_digits", "restored"]

_FORMULA = re.compile(r'="((?:[^"]|"")*)"')
_WHOLE = re.compile(r"([0-9]+)\.0")
# Spreadsheets always write the sign and two digits; "12E4" is a normal SKU.
_SCIENTIFIC = re.compile(r"([0-9])(?:\.([0-9]+))?[Ee]\+([0-9]{2})")
# An apostrophe that belongs to the text: '90s, 'til, 'n', or the first of a quoting pair.
_OWN_APOSTROPHE = re.compile(r"'(?:[0-9]0s\b|(?:tis|twas|til|till|cause|em|n|round)\b|[^']*\w'(?!\w))", re.IGNORECASE)


def restored(text: str) -> str:
    """Return a value as it was before a spreadsheet program changed it.

    This removes the apostrophe that makes a number a text, `="…"`, a `.0` after an integer, and scientific notation
    with all digits.

    >>> restored("'00123"), restored('="00123"'), restored("123.0"), restored("9.009518582030E+12")
    ('00123', '00123', '123', '9009518582030')
    """
    # All changed values begin with one of two signs or end with a digit.
    if not text or (text[-1] not in "0123456789" and text[0] not in "'="):
        return text
    if text[:1] == "'" and len(text) > 1 and not _OWN_APOSTROPHE.match(text):
        text = text[1:]
    if text[:2] == '="':
        formula = _FORMULA.fullmatch(text)
        if formula is not None:
            text = formula[1].replace('""', '"')
    if text[-2:] == ".0":
        whole = _WHOLE.fullmatch(text)
        return text if whole is None else whole[1]
    if "+" in text:
        number = _SCIENTIFIC.fullmatch(text)
        if number is not None:
            digits = (number[2] or "").rstrip("0")
            exponent = int(number[3])
            # With fewer decimals than the exponent, it is unknown whether zeros or lost digits follow.
            if len(number[2] or "") >= exponent >= len(digits):
                return number[1] + digits.ljust(exponent, "0")
    return text


def lost_digits(text: str) -> bool:
    """Return whether a value is a number in scientific notation, whose last digits are lost.

    >>> lost_digits("9.78E+12"), lost_digits("12E4")
    (True, False)
    """
    return "+" in text and _SCIENTIFIC.fullmatch(text) is not None
