"""Spans of workflows and activities, and the header by which they belong to one trace.

A workflow's span cannot be kept open: another worker may end the run. So its id is computed from the run's, what the
workflow starts names that id as its parent from the beginning, and the span is written once, when the run ends and is
not a replay. Nothing of it depends on time or randomness that the workflow could see.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import nexusrpc.handler
from temporalio import activity, client, nexus, worker, workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from contextunity.core import context

from ..otel import TENANT_ID, Spans, end_with
from .context_interceptor import workflow_context

__all__ = ["TracingInterceptor"]

_STATUS = "contextunity.status"
"""Attribute: how a run ended, as `contextworker_workflows_total` says it."""


class TracingInterceptor(client.Interceptor, worker.Interceptor):
    """Records the spans of workflows and activities. Put it after `ContextInterceptor`, whose context it needs.

    - What a client, workflow or activity starts has the current span in a header, which OpenTelemetry's interceptors
      of Temporal's other SDKs write and read too.
    - A run without the header begins a trace of its own, such as one that a schedule starts.
    - The runs of a chain are beside each other under the span that started the first one.
    - A signal, query or update has no span of its own. What it starts belongs to its caller's trace.

    Args:
        spans: records them.
    """

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        """Make the client send the current span."""
        return _ClientOutbound(next, self._spans)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:
        """Record the attempts of activities."""
        return _ActivityInbound(next, self._spans)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Record the runs of workflows."""

        class Inbound(_WorkflowInbound):
            spans = self._spans

        return Inbound

    def intercept_nexus_operation(
        self, next: worker.NexusOperationInboundInterceptor
    ) -> worker.NexusOperationInboundInterceptor:
        """Record the starts of Nexus operations."""
        return _NexusInbound(next, self._spans)


class _ClientOutbound(client.OutboundInterceptor):
    def __init__(self, next: client.OutboundInterceptor, spans: Spans) -> None:
        super().__init__(next)
        self._spans = spans

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        self._send(input)
        return await super().start_workflow(input)

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:
        self._send(input)
        await super().signal_workflow(input)

    async def query_workflow(self, input: client.QueryWorkflowInput) -> Any:
        self._send(input)
        return await super().query_workflow(input)

    async def start_workflow_update(self, input: client.StartWorkflowUpdateInput) -> client.WorkflowUpdateHandle[Any]:
        self._send(input)
        return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self, input: client.StartWorkflowUpdateWithStartInput
    ) -> client.WorkflowUpdateHandle[Any]:
        self._send(input.start_workflow_input)
        self._send(input.update_workflow_input)
        return await super().start_update_with_start_workflow(input)

    async def start_activity(self, input: client.StartActivityInput) -> client.ActivityHandle[Any]:
        self._send(input)
        return await super().start_activity(input)

    def _send(self, input: Any) -> None:
        input.headers = {**self._spans.headers(), **input.headers}


class _ActivityInbound(worker.ActivityInboundInterceptor):
    def __init__(self, next: worker.ActivityInboundInterceptor, spans: Spans) -> None:
        super().__init__(next)
        self._spans = spans

    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        info, now = activity.info(), context.current()
        attributes: dict[str, str | int] = {
            "temporalActivityID": info.activity_id,
            "temporalWorkflowID": info.workflow_id or "",
            "temporalRunID": info.workflow_run_id or "",
            "temporalAttempt": info.attempt,
            TENANT_ID: now.tenant_id,
        }
        span = self._spans.start(
            f"RunActivity:{info.activity_type}",
            self._spans.parent_of_work(input.headers),
            now.trace_id,
            attributes={name: value for name, value in attributes.items() if value},
        )
        # For the rest of the task, so that the SDK's log of the outcome has it too.
        self._spans.attach(span)
        try:
            return await super().execute_activity(input)
        except (Exception, asyncio.CancelledError) as error:
            end_with(span, error)
            raise
        finally:
            span.end()


