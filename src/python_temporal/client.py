"""Clients of annotated services: they start and control workflows, and import no implementation."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from temporalio import client, common

from .contract import (
    QueryContract,
    SignalContract,
    UpdateBinding,
    UpdateContract,
    WorkflowContract,
    arguments,
    result_type,
    start_arguments,
)
from .errors import ContractError
from .options import QueryOptions, RpcOptions, SignalOptions, StartOptions, UpdateOptions, UpdateWithStartOptions

__all__ = ["Handle", "ServiceClient", "UpdateHandle"]

OutT = TypeVar("OutT")
_ResultT = TypeVar("_ResultT")
HandleT = TypeVar("HandleT", bound="Handle[Any]")

_UPDATE_KEYS = ("rpc_metadata", "rpc_timeout")


class UpdateHandle(Generic[OutT]):
    """A sent update. Await it for its result."""

    def __init__(self, raw: client.WorkflowUpdateHandle[Any], contract: UpdateContract[Any]) -> None:
        self.raw = raw
        """The SDK's own handle."""
        self._contract = contract

    @property
    def id(self) -> str:
        """Update id."""
        return self.raw.id

    @property
    def workflow_id(self) -> str:
        """Id of the updated workflow."""
        return self.raw.workflow_id

    async def result(self) -> OutT:
        """Wait for the update's result, and return it.

        Raises:
            temporalio.client.WorkflowUpdateFailedError: it was rejected, or failed.
        """
        result = await self.raw.result()
        return cast("OutT", None) if self._contract.output_type is None else cast("OutT", result)

    def __await__(self) -> Generator[Any, Any, OutT]:
        return self.result().__await__()


class Handle(Generic[OutT]):
    """A workflow, started by this client or elsewhere. Await it for its result."""

    def __init__(self, raw: client.WorkflowHandle[Any, Any], contract: WorkflowContract) -> None:
        self.raw = raw
        """The SDK's own handle."""
        self._contract = contract

    @property
    def id(self) -> str:
        """Workflow id."""
        return self.raw.id

    @property
    def run_id(self) -> str | None:
        """Run id of calls; None for the current run."""
        return self.raw.run_id

    @property
    def first_execution_run_id(self) -> str | None:
        """Run id of the start, if this handle started it."""
        return self.raw.first_execution_run_id

    async def result(
        self,
        *,
        follow_runs: bool = True,
        rpc_metadata: dict[str, str | bytes] | None = None,
        rpc_timeout: timedelta | None = None,
    ) -> OutT:
        """Wait for the workflow's result, and return it; follow continued runs unless `follow_runs` is False.

        Raises:
            temporalio.client.WorkflowFailureError: it failed, was cancelled or terminated, or timed out.
        """
        result = await self.raw.result(
            follow_runs=follow_runs, rpc_metadata=rpc_metadata or {}, rpc_timeout=rpc_timeout
        )
        return cast("OutT", None) if self._contract.output_type is None else cast("OutT", result)

    def __await__(self) -> Generator[Any, Any, OutT]:
        return self.result().__await__()

    async def describe(self) -> client.WorkflowExecutionDescription:
        """Return the workflow's state from the server."""
        return await self.raw.describe()

    async def cancel(self) -> None:
        """Request the workflow's cancellation."""
        await self.raw.cancel()

    async def terminate(self, *, reason: str | None = None) -> None:
        """Terminate the workflow at once, without cleanup."""
        await self.raw.terminate(reason=reason)

    async def _query(self, contract: QueryContract[_ResultT], request: object, options: QueryOptions) -> _ResultT:
        result = await self.raw.query(
            contract.name, args=arguments(contract, request), result_type=result_type(contract), **options
        )
        return cast("_ResultT", None if contract.output_type is None else result)

    async def _signal(self, contract: SignalContract, request: object, options: SignalOptions) -> None:
        await self.raw.signal(contract.name, args=arguments(contract, request), **options)

    async def _execute_update(
        self, contract: UpdateContract[_ResultT], request: object, options: UpdateOptions
    ) -> _ResultT:
        handle = await self._start_update(contract, request, client.WorkflowUpdateStage.COMPLETED, options)
        return await handle.result()

    async def _start_update(
        self,
        contract: UpdateContract[_ResultT],
        request: object,
        wait_for_stage: client.WorkflowUpdateStage | None,
        options: UpdateOptions,
    ) -> UpdateHandle[_ResultT]:
        # Untyped here, because the SDK's overloads are not fully typed themselves.
        raw = await cast("Any", self.raw).start_update(
            contract.name,
            args=arguments(contract, request),
            wait_for_stage=wait_for_stage or contract.wait_for_stage or client.WorkflowUpdateStage.ACCEPTED,
            id=_update_id(contract, request, options),
            result_type=result_type(contract),
            **_rpc(options),
        )
        return UpdateHandle(raw, contract)


