"""What one workflow may do with another: run it as a child, signal it from outside, continue as it."""

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
"""Type of the failure of a workflow that calls a workflow object itself."""


class ChildHandle(Generic[OutT]):
    """A child workflow that was started. Awaiting it gives its result."""

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
        """Run id that the child was started with."""
        return self.raw.first_execution_run_id

    async def result(self) -> OutT:
        """Waits for the child's result.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or ran out of time.
        """
        result = await self.raw
        return cast("OutT", None) if self._contract.output_type is None else cast("OutT", result)

    def __await__(self) -> Generator[Any, Any, OutT]:
        return self.result().__await__()

    def cancel(self) -> bool:
        """Asks for the child's cancellation; False where it has ended."""
        return cast("asyncio.Task[Any]", self.raw).cancel()

    async def _signal(self, contract: SignalContract, request: object = None) -> None:
        await self.raw.signal(contract.name, args=arguments(contract, request))


class ExternalHandle:
    """A workflow that runs somewhere, seen from within another workflow."""

    def __init__(self, raw: workflow.ExternalWorkflowHandle[Any]) -> None:
        self.raw = raw
        """The SDK's own handle."""

    @property
    def id(self) -> str:
        """Workflow id."""
        return self.raw.id

    @property
    def run_id(self) -> str | None:
        """Run id; None means whichever run is the current one."""
        return self.raw.run_id

    async def cancel(self, *, reason: str = "") -> None:
        """Asks for the workflow's cancellation."""
        await self.raw.cancel(reason=reason)

    async def _signal(self, contract: SignalContract, request: object = None) -> None:
        await self.raw.signal(contract.name, args=arguments(contract, request))


class _WorkflowCalls(Generic[OutT, ChildT, ExternalT]):
    """What workflows with and without an input have in common."""

    def __init__(self, contract: WorkflowContract, child: type[ChildT], external: type[ExternalT]) -> None:
        self.contract = contract
        """The workflow's contract."""
        self.__doc__ = contract.description or None
        self._child = child
        self._external = external

    def __repr__(self) -> str:
        return f"<workflow {self.contract.name!r}>"

    if not TYPE_CHECKING:
        # Type checkers know of no call, so they reject one. At run time Temporal would take a mere TypeError for a bug
        # that a later version of the code may mend, and retry the workflow task without end.
        def __call__(self, *_arguments: object, **_options: object) -> NoReturn:
            raise ApplicationError(
                f"workflow {self.contract.name!r} is called like an activity; use execute_child(…) for its result, or "
                "start_child(…) for a handle",
                type=CALLED_LIKE_AN_ACTIVITY,
                non_retryable=True,
            )

    def external(self, workflow_id: str, *, run_id: str | None = None) -> ExternalT:
        """A running workflow, to signal or cancel from within a workflow."""
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
        """The name to continue under: its own where the current run goes by one of its aliases."""
        current = workflow.info().workflow_type
        return current if current in self.contract.aliases else self.contract.name


class Workflow(_WorkflowCalls[OutT, ChildT, ExternalT], Generic[InT, OutT, ChildT, ExternalT]):
    """A workflow with an input, as other workflows call it: by `execute_child` or `start_child`, not as an activity.

    Options of a call that are left out have the contract's value, else the SDK's. Unless it names a task queue of its
    own, a child runs on its service's; started by a workflow of the same service, on its parent's.
    """

    async def start_child(self, request: InT, **options: Unpack[ChildOptions]) -> ChildT:
        """Starts it as a child workflow and returns its handle as soon as it runs; awaiting that gives the result.

        Raises:
            WorkflowAlreadyStartedError: a workflow of its id is running, and its id policies do not allow another.
        """
        return await self._start_child(request, options)

    async def execute_child(self, request: InT, **options: Unpack[ChildOptions]) -> OutT:
        """Runs it as a child workflow and waits for its result; `start_child` returns a handle instead.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or ran out of time.
            WorkflowAlreadyStartedError: a workflow of its id is running, and its id policies do not allow another.
        """
        child = await self._start_child(request, options)
        return cast("OutT", await child.result())

    def continue_as_new(self, request: InT, **options: Unpack[ContinueOptions]) -> NoReturn:
        """Ends the current run and begins a new one of this workflow with a fresh history."""
        self._continue_as_new(request, options)


class EmptyWorkflow(_WorkflowCalls[OutT, ChildT, ExternalT]):
    """A workflow whose input is google.protobuf.Empty; otherwise as `Workflow`."""

    async def start_child(self, **options: Unpack[ChildOptions]) -> ChildT:
        """Starts it as a child workflow and returns its handle as soon as it runs; awaiting that gives the result.

        Raises:
            WorkflowAlreadyStartedError: a workflow of its id is running, and its id policies do not allow another.
        """
        return await self._start_child(None, options)

    async def execute_child(self, **options: Unpack[ChildOptions]) -> OutT:
        """Runs it as a child workflow and waits for its result; `start_child` returns a handle instead.

        Raises:
            ChildWorkflowError: the child failed, was cancelled or terminated, or ran out of time.
            WorkflowAlreadyStartedError: a workflow of its id is running, and its id policies do not allow another.
        """
        child = await self._start_child(None, options)
        return cast("OutT", await child.result())

    def continue_as_new(self, **options: Unpack[ContinueOptions]) -> NoReturn:
        """Ends the current run and begins a new one of this workflow with a fresh history."""
        self._continue_as_new(None, options)