class _WorkflowInbound(worker.WorkflowInboundInterceptor):
    spans: Spans

    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        info = outbound.info()
        self._parent = self.spans.parent_of_work(info.headers)
        self._trace_id = workflow_context(info).trace_id
        self._name = f"RunWorkflow:{info.workflow_type}"
        self._own = self.spans.identity(self._name, self._parent, self._trace_id, _span_id(info.run_id))
        super().init(_WorkflowOutbound(outbound, self.spans, info.headers))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        self.spans.attach(self._own)
        try:
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            self._write("continued_as_new")
            raise
        # What else is raised fails the workflow's task, which is repeated: the run goes on.
        except (TimeoutError, FailureError, asyncio.CancelledError) as error:
            is_cancelled = workflow.cancellation_reason() is not None and is_cancelled_exception(error)
            self._write("cancelled" if is_cancelled else "failed", error)
            raise
        self._write("completed")
        return result

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:
        self._attach(input.headers)
        await super().handle_signal(input)

    async def handle_query(self, input: worker.HandleQueryInput) -> Any:
        self._attach(input.headers)
        return await super().handle_query(input)

    def handle_update_validator(self, input: worker.HandleUpdateInput) -> None:
        self._attach(input.headers)
        super().handle_update_validator(input)

    async def handle_update_handler(self, input: worker.HandleUpdateInput) -> Any:
        self._attach(input.headers)
        return await super().handle_update_handler(input)

    def _attach(self, headers: Mapping[str, Any]) -> None:
        self.spans.attach(self.spans.parent_of_work(headers) or self._own)

    def _write(self, status: str, error: BaseException | None = None) -> None:
        """Write the span of the run, unless this is a replay, or the worker forgets the run."""
        if workflow.unsafe.is_replaying():
            return
        info = workflow.info()
        began = int(info.start_time.timestamp() * 1e9)
        span = self.spans.start(
            *(self._name, self._parent, self._trace_id),
            span_id=self._own.span_id,
            start_time=began,
            attributes={
                "temporalWorkflowID": info.workflow_id,
                "temporalRunID": info.run_id,
                TENANT_ID: context.current().tenant_id,
                _STATUS: status,
            },
        )
        if error is not None:
            end_with(span, error)
        # The server's clock told when it began.
        span.end(max(began, time.time_ns()))


class _WorkflowOutbound(worker.WorkflowOutboundInterceptor):
    def __init__(self, next: worker.WorkflowOutboundInterceptor, spans: Spans, came: Mapping[str, Any]) -> None:
        super().__init__(next)
        self._spans = spans
        name = spans.header_name
        self._came = {name: came[name]} if name in came else dict[str, Any]()

    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        self._send(input)
        return super().start_activity(input)

    def start_local_activity(self, input: worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        self._send(input)
        return super().start_local_activity(input)

    async def start_child_workflow(
        self, input: worker.StartChildWorkflowInput
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        self._send(input)
        return await super().start_child_workflow(input)

    async def signal_child_workflow(self, input: worker.SignalChildWorkflowInput) -> None:
        self._send(input)
        await super().signal_child_workflow(input)

    async def signal_external_workflow(self, input: worker.SignalExternalWorkflowInput) -> None:
        self._send(input)
        await super().signal_external_workflow(input)

    async def start_nexus_operation(self, input: Any) -> Any:
        # Nexus headers are text.
        input.headers = {**self._spans.text_headers(), **(input.headers or {})}
        return await super().start_nexus_operation(input)

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:
        # The next run gets what this one got: a chain would otherwise nest deeper and deeper.
        input.headers = {**self._came, **input.headers}
        super().continue_as_new(input)

    def _send(self, input: Any) -> None:
        input.headers = {**self._spans.headers(), **input.headers}


class _NexusInbound(worker.NexusOperationInboundInterceptor):
    def __init__(self, next: worker.NexusOperationInboundInterceptor, spans: Spans) -> None:
        super().__init__(next)
        self._spans = spans

    async def execute_nexus_operation_start(
        self, input: worker.ExecuteNexusOperationStartInput
    ) -> nexusrpc.handler.StartOperationResultSync[Any] | nexusrpc.handler.StartOperationResultAsync:
        name = f"RunStartNexusOperationHandler:{input.ctx.service}/{input.ctx.operation}"
        span = self._spans.start(
            *(name, self._spans.parent_of_text(input.ctx.headers), context.current().trace_id),
            attributes={"temporalTaskQueue": nexus.info().task_queue},
        )
        self._spans.attach(span)
        try:
            return await super().execute_nexus_operation_start(input)
        except (Exception, asyncio.CancelledError) as error:
            end_with(span, error)
            raise
        finally:
            span.end()


def _span_id(run_id: str) -> int:
    """The id of a run's span, the same wherever the run is replayed; the others are random."""
    return int.from_bytes(hashlib.sha256(f"{run_id}/span".encode()).digest()[:8]) or 1
