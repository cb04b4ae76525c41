"""Parse prices exactly, with or without a currency, in the spellings of shops."""

from __future__ import annotations

import re
from datetime import date
from functools import cache, lru_cache

__all__ = ["BadCurrencyError", "BadPriceError", "currency_codes", "parse_money", "parse_number"]

_IN_USE_SINCE = date(2015, 1, 1)
"""Currencies abolished after this year may still be in feeds."""

# Signs that a price may have instead of a code, with their currencies.
_SIGNS = {
    sign.casefold(): tuple(codes.split())
    for signs, codes in (
        ("€", "EUR"),
        ("£", "GBP"),
        ("₹", "INR"),
        ("₽", "RUB"),
        ("₺ TL", "TRY"),
        ("₩", "KRW"),
        ("₪", "ILS"),
        ("₫ đ", "VND"),
        ("₴ грн грн.", "UAH"),
        ("₸", "KZT"),
        ("₱", "PHP"),
        ("฿", "THB"),
        ("zł", "PLN"),
        ("Kč", "CZK"),
        ("Ft Ft.", "HUF"),
        ("лв лв.", "BGN"),
        ("US$", "USD"),
        ("CA$ C$", "CAD"),
        ("AU$ A$", "AUD"),
        ("NZ$", "NZD"),
        ("HK$", "HKD"),
        ("R$", "BRL"),
        ("руб руб.", "RUB BYN"),  # noqa: RUF001
        ("lei", "RON MDL"),
        ("¥", "JPY CNY"),
        ("kr kr.", "SEK NOK DKK ISK"),
        ("Rs Rs. ₨", "INR PKR LKR NPR MUR SCR"),
        # Too many currencies use this sign, and too many shop programs write it for any currency, so it has no meaning.
        ("$", ""),
    )
    for sign in signs.split()
}
_DOTTED = "|".join(re.escape(sign) for sign in _SIGNS if sign.endswith("."))
# Three decimals may be thousands, depending on the currency.
_PLAIN = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,2}|[0-9]{4,9}))?")
_PRICE = re.compile(rf"((?:(?i:{_DOTTED})|[^0-9.,\-+(])*)([0-9][0-9., '\u2019\u00a0\u202f]*|[.,][0-9]+)([^0-9]*)")
# "1299,-", "12.-" and "499:-" mean no cents.
_NO_CENTS = re.compile(r"(?<=[0-9])([,.:])[-\u2013\u2014]{1,2}(?=\s|$)")
_SPACES = re.compile(r"[ '\u2019\u00a0\u202f]")
_THREE_DIGITS = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")
_INT64_MAX = 2**63 - 1
_USUAL_DECIMALS = 2


@cache
def currency_codes() -> frozenset[str]:
    """Return the ISO 4217 codes of currencies in current or recent use, from the CLDR."""
    # Import it with the first price: most commands read none.
    from babel.core import get_global
    from babel.numbers import get_territory_currencies

    found: set[str] = set()
    for territory in get_global("territory_currencies").keys() - {"ZZ"}:  # nowhere: gold, tests and no currency at all
        found.update(get_territory_currencies(territory, _IN_USE_SINCE, date.max, tender=True, non_tender=True))
    return frozenset(found - {"XXX"})  # no currency, as in Antarctica


@cache
def _decimals(code: str) -> int:
    """Return the number of decimals of a currency."""
    from babel.numbers import get_currency_precision

    return get_currency_precision(code)


class BadPriceError(ValueError):
    """A text is not a valid price."""


class BadCurrencyError(ValueError):
    """A currency is missing or invalid."""


def parse_money(text: str, currency_code: str) -> tuple[str, int, int]:
    """Parse a price.

    A single comma before three digits separates thousands ("1,299"), otherwise it is a decimal comma ("54,95"). A
    single point is a decimal point, because programs write that. The decimals of the currency override this: without
    decimals, a point before three digits separates thousands ("299.000 VND"); with three decimals, a comma before three
    digits is ambiguous ("12,500 KWD").

    Args:
        text: such as "54.95", "54.95 USD", "USD 54.95", "1,299.00", "1.299,00 EUR", "$54.95", "1299,- Kč", "Rs. 799".
        currency_code: currency of a price without one.

    Returns:
        ISO 4217 code, whole units, and billionths of a unit.

    Raises:
        BadPriceError: the price is not a number, is negative, has too many digits, or is ambiguous.
        BadCurrencyError: the currency is missing or not in ISO 4217, or its sign is not the supplier's.

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
    found = _PRICE.fullmatch(_NO_CENTS.sub(_zero_cents, text, count=1))
    if found is None:
        negative = text.lstrip("€£$ ").startswith(("-", "\u2212", "("))
        raise BadPriceError("it is negative" if negative else "it is not a number")
    before, number, after = found[1].strip(), found[2].strip(), found[3].strip()
    if before and after:
        raise BadPriceError("it has words on both sides")
    if before.endswith(("-", "\u2212")):
        raise BadPriceError("it is negative")
    units, nanos = parse_number(number)
    code = _currency(before or after, currency_code)
    if _THREE_DIGITS.fullmatch(_SPACES.sub("", number)):
        units, nanos = _by_decimals(number, code, (units, nanos))
    return code, units, nanos


def _zero_cents(found: re.Match[str]) -> str:
    """Replace a dash for cents by digits, after the decimal mark that the price would have."""
    mark = found[1]
    if mark == ":":
        mark = "." if "," in found.string else ","
    return f"{mark}0"


def _by_decimals(number: str, code: str, usual: tuple[int, int]) -> tuple[int, int]:
    """Parse one to three digits, a point or comma, and three more digits."""
    decimals = _decimals(code)
    if "." in number and decimals == 0:
        return parse_number(number.replace(".", ","))
    if "," in number and decimals > _USUAL_DECIMALS:
        raise BadPriceError(f"it is ambiguous: its comma may separate thousands, or the decimals of {code}")
    return usual


@lru_cache(maxsize=1024)
def _currency(stated: str, fallback: str) -> str:
    own = fallback.strip().upper()
    code = own
    if stated:
        codes = _SIGNS.get(stated.casefold())
        if codes is None:
            code = stated.upper()
            if not (len(code) == 3 and code.isalpha()):
                raise BadPriceError(f"{stated!r} is not a currency")
        elif len(codes) == 1:
            code = codes[0]
        elif own and codes and own not in codes:
            raise BadCurrencyError(f"{stated!r} is a sign of {', '.join(codes)}, and the supplier's currency is {own}")
    if not code:
        raise BadCurrencyError("the price states no currency and the supplier has none; set its currency_code")
    if code not in currency_codes():
        raise BadCurrencyError(f"{code!r} is not an ISO 4217 currency code")
    return code


def parse_number(text: str) -> tuple[int, int]:
    """Parse an unsigned number as whole units and billionths, with the separators of `parse_money`.

    Raises:
        BadPriceError: the text is not a number, or has too many digits.
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
    """Split into whole digits and decimals; check and remove thousands separators."""
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
        raise BadPriceError("its digits are grouped in an invalid way")
    if len({char for char in whole if char in ".,"}) > 1 or not (whole or fraction):
        raise BadPriceError("it is not a number")
    return "".join(groups), fraction
