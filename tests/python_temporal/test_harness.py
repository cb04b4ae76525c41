"""The fixtures for module authors: skipped time, typed stand-ins, and what they say when one is missing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, final

import pytest
from contextunity.gen.contextunity.code.v1 import ExecuteRequest, ExecuteResponse
from contextunity.gen.contextunity.code.v1 import code_temporal as code
from contextunity.gen.contextunity.harvest.v1 import (
    Feed,
    FeedCursor,
    FetchProductsRequest,
    FetchProductsResponse,
    HarvestRequest,
    SyncToBrainResponse,
    TransformDataRequest,
    TransformDataResponse,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from contextunity.modules.harvest.workflows import HarvestWorkflow
from contextunity.worker.testing import ActivityFakes, WorkflowHarness

_REQUEST = HarvestRequest(tenant_id="t", supplier_code="s", page_size=3)


def _two_pages(fakes: ActivityFakes) -> None:
    def fetch(request: FetchProductsRequest) -> FetchProductsResponse:
        offset = request.cursor.offset if request.cursor is not None else 0
        return FetchProductsResponse(
            feed=Feed(supplier_code="s"),
            next_cursor=FeedCursor(offset=offset + 100),
            end_of_feed=offset >= 100,
            fetched=3,
            entries=3,
            page_size=3,
        )

    fakes.replaces(harvest.fetch_products, fetch)
    fakes.returns(harvest.transform_data, TransformDataResponse(products=3))
    fakes.returns(harvest.sync_to_brain, SyncToBrainResponse(created=3), SyncToBrainResponse(unchanged=3))


async def test_a_workflow_runs_on_typed_stand_ins(workflows: WorkflowHarness) -> None:
    _two_pages(workflows.fakes)
    async with workflows.running(HarvestWorkflow):
        result = await harvest.HarvestServiceClient(workflows.client).harvest(_REQUEST)
    assert result.counts is not None
    assert (result.counts.created, result.counts.unchanged, result.counts.pages) == (3, 3, 2)
    assert [request.page_size for request in workflows.fakes.requests(harvest.fetch_products)] == [3, 3]
    assert workflows.fakes.count(harvest.transform_data) == 2


async def test_retries_wait_in_skipped_time(workflows: WorkflowHarness) -> None:
    _two_pages(workflows.fakes)
    workflows.fakes.fails(harvest.sync_to_brain, ApplicationError("later", type="CatalogueLocked"))
    before = await workflows.environment.get_current_time()
    async with workflows.running(HarvestWorkflow):
        with pytest.raises(WorkflowFailureError) as caught:
            await harvest.HarvestServiceClient(workflows.client).harvest(_REQUEST)
    attempts = harvest.sync_to_brain.contract.retry_policy
    assert attempts is not None
    assert workflows.fakes.count(harvest.sync_to_brain) == attempts.maximum_attempts
    # The wait doubles from a second on, so five of them alone are 31 seconds.
    assert await workflows.environment.get_current_time() - before >= timedelta(seconds=31)
    assert caught.value.cause is not None


async def test_a_stand_in_may_be_async(workflows: WorkflowHarness) -> None:
    _two_pages(workflows.fakes)

    async def transform(request: TransformDataRequest) -> TransformDataResponse:
        return TransformDataResponse(products=1)

    workflows.fakes.replaces(harvest.transform_data, transform)
    async with workflows.running(HarvestWorkflow):
        handle = await harvest.HarvestServiceClient(workflows.client).start_harvest(_REQUEST)
        result = await handle
    assert result.counts is not None
    assert result.counts.pages == 2


@final
class CallsLikeAnActivity(code.ExecuteWorkflowBase, sandboxed=False):
    async def run(self, request: ExecuteRequest) -> ExecuteResponse:
        call: Any = code.execute_workflow
        await call(request)
        return ExecuteResponse()


async def test_a_workflow_that_is_called_like_an_activity_fails_its_caller_at_once(workflows: WorkflowHarness) -> None:
    async with workflows.running(CallsLikeAnActivity):
        handle = await code.CodeServiceClient(workflows.client).start_execute(ExecuteRequest(code="1"))
        with pytest.raises(WorkflowFailureError) as caught:
            await handle
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.non_retryable) == ("WorkflowCalledLikeAnActivity", True)
    assert cause.message == (
        "workflow 'execute_code' is called like an activity; use execute_child(…) for its result, or start_child(…) "
        "for a handle"
    )


async def test_a_missing_stand_in_is_named(workflows: WorkflowHarness) -> None:
    async with workflows.running(HarvestWorkflow):
        with pytest.raises(WorkflowFailureError) as caught:
            await harvest.HarvestServiceClient(workflows.client).harvest(_REQUEST)
    error: BaseException | None = caught.value
    while error is not None and not (isinstance(error, ApplicationError) and error.type == "NoFake"):
        error = error.__cause__
    assert error is not None
    assert "activity 'fetch_products' was given no answer" in str(error)
    assert workflows.fakes.count(harvest.fetch_products) == 1


async def test_a_real_activity_takes_the_place_of_its_stand_in(workflows: WorkflowHarness) -> None:
    @harvest.fetch_products.defn
    async def fetch_products(request: FetchProductsRequest) -> FetchProductsResponse:
        raise ApplicationError(f"no page of {request.page_size}", type="SupplierUnknown")

    async with workflows.running(HarvestWorkflow, activities=[fetch_products]):
        with pytest.raises(WorkflowFailureError) as caught:
            await harvest.HarvestServiceClient(workflows.client).harvest(_REQUEST)
    assert isinstance(caught.value.cause, ActivityError | ApplicationError)
    assert workflows.fakes.count(harvest.fetch_products) == 0


def test_returns_needs_a_result() -> None:
    with pytest.raises(ValueError, match="<activity 'fetch_products'> needs a result to return"):
        ActivityFakes().returns(harvest.fetch_products)
