"""Settings of the harvest module: the catalogue, and one entry for each supplier."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BUNDLED_SUPPLIER", "HarvestSettings", "SupplierSettings"]

BUNDLED_SUPPLIER = "camping-trade"
"""Supplier that comes with the module, for trying it out: each worker makes its feed and serves it on loopback."""


class SupplierSettings(BaseModel):
    """One supplier: `[modules.harvest.suppliers.CODE]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^(https?|file)://.+|^bundled:[a-z-]+$")
    """Where the feed is: http://, https:// or file://."""
    format: Literal["shopify_csv", "google_xml", "google_tsv", "json_lines"] | None = None
    """How it is written; found out from the feed itself unless given."""
    currency_code: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    """ISO 4217 code of the currency that prices without one of their own are in."""
    page_size: int = Field(default=500, ge=1, le=1000)
    """Feed entries in a page. Larger ones cost a little less each product, and more memory."""


class HarvestSettings(BaseModel):
    """`[modules.harvest]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogue_url: str | None = None
    """SQLAlchemy URL of the catalogue's database, such as postgresql://user@host/name; a SQLite file in the data folder
    unless given."""
    suppliers: dict[str, SupplierSettings] = Field(default_factory=dict)
    """Suppliers by supplier_code. The bundled one is there unless an entry of its name replaces it."""
    sample_products: int = Field(default=3000, ge=1, le=1_000_000)
    """Products in the feed of the bundled supplier; each has one or more variants."""
    keep_harvests: int = Field(default=30, ge=1)
    """Harvests of each tenant and supplier whose rejected rows and pages' counts are kept; the oldest go first."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds of silence after which a feed counts as unreachable."""

    def catalogue_in(self, data_folder: Path) -> str:
        """SQLAlchemy URL of the catalogue of a worker with this data folder."""
        return self.catalogue_url or f"sqlite:///{(data_folder / 'harvest' / 'catalogue.db').absolute()}"

    def supplier(self, code: str) -> SupplierSettings | None:
        """The supplier of a code; None where there is none."""
        if code == BUNDLED_SUPPLIER and code not in self.suppliers:
            return SupplierSettings(url=f"bundled:{BUNDLED_SUPPLIER}", format="shopify_csv")
        return self.suppliers.get(code)

    def supplier_codes(self) -> list[str]:
        """All codes, sorted."""
        return sorted({*self.suppliers, BUNDLED_SUPPLIER})
