"""The tool `lookup_sku`, which the code module offers to programs: find a product in the catalogue by SKU."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from contextunity.gen.contextunity.harvest.v1 import Money, Product, Publication
from pydantic import BaseModel, ConfigDict

from contextunity.core.codec import JsonValue
from contextunity.modules.code.errors import ToolFailedError, ToolRefusedError
from contextunity.modules.code.tools import Tool, ToolCaller, ToolContext, ToolFunction

from .catalogue import Catalogue, CatalogueError
from .catalogue.products import decimal_price
from .settings import HarvestSettings

__all__ = ["LookupSkuSettings", "lookup_sku"]

_DEFAULT_TENANT = "default"


class LookupSkuSettings(BaseModel):
    """`[modules.code.tools.lookup_sku]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogue_url: str | None = None
    """SQLAlchemy URL of the catalogue, as in `[modules.harvest]`; by default the SQLite file in the data folder."""


@contextlib.asynccontextmanager
async def _open(context: ToolContext) -> AsyncGenerator[ToolFunction, None]:
    url = HarvestSettings(catalogue_url=context.settings.catalogue_url).catalogue_in(context.data_folder)
    opened: Catalogue | None = None
    lock = asyncio.Lock()

    async def catalogue() -> Catalogue:
        # Open it with the first call: a worker whose programs never call the tool needs no database.
        nonlocal opened
        async with lock:
            if opened is None:
                opened = await asyncio.to_thread(Catalogue.open, url)
        return opened

    async def lookup_sku(caller: ToolCaller, sku: str, /, supplier_code: str | None = None) -> JsonValue:
        for name, value in (("sku", sku), ("supplier_code", supplier_code)):
            if not isinstance(value, str | None) or value == "":  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ToolRefusedError(f"lookup_sku needs {name} as a string, not {value!r}", error_type="TypeError")
        try:
            found = await catalogue()
            return await asyncio.to_thread(
                _find_product, found, caller.tenant_id or _DEFAULT_TENANT, sku, supplier_code
            )
        except CatalogueError as error:
            if error.retryable:
                raise ToolFailedError(str(error)) from error
            raise ToolRefusedError(str(error), error_type="LookupError") from error

    try:
        yield lookup_sku
    finally:
        if opened is not None:
            opened.close()


def _find_product(catalogue: Catalogue, tenant_id: str, sku: str, supplier_code: str | None) -> JsonValue:
    """Return the product with the SKU of the first supplier, by supplier code; None if no supplier offers it."""
    for supplier in [supplier_code] if supplier_code else catalogue.suppliers(tenant_id):
        product = catalogue.get(tenant_id, supplier, sku)
        if product is not None and product.publication in (Publication.UNSPECIFIED, Publication.ACTIVE):
            return {"supplier_code": supplier, **_as_json(product)}
    return None


def _as_json(product: Product) -> dict[str, JsonValue]:
    return {
        "sku": product.sku,
        "title": product.title,
        "brand": product.brand,
        "price": _price(product.price),
        "compare_at_price": _price(product.compare_at_price),
        "currency_code": product.price.currency_code if product.price is not None else "",
        "gtin": product.gtin,
        "stock": product.stock,
        "availability": (product.availability.name or "").lower(),
        "publication": "" if not product.publication else (product.publication.name or "").lower(),
        "weight_grams": product.weight_grams,
        "categories": list[JsonValue](product.categories),
        "options": dict[str, JsonValue](product.options),
        "link": product.link,
    }


def _price(money: Money | None) -> str | None:
    return None if money is None else str(decimal_price(money.units, money.nanos))


lookup_sku = Tool(
    name="lookup_sku",
    open=_open,
    settings=LookupSkuSettings,
    description="lookup_sku(sku, supplier_code=None) returns the product of the tenant's catalogue, or None.",
)
"""lookup_sku(sku, supplier_code=None) → the product as a dict, prices as text; None if the catalogue lacks it, or if
the shop does not sell it: a draft, archived or unpublished product. `publication` is active, or empty if the feed does
not say."""
