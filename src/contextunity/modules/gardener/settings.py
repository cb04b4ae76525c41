"""Settings of the gardener module: the taxonomy, and the optional router."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from .taxonomy import BUNDLED_TAXONOMY, TaxonomyError, load_taxonomy

__all__ = ["GardenerSettings"]


class GardenerSettings(BaseModel):
    """`[modules.gardener]` in the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    taxonomy: Path = BUNDLED_TAXONOMY
    """File of the categories and words, relative to the folder of the settings file; default: the included
    one."""
    router_url: str | None = Field(default=None, pattern=r"^https?://[^/\s?#@]+/?$", repr=False)
    """Address of the router service: http://HOST:PORT, or https:// with TLS. Without it, only the rules enrich."""
    router_tokens: dict[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Bearer token by tenant: the router takes the tenant from it. For other tenants, the call has no token."""
    router_timeout: float = Field(default=60.0, gt=0, le=600)
    """Timeout in seconds of the router for a batch."""
    router_calls: int = Field(default=8, ge=1, le=90)
    """Maximum concurrent calls of the router per worker; further batches wait without a slot."""
    router_calls_per_tenant: int = Field(default=4, ge=1)
    """Maximum of these calls per tenant."""

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
