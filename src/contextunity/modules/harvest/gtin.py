"""Verify GTINs: the numbers in the barcodes of products, also known as EAN, UPC and ISBN-13."""

from __future__ import annotations

import re

__all__ = ["GtinError", "check_digit", "read_gtin", "verified_gtin"]

_LENGTHS = frozenset({8, 12, 13, 14})
_SEPARATORS = re.compile(r"[\s\-]+")


def check_digit(digits: str) -> int:
    """Compute the check digit for `digits`.

    The weights of the digits are three, one, three, one… from the right, and the check digit completes the sum to a
    multiple of ten.

    Source: GS1 General Specifications, section 7.9.1.
    """
    # Sums over bytes run in C; 48 is the code of "0". This runs for every product of every harvest.
    codes = digits.encode()
    threes, ones = codes[::-2], codes[-2::-2]
    return -(3 * (sum(threes) - 48 * len(threes)) + sum(ones) - 48 * len(ones)) % 10


def verified_gtin(text: str) -> str:
    """Return a GTIN as digits, or an empty string if it is invalid.

    Args:
        text: 8, 12, 13 or 14 digits; spaces and hyphens between them are removed.
    """
    digits = text if text.isdigit() else _SEPARATORS.sub("", text)
    if len(digits) not in _LENGTHS or not (digits.isascii() and digits.isdigit()):
        return ""
    # Zeros alone have a valid check digit, but shops enter them instead of a barcode.
    if check_digit(digits[:-1]) != int(digits[-1]) or not digits.strip("0"):
        return ""
    return digits


class GtinError(ValueError):
    """A text is not a GTIN, and none can be restored from it."""


def read_gtin(text: str) -> str:
    """Return a GTIN as digits; restore leading zeros that a spreadsheet program dropped.

    Args:
        text: as in `verified_gtin`.

    Returns:
        An empty string if the text means "none": only zeros, or no digits.

    Raises:
        GtinError: the text is invalid, and cannot be restored.
    """
    found = verified_gtin(text)
    if found:
        return found
    digits = _SEPARATORS.sub("", text)
    if not any(char.isdigit() for char in digits) or not digits.strip("0"):
        return ""
    if not (digits.isascii() and digits.isdigit()):
        raise GtinError("it has characters other than digits")
    if _is_isbn_10(digits):
        raise GtinError(f"it is an ISBN-10; its GTIN is {_isbn_13(digits)}")
    # Restore only a UPC of twelve digits, or a short one of eight; fewer digits match too many numbers.
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
