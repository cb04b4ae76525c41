"""Settings of the harvest module: the catalogue, and one entry for each supplier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from .feeds import FeedBounds, feed_folder_of, file_path
from .feeds.encoding import usable_encoding
from .feeds.model import DEFAULT_BOUNDS, MAX_ENTRY_SETTING_BYTES

_OUTSIDE = "is in no feed folder; add this line to [modules.harvest]: {line}"

__all__ = ["BUNDLED_SUPPLIER", "HarvestSettings", "SupplierSettings"]

BUNDLED_SUPPLIER = "camping-trade"
"""Sample supplier of the module: each worker generates its feed and serves it on loopback."""


class SupplierSettings(BaseModel):
    """One supplier: `[modules.harvest.suppliers.CODE]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(pattern=r"^(https?|file)://.+|^bundled:[a-z-]+$", repr=False)
    """URL of the feed: http://, https:// or file://."""
    format: Literal["shopify_csv", "google_xml", "google_tsv", "json_lines"] | None = None
    """Format of the feed; detected from the feed by default."""
    currency_code: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    """ISO 4217 code of the currency of prices without a currency."""
    encoding: str = ""
    """Encoding of the feed, such as windows-1251, overriding what the feed says; by default what it says, UTF-8, or a
    guess, which the harvest records as a warning."""
    key: Literal["sku", "barcode", "handle_options"] = "sku"
    """Key of a product in the catalogue: its SKU, its barcode, or its handle with its options, for shops where several
    variants have the same SKU."""
    page_size: int = Field(default=500, ge=1, le=1000)
    """Feed entries per page. Larger pages are slightly faster per product, and need more memory."""
    allow_private: bool = False
    """Whether the feed may come from a private or loopback address, but never from link-local ones or metadata."""
    max_bytes: int = Field(default=DEFAULT_BOUNDS.max_bytes, gt=0)
    """Maximum bytes of the whole feed, decompressed."""
    max_ratio: float = Field(default=DEFAULT_BOUNDS.max_ratio, ge=1)
    """Maximum ratio of decompressed to sent bytes of a compressed feed, checked above 16 MiB."""
    max_seconds: float = Field(default=DEFAULT_BOUNDS.max_seconds, gt=0, le=DEFAULT_BOUNDS.max_seconds)
    """Maximum seconds of one download: of the whole feed, or of a page if the server supports Range."""
    min_bytes_per_second: float = Field(default=DEFAULT_BOUNDS.min_bytes_per_second, ge=0)
    """Minimum speed of the feed, over each 30 seconds; 0 means no minimum."""
    max_record_bytes: int = Field(default=DEFAULT_BOUNDS.max_record_bytes, ge=1024, le=MAX_ENTRY_SETTING_BYTES)
    """Maximum bytes of one feed entry."""
    max_delisted_share: float | None = Field(default=None, ge=0, le=1)
    """Overrides the setting in `[modules.harvest]`."""

    @field_validator("url")
    @classmethod
    def _url_is_readable(cls, url: str) -> str:
        return _readable(url)

    @field_validator("encoding")
    @classmethod
    def _encoding_is_usable(cls, name: str) -> str:
        return usable_encoding(name) if name else ""

    def bounds(self) -> FeedBounds:
        """The limits for the reader."""
        return FeedBounds(
            max_bytes=self.max_bytes,
            max_ratio=self.max_ratio,
            max_seconds=self.max_seconds,
            min_bytes_per_second=self.min_bytes_per_second,
            max_record_bytes=self.max_record_bytes,
        )


def _readable(url: str) -> str:
    """Reject an address that the HTTP client would misread, such as one with an unquoted password."""
    if url.startswith(("http://", "https://")):
        try:
            host = httpx.URL(url).host
        except (httpx.InvalidURL, UnicodeError):
            host = ""
        if not host:
            raise PydanticCustomError(
                "url", "is not a URL; percent-encode special characters of the user and password, such as / and #"
            )
    return url


class HarvestSettings(BaseModel):
    """`[modules.harvest]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    catalogue_url: str | None = Field(default=None, repr=False)
    """SQLAlchemy URL of the catalogue's database, such as postgresql://user@host/name; by default a SQLite file in the
    data folder."""
    feed_folders: tuple[Path, ...] = Field(default=(), validate_default=True)
    """Folders that must contain file:// feeds, relative to the folder of the settings file; by default that folder, or
    the current one without a settings file."""
    proxy: str | None = Field(default=None, pattern=r"^https?://.+", repr=False)
    """URL of the proxy for feeds; by default none, regardless of the environment."""
    suppliers: dict[str, SupplierSettings] = Field(default_factory=dict)
    """Suppliers by supplier_code. The bundled one exists unless an entry with its name replaces it."""
    sample_products: int = Field(default=3000, ge=1, le=1_000_000)
    """Products in the feed of the bundled supplier; each has one or more variants."""
    keep_harvests: int = Field(default=30, ge=1)
    """Harvests of each tenant and supplier whose rejected rows and page counts are kept; the oldest are deleted."""
    max_fetches: int = Field(default=32, ge=1, le=90)
    """Feeds that one worker reads at once. Its task queue has as many activity slots in addition to
    `max_concurrent_activities`, so that slow feeds use no slots of other work. The HTTP client has 100
    connections."""
    max_fetches_per_tenant: int = Field(default=8, ge=1)
    """Feeds of one tenant that one worker reads at once; further ones wait without a slot."""
    max_fetches_per_supplier: int = Field(default=8, ge=1)
    """Feeds of one supplier that one worker reads at once, of all tenants together."""
    max_delisted_share: float = Field(default=0.2, ge=0, le=1)
    """Share of a supplier's listed products, from 0 to 1, above which a harvest marks none of them as no longer
    listed; up to ten are always marked."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds without data after which a feed counts as unreachable."""
    on_finished: str = ""
    """workflow_type, such as gardener, to signal after a harvest, and to start for the tenant if it does not run; none
    by default."""

    @field_validator("proxy")
    @classmethod
    def _proxy_is_readable(cls, url: str | None) -> str | None:
        return None if url is None else _readable(url)

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
        """Return the line for the settings file that adds a file's folder."""
        folders: Sequence[Path] = (*self.feed_folders, path.parent)
        return f"feed_folders = {json.dumps([str(folder) for folder in folders], ensure_ascii=False)}"

    def catalogue_in(self, data_folder: Path) -> str:
        """Return the SQLAlchemy URL of the catalogue of a worker with this data folder."""
        return self.catalogue_url or f"sqlite:///{(data_folder / 'harvest' / 'catalogue.db').absolute()}"

    def supplier(self, code: str) -> SupplierSettings | None:
        """Return the supplier of a code; None if it does not exist."""
        if code == BUNDLED_SUPPLIER and code not in self.suppliers:
            return SupplierSettings(url=f"bundled:{BUNDLED_SUPPLIER}", format="shopify_csv")
        return self.suppliers.get(code)

    def supplier_codes(self) -> list[str]:
        """Return all codes, sorted."""
        return sorted({*self.suppliers, BUNDLED_SUPPLIER})
