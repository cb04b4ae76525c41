# pyright: basic, reportMissingImports=false
"""Every generated kind of call, run against Temporal's dev server through the sandbox.

The shop's modules are generated for the run of the tests, so they are imported within the tests.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, TerminatedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from contextunity.worker.testing import WorkflowHarness
from python_temporal import ContractError, workflow_classes

pytestmark = pytest.mark.usefixtures("shop")


@contextlib.asynccontextmanager
async def running(environment: WorkflowEnvironment) -> AsyncIterator[Any]:
    """Workers for all queues of the shop; yields the object whose activities they run."""
    from acme_gen.acme.shop.v1 import shop_temporal
    from shop_activities import ShopActivities, notify_admin
    from shop_workflows import Audit, Borrow, Checkout, CountDown, Import, Supervise, Tick, Wait

    activities = ShopActivities("R")
    queues: dict[str, tuple[list[type[Any]], list[Any]]] = {
        shop_temporal.SHOP_SERVICE_TASK_QUEUE: ([Checkout, Supervise, CountDown, Tick, Audit], activities.activities()),
        "admin": ([Import], [notify_admin]),
        "extra": ([Wait, Borrow], []),
        # The queue that a caller names explicitly; the service's own activities follow it there.
        "elsewhere": ([Audit], [activities.audit]),
    }
    async with contextlib.AsyncExitStack() as stack:
        from concurrent.futures import ThreadPoolExecutor

        executor = stack.enter_context(ThreadPoolExecutor(4))
        for queue, (workflows, handlers) in queues.items():
            classes = [each for workflow in workflows for each in workflow_classes(workflow)]
            worker = Worker(
                environment.client, task_queue=queue, workflows=classes, activities=handlers, activity_executor=executor
            )
            await stack.enter_async_context(worker)
        yield activities


def _request(basket: int = 1, *, wait: bool = True) -> Any:
    from acme_gen.acme.common.v1 import Tier
    from acme_gen.acme.shop.v1 import CheckoutRequest, Customer

    return CheckoutRequest(
        customer=Customer(customer_id="ann"),
        basket=basket,
        tier=Tier.GOLD,
        placed_at=datetime(2026, 1, 2, tzinfo=UTC),
        tags=["new", "big"],
        wait=wait,
    )


async def test_a_client_starts_queries_signals_and_updates(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.common.v1 import Money
    from acme_gen.acme.shop.v1 import Item, PayRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment) as activities:
        client = ShopServiceClient(environment.client)
        handle = await client.start_checkout(_request())
        assert handle.id == "checkout/ann/1/TIER_GOLD"
        await handle.add_item(Item(sku="tent"))
        assert (await handle.get_status()).items == 2
        found = await handle.find_item(Item(sku="tent"))
        assert (found.sku, found.quantity) == ("tent", 1)
        await handle.touch()
        touched = await handle.start_touch(wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        assert await touched.result() is None
        receipt = await handle.pay(PayRequest(reference="p1", amount=Money(units=9)))
        assert receipt.number == "R9"
        result = await handle.result()
        assert result.items == ["ann", "tent", "R6", "basket is fine on shop"]
        assert result.receipt == "p1"
        assert result.total is not None
        assert result.total.units == 2
        assert activities.notified == 2


async def test_a_validator_rejects_an_update_and_the_workflow_goes_on(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import PayRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        handle = await ShopServiceClient(environment.client).start_checkout(_request())
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.pay(PayRequest(reference="p1"))
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "NothingPaid"
        await handle.cancel_()
        assert (await handle.result()).receipt == "R5"


async def test_an_update_that_fails_gives_its_cause(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.common.v1 import Money
    from acme_gen.acme.shop.v1 import ChargeRequest
    from acme_gen.acme.shop.v1.extra_temporal import ExtraServiceClient

    async with running(environment):
        client = ExtraServiceClient(environment.client)
        assert (await client.borrow(ChargeRequest(amount=Money(units=3)))).number == "R3"
        with pytest.raises(WorkflowFailureError) as caught:
            await client.borrow(ChargeRequest(refuse=True))
        assert isinstance(caught.value.cause, ActivityError)
        assert isinstance(caught.value.cause.cause, ApplicationError)
        assert caught.value.cause.cause.type == "CardRefused"


async def test_the_declared_options_reach_the_server(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        handle = await ShopServiceClient(environment.client).start_checkout(_request())
        description = await handle.describe()
        config = description.raw_description.execution_config
        assert config.workflow_execution_timeout.seconds == 3600
        assert config.workflow_run_timeout.seconds == 1800
        assert config.default_workflow_task_timeout.seconds == 20
        assert description.task_queue == "shop"
        priority = description.raw_description.workflow_execution_info.priority
        assert (priority.priority_key, priority.fairness_key, priority.fairness_weight) == (2, "shop", 1.5)
        attributes = description.typed_search_attributes
        assert attributes[SearchAttributeKey.for_keyword("CustomerId")] == "ann"
        assert attributes[SearchAttributeKey.for_int("BasketNumber")] == 1
        assert attributes[SearchAttributeKey.for_datetime("PlacedAt")] == datetime(2026, 1, 2, tzinfo=UTC)
        assert list(attributes[SearchAttributeKey.for_keyword_list("Tags")]) == ["new", "big"]
        again = await ShopServiceClient(environment.client).start_checkout(_request())
        assert again.first_execution_run_id == handle.first_execution_run_id
        await handle.terminate()


async def test_the_harness_registers_the_search_attributes_of_a_contract(workflows: WorkflowHarness) -> None:
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient
    from shop_workflows import Checkout

    # Without them the server would refuse the start. A second context finds them there.
    for basket in ("ann", "bob"):
        async with workflows.running(Checkout):
            handle = await ShopServiceClient(workflows.client).start_checkout(_request(), id=basket)
            attributes = (await handle.describe()).typed_search_attributes
            assert attributes[SearchAttributeKey.for_keyword("CustomerId")] == "ann"
            await handle.terminate()


async def test_explicit_options_win_over_declared_ones(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import AuditRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        handle = await client.start_checkout(_request(), id="mine", execution_timeout=None, memo={"who": "me"})
        description = await handle.describe()
        assert handle.id == "mine"
        assert description.raw_description.execution_config.workflow_execution_timeout.seconds == 0
        assert await description.memo() == {"who": "me"}
        await handle.terminate()
        answer = await client.audit(AuditRequest(subject="it"), task_queue="elsewhere")
        assert answer.finding == "it is fine on elsewhere"


async def test_a_workflow_runs_under_each_alias(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import CheckoutResponse, CountDownRequest, CountDownResponse
    from acme_gen.acme.shop.v1.shop_temporal import (
        CHECKOUT_WORKFLOW_ALIASES,
        COUNT_DOWN_WORKFLOW_ALIASES,
        SHOP_SERVICE_TASK_QUEUE,
    )

    async with running(environment):
        for number, alias in enumerate(CHECKOUT_WORKFLOW_ALIASES):
            result = await environment.client.execute_workflow(
                alias,
                _request(wait=False),
                id=f"alias-{number}",
                task_queue=SHOP_SERVICE_TASK_QUEUE,
                result_type=CheckoutResponse,
            )
            assert result.workflow_type == alias
            assert result.items[0] == "ann"
        [alias] = COUNT_DOWN_WORKFLOW_ALIASES
        counted = await environment.client.execute_workflow(
            alias,
            CountDownRequest(left=1),
            id="countdown",
            task_queue=SHOP_SERVICE_TASK_QUEUE,
            result_type=CountDownResponse,
        )
        assert counted.workflow_type == alias


async def test_a_child_is_signalled_and_an_external_workflow_cancelled(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import SuperviseRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        other = await client.start_checkout(_request(2))
        answer = await client.supervise(SuperviseRequest(checkout=_request(3), other_workflow_id=other.id))
        assert answer.child_id == "checkout/ann/3/TIER_GOLD"
        assert answer.checkout is not None
        assert "from the parent" in answer.checkout.items
        assert (await other.result()).items[0] == "ann"
        description = await client.get_checkout(answer.child_id).describe()
        assert description.parent_id is not None


async def test_continue_as_new_goes_on_until_it_ends(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import CountDownRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        handle = await ShopServiceClient(environment.client).start_count_down(CountDownRequest(left=2))
        assert (await handle.result()).workflow_type == "count_down"
        assert (await handle.describe()).run_id != handle.first_execution_run_id


async def test_signal_with_start_starts_once(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import Item
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        first = await client.start_checkout_with_add_item(_request(), Item(sku="one"))
        second = await client.start_checkout_with_add_item(_request(), Item(sku="two"))
        assert first.id == second.id
        await client.start_checkout_with_cancel(_request())
        assert (await first.result()).items[:3] == ["ann", "one", "two"]


async def test_update_with_start_gives_both_handles(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.common.v1 import Money
    from acme_gen.acme.shop.v1 import PayRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        handle, update = await client.start_checkout_with_touch(_request())
        assert await update.result() is None
        pay = PayRequest(reference="p2", amount=Money(units=4))
        same, paid = await client.start_checkout_with_pay(_request(), pay)
        assert paid.id == "pay/p2"
        assert (await paid.result()).number == "R4"
        assert same.id == handle.id
        result = await handle.result()
        assert (result.receipt, result.total and result.total.units) == ("p2", 1)


async def test_an_empty_input_and_output_pass_nothing(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        handle = await client.start_tick()
        assert handle.id == "tick"
        assert await handle.result() is None
        history = await handle.raw.fetch_history()
        assert not history.events[0].workflow_execution_started_event_attributes.input.payloads
        assert await client.tick() is None


async def test_an_empty_input_may_come_as_null(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import Status
    from acme_gen.acme.shop.v1.shop_temporal import (
        CANCEL_SIGNAL_NAME,
        GET_STATUS_QUERY_NAME,
        TICK_WORKFLOW_NAME,
        TOUCH_UPDATE_NAME,
        ShopServiceClient,
    )

    async with running(environment):
        handle = await ShopServiceClient(environment.client).start_checkout(_request(5))
        assert (await handle.raw.query(GET_STATUS_QUERY_NAME, None, result_type=Status)).items == 1
        await handle.raw.execute_update(TOUCH_UPDATE_NAME, None)
        await handle.raw.signal(CANCEL_SIGNAL_NAME, None)
        assert (await handle.result()).total is not None
        await environment.client.execute_workflow(TICK_WORKFLOW_NAME, None, id="tick-null", task_queue="shop")


@pytest.mark.parametrize(
    ("encoding", "data"),
    [pytest.param("binary/protobuf", b"", id="binary"), pytest.param("json/protobuf", b"{}", id="json")],
)
async def test_an_empty_input_may_come_as_an_empty_message(
    environment: WorkflowEnvironment, encoding: str, data: bytes
) -> None:
    from acme_gen.acme.shop.v1 import Status
    from acme_gen.acme.shop.v1.shop_temporal import (
        CANCEL_SIGNAL_NAME,
        GET_STATUS_QUERY_NAME,
        TICK_WORKFLOW_NAME,
        TOUCH_UPDATE_NAME,
        ShopServiceClient,
    )
    from shop_foreign import CallNotify

    metadata = {"encoding": encoding.encode(), "messageType": b"google.protobuf.Empty"}
    empty = RawValue(Payload(metadata=metadata, data=data))
    async with running(environment) as activities, Worker(environment.client, task_queue="go", workflows=[CallNotify]):
        handle = await ShopServiceClient(environment.client).start_checkout(_request(5))
        assert (await handle.raw.query(GET_STATUS_QUERY_NAME, empty, result_type=Status)).items == 1
        # Validators take no argument either.
        await handle.raw.execute_update(TOUCH_UPDATE_NAME, empty)
        await handle.raw.signal(CANCEL_SIGNAL_NAME, empty)
        assert (await handle.result()).total is not None
        await environment.client.execute_workflow(TICK_WORKFLOW_NAME, empty, id="tick-empty", task_queue="shop")
        before = activities.notified
        await environment.client.execute_workflow("CallNotify", empty, id="go", task_queue="go")
        assert activities.notified == before + 1


async def test_other_services_and_files_work_together(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1.extra_temporal import ExtraServiceClient
    from acme_gen.acme.shop.v1.shop_temporal import AdminServiceClient

    async with running(environment):
        imported = await AdminServiceClient(environment.client).start_import()
        await imported.cancel_()
        assert (await imported.result()).cancelled
        client = ExtraServiceClient(environment.client)
        waiting = await client.start_wait()
        await waiting.touch()
        assert (await waiting.get_status()).items == 1
        await client.start_wait_with_cancel(id=waiting.id)
        assert (await waiting.result()).cancelled


async def test_a_handle_cancels_and_terminates(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        client = ShopServiceClient(environment.client)
        cancelled = await client.start_checkout(_request(7))
        await cancelled.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await cancelled.result()
        assert isinstance(caught.value.cause, CancelledError)
        await client.start_checkout(_request(8))
        terminated = client.get_checkout("checkout/ann/8/TIER_GOLD")
        await terminated.terminate(reason="enough")
        with pytest.raises(WorkflowFailureError) as caught:
            await terminated.result()
        assert isinstance(caught.value.cause, TerminatedError)


async def test_a_deprecated_method_warns_whoever_calls_it(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    async with running(environment):
        handle = await ShopServiceClient(environment.client).start_checkout(_request(9))
        with pytest.warns(DeprecationWarning, match="Remind is deprecated"):
            await handle.remind()
        with warnings.catch_warnings(action="error"):
            await handle.cancel_()
        await handle.result()


async def test_a_start_without_what_the_id_is_made_of_is_refused(environment: WorkflowEnvironment) -> None:
    from acme_gen.acme.shop.v1 import CheckoutRequest
    from acme_gen.acme.shop.v1.shop_temporal import ShopServiceClient

    with pytest.raises(ContractError, match=r"customer\.customer_id is not set") as caught:
        await ShopServiceClient(environment.client).start_checkout(CheckoutRequest())
    assert (caught.value.contract, caught.value.field) == ("checkout", "customer.customer_id")
