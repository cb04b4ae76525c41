# pyright: basic, reportMissingImports=false
"""Workflows of the shop, written as a module author would."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from acme_gen.acme.common.v1 import Money
from acme_gen.acme.shop.v1 import (
    AuditRequest,
    AuditResponse,
    BasketLine,
    ChargeRequest,
    CheckoutRequest,
    CheckoutResponse,
    CountDownRequest,
    CountDownResponse,
    Item,
    PayRequest,
    Receipt,
    Status,
    SuperviseRequest,
    SuperviseResponse,
    extra_temporal,
    shop_temporal,
)
from temporalio import workflow
from temporalio.exceptions import ApplicationError


@final
class Checkout(shop_temporal.CheckoutWorkflowBase):
    """Waits for items and for the payment."""

    @workflow.init
    def __init__(self, request: CheckoutRequest) -> None:
        self.items: list[str] = [request.customer.customer_id] if request.customer else []
        self.cancelled = False
        self.paid = ""
        self.touched = 0

    async def run(self, request: CheckoutRequest) -> CheckoutResponse:
        if request.wait:
            await workflow.wait_condition(lambda: self.cancelled or bool(self.paid))
        await shop_temporal.notify()
        receipt = await shop_temporal.charge(ChargeRequest(amount=Money(units=5)), summary="remote")
        handle = shop_temporal.charge.start_local(ChargeRequest(amount=Money(units=6)))
        local = await handle
        await shop_temporal.notify.local()
        audit = await shop_temporal.audit.local(
            AuditRequest(subject="basket"), start_to_close_timeout=timedelta(seconds=3)
        )
        return CheckoutResponse(
            items=[*self.items, local.number, audit.finding],
            receipt=self.paid or receipt.number,
            total=Money(units=self.touched),
            workflow_type=workflow.info().workflow_type,
        )

    def get_status(self) -> Status:
        return Status(items=len(self.items), cancelled=self.cancelled)

    def find_item(self, request: Item) -> BasketLine:
        return BasketLine(sku=request.sku, quantity=self.items.count(request.sku))

    async def add_item(self, request: Item) -> None:
        self.items.append(request.sku)

    def cancel(self) -> None:
        self.cancelled = True

    def remind(self) -> None:
        pass

    def validate_pay(self, request: PayRequest) -> None:
        if request.amount is None:
            raise ApplicationError("nothing is paid", type="NothingPaid")

    async def pay(self, request: PayRequest) -> Receipt:
        self.paid = f"{request.reference}"
        return await shop_temporal.charge(ChargeRequest(amount=request.amount))

    def touch(self) -> None:
        self.touched += 1


@final
class Supervise(shop_temporal.SuperviseWorkflowBase):
    """Runs a checkout as a child and has another one cancelled."""

    async def run(self, request: SuperviseRequest) -> SuperviseResponse:
        assert request.checkout is not None
        child = await shop_temporal.checkout_workflow.start_child(request.checkout)
        await child.add_item(Item(sku="from the parent"))
        await child.cancel_()
        result = await child
        await shop_temporal.checkout_workflow.external(request.other_workflow_id).cancel_()
        await shop_temporal.tick_workflow.execute_child(id=f"{workflow.info().workflow_id}/tick")
        return SuperviseResponse(checkout=result, child_id=child.id)


class CountDown(shop_temporal.CountDownWorkflowBase):
    """Continues as new until nothing is left."""

    async def run(self, request: CountDownRequest) -> CountDownResponse:
        if request.left:
            shop_temporal.count_down_workflow.continue_as_new(CountDownRequest(left=request.left - 1))
        return CountDownResponse(workflow_type=workflow.info().workflow_type)


class Tick(shop_temporal.TickWorkflowBase):
    """Does nothing."""

    async def run(self) -> None:
        return None


class Audit(shop_temporal.AuditWorkflowBase):
    """Runs the activity of the same name."""

    async def run(self, request: AuditRequest) -> AuditResponse:
        return await shop_temporal.audit(request)


class Import(shop_temporal.ImportWorkflowBase):
    """Tells the other service's activity."""

    def __init__(self) -> None:
        self.cancelled = False

    async def run(self) -> Status:
        await workflow.wait_condition(lambda: self.cancelled)
        await shop_temporal.admin_service_notify(Item(sku="imported"))
        return Status(cancelled=True)

    def cancel(self) -> None:
        self.cancelled = True


class Wait(extra_temporal.WaitWorkflowBase):
    """Waits to be cancelled by a signal of another file."""

    def __init__(self) -> None:
        self.cancelled = False
        self.touched = 0

    async def run(self) -> Status:
        await workflow.wait_condition(lambda: self.cancelled)
        return self.get_status()

    def get_status(self) -> Status:
        return Status(items=self.touched, cancelled=self.cancelled)

    def cancel(self) -> None:
        self.cancelled = True

    async def touch(self) -> None:
        self.touched += 1


class Borrow(extra_temporal.BorrowWorkflowBase):
    """Charges through the other service."""

    async def run(self, request: ChargeRequest) -> Receipt:
        return await shop_temporal.charge(request)
