# pyright: basic, reportMissingImports=false
"""Activities of the shop, on an object and as functions."""

from __future__ import annotations

from acme_gen.acme.shop.v1 import AuditRequest, AuditResponse, ChargeRequest, Item, Receipt, shop_temporal
from temporalio import activity
from temporalio.exceptions import ApplicationError


class ShopActivities(shop_temporal.ShopServiceActivities):
    """Holds what its activities share."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.notified = 0

    async def charge(self, request: ChargeRequest) -> Receipt:
        if request.refuse:
            raise ApplicationError("the card is refused", type="CardRefused")
        return Receipt(number=f"{self.prefix}{request.amount.units if request.amount else 0}")

    async def notify(self) -> None:
        self.notified += 1

    def audit(self, request: AuditRequest) -> AuditResponse:
        return AuditResponse(finding=f"{request.subject} is fine on {activity.info().task_queue}")

    def old_charge(self, request: ChargeRequest) -> Receipt:
        return Receipt(number="old")


@shop_temporal.admin_service_notify.defn
async def notify_admin(request: Item) -> None:
    assert request.sku