class ServiceClient:
    """Base of the generated clients.

    Args:
        temporal_client: a connected client of the SDK, whose data converter supports the generated dataclasses.
    """

    def __init__(self, temporal_client: client.Client) -> None:
        self.raw = temporal_client
        """The SDK's own client."""

    async def _start(
        self,
        contract: WorkflowContract,
        request: object,
        handle: type[HandleT],
        options: StartOptions,
        signal: SignalContract | None = None,
        signal_request: object = None,
    ) -> HandleT:
        keywords = start_arguments(contract, request, **options)
        if signal is not None:
            keywords.update(start_signal=signal.name, start_signal_args=arguments(signal, signal_request))
        return handle(await self.raw.start_workflow(contract.name, **keywords), contract)

    def _get(self, contract: WorkflowContract, workflow_id: str, run_id: str | None, handle: type[HandleT]) -> HandleT:
        raw = self.raw.get_workflow_handle(workflow_id, run_id=run_id, result_type=result_type(contract))
        return handle(raw, contract)

    async def _update_with_start(
        self,
        contract: WorkflowContract,
        request: object,
        handle: type[HandleT],
        binding: UpdateBinding,
        update: UpdateContract[_ResultT],
        update_request: object,
        options: UpdateWithStartOptions,
    ) -> tuple[HandleT, UpdateHandle[_ResultT]]:
        operation = client.WithStartWorkflowOperation[Any, Any](
            contract.name, **_operation_arguments(contract, request, binding, options)
        )
        raw = await cast("Any", self.raw).start_update_with_start_workflow(
            update.name,
            args=arguments(update, update_request),
            start_workflow_operation=operation,
            wait_for_stage=options.get("wait_for_stage")
            or update.wait_for_stage
            or client.WorkflowUpdateStage.ACCEPTED,
            id=_update_id(update, update_request, options),
            result_type=result_type(update),
            **_rpc(options),
        )
        return handle(await operation.workflow_handle(), contract), UpdateHandle(raw, update)


def _operation_arguments(
    contract: WorkflowContract, request: object, binding: UpdateBinding, options: UpdateWithStartOptions
) -> dict[str, Any]:
    """Return the arguments of the start; the SDK has no default for the conflict policy here, so one must be set."""
    keywords = start_arguments(
        contract, request, **cast("StartOptions", _without(options, "update_id", "wait_for_stage"))
    )
    policy = options.get("id_conflict_policy", binding.id_conflict_policy or contract.id_conflict_policy)
    if not policy or policy is common.WorkflowIDConflictPolicy.UNSPECIFIED:
        raise ContractError(
            f"an update-with-start needs a policy for a running workflow; give id_conflict_policy=, or declare "
            f"workflow_id_conflict_policy for {binding.contract.method}",
            contract=contract.name,
        )
    # The server has its own path for update-with-start, which ignores eager start and the call's own options.
    return {**_without(keywords, "request_eager_start", *_UPDATE_KEYS), "id_conflict_policy": policy}


def _update_id(
    contract: UpdateContract[Any], request: object, options: UpdateOptions | UpdateWithStartOptions
) -> str | None:
    if "update_id" in options:
        return options["update_id"]
    return None if contract.update_id is None else contract.update_id(request)


def _rpc(options: UpdateOptions | UpdateWithStartOptions) -> RpcOptions:
    return cast("RpcOptions", {key: value for key, value in options.items() if key in _UPDATE_KEYS})


def _without(options: Any, *names: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in names}
