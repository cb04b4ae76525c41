"""Calls between workflows: run one as a child, signal another one, continue as one."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from temporalio import workflow
from temporalio.exceptions import ApplicationError
from typing_extensions import Unpack

from .activities import task_queue_for
from .contract import SignalContract, WorkflowContract, arguments, child_arguments
from .options import ChildOptions, ContinueOptions

__all__ = ["CALLED_LIKE_AN_ACTIVITY", "ChildHandle", "EmptyWorkflow", "ExternalHandle", "Workflow"]

InT = TypeVar("InT")
OutT = TypeVar("OutT")
ChildT = TypeVar("ChildT", bound="ChildHandle[Any]")
ExternalT = TypeVar("ExternalT", bound="ExternalHandle")

CALLED_LIKE_AN_ACTIVITY = "WorkflowCalledLikeAnActivity"
"""Type of the failure of a workflow that calls a workflow object directly."""


class ChildHandle(Generic[OutT]):
    """A started child workflow. Await it for its result."""

    def __init__(self, raw: workflow.ChildWorkflowHandle[Any, Any], contract: WorkflowContract) -> None:
        self.raw = raw
        """The SDK's own handle, an asyncio task."""
        self._contract = contract

    @property
    def id(self) -> str:
        """Workflow id of the child."""
        return self.raw.id

    @property
    def first_execution_run_id(self) -> str | None:
        """Run id of the child's first run."""
        return self.raw.first_execution_run_id

    async def result(self) -> OutT:
        """Wait for the child's result, and return it.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or timed out.
        """
        result = await self.raw
        return cast("OutT", None) if self._contract.output_type is None else cast("OutT", result)

    def __await__(self) -> Generator[Any, Any, OutT]:
        return self.result().__await__()

    def cancel(self) -> bool:
        """Request the child's cancellation; return False if it has ended."""
        return cast("asyncio.Task[Any]", self.raw).cancel()

    async def _signal(self, contract: SignalContract, request: object = None) -> None:
        await self.raw.signal(contract.name, args=arguments(contract, request))


class ExternalHandle:
    """Any running workflow, seen from another workflow."""

    def __init__(self, raw: workflow.ExternalWorkflowHandle[Any]) -> None:
        self.raw = raw
        """The SDK's own handle."""

    @property
    def id(self) -> str:
        """Workflow id."""
        return self.raw.id

    @property
    def run_id(self) -> str | None:
        """Run id; None for the current run."""
        return self.raw.run_id

    async def cancel(self, *, reason: str = "") -> None:
        """Request the workflow's cancellation."""
        await self.raw.cancel(reason=reason)

    async def _signal(self, contract: SignalContract, request: object = None) -> None:
        await self.raw.signal(contract.name, args=arguments(contract, request))


class _WorkflowCalls(Generic[OutT, ChildT, ExternalT]):
    """The common base of workflows with and without an input."""

    def __init__(self, contract: WorkflowContract, child: type[ChildT], external: type[ExternalT]) -> None:
        self.contract = contract
        """The workflow's contract."""
        self.__doc__ = contract.description or None
        self._child = child
        self._external = external

    def __repr__(self) -> str:
        return f"<workflow {self.contract.name!r}>"

    if not TYPE_CHECKING:
        # Type checkers reject the call. At run time a TypeError would be treated as a bug, and Temporal would retry the
        # workflow task forever.
        def __call__(self, *_arguments: object, **_options: object) -> NoReturn:
            raise ApplicationError(
                f"workflow {self.contract.name!r} is called like an activity; use execute_child(…) for its result, or "
                "start_child(…) for a handle",
                type=CALLED_LIKE_AN_ACTIVITY,
                non_retryable=True,
            )

    def external(self, workflow_id: str, *, run_id: str | None = None) -> ExternalT:
        """Return a handle of a running workflow, to signal or cancel it from a workflow."""
        return self._external(workflow.get_external_workflow_handle(workflow_id, run_id=run_id))

    async def _start_child(self, request: object, options: ChildOptions) -> ChildT:
        contract = self.contract
        if contract.deprecated:
            workflow.logger.warning("workflow %r is deprecated", contract.name)
        handle = await workflow.start_child_workflow(
            contract.name, **child_arguments(contract, request, options, task_queue_for(contract))
        )
        return self._child(handle, contract)

    def _continue_as_new(self, request: object, options: ContinueOptions) -> NoReturn:
        workflow.continue_as_new(args=arguments(self.contract, request), workflow=self._continued_name(), **options)

    def _continued_name(self) -> str:
        """Return the name to continue under: an alias if the current run uses that alias."""
        current = workflow.info().workflow_type
        return current if current in self.contract.aliases else self.contract.name


class Workflow(_WorkflowCalls[OutT, ChildT, ExternalT], Generic[InT, OutT, ChildT, ExternalT]):
    """A workflow with an input. Other workflows call it with `execute_child` or `start_child`, not like an activity.

    Options that a call omits have the contract's value, or else the SDK's. A child without its own task queue uses that
    of its service; if a workflow of the same service starts it, it uses the parent's task queue.
    """

    async def start_child(self, request: InT, **options: Unpack[ChildOptions]) -> ChildT:
        """Start it as a child workflow, and return its handle as soon as it runs; await the handle for the result.

        Raises:
            WorkflowAlreadyStartedError: a workflow with its id is running, and its id policies do not allow another.
        """
        return await self._start_child(request, options)

    async def execute_child(self, request: InT, **options: Unpack[ChildOptions]) -> OutT:
        """Run it as a child workflow, and return its result; `start_child` returns a handle instead.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or timed out.
            WorkflowAlreadyStartedError: a workflow with its id is running, and its id policies do not allow another.
        """
        child = await self._start_child(request, options)
        return cast("OutT", await child.result())

    def continue_as_new(self, request: InT, **options: Unpack[ContinueOptions]) -> NoReturn:
        """End the current run, and start a new run of this workflow with an empty history."""
        self._continue_as_new(request, options)


class EmptyWorkflow(_WorkflowCalls[OutT, ChildT, ExternalT]):
    """A workflow whose input is google.protobuf.Empty; otherwise like `Workflow`."""

    async def start_child(self, **options: Unpack[ChildOptions]) -> ChildT:
        """Start it as a child workflow, and return its handle as soon as it runs; await the handle for the result.

        Raises:
            WorkflowAlreadyStartedError: a workflow with its id is running, and its id policies do not allow another.
        """
        return await self._start_child(None, options)

    async def execute_child(self, **options: Unpack[ChildOptions]) -> OutT:
        """Run it as a child workflow, and return its result; `start_child` returns a handle instead.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or timed out.
            WorkflowAlreadyStartedError: a workflow with its id is running, and its id policies do not allow another.
        """
        child = await self._start_child(None, options)
        return cast("OutT", await child.result())

    def continue_as_new(self, **options: Unpack[ContinueOptions]) -> NoReturn:
        """End the current run, and start a new run of this workflow with an empty history."""
        self._continue_as_new(None, options)
