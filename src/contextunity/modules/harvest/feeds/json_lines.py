"""Read JSON Lines: one object per line, with the field names of RawProduct in either spelling."""

from __future__ import annotations

import json
from typing import Any, cast

from contextunity.gen.contextunity.harvest.v1 import RawProduct

from ..rejects import RejectReason, rejected_row, warning_row
from .encoding import decode_lines
from .model import Chunk

_TEXTS = (
    "sku",
    "group",
    "title",
    "body",
    "brand",
    "price",
    "compare_at_price",
    "gtin",
    "stock",
    "weight",
    "weight_unit",
    "currency_code",
    "mpn",
    "link",
    "availability",
    "sale_price",
    "sale_price_effective_date",
    "status",
)
_LISTS = ("image_urls", "categories")


def _json_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_SPELLINGS = {name: (name, _json_name(name)) for name in (*_TEXTS, *_LISTS, "tags", "options", "published")}


class _FieldError(ValueError):
    """A field has the wrong type."""


def parse_json_lines(data: bytes, *, prologue: bytes, line: int, limit: int, final: bool, encoding: str = "") -> Chunk:
    """Read products; every non-blank line is an entry. See `EntryParser`.

    Fields that RawProduct lacks are ignored; numbers keep their spelling.
    """
    del prologue
    chunk = Chunk()
    pieces = data.splitlines(keepends=True)
    # A carriage return at the very end may be half of a line end.
    if pieces and not final and not pieces[-1].endswith(b"\n"):
        pieces.pop()
    for piece in pieces:
        line += 1
        chunk.consumed += len(piece)
        if not piece.strip():
            continue
        chunk.entries += 1
        _read_line(piece, line, encoding, chunk)
        if chunk.entries >= limit:
            break
    return chunk


def _read_line(piece: bytes, line: int, encoding: str, chunk: Chunk) -> None:
    (text,), damage = decode_lines([piece], encoding)

    def reject(reason: RejectReason, detail: str, sku: str = "") -> None:
        chunk.rejected.append(rejected_row(line=line, reason=reason, detail=detail, raw=piece.rstrip(b"\r\n"), sku=sku))

    try:
        # Numbers stay text: "54.90" must not become 54.9, nor a GTIN lose digits.
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        reject(RejectReason.BAD_JSON, f"the line is not JSON: {error}")
        return
    if not isinstance(value, dict):
        reject(RejectReason.BAD_JSON, f"the line is a JSON {_kind(value)}, not an object")
        return
    record = cast("dict[str, Any]", value)
    try:
        product = _product(line, record)
    except _FieldError as error:
        sku = record.get("sku")
        reject(RejectReason.BAD_FIELD, str(error), sku if isinstance(sku, str) else "")
        return
    chunk.products.append(product)
    if damage is not None:
        reason, detail = damage.warning
        chunk.warnings.append(warning_row(line=line, reason=reason, detail=detail, raw=piece, sku=product.sku))


def _product(line: int, record: dict[str, Any]) -> RawProduct:
    values: dict[str, Any] = {"line": line}
    for name, (proto_name, json_name) in _SPELLINGS.items():
        value = record.get(proto_name)
        if value is None:
            value = record.get(json_name)
        if value is None:
            continue
        if name in _LISTS:
            values[name] = [_text(name, item) for item in _items(name, value)]
        elif name == "options":
            values[name] = _options(value)
        elif name == "tags" and isinstance(value, list):
            values[name] = ", ".join(_text(name, item) for item in cast("list[object]", value))
        elif name == "published" and isinstance(value, bool):
            values[name] = "true" if value else "false"
        else:
            values[name] = _text(name, value)
    return RawProduct(**values)


def _items(name: str, value: object) -> list[object]:
    if isinstance(value, list):
        return cast("list[object]", value)
    if isinstance(value, str):
        return [value] if value else []
    raise _FieldError(f"{name} must be a list of strings, but is a JSON {_kind(value)}")


def _options(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _FieldError(f"options must be an object of strings, but is a JSON {_kind(value)}")
    pairs = cast("dict[str, object]", value)
    return {_text("options", key): _text(f"options[{key!r}]", item) for key, item in pairs.items() if item}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _FieldError(f"{name} must be a string or a number, but is a JSON {_kind(value)}")
    # JSON can contain half a surrogate pair; no codec encodes it, so one such row would fail a whole page.
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _FieldError(f"{name} has half a surrogate pair, which is not a character")
    return value


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "text or number"
