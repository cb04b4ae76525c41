"""Verifies GTINs: the numbers in the barcodes of products, also known as EAN, UPC and ISBN-13."""

from __future__ import annotations

import re

__all__ = ["GtinError", "check_digit", "read_gtin", "verified_gtin"]

_LENGTHS = frozenset({8, 12, 13, 14})
_SEPARATORS = re.compile(r"[\s\-]+")


def check_digit(digits: str) -> int:
    """Compute the check digit that belongs behind `digits`.

    The digits count three, one, three, one… from the right, and the check digit makes up for what is missing to a
    multiple of ten.

    Source: GS1 General Specifications, section 7.9.1.
    """
    # Sums over bytes run in C; 48 is the code of "0". Every product of every harvest comes through here.
    codes = digits.encode()
    threes, ones = codes[::-2], codes[-2::-2]
    return -(3 * (sum(threes) - 48 * len(threes)) + sum(ones) - 48 * len(ones)) % 10


def verified_gtin(text: str) -> str:
    """Give a GTIN as digits, or nothing where it is not one.

    Args:
        text: 8, 12, 13 or 14 digits; blanks and hyphens between them are left out.
    """
    digits = text if text.isdigit() else _SEPARATORS.sub("", text)
    if len(digits) not in _LENGTHS or not (digits.isascii() and digits.isdigit()):
        return ""
    # Zeros alone have a good check digit, and are what shops type in where a barcode is asked for.
    if check_digit(digits[:-1]) != int(digits[-1]) or not digits.strip("0"):
        return ""
    return digits


class GtinError(ValueError):
    """A text is no GTIN, and none can be restored from it."""


def read_gtin(text: str) -> str:
    """Give a GTIN as digits; leading zeros that a spreadsheet program dropped are put back.

    Args:
        text: as in `verified_gtin`.

    Returns:
        Nothing where the text stands for "none": zeros alone, or no digits at all.

    Raises:
        GtinError: it should be one, and cannot be restored.
    """
    found = verified_gtin(text)
    if found:
        return found
    digits = _SEPARATORS.sub("", text)
    if not any(char.isdigit() for char in digits) or not digits.strip("0"):
        return ""
    if not (digits.isascii() and digits.isdigit()):
        raise GtinError("it has other characters than digits")
    if _is_isbn_10(digits):
        raise GtinError(f"it is an ISBN-10; its GTIN is {_isbn_13(digits)}")
    # What lost zeros is a UPC of twelve digits, or a short one of eight; fewer digits fit too many numbers.
    size = {7: 8, 10: 12, 11: 12}.get(len(digits), 0)
    found = verified_gtin(digits.rjust(size, "0")) if size else ""
    if not found:
        known = len(digits) in _LENGTHS
        raise GtinError("its check digit is wrong" if known else f"it has {len(digits)} digits")
    return found


def _is_isbn_10(digits: str) -> bool:
    return (
        len(digits) == 10
        and sum(weight * int(digit) for weight, digit in zip(range(10, 0, -1), digits, strict=True)) % 11 == 0
    )


def _isbn_13(digits: str) -> str:
    body = f"978{digits[:9]}"
    return f"{body}{check_digit(body)}"
