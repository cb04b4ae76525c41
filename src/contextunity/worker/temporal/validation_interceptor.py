"""Checks the input of workflows and activities against the rules of its proto, whoever sent it.

A workflow with invalid input fails, and so does an activity, without retries. An update is rejected before it is in the
history, and a query fails. A signal is logged and ignored: nobody waits for an answer to it, and the workflow did not
cause it.

Rules may change while workflows run, but decisions about a start or a signal must not: a rejection is marked in the
history, and a replay follows the marks and not the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import betterproto2
from google.protobuf.message import Message
from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from contextunity.core import validation
from contextunity.core.errors import CodecError

from ..internal_fields import clear_internal
from .errors import invalid_input

__all__ = ["ValidationInterceptor"]

_MARK = "contextunity-refused"


class ValidationInterceptor(Interceptor):
    """Rejects input of workflows, handlers and activities that violates the `buf.validate` rules of its proto."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Check the input of activities."""
        return _ActivityInbound(next)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """Check the input of workflows, signals, queries and updates."""
        return _WorkflowInbound


class _ActivityInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        _check(input.args)
        return await super().execute_activity(input)


class _WorkflowInbound(WorkflowInboundInterceptor):
    def __init__(self, next: WorkflowInboundInterceptor) -> None:
        super().__init__(next)
        self._signals = 0
        self._checked_updates = set[str]()

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        for argument in input.args:
            # Again, for workflows without `@workflow.init`, which are created without their input.
            clear_internal(argument)
        error = _invalid_input(input.args, f"{_MARK}-start")
        if error is not None:
            raise error
        return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        self._signals += 1
        error = _invalid_input(input.args, f"{_MARK}-signal-{self._signals}")
        if error is None:
            await super().handle_signal(input)
        else:
            workflow.logger.warning("signal %r is ignored: %s", input.signal, error.message)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        _check(input.args)
        return await super().handle_query(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        _check(input.args)
        self._checked_updates.add(input.id)
        super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        # The SDK only validates updates with a validator before acceptance; all updates of contracts have one.
        if input.id not in self._checked_updates:
            error = _invalid_input(input.args, f"{_MARK}-update-{input.id}")
            if error is not None:
                raise error
        self._checked_updates.discard(input.id)
        return await super().handle_update_handler(input)


def _invalid_input(arguments: Sequence[Any], mark: str) -> ApplicationError | None:
    """Return the error for invalid input, or that of its first execution; None if the input is valid."""
    if workflow.unsafe.is_replaying() and not workflow.patched(mark):
        return None
    try:
        _check(arguments)
    except ApplicationError as error:
        workflow.patched(mark)
        return error
    if workflow.unsafe.is_replaying():
        return invalid_input("it violated the rules that were in force when it was sent")
    return None


def _check(arguments: Sequence[Any]) -> None:
    """Check the messages among arguments.

    Raises:
        ApplicationError: rules are violated; every violation is listed.
    """
    for argument in arguments:
        if isinstance(argument, betterproto2.Message | Message):
            try:
                validation.check(argument)
            except CodecError as error:
                raise invalid_input(str(error), error.violations) from None
