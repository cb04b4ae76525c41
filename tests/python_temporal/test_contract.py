"""Contracts as values: a module compared with them, and the arguments of a start."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    FetchProductsRequest,
    FetchProductsResponse,
    HarvestRequest,
    HarvestResponse,
    TransformDataRequest,
    TransformDataResponse,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from temporalio.common import (
    Priority,
    RetryPolicy,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from contextunity.modules.harvest.activities import fetch_products, sync_to_brain, transform_data
from contextunity.modules.harvest.workflows import HarvestWorkflow
from python_temporal import ContractError, check, contract_of, generated_modules, start_arguments
from python_temporal.contract import ServiceContract, WorkflowContract, child_arguments

_ACTIVITIES = [fetch_products, transform_data, sync_to_brain]
_REQUEST = HarvestRequest(tenant_id="t", supplier_code="s")


class _Activities(harvest.HarvestServiceActivities):
    async def fetch_products(self, request: FetchProductsRequest) -> FetchProductsResponse:
        return FetchProductsResponse()

    def transform_data(self, request: TransformDataRequest) -> TransformDataResponse:
        return TransformDataResponse()

    sync_to_brain = None  # pyright: ignore  # not called


def _faults(*, workflows: list[Any] | None = None, activities: list[Any] | None = None) -> list[str]:
    return check(
        [harvest.harvest_service],
        [HarvestWorkflow] if workflows is None else workflows,
        _ACTIVITIES if activities is None else activities,
    )


def test_a_whole_module_has_no_fault() -> None:
    assert _faults() == []


def test_bound_methods_stand_for_functions() -> None:
    methods = _Activities()
    assert _faults(activities=[methods.fetch_products, methods.transform_data, *_ACTIVITIES[2:]]) == []


@pytest.mark.parametrize(
    ("workflows", "activities", "faults"),
    [
        pytest.param([], None, ["workflow 'harvest' .* is declared but not implemented"], id="missing_workflow"),
        pytest.param(
            None, _ACTIVITIES[1:], ["activity 'fetch_products' .* is declared but not"], id="missing_activity"
        ),
        pytest.param(
            None,
            [*_ACTIVITIES, fetch_products],
            ["activity 'fetch_products' is implemented twice, by fetch_products and fetch"],
            id="twice",
        ),
        pytest.param(None, [*_ACTIVITIES, len], ["len is no activity; decorate it"], id="foreign_function"),
        pytest.param(None, [*_ACTIVITIES, _Activities], ["_Activities is a class; create an object"], id="class"),
        pytest.param(None, [*_ACTIVITIES, 5], ["5 is not callable"], id="no_function"),
        pytest.param(
            None,
            [*_ACTIVITIES[1:], _Activities.fetch_products],
            ["is not bound to an object", "'fetch_products'"],
            id="unbound",
        ),
        pytest.param([fetch_products], None, ["fetch_products is not a class", "'harvest'"], id="function_as_workflow"),
        pytest.param(
            [harvest.HarvestWorkflowBase],
            None,
            ["HarvestWorkflowBase is not a complete workflow", "'harvest'"],
            id="base",
        ),
    ],
)
def test_each_fault_is_told(workflows: list[Any] | None, activities: list[Any] | None, faults: list[str]) -> None:
    found = _faults(workflows=workflows, activities=activities)
    assert len(found) == len(faults)
    for text, pattern in zip(found, faults, strict=True):
        assert re.search(pattern, text)


def test_what_belongs_to_another_service_is_told() -> None:
    other = ServiceContract(full_name="acme.Other", source="other.proto")
    faults = check([other], [HarvestWorkflow], [])
    assert faults == [
        "HarvestWorkflow implements contextunity.harvest.v1.HarvestService.Harvest, whose service is none of acme.Other"
    ]


def test_what_has_no_contract_is_told() -> None:
    assert contract_of(len, None) is None
    with pytest.raises(ContractError, match="len belongs to no contract"):
        contract_of(len)


def _contract(**options: Any) -> WorkflowContract:
    contract = WorkflowContract(
        name="w", method="acme.S.W", input_type=HarvestRequest, output_type=HarvestResponse, **options
    )
    ServiceContract(full_name="acme.S", source="s.proto", workflows={"W": contract})
    return contract


def test_what_is_not_declared_is_left_to_the_sdk() -> None:
    arguments = start_arguments(_contract(task_queue="q"), _REQUEST)
    assert uuid.UUID(arguments.pop("id")).version == 4
    assert arguments == {"args": [_REQUEST], "result_type": HarvestResponse, "task_queue": "q"}


def test_what_is_declared_is_passed() -> None:
    declared: dict[str, Any] = {
        "execution_timeout": timedelta(hours=1),
        "run_timeout": timedelta(minutes=1),
        "task_timeout": timedelta(seconds=1),
        "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
        "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
        "retry_policy": RetryPolicy(maximum_attempts=3),
        "priority": Priority(priority_key=1),
        "task_queue": "q",
    }

    def workflow_id(request: HarvestRequest) -> str:
        return f"w/{request.tenant_id}"

    contract = _contract(**declared, workflow_id=workflow_id, enable_eager_start=True)
    arguments = start_arguments(contract, _REQUEST)
    assert arguments["id"] == "w/t"
    assert arguments["request_eager_start"] is True
    assert {name: arguments[name] for name in declared} == declared


def test_a_child_gets_what_is_declared_for_starts_and_for_children() -> None:
    declared: dict[str, Any] = {
        "execution_timeout": timedelta(hours=1),
        "run_timeout": timedelta(minutes=1),
        "task_timeout": timedelta(seconds=1),
        "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
        "retry_policy": RetryPolicy(maximum_attempts=3),
        "priority": Priority(priority_key=1),
        "parent_close_policy": ParentClosePolicy.ABANDON,
    }
    contract = _contract(
        **declared,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        workflow_id=lambda request: f"w/{request.tenant_id}",
        search_attributes=lambda _: TypedSearchAttributes.empty,
        wait_for_cancellation=True,
        enable_eager_start=True,
        task_queue="q",
    )
    # A child knows neither a conflict policy nor an eager start.
    assert child_arguments(contract, _REQUEST, {}, "mine") == {
        **declared,
        "args": [_REQUEST],
        "result_type": HarvestResponse,
        "id": "w/t",
        "search_attributes": TypedSearchAttributes.empty,
        "task_queue": "mine",
        "cancellation_type": ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
    }


def test_a_child_of_which_nothing_is_declared_is_left_to_the_sdk() -> None:
    contract = _contract()
    assert child_arguments(contract, _REQUEST, {}, None) == {"args": [_REQUEST], "result_type": HarvestResponse}
    given: Any = {
        "task_queue": "other",
        "parent_close_policy": ParentClosePolicy.REQUEST_CANCEL,
        "cancellation_type": ChildWorkflowCancellationType.ABANDON,
    }
    declared = _contract(parent_close_policy=ParentClosePolicy.ABANDON, wait_for_cancellation=True)
    arguments = child_arguments(declared, _REQUEST, given, "mine")
    assert {name: arguments[name] for name in given} == given


@pytest.mark.parametrize("value", [pytest.param(None, id="none"), pytest.param(timedelta(0), id="zero")])
def test_an_explicit_value_wins_even_where_it_is_nothing(value: timedelta | None) -> None:
    contract = _contract(task_queue="q", run_timeout=timedelta(minutes=1), enable_eager_start=True)
    arguments = start_arguments(contract, _REQUEST, run_timeout=value, request_eager_start=False)
    assert arguments["run_timeout"] == value
    assert arguments["request_eager_start"] is False


def test_expressions_are_left_alone_where_their_value_is_given() -> None:
    def refuse(request: object) -> Any:
        raise AssertionError("not asked for")

    contract = _contract(task_queue="q", workflow_id=refuse, search_attributes=refuse)
    arguments = start_arguments(contract, _REQUEST, id="mine", search_attributes=None)
    assert (arguments["id"], arguments["search_attributes"]) == ("mine", None)


def test_a_start_needs_a_task_queue() -> None:
    with pytest.raises(ContractError, match="w: neither it nor its service names a task queue; give task_queue="):
        start_arguments(_contract(), _REQUEST)
    assert start_arguments(_contract(), _REQUEST, task_queue="mine")["task_queue"] == "mine"


@pytest.mark.parametrize(
    ("contract", "request_", "reason"),
    [
        pytest.param(_contract(task_queue="q"), None, "w: its input is a HarvestRequest, but got NoneType", id="none"),
        pytest.param(
            _contract(task_queue="q"),
            HarvestResponse(),
            "its input is a HarvestRequest, but got Harv",
            id="other",
        ),
        pytest.param(
            WorkflowContract(name="w", method="m", input_type=None, output_type=None, task_queue="q"),
            _REQUEST,
            "w: it takes no input, but got HarvestRequest",
            id="too_much",
        ),
    ],
)
def test_an_input_of_another_type_is_refused(contract: WorkflowContract, request_: object, reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        start_arguments(contract, request_)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(HarvestRequest(supplier_code="s"), "tenant_id", id="first"),
        pytest.param(HarvestRequest(tenant_id="t"), "supplier_code", id="second"),
    ],
)
def test_an_id_is_never_made_of_nothing(request_: HarvestRequest, field: str) -> None:
    with pytest.raises(ContractError, match=f"harvest: {field} is not set, but the workflow id contains it") as caught:
        start_arguments(harvest.harvest_workflow.contract, request_)
    assert (caught.value.contract, caught.value.field) == ("harvest", field)


def test_the_generated_package_is_shared_with_the_sandbox_as_a_whole() -> None:
    assert generated_modules(harvest.harvest_service) == {"contextunity.gen"}
