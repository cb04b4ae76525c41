"""Fails workflows with the actual reason, instead of retrying their workflow task forever.

Any exception that is not Temporal's own fails the workflow task, which is then retried: it is a bug, and fixed code may
complete the task. The exceptions here are those that a retry cannot fix.

- A task group raises an ExceptionGroup. If it contains failures of Temporal, the workflow fails with them.
- Input of activities, child workflows, signals and next runs above the server's limit fails the workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from temporalio import worker, workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from .errors import PayloadTooLargeError

__all__ = ["TASKS_FAILED", "FailureInterceptor"]

TASKS_FAILED = "TasksFailed"
"""Type of the ApplicationError of a workflow if several tasks of a group failed; its cause is the first one's."""


class FailureInterceptor(worker.Interceptor):
    """Makes workflows fail with the actual reason, without retries."""

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Intercepts what workflows and their handlers raise, and what they send."""
        return _Inbound


class _Inbound(worker.WorkflowInboundInterceptor):
    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        try:
            return await super().execute_workflow(input)
        except ExceptionGroup as group:
            _raise_reason(group)

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:
        try:
            await super().handle_signal(input)
        except ExceptionGroup as group:
            _raise_reason(group)

    async def handle_update_handler(self, input: worker.HandleUpdateInput) -> Any:
        try:
            return await super().handle_update_handler(input)
        except ExceptionGroup as group:
            _raise_reason(group)


class _Outbound(worker.WorkflowOutboundInterceptor):
    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        try:
            return super().start_activity(input)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of activity {input.activity!r}") from None

    def start_local_activity(self, input: worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        try:
            return super().start_local_activity(input)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of activity {input.activity!r}") from None

    async def start_child_workflow(
        self, input: worker.StartChildWorkflowInput
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        try:
            return await super().start_child_workflow(input)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of workflow {input.workflow!r}") from None

    async def signal_child_workflow(self, input: worker.SignalChildWorkflowInput) -> None:
        try:
            await super().signal_child_workflow(input)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of signal {input.signal!r}") from None

    async def signal_external_workflow(self, input: worker.SignalExternalWorkflowInput) -> None:
        try:
            await super().signal_external_workflow(input)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of signal {input.signal!r}") from None

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:
        try:
            # The SDK encodes it after the workflow's code has ended, where an error only fails the task.
            workflow.payload_converter().to_payloads(input.args)
        except PayloadTooLargeError as error:
            raise error.of(f"the input of the next run of workflow {workflow.info().workflow_type!r}") from None
        super().continue_as_new(input)


def _raise_reason(group: ExceptionGroup[Exception]) -> NoReturn:
    """Raise the bug in a group, or else the reason why its tasks failed.

    Tasks that were cancelled because another one failed do not count, unless there is no other reason.
    """
    errors = list(_leaves(group))
    bug = next((error for error in errors if not isinstance(error, FailureError | asyncio.TimeoutError)), None)
    if bug is not None:
        raise bug
    reasons = [error for error in errors if not is_cancelled_exception(error)] or errors[:1]
    if len(reasons) == 1:
        raise reasons[0]
    told = "; ".join(str(error.__cause__ or error) for error in reasons)
    raise ApplicationError(f"{len(reasons)} tasks of a group failed: {told}", type=TASKS_FAILED) from reasons[0]


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(cast("ExceptionGroup[Exception]", error))
        else:
            yield error
