"""The interface of enrichers. `rules.py` has the default one, `router.py` the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from contextunity.gen.contextunity.harvest.v1 import Enrichment, ProductToEnrich

from contextunity.core.errors import ContextUnityError

__all__ = ["Enriched", "Enricher", "EnricherError"]


class EnricherError(ContextUnityError):
    """A batch cannot be enriched.

    Attributes:
        type: the `ApplicationError.type`, listed in gardener.proto.
        retryable: whether a later retry may succeed without an operator.
    """

    type: ClassVar[str] = "Enricher"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Enriched:
    """Result for a batch.

    Attributes:
        enrichments: one per product, in their order.
        cost_usd: cost of external services.
        tokens_used: tokens used by external services.
    """

    enrichments: list[Enrichment]
    cost_usd: float = 0.0
    tokens_used: int = 0


class Enricher(Protocol):
    """Enriches products."""

    @property
    def version(self) -> str:
        """Version of the enricher, up to 100 characters; it changes if results may change."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a batch only takes milliseconds in this process."""
        ...

    async def enrich(self, tenant_id: str, products: Sequence[ProductToEnrich]) -> Enriched:
        """Enrich a batch.

        Args:
            tenant_id: tenant of the products.
            products: at most 1000.

        Raises:
            EnricherError: the batch failed; its type is the ApplicationError's.
        """
        ...
