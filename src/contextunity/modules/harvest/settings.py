"""Settings of the harvest module: the catalogue, and one entry for each supplier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from .feeds import FeedBounds, feed_folder_of, file_path
from .feeds.encoding import usable_encoding
from .feeds.model import DEFAULT_BOUNDS, MAX_ENTRY_SETTING_BYTES

_OUTSIDE = "lies in no feed folder; add to [modules.harvest] the line {line}"

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
    encoding: str = ""
    """What the feed's text is encoded in, such as windows-1251, whatever the feed says of itself; unless given, what it
    says, UTF-8, or else a guess, which the harvest keeps as a warning."""
    key: Literal["sku", "barcode", "handle_options"] = "sku"
    """What names a product in the catalogue: its SKU, its barcode, or its handle with its options, for shops where one
    SKU stands on many variants."""
    page_size: int = Field(default=500, ge=1, le=1000)
    """Feed entries in a page. Larger ones cost a little less each product, and more memory."""
    allow_private: bool = False
    """Whether the feed may come from a private or loopback address; never from a link-local one or metadata."""
    max_bytes: int = Field(default=DEFAULT_BOUNDS.max_bytes, gt=0)
    """Bytes of the whole feed, unpacked."""
    max_ratio: float = Field(default=DEFAULT_BOUNDS.max_ratio, ge=1)
    """How many times as long as what is sent a packed feed may be, beyond 16 MiB."""
    max_seconds: float = Field(default=DEFAULT_BOUNDS.max_seconds, gt=0, le=DEFAULT_BOUNDS.max_seconds)
    """Seconds that one download may take: the whole feed, or a page where the server hands out parts."""
    min_bytes_per_second: float = Field(default=DEFAULT_BOUNDS.min_bytes_per_second, ge=0)
    """How fast the feed must come, over each 30 seconds; 0 for as slowly as it likes."""
    max_record_bytes: int = Field(default=DEFAULT_BOUNDS.max_record_bytes, ge=1024, le=MAX_ENTRY_SETTING_BYTES)
    """Bytes of one feed entry."""
    max_delisted_share: float | None = Field(default=None, ge=0, le=1)
    """As in `[modules.harvest]`, which counts unless given."""

    @field_validator("encoding")
    @classmethod
    def _encoding_is_usable(cls, name: str) -> str:
        return usable_encoding(name) if name else ""

    def bounds(self) -> FeedBounds:
        """The bounds in the reader's words."""
        return FeedBounds(
            max_bytes=self.max_bytes,
            max_ratio=self.max_ratio,
            max_seconds=self.max_seconds,
            min_bytes_per_second=self.min_bytes_per_second,
            max_record_bytes=self.max_record_bytes,
        )


class HarvestSettings(BaseModel):
    """`[modules.harvest]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogue_url: str | None = None
    """SQLAlchemy URL of the catalogue's database, such as postgresql://user@host/name; a SQLite file in the data folder
    unless given."""
    feed_folders: tuple[Path, ...] = Field(default=(), validate_default=True)
    """Folders that feeds of file:// must lie in, relative ones from the folder of the settings file; that folder, else
    the current one, unless given."""
    proxy: str | None = Field(default=None, pattern=r"^https?://.+")
    """URL of the proxy that feeds come through; none unless given, whatever the environment says."""
    suppliers: dict[str, SupplierSettings] = Field(default_factory=dict)
    """Suppliers by supplier_code. The bundled one is there unless an entry of its name replaces it."""
    sample_products: int = Field(default=3000, ge=1, le=1_000_000)
    """Products in the feed of the bundled supplier; each has one or more variants."""
    keep_harvests: int = Field(default=30, ge=1)
    """Harvests of each tenant and supplier whose rejected rows and pages' counts are kept; the oldest go first."""
    max_fetches: int = Field(default=32, ge=1, le=90)
    """Feeds that one worker reads from at once. Its task queue has as many slots for activities beside
    `max_concurrent_activities`, so that feeds which are slow take none from others' work. The HTTP client has 100
    connections."""
    max_fetches_per_tenant: int = Field(default=8, ge=1)
    """Of them for one tenant; further ones wait without a slot."""
    max_fetches_per_supplier: int = Field(default=8, ge=1)
    """Of them from one supplier, of all tenants together."""
    max_delisted_share: float = Field(default=0.2, ge=0, le=1)
    """Share of a supplier's listed products, from 0 to 1, beyond which a harvest marks none of them as no longer
    listed; up to ten always are."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds of silence after which a feed counts as unreachable."""
    on_finished: str = ""
    """workflow_type, such as gardener, that is signalled when a harvest has ended, and started for the tenant where it
    does not run; none unless given."""

    @field_validator("feed_folders")
    @classmethod
    def _folders_from_the_settings_file(cls, folders: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        context: dict[str, Path] = info.context or {}
        base = context.get("settings_folder") or Path.cwd()
        return tuple(base / folder.expanduser() for folder in folders) or (base,)

    @model_validator(mode="after")
    def _files_lie_in_feed_folders(self) -> Self:
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("outside_feed_folders", _OUTSIDE, {"line": self._folders_line(path)}),
                loc=("suppliers", code, "url"),
                input=supplier.url,
            )
            for code, supplier in self.suppliers.items()
            if supplier.url.startswith("file:")
            and feed_folder_of(path := file_path(supplier.url), self.feed_folders) is None
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    def _folders_line(self, path: Path) -> str:
        """The line of the settings file that opens a file's folder as well."""
        folders: Sequence[Path] = (*self.feed_folders, path.parent)
        return f"feed_folders = {json.dumps([str(folder) for folder in folders], ensure_ascii=False)}"

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
