"""Settings of the gardener module: the taxonomy, and the router where one is asked."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from .taxonomy import BUNDLED_TAXONOMY, TaxonomyError, load_taxonomy

__all__ = ["GardenerSettings"]


class GardenerSettings(BaseModel):
    """`[modules.gardener]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taxonomy: Path = BUNDLED_TAXONOMY
    """File of the categories and words, a relative path from the folder of the settings file; the one that comes along
    unless given."""
    router_url: str | None = Field(default=None, pattern=r"^https?://[^/\s?#]+/?$")
    """Where the router service is: http://HOST:PORT, or https:// with TLS. Unless given, rules alone enrich."""
    router_tokens: dict[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Bearer token by tenant: the router takes the tenant from it. Tenants without one call without a token."""
    router_timeout: float = Field(default=60.0, gt=0, le=600)
    """Seconds that the router may take for a batch."""
    router_calls: int = Field(default=8, ge=1, le=90)
    """Calls of the router that one worker has under way; further batches wait without a slot."""
    router_calls_per_tenant: int = Field(default=4, ge=1)
    """Of them for one tenant."""

    @field_validator("taxonomy")
    @classmethod
    def _taxonomy_is_usable(cls, path: Path, info: ValidationInfo) -> Path:
        context: dict[str, Path] = info.context or {}
        path = context.get("settings_folder", Path()) / path.expanduser()
        try:
            load_taxonomy(path)
        except TaxonomyError as error:
            raise ValueError(str(error)) from None
        return path
