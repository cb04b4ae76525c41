"""Verifies GTINs: the numbers in the barcodes of products, also known as EAN, UPC and ISBN-13."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["check_digit", "verified_gtin"]

_LENGTHS = frozenset({8, 12, 13, 14})
_SEPARATORS = re.compile(r"[\s\-]+")


def check_digit(digits: str) -> int:
    """Compute the check digit that belongs behind `digits`.

    The digits count three, one, three, one… from the right, and the check digit makes up for what is missing to a
    multiple of ten.

    Source: GS1 General Specifications, section 7.9.1.
    """
    weighed = sum(int(digit) * (1 if index % 2 else 3) for index, digit in enumerate(reversed(digits)))
    return -weighed % 10


@lru_cache(maxsize=4096)
def verified_gtin(text: str) -> str:
    """Give a GTIN as digits, or nothing where it is not one.

    Args:
        text: 8, 12, 13 or 14 digits; blanks and hyphens between them are left out.
    """
    digits = _SEPARATORS.sub("", text)
    if len(digits) not in _LENGTHS or not (digits.isascii() and digits.isdigit()):
        return ""
    # Zeros alone have a good check digit, and are what shops type in where a barcode is asked for.
    if check_digit(digits[:-1]) != int(digits[-1]) or not digits.strip("0"):
        return ""
    return digits
