"""What an enricher is: whatever makes enrichments of products. `rules.py` has the default, `router.py` another."""

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
        type: the word that goes into `ApplicationError.type`; gardener.proto names it.
        retryable: whether the same batch may be enriched later without anybody doing something.
    """

    type: ClassVar[str] = "Enricher"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Enriched:
    """What an enricher made of a batch.

    Attributes:
        enrichments: one for each product, in their order.
        cost_usd: what others took for it.
        tokens_used: tokens that others used for it.
    """

    enrichments: list[Enrichment]
    cost_usd: float = 0.0
    tokens_used: int = 0


class Enricher(Protocol):
    """Makes enrichments of products."""

    @property
    def version(self) -> str:
        """What its enrichments are made by, in up to 100 characters: other where they may come out otherwise."""
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a batch takes milliseconds of this process and nobody else."""
        ...

    async def enrich(self, tenant_id: str, products: Sequence[ProductToEnrich]) -> Enriched:
        """Enriches a batch.

        Args:
            tenant_id: whose products they are.
            products: at most 1000.

        Raises:
            EnricherError: it cannot; its type is the ApplicationError's.
        """
        ...
