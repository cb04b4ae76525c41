"""Workflow classes and activities are compared with their contract where they are defined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    FetchProductsRequest,
    FetchProductsResponse,
    HarvestProgress,
    HarvestRequest,
    HarvestResponse,
    SetPageSizeRequest,
    SetPageSizeResponse,
)
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from google.protobuf.empty_pb2 import Empty
from temporalio.common import VersioningBehavior

from python_temporal import DefinitionError, contract_of, service_of, workflow_classes
from python_temporal.activities import EmptyActivity
from python_temporal.contract import ActivityContract, UpdateBinding, WorkflowContract
from python_temporal.workflows import WorkflowBase

if TYPE_CHECKING:
    from contextunity.gen.contextunity.harvest.v1 import FetchProductsRequest as OnlyForCheckers


class _Shared(harvest.HarvestWorkflowBase, abstract=True):
    """Everything but run, for several workflows."""

    def get_progress(self) -> HarvestProgress:
        return HarvestProgress()

    def pause(self) -> None: ...

    async def resume(self) -> None: ...

    def validate_set_page_size(self, request: SetPageSizeRequest) -> None: ...

    async def set_page_size(self, request: SetPageSizeRequest) -> SetPageSizeResponse:
        return SetPageSizeResponse()


class _Good(_Shared):
    async def run(self, request: HarvestRequest) -> HarvestResponse:
        return HarvestResponse()


class _AlsoGood(_Shared, sandboxed=False, failure_exception_types=[KeyError]):
    async def run(self, request: HarvestRequest) -> HarvestResponse:
        return HarvestResponse()


def test_a_class_is_registered_under_its_contracts_names() -> None:
    for cls in (_Good, _AlsoGood):
        definition: Any = getattr(cls, "__temporal_workflow_definition")  # the SDK sets it
        assert definition.name == "harvest"
        assert set(definition.queries) == {"get_progress"}
        assert set(definition.signals) == {"pause", "resume"}
        assert set(definition.updates) == {"set_page_size"}
        assert definition.updates["set_page_size"].validator is not None
        assert definition.sandboxed is (cls is _Good)
        assert contract_of(cls) is harvest.harvest_workflow.contract
        assert service_of(cls) is harvest.harvest_service
        assert workflow_classes(cls) == [cls]


def test_every_fault_of_a_class_is_named_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:

        class _Bad(harvest.HarvestWorkflowBase):  # pyright: ignore[reportUnusedClass]  # it is never made
            async def run(self, request: HarvestResponse) -> HarvestRequest:  # pyright: ignore[reportIncompatibleMethodOverride]  # wrong on purpose
                return HarvestRequest()

            async def get_progress(self) -> HarvestProgress:  # pyright: ignore[reportIncompatibleMethodOverride]  # wrong on purpose
                return HarvestProgress()

            def pause(self, reason: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # wrong on purpose
                ...

            async def validate_set_page_size(self, request: SetPageSizeRequest) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # wrong on purpose
                ...

            def set_page_size(self, request) -> None:  # pyright: ignore  # wrong on purpose
                ...

    assert caught.value.faults == (
        "run takes one parameter of type HarvestRequest, but request is HarvestResponse",
        "run returns HarvestResponse, but its return type is HarvestRequest",
        "get_progress must not be async, because a query must not wait",
        "pause takes no parameter besides self, not (reason: 'str')",
        "resume is missing, the signal 'resume'",
        "set_page_size takes one parameter of type SetPageSizeRequest, but request is not annotated",
        "set_page_size returns SetPageSizeResponse, but its return type is None",
        "validate_set_page_size must not be async, because a validator must not wait",
    )


def test_run_has_to_be_there_and_async() -> None:
    with pytest.raises(DefinitionError, match="run is missing; the SDK wants it on the class itself"):
        type("Without", (_Shared,), {})
    with pytest.raises(DefinitionError, match="run must be an async method"):
        type("Sync", (_Shared,), {"run": len})


class _Undeclared(
    WorkflowBase,
    contract=WorkflowContract(
        name="w",
        method="acme.S.W",
        input_type=HarvestRequest,
        output_type=HarvestResponse,
        updates={
            "SetPageSize": UpdateBinding(contract=harvest.set_page_size_update, handler="set_page_size"),
        },
    ),
):
    """A base as it is generated for an update without a validator."""


class _PinnedBase(
    WorkflowBase,
    contract=WorkflowContract(
        name="pinned",
        method="acme.S.Pinned",
        input_type=None,
        output_type=None,
        aliases=("pinned.v0",),
        versioning_behavior=VersioningBehavior.PINNED,
    ),
):
    """A base as it is generated for a workflow that declares how it moves between worker versions."""


class _Pinned(_PinnedBase):
    async def run(self) -> None:
        return None


def test_the_declared_versioning_behaviour_and_aliases_are_registered() -> None:
    definitions: list[Any] = [vars(cls)["__temporal_workflow_definition"] for cls in workflow_classes(_Pinned)]
    assert [definition.name for definition in definitions] == ["pinned", "pinned.v0"]
    assert {definition.versioning_behavior for definition in definitions} == {VersioningBehavior.PINNED}


def test_a_validator_that_no_contract_declares_is_an_error() -> None:
    with pytest.raises(DefinitionError, match="validate_set_page_size would never be called; declare `validate: true`"):

        class _Eager(_Undeclared):  # pyright: ignore[reportUnusedClass]  # it is never made
            async def run(self, request: HarvestRequest) -> HarvestResponse:
                return HarvestResponse()

            def set_page_size(self, request: SetPageSizeRequest) -> SetPageSizeResponse:
                return SetPageSizeResponse()

            def validate_set_page_size(self, request: SetPageSizeRequest) -> None: ...


def test_a_local_class_is_refused_as_the_sdk_does() -> None:
    with pytest.raises(ValueError, match="Local classes unsupported"):

        class _Local(_Shared):  # pyright: ignore[reportUnusedClass]  # it is never made
            async def run(self, request: HarvestRequest) -> HarvestResponse:
                return HarvestResponse()


def test_functions_become_activities_of_the_contract() -> None:
    @harvest.fetch_products.defn
    async def anything(request: FetchProductsRequest) -> FetchProductsResponse:
        return FetchProductsResponse()

    definition: Any = getattr(anything, "__temporal_activity_definition")  # the SDK sets it
    assert definition.name == "fetch_products"
    assert definition.arg_types == [FetchProductsRequest]
    assert definition.ret_type is FetchProductsResponse
    assert contract_of(anything) is harvest.fetch_products.contract


def test_functions_of_other_types_are_refused() -> None:
    with pytest.raises(
        DefinitionError, match="wrong takes one parameter of type FetchProductsRequest, but request is Harvest"
    ):

        @harvest.fetch_products.defn  # pyright: ignore[reportArgumentType, reportCallIssue]  # wrong on purpose
        async def wrong(request: HarvestRequest) -> FetchProductsResponse:  # pyright: ignore[reportUnusedFunction]  # refused
            return FetchProductsResponse()


def test_an_activity_without_input_passes_over_what_is_sent() -> None:
    contract = ActivityContract(name="ping", method="acme.v1.S.Ping", input_type=None, output_type=None, handler="ping")
    calls = list[str]()

    @EmptyActivity[None](contract).defn
    def ping() -> None:
        calls.append("ping")

    definition: Any = getattr(ping, "__temporal_activity_definition")  # the SDK sets it
    definition.fn(Empty())
    definition.fn()
    assert calls == ["ping", "ping"]
    assert definition.arg_types == []


def test_an_annotation_for_checkers_alone_is_explained() -> None:
    with pytest.raises(DefinitionError, match="import its type outside TYPE_CHECKING"):

        @harvest.fetch_products.defn
        async def hidden(request: OnlyForCheckers) -> FetchProductsResponse:  # pyright: ignore[reportUnusedFunction]  # refused
            return FetchProductsResponse()


def test_an_object_that_lacks_activities_cannot_be_made() -> None:
    class Some(harvest.HarvestServiceActivities):
        async def fetch_products(self, request: FetchProductsRequest) -> FetchProductsResponse:
            return FetchProductsResponse()

    with pytest.raises(TypeError, match="sync_to_brain"):
        Some()  # pyright: ignore[reportAbstractUsage]  # wrong on purpose


def test_methods_of_other_types_are_refused() -> None:
    with pytest.raises(
        DefinitionError, match="fetch_products returns FetchProductsResponse, but its return type is HarvestRes"
    ):

        class Wrong(harvest.HarvestServiceActivities):  # pyright: ignore[reportUnusedClass]  # it is never made
            async def fetch_products(self, request: FetchProductsRequest) -> HarvestResponse:  # pyright: ignore[reportIncompatibleMethodOverride]  # wrong on purpose
                return HarvestResponse()
