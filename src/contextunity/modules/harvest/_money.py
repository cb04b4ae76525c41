"""Reads prices: exact, with or without a currency, in the ways that shops write them."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["CURRENCY_CODES", "BadCurrencyError", "BadPriceError", "parse_money", "parse_number"]

_CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD "
    "HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL "
    "LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR "
    "PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP "
    "TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ZWL"
)
CURRENCY_CODES = frozenset(_CODES.split())
"""ISO 4217 codes of the money that is in use, and of what was until lately and still stands in feeds."""

# A sign that several currencies share ("$", "¥", "kr") says nothing: the feed's own currency is meant.
_SIGNS = {
    "€": "EUR",
    "£": "GBP",
    "₹": "INR",
    "₽": "RUB",
    "₺": "TRY",
    "₩": "KRW",
    "₪": "ILS",
    "₫": "VND",
    "₴": "UAH",
    "zł": "PLN",
    "Kč": "CZK",
    "US$": "USD",
    "CA$": "CAD",
    "C$": "CAD",
    "AU$": "AUD",
    "A$": "AUD",
    "NZ$": "NZD",
    "HK$": "HKD",
    "R$": "BRL",
    "$": "",
    "¥": "",
    "kr": "",
    "kr.": "",
}
_PLAIN = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?")
_PRICE = re.compile(r"([^0-9.,\-+(]*)([0-9][0-9., '\u2019\u00a0\u202f]*|[.,][0-9]+)([^0-9]*)")
_SPACES = re.compile(r"[ '\u2019\u00a0\u202f]")
_INT64_MAX = 2**63 - 1


class BadPriceError(ValueError):
    """A text is no amount of money that can be asked for something."""


class BadCurrencyError(ValueError):
    """A currency is missing, or is none."""


@lru_cache(maxsize=16384)
def parse_money(text: str, currency_code: str) -> tuple[str, int, int]:
    """Read a price.

    A single comma before three digits separates thousands ("1,299"), else it is a decimal comma ("54,95"); a single
    point is always a decimal point, because that is what machines write.

    Args:
        text: such as "54.95", "54.95 USD", "USD 54.95", "1,299.00", "1.299,00 EUR" or "$54.95".
        currency_code: of a price without a currency of its own.

    Returns:
        ISO 4217 code, whole units, and billionths of a unit.

    Raises:
        BadPriceError: it is not a number, is negative, or has more digits than an amount can hold.
        BadCurrencyError: the currency is missing, or not one of ISO 4217.

    Examples:
        >>> parse_money("1.299,50 EUR", "USD")
        ('EUR', 1299, 500000000)
        >>> parse_money("0", "usd")
        ('USD', 0, 0)
    """
    text = text.strip()
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return _currency("", currency_code), int(plain[1]), int((plain[2] or "").ljust(9, "0"))
    found = _PRICE.fullmatch(text)
    if found is None:
        negative = text.lstrip("€£$ ").startswith(("-", "\u2212", "("))
        raise BadPriceError("it is negative" if negative else "it is not a number")
    before, number, after = found[1].strip(), found[2].strip(), found[3].strip()
    if before and after:
        raise BadPriceError("it has words on both sides")
    if before.endswith(("-", "\u2212")):
        raise BadPriceError("it is negative")
    units, nanos = parse_number(number)
    return _currency(before or after, currency_code), units, nanos


def _currency(stated: str, fallback: str) -> str:
    code = stated
    if stated:
        code = _SIGNS.get(stated, stated.upper())
        if stated not in _SIGNS and not (len(code) == 3 and code.isalpha()):
            raise BadPriceError(f"{stated!r} is no currency")
    code = code or fallback.strip().upper()
    if not code:
        raise BadCurrencyError("the price states no currency and the supplier has none; set its currency_code")
    if code not in CURRENCY_CODES:
        raise BadCurrencyError(f"{code!r} is not a currency code of ISO 4217")
    return code


def parse_number(text: str) -> tuple[int, int]:
    """Read a number without a sign as whole units and billionths, with the rules of `parse_money` for separators.

    Raises:
        BadPriceError: it is not a number, or has more digits than an amount can hold.
    """
    number = _SPACES.sub("", text)
    whole, fraction = _split_decimals(number)
    nanos = fraction.rstrip("0")
    if len(nanos) > 9:
        raise BadPriceError("it has more than nine decimals")
    units = int(whole or "0") if len(whole) < 20 else _INT64_MAX + 1
    if units > _INT64_MAX:
        raise BadPriceError("it is too large")
    return units, int(nanos.ljust(9, "0"))


def _split_decimals(number: str) -> tuple[str, str]:
    """Split into whole digits and decimals; what separates thousands is checked and left out."""
    points, commas = number.count("."), number.count(",")
    if points and commas:
        decimal = "." if number.rindex(".") > number.rindex(",") else ","
    elif points == 1:
        decimal = "."
    elif commas == 1:
        whole, _, rest = number.partition(",")
        decimal = "." if len(rest) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0" else ","
    else:
        decimal = "," if points else "."
    whole, _, fraction = number.rpartition(decimal) if decimal in number else (number, "", "")
    groups = re.split(r"[.,]", whole)
    if len(groups) > 1 and not (1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])):
        raise BadPriceError("its digits are grouped in a way that has no meaning")
    if len({char for char in whole if char in ".,"}) > 1 or not (whole or fraction):
        raise BadPriceError("it is not a number")
    return "".join(groups), fraction
